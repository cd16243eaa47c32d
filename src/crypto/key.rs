//! Master keys and the two formats in which keystores hold them.

mod fingerprint;
mod json;
mod protobuf;

use time::OffsetDateTime;

use super::mac::MacKey;
use super::{Algorithm, Blob, NoRandom, SecretKey};

pub use fingerprint::Fingerprint;

/// Why a stored value is no master key. For the log; it quotes nothing of the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing is stored; the archived server leaves such a file when it is killed while writing.
    #[error("the stored key is empty")]
    Empty,
    /// Wrapped by the transit engine of a Vault that this reader was not told of.
    #[error("the stored key is wrapped by a Vault transit key, and no transit engine is configured")]
    Wrapped,
    /// Neither of the two formats.
    #[error("the stored value is no key: {0}")]
    Malformed(&'static str),
    /// A key of the wrong size.
    #[error("the stored key has {len} bytes of {part} instead of 32")]
    Length {
        /// "secret key" or "HMAC key".
        part: &'static str,
        /// Its length in bytes.
        len: usize,
    },
    /// An algorithm that nobody knows.
    #[error("the stored key names an unknown algorithm")]
    Algorithm,
}

/// A master key, decoded and ready to use. Never leaves the server; `Debug` shows no secret.
#[derive(Debug)]
pub struct Key {
    pub(super) secret: MacKey,
    /// Nothing is worked out for it: few ask for HMACs, and there may be a million keys in memory.
    pub(super) hmac: Option<SecretKey>,
    algorithm: Option<Algorithm>,
    created_at: OffsetDateTime,
    created_by: Option<Box<str>>,
}

/// What is known of a key beside its bytes.
struct Origin {
    created_at: OffsetDateTime,
    created_by: Option<Box<str>>,
}

impl Key {
    /// Decodes the value that a keystore holds, as any version since the first has written it.
    pub fn parse(value: &Blob) -> Result<Self, Error> {
        let value = value.expose();
        match value.trim_ascii_start() {
            [] => Err(Error::Empty),
            [b'{', ..] => json::parse(value),
            text if text.starts_with(b"vault:v") => Err(Error::Wrapped),
            _ => protobuf::parse(value),
        }
    }

    /// A new random key with an HMAC key. An empty `created_by` means nobody.
    pub fn generate(algorithm: Algorithm, created_at: OffsetDateTime, created_by: &str) -> Result<Self, NoRandom> {
        Self::import(SecretKey::random()?, algorithm, created_at, created_by)
    }

    /// A key made of a client's `secret`, with a new random HMAC key.
    pub fn import(
        secret: SecretKey,
        algorithm: Algorithm,
        created_at: OffsetDateTime,
        created_by: &str,
    ) -> Result<Self, NoRandom> {
        let origin = Origin { created_at, created_by: non_empty(created_by) };
        Ok(Self::new(secret, Some(algorithm), Some(SecretKey::random()?), origin))
    }

    /// A key of which nothing but its bytes is known, such as an object store's built-in key: it
    /// names no algorithm and has no HMAC key.
    pub fn untyped(secret: SecretKey) -> Self {
        Self::new(secret, None, None, Origin { created_at: json::UNKNOWN_TIME, created_by: None })
    }

    fn new(secret: SecretKey, algorithm: Option<Algorithm>, hmac: Option<SecretKey>, origin: Origin) -> Self {
        let Origin { created_at, created_by } = origin;
        Self { secret: MacKey::new(secret), hmac, algorithm, created_at, created_by }
    }

    /// This key as made by somebody else, or by nobody when `created_by` is empty.
    #[must_use]
    pub fn of(self, created_by: &str) -> Self {
        Self { created_by: non_empty(created_by), ..self }
    }

    /// A key whose HMAC key is lost, or never was.
    #[must_use]
    pub fn without_hmac(self) -> Self {
        Self { hmac: None, ..self }
    }

    /// The value for a keystore to hold.
    ///
    /// A key without algorithm or without HMAC key stays JSON: protobuf cannot say "no algorithm",
    /// and the archived server crashes on a protobuf key without HMAC part.
    pub fn encode(&self) -> Blob {
        match (self.algorithm, &self.hmac) {
            (Some(algorithm), Some(hmac)) => protobuf::encode(self, algorithm, hmac),
            _ => json::encode(self),
        }
    }

    /// The 32 bytes, for a server that takes no more of a key. Every call is a place to review.
    pub(crate) fn expose(&self) -> &[u8; 32] {
        self.secret.key().expose()
    }

    /// What the key encrypts with; `None` when the stored key does not say. Such a key encrypts as,
    /// and is shown as, AES256, but its ciphertexts may be of either kind.
    pub fn algorithm(&self) -> Option<Algorithm> {
        self.algorithm
    }

    /// When the key was made, with the offset from UTC as stored. Where nothing is stored: the year
    /// 1 for a JSON key, 1970 for a protobuf key, as the archived server shows it.
    pub fn created_at(&self) -> OffsetDateTime {
        self.created_at
    }

    /// The identity that made the key, as stored.
    pub fn created_by(&self) -> Option<&str> {
        self.created_by.as_deref()
    }

    /// Whether the key can make HMACs.
    pub fn has_hmac(&self) -> bool {
        self.hmac.is_some()
    }

    /// Whether both encrypt and sign alike: same algorithm, same bytes, same HMAC key or none. The
    /// bytes are compared in constant time.
    pub fn is_same(&self, other: &Self) -> bool {
        let hmac = match (&self.hmac, &other.hmac) {
            (Some(ours), Some(theirs)) => ours.is_same(theirs),
            (None, None) => true,
            _ => false,
        };
        self.secret.key().is_same(other.secret.key()) && hmac && self.algorithm == other.algorithm
    }

    /// Tells one key from another in plans and reports: equal for keys that are the same.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self)
    }
}

/// Tells part from part in the errors of both formats.
fn secret_key(part: &'static str, bytes: &[u8]) -> Result<SecretKey, Error> {
    SecretKey::from_slice(bytes).ok_or(Error::Length { part, len: bytes.len() })
}

fn non_empty(text: &str) -> Option<Box<str>> {
    (!text.is_empty()).then(|| text.into())
}
