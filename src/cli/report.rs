//! Errors, as people need them: what failed, and what to do next.

use std::io::{self, IsTerminal as _, Write as _};

use hyper::StatusCode;
use rustls::CertificateError;

use super::environment::{KEY_PASSWORD, KMS_SERVER, SERVER};
use super::out::{self, Color, Painted, printable};
use crate::auth::enclave;
use crate::client::{Error, Failure, Lost};

/// Says on standard error that a command failed. `program` is the name it was called by.
pub(super) fn print(error: &anyhow::Error, program: &str, color: Color) {
    let mut stderr = io::stderr().lock();
    let style = if color.applies(stderr.is_terminal()) { out::BAD } else { anstyle::Style::new() };
    // Standard error may be closed; the exit code says it too.
    let _ = writeln!(stderr, "{}{error:#}", Painted::new(style, "Error: "));
    if let Some(hint) = error.chain().find_map(|cause| cause.downcast_ref()).and_then(|error| hint(error, program)) {
        let _ = writeln!(stderr, "{hint}");
    }
}

/// Whether the reader of our output has gone: no failure worth a word.
pub(super) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// What to do about an error of the client.
fn hint(error: &Error, program: &str) -> Option<String> {
    match error {
        Error::Unreachable(failures) => failures.iter().find_map(unreachable),
        Error::Refused { status: StatusCode::FORBIDDEN, path, identity, .. } if path.starts_with("/v1/kms/") => {
            let identity = enclave::Identity::of(identity.as_ref()?)?;
            let whole = "'ls-identity' and 'get-identity' of an admin show what it may do there, if it is known there.";
            Some(format!("The identity {identity} has no right to that, in this enclave. {whole}"))
        }
        Error::Refused { status: StatusCode::FORBIDDEN, path, .. }
            if ["/v1/db", "/v1/debug/"].iter().any(|prefix| path.starts_with(prefix)) =>
        {
            Some("Only system administrators may do that.".to_owned())
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
        Error::Refused { status: StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE, endpoint, .. } => {
            Some(format!("The log of {endpoint} says what is wrong with its key store."))
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
fn method(path: &str) -> &'static str {
    let mut segments = path.trim_start_matches("/v1/").split('/');
    match (segments.next(), segments.next()) {
        (Some("key"), Some("create" | "import" | "generate" | "encrypt" | "decrypt" | "hmac")) => "PUT",
        (Some("key"), Some("delete")) => "DELETE",
        _ => "GET",
    }
}

/// What to do about a private key that is encrypted, where nobody can be asked.
pub(super) fn no_password() -> String {
    format!("there is no terminal to ask for the password on; set {KEY_PASSWORD}")
}
