//! Turns errors into HTTP status and message. No other file of the KES API does.

use std::sync::Arc;

use hyper::StatusCode;

use crate::crypto::NotAuthentic;
use crate::keys::{self, NotDecrypted};
use crate::keystore;
use crate::server::Error;

impl From<keys::Error> for Error {
    fn from(error: keys::Error) -> Self {
        match &*error.source {
            keystore::Error::Exists => Self::new(StatusCode::BAD_REQUEST, "key already exists"),
            keystore::Error::NotFound => Self::new(StatusCode::NOT_FOUND, "key does not exist"),
            // Clients try again after a 503, and only then.
            keystore::Error::Unreachable(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, error.action.to_string()).caused_by(Shared(error.source))
            }
            keystore::Error::Failed(_) => {
                Self::new(StatusCode::BAD_GATEWAY, error.action.to_string()).caused_by(Shared(error.source))
            }
        }
    }
}

impl From<NotAuthentic> for Error {
    fn from(_: NotAuthentic) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "decryption failed: ciphertext is not authentic")
    }
}

impl From<NotDecrypted> for Error {
    fn from(error: NotDecrypted) -> Self {
        match error {
            NotDecrypted::NotAuthentic(error) => error.into(),
            NotDecrypted::Uncertain(error) => error.into(),
        }
    }
}

/// An error that several requests wait for.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Shared(Arc<keystore::Error>);

/// What `/v1/ready` says when the keystore is not.
pub(super) fn not_ready(error: keystore::Error) -> Error {
    match error {
        keystore::Error::Unreachable(_) => not_reachable(),
        _ => Error::new(StatusCode::BAD_GATEWAY, "key store is unavailable"),
    }
    .caused_by(error)
}

/// What `/v1/ready` says when there is no answer of the keystore.
pub(super) fn not_reachable() -> Error {
    Error::new(StatusCode::GATEWAY_TIMEOUT, "key store is not reachable")
}

/// There is no policy with this name.
pub(super) fn no_policy() -> Error {
    Error::new(StatusCode::NOT_FOUND, "policy does not exist")
}

/// Nothing is known of this identity.
pub(super) fn no_identity() -> Error {
    Error::new(StatusCode::NOT_FOUND, "identity does not exist")
}

/// The key has no HMAC key: it comes from a server that knew none.
pub(super) fn no_hmac() -> Error {
    Error::new(StatusCode::CONFLICT, "key does not support HMAC")
}

/// An import names an algorithm that is none of ours.
pub(super) fn unsupported_algorithm(name: &str) -> Error {
    Error::new(StatusCode::NOT_ACCEPTABLE, format!("algorithm '{name}' is not supported"))
}

/// An imported key is not 32 bytes long.
pub(super) fn wrong_key_size(algorithm: &str) -> Error {
    Error::new(StatusCode::NOT_ACCEPTABLE, format!("invalid key size for '{algorithm}'"))
}

/// A random key could not be made.
pub(super) fn no_randomness(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(StatusCode::INTERNAL_SERVER_ERROR, "internal server error").caused_by(error)
}
