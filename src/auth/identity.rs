//! Identities: the hash of a client's public key.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::{hex, name};

/// The text is not an identity. `Display` is the message that clients see.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("identity '{0}' is empty, too long or contains invalid characters")]
pub struct Error(String);

/// Who a client is: the lower-case hex SHA-256 of its certificate's public key.
///
/// A config may name identities that are not hashes, such as "disabled". They are valid and match no client. Cheap to
/// clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(Arc<str>);

impl Identity {
    /// Parses an identity from a config or a URL.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if name::is_valid(text) { Ok(Self(text.into())) } else { Err(Error(text.into())) }
    }

    /// The identity of a public key, given as DER SubjectPublicKeyInfo.
    pub fn of_public_key(spki: &[u8]) -> Self {
        Self(hex::encode(&Sha256::digest(spki)).into())
    }

    /// Whether a client can have this identity: 64 lower-case hex digits.
    pub fn is_hash(&self) -> bool {
        self.0.len() == 64 && self.0.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    }

    /// The identity as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Identity {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Identity {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // The error does not quote the text: it may be an API key in the wrong place.
        Self::parse(&text).map_err(|_| {
            serde::de::Error::custom("not an identity; write the 64 hex digits that 'claviger identity of' prints")
        })
    }
}
