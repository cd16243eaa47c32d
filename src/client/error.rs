//! Errors of a call: the server gave no usable answer, or refused.

use std::fmt;
use std::io;
use std::time::Duration;

use hyper::StatusCode;
use rustls::CertificateError;

use super::Endpoint;
use crate::api::operations;
use crate::auth::Identity;
use crate::kms::Refusal;

/// Why a call failed. A variant exists where a caller handles it differently.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No endpoint could be asked.
    #[error("{}", Listed(.0))]
    Unreachable(Vec<Failure>),
    /// A server refused.
    #[error("{message}")]
    Refused {
        /// Who refused.
        endpoint: Endpoint,
        /// The HTTP status.
        status: StatusCode,
        /// The server's message, in one line.
        message: String,
        /// The path that policies are matched against.
        path: String,
        /// The identity of the caller.
        identity: Option<Identity>,
    },
    /// A server of the other kind answered, which does not have this path.
    #[error("{endpoint} is {kind}: it does not answer {path}")]
    OtherKind {
        /// Who answered.
        endpoint: Endpoint,
        /// What was asked.
        path: String,
        /// What the server is.
        kind: Kind,
    },
    /// A change was sent, and no answer came: it may have happened or not.
    #[error("{endpoint} did not answer, so it may have done what it was asked, or not: {source}")]
    OutcomeUnknown {
        /// Who was asked.
        endpoint: Endpoint,
        /// How it ended.
        source: Lost,
    },
    /// The answer does not follow the API.
    #[error("{endpoint} answered {path} with something that is no answer of a key server: {what}")]
    Nonsense {
        /// Who answered.
        endpoint: Endpoint,
        /// What was asked.
        path: String,
        /// What is wrong with it.
        what: String,
    },
}

impl Error {
    /// What a key manager that refused says, where that is one of the known things.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused { status, message, .. } => Refusal::of(*status, message),
            _ => None,
        }
    }

    /// The HTTP status, where a server answered.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// What a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A server with the KES API.
    Kes,
    /// A key manager with enclaves.
    KeyManager,
}

impl Kind {
    /// The kind of server that has this path. It must not be a path that both kinds have.
    pub(super) fn that_answers(path: &str) -> Self {
        if operations::of(path).is_some() { Self::Kes } else { Self::KeyManager }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kes => "a KES server and no key manager",
            Self::KeyManager => "a key manager and no KES server",
        })
    }
}

/// One endpoint that could not be asked.
#[derive(Debug)]
pub struct Failure {
    /// Which.
    pub endpoint: Endpoint,
    /// Why.
    pub cause: Lost,
}

struct Listed<'a>(&'a [Failure]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for Failure { endpoint, cause } in self.0 {
            write!(f, "{separator}{endpoint}: {cause}")?;
            separator = "; ";
        }
        Ok(())
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// The host's name does not resolve.
    #[error("the host is not known ({0})")]
    Resolve(io::Error),
    /// No TCP connection.
    #[error("{}", Connecting(.0))]
    Connect(io::Error),
    /// No answer came in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The server's certificate is not trusted.
    #[error("the server's certificate is not trusted: {}", Distrust(.0))]
    Untrusted(CertificateError),
    /// The TLS handshake failed otherwise.
    #[error("the TLS handshake failed: {0}")]
    Handshake(io::Error),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(hyper::Error),
    /// The connection is closed.
    #[error("the server has closed the connection")]
    Closed,
    /// The server says that it cannot answer now.
    #[error("{status}: {message}")]
    Unavailable {
        /// A 5xx.
        status: StatusCode,
        /// What it said.
        message: String,
    },
}

struct Connecting<'a>(&'a io::Error);

impl fmt::Display for Connecting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.kind() {
            io::ErrorKind::ConnectionRefused => f.write_str("connection refused"),
            _ => write!(f, "no connection ({})", self.0),
        }
    }
}

struct Distrust<'a>(&'a CertificateError);

impl fmt::Display for Distrust<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            // No authority's key made the signature, though one may have the issuer's name.
            CertificateError::UnknownIssuer
            | CertificateError::BadSignature
            | CertificateError::UnsupportedSignatureAlgorithmContext { .. }
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
                f.write_str("it is signed by an unknown authority")
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                f.write_str("it is for another host")
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => f.write_str("it has expired"),
            other => write!(f, "{other}"),
        }
    }
}
