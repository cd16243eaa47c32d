//! The old format of stored keys: JSON without an HMAC key, with or without an algorithm.

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::datetime;

use super::{Decoded, Error, Key, Origin, non_empty, secret_key};
use crate::crypto::buffer::to_json;
use crate::crypto::json::{Bytes, fields, object};
use crate::crypto::{Algorithm, Blob, base64};
use crate::moment;

/// Stands for a creation time that was never stored.
pub(super) const UNKNOWN_TIME: OffsetDateTime = datetime!(0001-01-01 00:00 UTC);

#[derive(Default)]
struct Stored {
    bytes: Bytes,
    algorithm: Option<String>,
    created_at: Option<String>,
    created_by: Option<String>,
}

fields!(Stored { Bytes bytes, Text algorithm, Text created_at, Text created_by });

pub(super) fn parse(value: &[u8]) -> Result<Decoded, Error> {
    let stored: Stored = object(value).map_err(|_| Error::Malformed("invalid JSON"))?;
    let algorithm = match stored.algorithm.as_deref() {
        None | Some("") => None,
        Some(name) => Some(Algorithm::parse(name).ok_or(Error::Algorithm)?),
    };
    let created_at = match stored.created_at {
        None => UNKNOWN_TIME,
        Some(time) => OffsetDateTime::parse(&time, &Rfc3339).map_err(|_| Error::Malformed("invalid creation time"))?,
    };
    let created_by = non_empty(&stored.created_by.unwrap_or_default());
    let origin = Origin { created_at: moment::writable(created_at), created_by };
    Ok(Decoded { secret: secret_key("secret key", &stored.bytes)?, algorithm, hmac: None, origin })
}

pub(super) fn encode(key: &Key) -> Blob {
    #[derive(Serialize)]
    struct Stored<'a> {
        bytes: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        algorithm: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        created_at: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        created_by: Option<&'a str>,
    }

    let bytes = base64::encode(key.secret.key().expose());
    let time = (key.created_at != UNKNOWN_TIME).then_some(key.created_at);
    let stored = Stored {
        bytes: &bytes,
        algorithm: key.algorithm.map(Algorithm::as_str),
        // Every key has a time that can be written. If one had not, the key would matter more than its age.
        created_at: time.and_then(|time| time.format(&Rfc3339).ok()),
        created_by: key.created_by(),
    };
    let capacity = 160 + bytes.len() + 6 * key.created_by().map_or(0, str::len);
    to_json(&stored, capacity).into()
}
