//! Identities and API keys as the key manager and its clients write them.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PublicKeyData as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::api_key::{self, client_certificate};
use crate::crypto::{NoRandom, SecretKey};
use crate::hex;

/// The prefix of an identity.
const IDENTITY: &str = "h1:";

/// The prefix of an API key that is an Ed25519 key.
pub const ED25519: &str = "k1:";
/// The prefix of an API key that is an ECDSA key.
pub const ECDSA: &str = "k2:";

/// The length of the text of an identity, in bytes.
const LEN: usize = 46;

/// Who a client is: the SHA-256 of its certificate's public key, written `h1:…`. The same hash as the hex of a
/// [`super::Identity`]. Kept as text, so that identities are sorted as clients see them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity([u8; LEN]);

/// The text is not an identity of the key manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an identity: one is 'h1:' and 43 characters of URL-safe base64")]
pub struct NoIdentity;

impl Identity {
    /// The identity of a public key, given as DER SubjectPublicKeyInfo.
    pub fn of_public_key(spki: &[u8]) -> Self {
        Self::of_hash(&Sha256::digest(spki).into())
    }

    /// Converts an identity of the KES API; `None` for one that is not a hash.
    pub fn of(identity: &super::Identity) -> Option<Self> {
        // This runs for every request. Digit by digit costs a tenth of parsing numbers.
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let hex: &[u8; 64] = identity.as_str().as_bytes().try_into().ok()?;
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self::of_hash(&hash))
    }

    /// The same identity as a KES writes it: the hash in hexadecimal.
    pub fn to_hex(&self) -> String {
        let hash = URL_SAFE_NO_PAD.decode(&self.0[IDENTITY.len()..]).expect("it was encoded so");
        hex::encode(&hash)
    }

    /// The SHA-256 of the public key.
    pub(crate) fn to_hash(self) -> [u8; 32] {
        let mut hash = [0; 32];
        let len = URL_SAFE_NO_PAD.decode_slice(&self.0[IDENTITY.len()..], &mut hash).expect("it was encoded so");
        debug_assert_eq!(len, hash.len());
        hash
    }

    /// The identity of the public key with this SHA-256.
    pub(crate) fn of_hash(hash: &[u8; 32]) -> Self {
        let mut text = [0; LEN];
        let (header, rest) = text.split_at_mut(IDENTITY.len());
        header.copy_from_slice(IDENTITY.as_bytes());
        URL_SAFE_NO_PAD.encode_slice(hash, rest).expect("32 bytes are 43 characters");
        Self(text)
    }

    /// The identity as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("it was made of ASCII")
    }
}

impl Borrow<str> for Identity {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl FromStr for Identity {
    type Err = NoIdentity;

    fn from_str(text: &str) -> Result<Self, NoIdentity> {
        let hash = text.strip_prefix(IDENTITY).and_then(|hash| URL_SAFE_NO_PAD.decode(hash).ok());
        hash.and_then(|hash| hash.try_into().ok()).map(|hash| Self::of_hash(&hash)).ok_or(NoIdentity)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> serde::Deserialize<'de> for Identity {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The error does not quote the text: it may be an API key in the wrong place.
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Why a text is not an API key of the key manager. It quotes nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoApiKey {
    /// Not `k1:` or `k2:`, followed by base64.
    #[error("invalid API key: it is not 'k1:' or 'k2:' followed by URL-safe base64")]
    Encoding,
    /// The length is wrong, or the number is not a valid key.
    #[error("invalid API key: it is no private key of its kind")]
    Key,
}

/// The private key of an identity.
pub struct ApiKey {
    text: Zeroizing<String>,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl ApiKey {
    /// A new random Ed25519 key.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn generate() -> Result<Self, NoRandom> {
        SecretKey::random().map(|seed| Self::from_seed(&seed))
    }

    /// The key of an Ed25519 seed.
    pub fn from_seed(seed: &SecretKey) -> Self {
        let copy = SecretKey::from_slice(seed.expose()).expect("32 bytes");
        let der = api_key::ApiKey::from_seed(copy).private_key();
        Self { text: text(ED25519, seed.expose()), pkcs8: Zeroizing::new(der.secret_der().to_vec()) }
    }

    /// Parses `k1:` and an Ed25519 seed, or `k2:` and the private number of an ECDSA key.
    ///
    /// # Errors
    /// When the text is neither.
    pub fn parse(key: &str) -> Result<Self, NoApiKey> {
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map(Zeroizing::new).map_err(|_| NoApiKey::Encoding);
        if let Some(seed) = key.strip_prefix(ED25519) {
            let seed = SecretKey::from_slice(&decode(seed)?).ok_or(NoApiKey::Key)?;
            return Ok(Self::from_seed(&seed));
        }
        let number = decode(key.strip_prefix(ECDSA).ok_or(NoApiKey::Encoding)?)?;
        let pkcs8 = ecdsa_pkcs8(&number).ok_or(NoApiKey::Key)?;
        let key = Self { text: text(ECDSA, &number), pkcs8 };
        key.key_pair().map(|_| key).ok_or(NoApiKey::Key)
    }

    /// The key as text. Every call is a place to review.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The identity of this key.
    pub fn identity(&self) -> Identity {
        Identity::of_public_key(&self.usable().subject_public_key_info())
    }

    /// The private key for TLS libraries.
    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.pkcs8.to_vec()).into()
    }

