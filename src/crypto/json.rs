//! JSON as the archived server reads it: field names in any case, unknown fields skipped, the last
//! duplicate wins, `null` where an object, a text or bytes may stand.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use zeroize::Zeroizing;

use super::base64;

/// The fields of one kind of object.
pub(crate) trait Fields: Default {
    /// Takes the value of the field `name` from `map`; skips it with `IgnoredAny` when unknown.
    fn take<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error>;
}

/// Reads one object and nothing but white space around it.
pub(crate) fn object<F: Fields>(json: &[u8]) -> Result<F, serde_json::Error> {
    Ok(serde_json::from_slice::<Object<F>>(json)?.0)
}

/// Deserializes an object with lenient field names; `null` is the empty object.
pub(crate) struct Object<F>(pub(crate) F);

impl<'de, F: Fields> Deserialize<'de> for Object<F> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<F>(F);

        impl<'de, F: Fields> Visitor<'de> for ObjectVisitor<F> {
            type Value = F;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_unit<E: Error>(self) -> Result<F, E> {
                Ok(self.0)
            }

            fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<F, A::Error> {
                while let Some(Name(name)) = map.next_key()? {
                    self.0.take(&name, &mut map)?;
                }
                Ok(self.0)
            }
        }

        deserializer.deserialize_any(ObjectVisitor(F::default())).map(Self)
    }
}

/// Bytes written as base64; `null` is no bytes. Wiped on drop.
#[derive(Default)]
pub(crate) struct Bytes(pub(crate) Zeroizing<Vec<u8>>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BytesVisitor;

        impl Visitor<'_> for BytesVisitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("base64 text")
            }

            fn visit_unit<E: Error>(self) -> Result<Bytes, E> {
                Ok(Bytes::default())
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Bytes, E> {
                // The error must not quote the text, which may be a secret.
                base64::decode(text.as_bytes()).map(Bytes).ok_or_else(|| E::custom("invalid base64"))
            }
        }

        deserializer.deserialize_any(BytesVisitor)
    }
}

/// Takes a text from `map`; `null` leaves what an earlier duplicate of the field said.
pub(crate) fn take_text<'de, A: MapAccess<'de>>(field: &mut Option<String>, map: &mut A) -> Result<(), A::Error> {
    if let Some(text) = map.next_value()? {
        *field = Some(text);
    }
    Ok(())
}

/// A field's name, which serde_json can lend us unless it is escaped.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
