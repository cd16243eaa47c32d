//! Master keys and the two formats in which keystores hold them.

mod fingerprint;
mod json;
mod protobuf;

use time::OffsetDateTime;

use super::mac::MacKey;
use super::{Algorithm, Blob, NoRandom, SecretKey};
use crate::moment;

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
    /// A creation time that not every format can write.
    #[error("the stored key was created in a year that is not one of 0 to 9999")]
    Time,
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
    /// None: not every format can write it.
    created_at: Option<OffsetDateTime>,
    created_by: Option<Box<str>>,
}

/// A stored value, decoded.
struct Decoded {
    secret: SecretKey,
    algorithm: Option<Algorithm>,
    hmac: Option<SecretKey>,
    origin: Origin,
}

impl Key {
    /// Decodes the value that a keystore holds, as any version since the first has written it. A creation time that not
    /// every format can write becomes 1970: no reason to refuse a key that somebody needs.
    pub fn parse(value: &Blob) -> Result<Self, Error> {
        Decoded::parse(value).map(Self::new)
    }

    /// Decodes a value as [`Key::parse`] does, but refuses a creation time that not every format can write: for keys that
    /// are taken in.
    pub fn parse_new(value: &Blob) -> Result<Self, Error> {
        let decoded = Decoded::parse(value)?;
        if decoded.origin.created_at.is_none() {
            return Err(Error::Time);
        }
        Ok(Self::new(decoded))
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
        let origin = Origin { created_at: moment::writable(created_at), created_by: non_empty(created_by) };
        Ok(Self::new(Decoded { secret, algorithm: Some(algorithm), hmac: Some(SecretKey::random()?), origin }))
    }

    /// A key of which nothing but its bytes is known, such as an object store's built-in key: it
    /// names no algorithm and has no HMAC key.
    pub fn untyped(secret: SecretKey) -> Self {
        let origin = Origin { created_at: Some(json::UNKNOWN_TIME), created_by: None };
        Self::new(Decoded { secret, algorithm: None, hmac: None, origin })
    }

    fn new(decoded: Decoded) -> Self {
        let Decoded { secret, algorithm, hmac, origin: Origin { created_at, created_by } } = decoded;
        let created_at = created_at.unwrap_or(OffsetDateTime::UNIX_EPOCH);
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

impl Decoded {
    fn parse(value: &Blob) -> Result<Self, Error> {
        let value = value.expose();
        match value.trim_ascii_start() {
            [] => Err(Error::Empty),
            [b'{', ..] => json::parse(value),
            text if text.starts_with(b"vault:v") => Err(Error::Wrapped),
            _ => protobuf::parse(value),
        }
    }
}

/// Tells part from part in the errors of both formats.
fn secret_key(part: &'static str, bytes: &[u8]) -> Result<SecretKey, Error> {
    SecretKey::from_slice(bytes).ok_or(Error::Length { part, len: bytes.len() })
}

fn non_empty(text: &str) -> Option<Box<str>> {
    (!text.is_empty()).then(|| text.into())
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use time::macros::datetime;

    use super::*;
    use crate::crypto::base64;

    /// A protobuf key of this age, with or without an HMAC key.
    fn stored(seconds: i64, nanos: i32, has_hmac: bool) -> Blob {
        #[derive(Clone, PartialEq, prost::Message)]
        struct Part {
            #[prost(bytes = "vec", tag = "1")]
            key: Vec<u8>,
            #[prost(uint32, tag = "2")]
            kind: u32,
        }
        #[derive(Clone, PartialEq, prost::Message)]
        struct Moment {
            #[prost(int64, tag = "1")]
            seconds: i64,
            #[prost(int32, tag = "2")]
            nanos: i32,
        }
        #[derive(Clone, PartialEq, prost::Message)]
        struct Version {
            #[prost(message, optional, tag = "1")]
            key: Option<Part>,
            #[prost(message, optional, tag = "2")]
            hmac: Option<Part>,
            #[prost(message, optional, tag = "3")]
            created_at: Option<Moment>,
        }
        let part = || Part { key: vec![7; 32], kind: 1 };
        let created_at = Some(Moment { seconds, nanos });
        let version = Version { key: Some(part()), hmac: has_hmac.then(part), created_at };
        base64::encode(&version.encode_to_vec()).as_bytes().to_vec().into()
    }

    fn json(created_at: &str) -> Blob {
        let key = base64::encode(&[7; 32]);
        format!(r#"{{"bytes":"{}","created_at":"{created_at}"}}"#, key.as_str()).into_bytes().into()
    }

    #[test]
    fn a_key_of_any_age_is_read_and_written_and_only_one_that_can_be_kept_is_taken_in() {
        let (first, last) = (datetime!(0000-01-01 00:00 UTC), datetime!(9999-12-31 23:59:59 UTC));
        let (first, last) = (first.unix_timestamp(), last.unix_timestamp());
        let protobuf = |seconds, nanos| [true, false].map(|has_hmac| stored(seconds, nanos, has_hmac));
        for value in [protobuf(first, 0), protobuf(last, 999_999_999), protobuf(0, -1)].into_iter().flatten().chain([
            json("0000-01-01T00:00:00Z"),
            json("9999-12-31T23:59:59+23:59"),
            json("2020-01-01T00:00:00-07:00"),
        ]) {
            let key = Key::parse(&value).expect("a key");
            assert_eq!(Key::parse_new(&value).expect("a key").created_at(), key.created_at());
            assert_eq!(Key::parse(&key.encode()).expect("a key").created_at(), key.created_at());
        }
        let strange = [protobuf(first, -1), protobuf(last, 1_000_000_000), protobuf(i64::MIN, i32::MIN)];
        let strange =
            strange.into_iter().chain([protobuf(i64::MAX, i32::MAX), protobuf(-100_000_000_000, 0)]).flatten();
        for value in strange.chain([json("0000-01-01T00:00:00+00:01"), json("9999-12-31T23:59:59-00:01")]) {
            assert_eq!(Key::parse_new(&value).err(), Some(Error::Time));
            let key = Key::parse(&value).expect("a key is a key");
            assert_eq!(key.created_at(), OffsetDateTime::UNIX_EPOCH);
            assert!(Key::parse(&key.encode()).expect("what we write, we read").is_same(&key));
        }
    }
}
