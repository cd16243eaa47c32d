//! Prints errors: what failed, where, and what to do next.

use std::io::{self, IsTerminal as _};

use hyper::{Method, StatusCode};
use rustls::CertificateError;

use super::environment::{API_KEY, KEY_PASSWORD, KMS_API_KEY, KMS_SERVER, SERVER};
use super::out::{self, Color, Painted, printable};
use crate::api::operations::{self, SKIP_AUTH};
use crate::auth::enclave;
use crate::client::{Error, Failure, HTTPS, Kind, Lost};
use crate::kms::Refusal;
use crate::kms::operations::{self as kms_operations, EXECUTE};

/// Prints the error of a command to standard error. `program` is the name that it was called by.
pub(super) fn print(error: &anyhow::Error, program: &str, color: Color) {
    let style = if color.applies(io::stderr().is_terminal()) { out::BAD } else { anstyle::Style::new() };
    out::note(format_args!("{}{error:#}", Painted::new(style, "Error: ")));
    if let Some(hint) = error.chain().find_map(|cause| cause.downcast_ref()).and_then(|error| hint(error, program)) {
        out::note(hint);
    }
}

/// Whether the reader of our output has closed the pipe, which is not reported.
pub(super) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// What to do about an error of the client.
fn hint(error: &Error, program: &str) -> Option<String> {
    match error {
        Error::Unreachable(failures) => failures.iter().find_map(unreachable),
        Error::Refused { status: StatusCode::FORBIDDEN, path, identity, .. }
            if path == EXECUTE.path
                || [kms_operations::BACKUP.path, kms_operations::LOG.path].contains(&path.as_str()) =>
        {
            let identity = enclave::Identity::of(identity.as_ref()?)?;
            Some(format!(
                "Only system administrators may do that. You act as {identity}, whose API key is in {KMS_API_KEY} or \
                 '--api-key'.\nAfter 'eval' of '{} env' a shell acts as the admin of an object store's enclave.",
                super::kms_name(program)
            ))
        }
        Error::Refused { status: StatusCode::FORBIDDEN, path, identity, .. } if path.starts_with(EXECUTE.path) => {
            let identity = enclave::Identity::of(identity.as_ref()?)?;
            let kms = super::kms_name(program);
            Some(format!(
                "The identity {identity} has no right to that, in this enclave. You act as it by the API key in \
                 {KMS_API_KEY} or '--api-key'.\nAn admin sees with '{kms} ls-identity' and '{kms} get-identity' what it \
                 may do there, if it is known there."
            ))
        }
        Error::Refused { status: StatusCode::FORBIDDEN, path, identity, .. } => {
            let identity = identity.as_ref()?;
            Some(format!(
                "The policy of the identity {identity} does not allow {path}.\n\
                 On the server, '{program} explain {identity} {} {} --config FILE' says which rule decides.",
                method(path),
                printable(path),
            ))
        }
        Error::Refused { status: StatusCode::BAD_REQUEST, path, identity: None, .. }
            if SKIP_AUTH.contains(&path.as_str()) =>
        {
            Some(format!(
                "Set {} to an identity that may ask, or let everybody ask, by the server's config:\n\
                 api: {{ {path}: {{ skip_auth: true }} }}",
                API_KEY[0]
            ))
        }
        Error::Refused { .. } if error.refusal() == Some(Refusal::IdentityExists) => {
            let kms = super::kms_name(program);
            Some(format!(
                "An identity that is known is not changed. '{kms} get-identity' shows it, '{kms} assign-policy' gives it \
                 another policy."
            ))
        }
        // What a key manager says of its cluster needs no more words.
        Error::Refused {
            status: StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE, endpoint, path, ..
        } if !path.starts_with(crate::kms::operations::EXECUTE.path) => {
            Some(format!("The log of {endpoint} says what is wrong with its key store."))
        }
        Error::OtherKind { kind: Kind::KeyManager, .. } => {
            let (kms, kes) = (super::kms_name(program), super::kes_name(program));
            Some(format!(
                "To ask a key manager, use '{kms}', with {KMS_SERVER}. Commands such as '{kes} key' ask a KES server."
            ))
        }
        Error::OtherKind { kind: Kind::Kes, .. } => {
            let (kms, kes) = (super::kms_name(program), super::kes_name(program));
            Some(format!(
                "To ask a KES server, use '{kes} key' and the like, with {}. '{kms}' asks a key manager.",
                SERVER[0]
            ))
        }
        Error::OutcomeUnknown { .. } => Some("Look whether the key is there before you try again.".to_owned()),
        Error::Refused { .. } | Error::Nonsense { .. } => None,
    }
}

fn unreachable(failure: &Failure) -> Option<String> {
    let Failure { endpoint, cause } = failure;
    Some(match cause {
        Lost::Untrusted(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) => {
            "Use a host name or address that is in the server's certificate.".to_owned()
        }
        Lost::Untrusted(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            format!("Renew the certificate of {endpoint}.")
        }
        Lost::Untrusted(_) => "Set SSL_CERT_FILE to a file with the server's certificate, or that of its authority; \
                               '-k' skips the verification."
            .to_owned(),
        Lost::Connect(_) | Lost::Timeout(_) if endpoint.address().1 == HTTPS => {
            "Is a server running there? Without a port, an address with 'https://' means port 443; key servers listen on \
             7373 unless they are told otherwise."
                .to_owned()
        }
        Lost::Resolve(_) | Lost::Connect(_) | Lost::Timeout(_) => {
            format!(
                "Is a server running there? '--server' or {} says where to look, {KMS_SERVER} for 'kms'.",
                SERVER[0]
            )
        }
        Lost::Handshake(_) => "Is this the port of a key server?".to_owned(),
        Lost::Unavailable { .. } | Lost::Broken(_) | Lost::Closed => return None,
    })
}

/// The method that goes with a path of the API.
fn method(path: &str) -> &Method {
    operations::of(path).map_or(&Method::GET, |operation| operation.method)
}

/// What to do about an encrypted private key when there is no terminal to ask on.
pub(super) fn no_password() -> String {
    format!("there is no terminal to ask for the password on; set {KEY_PASSWORD}")
}
