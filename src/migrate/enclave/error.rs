//! What an error of a key manager means for a migration.

use hyper::StatusCode;

use crate::client::{Error, Lost};
use crate::keystore;
use crate::kms::Refusal;

/// Whether the failure may pass, so that a retry makes sense.
pub(super) fn may_pass(error: &Error) -> bool {
    let passes = |lost: &Lost| !matches!(lost, Lost::Untrusted(_));
    match error {
        Error::Unreachable(failures) => failures.iter().any(|failure| passes(&failure.cause)),
        Error::OutcomeUnknown { .. } => true,
        Error::Refused { status, .. } => matches!(
            *status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        ),
        Error::OtherKind { .. } | Error::Nonsense { .. } => false,
    }
}

/// Converts the error, and adds what to do about it.
pub(super) fn explain(error: Error) -> keystore::Error {
    if may_pass(&error) {
        return keystore::Error::Unreachable(error.to_string().into());
    }
    let Error::Refused { status, message, path, identity, .. } = &error else {
        return keystore::Error::Failed(error.into());
    };
    match (error.refusal(), *status) {
        (Some(Refusal::NoKey), _) => keystore::Error::NotFound,
        (Some(Refusal::KeyExists), _) => keystore::Error::Exists,
        (Some(Refusal::NoEnclave), _) => {
            let enclave = path.rsplit('/').next().unwrap_or_default();
            let advice = format!("there is no enclave '{enclave}'; make it: claviger kms add-enclave {enclave}");
            keystore::Error::Failed(advice.into())
        }
        (_, StatusCode::FORBIDDEN) => {
            let who = identity.as_ref().and_then(crate::auth::enclave::Identity::of);
            let who = who.map_or_else(|| "the client".into(), |identity| identity.to_string());
            let advice = format!(
                "{message}: {who} is unknown in this enclave, or may not do this; make it an admin there: claviger kms \
                 add-identity {who} --admin"
            );
            keystore::Error::Failed(advice.into())
        }
        _ => keystore::Error::Failed(error.into()),
    }
}
