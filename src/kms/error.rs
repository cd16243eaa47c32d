//! Why a command was refused, and the status and message that a client gets for it. No other file decides that.

use std::borrow::Cow;

use hyper::StatusCode;

use super::Action;
use super::seal::NotSealed;
use crate::crypto::{NoRandom, NotAuthentic};
use crate::server;
use crate::telemetry::audit::shown;

/// Why a command, and with it its whole request, was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not allowed; or it does not exist and the caller must not learn that.
    #[error("access denied: insufficient permissions")]
    Denied,
    /// Like `Denied`, with the command of the request that was refused. Only the log names it.
    #[error("access denied: insufficient permissions")]
    DeniedCommand(String),
    /// The name of the enclave is taken.
    #[error("enclave already exists")]
    EnclaveExists,
    /// No such enclave.
    #[error("enclave does not exist")]
    NoEnclave,
    /// The name of the key is taken.
    #[error("key already exists")]
    KeyExists,
    /// No such key, or no such version of it.
    #[error("key does not exist")]
    NoKey,
    /// The key, or the version of it, is about to be deleted and encrypts nothing more.
    #[error("key is being deleted")]
    KeyRetired,
    /// The enclave is about to be deleted.
    #[error("enclave is being deleted")]
    EnclaveRetired,
    /// The key is a transit key, which serves no other construction.
    #[error("the key is a transit key: only clients of the Vault-compatible API encrypt and decrypt with it")]
    Transit,
    /// No such policy.
    #[error("policy does not exist")]
    NoPolicy,
    /// The identity has an account in the enclave that differs from the requested one.
    #[error("identity already exists")]
    IdentityExists,
    /// No such identity.
    #[error("identity does not exist")]
    NoIdentity,
    /// The ciphertext was made by another key or with other associated data, or was changed.
    #[error("invalid ciphertext")]
    InvalidCiphertext,
    /// The key has no HMAC key: it was made by a server without them, or imported without one.
    #[error("key does not support HMAC")]
    NoHmac,
    /// The request is invalid.
    #[error("{0}")]
    Invalid(Cow<'static, str>),
    /// The state forbids it.
    #[error("{0}")]
    Conflict(Cow<'static, str>),
    /// A part of the protocol that this server does not support.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The members that were asked before something was to be destroyed are not all, or know another state of it.
    #[error("a server has joined the cluster, or the key was changed meanwhile; try again")]
    Overtaken,
    /// The cluster does not answer, so this server cannot know.
    #[error("{0}")]
    Uncertain(Cow<'static, str>),
    /// A request changes more records than one transaction of the cluster holds.
    #[error("the request changes {0} records; the cluster writes at most {1} at once: send it in parts")]
    TooLarge(usize, usize),
    /// The disk failed. The change may have been written or not.
    #[error("the change could not be written")]
    Unavailable(#[source] std::sync::Arc<dyn std::error::Error + Send + Sync>),
    /// A provider did not seal the root key.
    #[error("the HSM does not seal the root key; the server's log says why")]
    NotSealed(#[from] NotSealed),
    /// A panic, which is a defect of ours.
    #[error("internal server error")]
    Defect,
    /// The operating system gave no random bytes.
    #[error("internal server error")]
    NoRandom(#[source] NoRandom),
}

impl Error {
    /// An invalid request, with the reason.
    pub(super) fn invalid(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid(reason.into())
    }

    /// Adds the command that failed, for requests with several.
    pub(super) fn of(self, action: Action, name: &str) -> Self {
        match self {
            Self::Denied => Self::DeniedCommand(format!("{action} {}", shown(name))),
            error => error,
        }
    }

    /// Whether another node may know better: it says that something is not there, or may not be done.
    pub(super) fn is_negative(&self) -> bool {
        let status = self.status();
        status.is_client_error() && !matches!(self, Self::Invalid(_) | Self::Transit | Self::TooLarge(..))
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Denied | Self::DeniedCommand(_) => StatusCode::FORBIDDEN,
            Self::EnclaveExists | Self::KeyExists | Self::IdentityExists | Self::NoHmac | Self::Conflict(_) => {
                StatusCode::CONFLICT
            }
            Self::KeyRetired | Self::EnclaveRetired => StatusCode::CONFLICT,
            Self::TooLarge(..) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Uncertain(_) | Self::Overtaken => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoEnclave | Self::NoKey | Self::NoPolicy | Self::NoIdentity => StatusCode::NOT_FOUND,
            Self::InvalidCiphertext | Self::Invalid(_) | Self::Transit => StatusCode::BAD_REQUEST,
            Self::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
            Self::Unavailable(_) | Self::NotSealed(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Defect | Self::NoRandom(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// What a refusal says, where a client treats it differently. The protocol has a status and a text, and no code: both
/// are those of the [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// [`Error::NoEnclave`]
    NoEnclave,
    /// [`Error::NoKey`]
    NoKey,
    /// [`Error::KeyExists`]
    KeyExists,
    /// [`Error::IdentityExists`]
    IdentityExists,
    /// [`Error::InvalidCiphertext`]
    InvalidCiphertext,
    /// [`Error::NoHmac`]
    NoHmac,
}

impl Refusal {
    /// What an answer with this status and message says; none: something else.
    pub fn of(status: StatusCode, message: &str) -> Option<Self> {
        let all = [
            (Error::NoEnclave, Self::NoEnclave),
            (Error::NoKey, Self::NoKey),
            (Error::KeyExists, Self::KeyExists),
            (Error::IdentityExists, Self::IdentityExists),
            (Error::InvalidCiphertext, Self::InvalidCiphertext),
            (Error::NoHmac, Self::NoHmac),
        ];
        let is_it = |error: &Error| error.status() == status && error.to_string() == message;
        all.into_iter().find(|(error, _)| is_it(error)).map(|(_, refusal)| refusal)
    }
}

impl From<NoRandom> for Error {
    fn from(error: NoRandom) -> Self {
        Self::NoRandom(error)
    }
}

impl From<NotAuthentic> for Error {
    fn from(_: NotAuthentic) -> Self {
        Self::InvalidCiphertext
    }
}

impl From<prost::DecodeError> for Error {
    // The cause is left out, because it may quote a secret.
    fn from(_: prost::DecodeError) -> Self {
        Self::invalid("invalid message")
    }
}

impl From<Error> for server::Error {
    fn from(error: Error) -> Self {
        let answer = Self::new(error.status(), error.to_string());
        match error {
            Error::Defect => answer.caused_by("a command panicked; this is a defect of the server, please report it"),
            Error::Unavailable(_) | Error::NotSealed(_) | Error::NoRandom(_) => answer.caused_by(error),
            Error::DeniedCommand(command) => answer.denying(command),
            _ => answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_known_by_its_status_and_its_text() {
        assert_eq!(Refusal::of(StatusCode::NOT_FOUND, "key does not exist"), Some(Refusal::NoKey));
        assert_eq!(Refusal::of(StatusCode::BAD_REQUEST, "invalid ciphertext"), Some(Refusal::InvalidCiphertext));
        assert_eq!(Refusal::of(StatusCode::CONFLICT, "key does not exist"), None);
        assert_eq!(Refusal::of(StatusCode::NOT_FOUND, "policy does not exist"), None);
    }
}
