//! Identities: the hash of a client's public key.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
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

    /// The identity that a key manager spells so: `h1:` and the hash in base64.
    pub fn of_key_manager(text: &str) -> Option<Self> {
        let hash = URL_SAFE_NO_PAD.decode(text.strip_prefix("h1:")?).ok()?;
        (hash.len() == 32).then(|| Self(hex::encode(&hash).into()))
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
        if let Some(identity) = Self::of_key_manager(&text) {
            return Ok(identity);
        }
        // The error does not quote the text: it may be an API key in the wrong place.
        Self::parse(&text).map_err(|_| {
            serde::de::Error::custom("not an identity; write the 64 hex digits that 'claviger identity of' prints")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_may_spell_an_identity_as_a_key_manager_does() {
        let read = |text: &str| serde_json::from_value::<Identity>(text.into()).ok();
        let hex = "97802856 6eb12805 46b1fa3c 27fb6d08 e0ba39d8 2adc624b 1e0e4db4 074e02bd".replace(' ', "");
        let identity = read("h1:l4AoVm6xKAVGsfo8J_ttCOC6Odgq3GJLHg5NtAdOAr0").expect("an identity");
        assert_eq!(identity.as_str(), hex);
        assert_eq!(read(&hex), Some(identity));
        for wrong in ["h1:", "h1:l4Ao", "h1:l4AoVm6xKAVGsfo8J_ttCOC6Odgq3GJLHg5NtAdOAr0=", "h2:x"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
