//! The current format of stored keys: base64 of a protobuf message.

use std::fmt;

use prost::Message;
use time::OffsetDateTime;
use zeroize::{Zeroize as _, Zeroizing};

use super::{Decoded, Error, Key, Origin, non_empty, secret_key};
use crate::crypto::{Algorithm, Blob, SecretKey, base64};
use crate::moment;

const AES256: u32 = 1;
const CHACHA20: u32 = 2;
const SHA256: u32 = 1;

#[derive(Clone, PartialEq, Message)]
struct KeyVersion {
    #[prost(message, optional, tag = "1")]
    key: Option<KeyPart>,
    #[prost(message, optional, tag = "2")]
    hmac_key: Option<KeyPart>,
    #[prost(message, optional, tag = "3")]
    created_at: Option<Timestamp>,
    #[prost(string, tag = "4")]
    created_by: String,
}

/// A secret key and its type, or an HMAC key and its hash: both messages have this form.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct KeyPart {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(uint32, tag = "2")]
    kind: u32,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

pub(super) fn parse(value: &[u8]) -> Result<Decoded, Error> {
    let message = base64::decode(value).ok_or(Error::Malformed("neither JSON nor base64"))?;
    let stored = KeyVersion::decode(message.as_slice()).map_err(|_| Error::Malformed("invalid protobuf"))?;
    let part = stored.key.as_ref().ok_or(Error::Malformed("it has no secret key"))?;
    let algorithm = match part.kind {
        AES256 => Algorithm::Aes256,
        CHACHA20 => Algorithm::ChaCha20,
        _ => return Err(Error::Algorithm),
    };
    let secret = secret_key("secret key", &part.key)?;
    let hmac = match &stored.hmac_key {
        None => None,
        Some(part) if part.kind == SHA256 => Some(secret_key("HMAC key", &part.key)?),
        Some(_) => return Err(Error::Malformed("its HMAC key has an unknown hash")),
    };
    let Timestamp { seconds, nanos } = stored.created_at.unwrap_or_default();
    let origin = Origin { created_at: moment::of_unix(seconds, nanos), created_by: non_empty(&stored.created_by) };
    Ok(Decoded { secret, algorithm: Some(algorithm), hmac, origin })
}

pub(super) fn encode(key: &Key, algorithm: Algorithm, hmac: &SecretKey) -> Blob {
    let kind = match algorithm {
        Algorithm::Aes256 => AES256,
        Algorithm::ChaCha20 => CHACHA20,
    };
    let stored = KeyVersion {
        key: Some(KeyPart { key: key.secret.key().expose().to_vec(), kind }),
        hmac_key: Some(KeyPart { key: hmac.expose().to_vec(), kind: SHA256 }),
        created_at: Some(key.created_at.into()),
        created_by: key.created_by().unwrap_or_default().into(),
    };
    // prost reserves the full size before it writes.
    let message = Zeroizing::new(stored.encode_to_vec());
    let mut text = base64::encode(&message);
    std::mem::take(&mut *text).into_bytes().into()
}

impl Drop for KeyPart {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl fmt::Debug for KeyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPart(redacted)")
    }
}

impl From<OffsetDateTime> for Timestamp {
    fn from(time: OffsetDateTime) -> Self {
        let nanos = i32::try_from(time.nanosecond()).expect("less than a billion");
        Self { seconds: time.unix_timestamp(), nanos }
    }
}