    /// A client certificate of the identity, self-signed, valid for 90 days from `now`.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn certificate(&self, now: OffsetDateTime) -> Result<CertificateDer<'static>, rcgen::Error> {
        client_certificate(&self.usable(), &self.identity().to_string(), now)
    }

    fn usable(&self) -> KeyPair {
        self.key_pair().expect("it was usable when it was made")
    }

    fn key_pair(&self) -> Option<KeyPair> {
        KeyPair::try_from(&self.private_key()).ok()
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(redacted)")
    }
}

fn text(header: &str, key: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(header.len() + key.len().div_ceil(3) * 4));
    text.push_str(header);
    URL_SAFE_NO_PAD.encode_string(key, &mut text);
    text
}

/// The PKCS#8 document of an ECDSA key; its length tells the curve.
fn ecdsa_pkcs8(number: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    const P256: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
    const P384: &[u8] = b"\x06\x05\x2b\x81\x04\x00\x22";
    const P521: &[u8] = b"\x06\x05\x2b\x81\x04\x00\x23";
    const EC: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01";
    let curve = match number.len() {
        32 => P256,
        48 => P384,
        66 => P521,
        _ => return None,
    };
    // RFC 5958 around RFC 5915, without the public key, which readers can compute. No part is longer than 127 bytes, so
    // each length is one byte.
    let part = |tag: u8, parts: &[&[u8]]| {
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        let mut der = Zeroizing::new(Vec::with_capacity(2 + len));
        der.extend([tag, u8::try_from(len).expect("short")]);
        parts.iter().for_each(|part| der.extend_from_slice(part));
        der
    };
    let key = part(0x30, &[&[2, 1, 1], &part(4, &[number])]);
    Some(part(0x30, &[&[2, 1, 0], &part(0x30, &[EC, curve]), &part(4, &[&key])]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_identity_that_its_clients_work_out() {
        let key = ApiKey::parse("k1:xZnpcYtPdVMNLBBRaUO5HPEoK_jVrcc3MWR8BshkjJw").expect("a key");
        assert_eq!(key.identity().to_string(), "h1:l4AoVm6xKAVGsfo8J_ttCOC6Odgq3GJLHg5NtAdOAr0");
        assert_eq!(key.expose(), "k1:xZnpcYtPdVMNLBBRaUO5HPEoK_jVrcc3MWR8BshkjJw");
    }

    #[test]
    fn keys_of_every_curve_make_certificates() {
        for len in [32, 48, 66] {
            let mut number = vec![0; len];
            number[len - 20..].fill(0x42);
            let key = ApiKey::parse(&text(ECDSA, &number)).expect("a key");
            let certificate = key.certificate(OffsetDateTime::UNIX_EPOCH).expect("signed");
            let parsed = crate::auth::certificate::Certificate::parse(&certificate).expect("a certificate");
            assert_eq!(Identity::of(&parsed.identity()), Some(key.identity()));
            assert_eq!(Identity::of_public_key(parsed.public_key_info()), key.identity());
        }
    }

    #[test]
    fn texts_that_are_no_keys_are_refused() {
        for bad in ["", "k1:", "k2:", "k3:AAAA", "kes:v1:AD9E", "k1:xZnpcYtPdVMNLBBRaUO5HPEoK_jVrcc3MWR8BshkjJ"] {
            assert!(ApiKey::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(ApiKey::parse(&text(ECDSA, &[0; 32])).err(), Some(NoApiKey::Key), "zero is no private key");
        assert_eq!(ApiKey::parse(&text(ECDSA, &[0xff; 32])).err(), Some(NoApiKey::Key), "too large a number");
    }

    #[test]
    fn identities_are_read_as_written() {
        let text = "h1:l4AoVm6xKAVGsfo8J_ttCOC6Odgq3GJLHg5NtAdOAr0";
        assert_eq!(text.parse::<Identity>().expect("an identity").to_string(), text);
        for bad in [
            "",
            "h1:",
            "h2:l4AoVm6xKAVGsfo8J_ttCOC6Odgq3GJLHg5NtAdOAr0",
            "h1:l4AoVm6xKAVGsfo8J_ttCOC6Odgq3GJLHg5NtAdOAr0=",
        ] {
            assert!(bad.parse::<Identity>().is_err(), "{bad}");
        }
    }
}
