//! JSON objects as the archived server reads them: field names in any case, unknown fields skipped, the last duplicate
//! wins, and `null` allowed for an object, a text or bytes.
//!
//! Stored keys, old ciphertexts and the bodies of requests all come through here.

use std::fmt;
use std::ops::Deref;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroizing;

use super::base64;
use super::buffer::Buffer;

/// The fields of one kind of object. `fields!` implements it.
pub trait Fields: Default {
    /// The field with this name, in whatever case it is written.
    fn field(&mut self, name: &str) -> Option<Field<'_>>;
}

/// Where the value of a field goes.
#[derive(Debug)]
pub enum Field<'a> {
    /// Base64, or an array of numbers; `null` is no bytes.
    Bytes(&'a mut Bytes),
    /// A text; `null` leaves what an earlier duplicate of the field said.
    Text(&'a mut Option<String>),
}

/// Implements [`Fields`] for a struct: `fields!(Point { Bytes x, Text label })`.
macro_rules! fields {
    ($object:ident { $($kind:ident $field:ident),* $(,)? }) => {
        impl $crate::crypto::json::Fields for $object {
            fn field(&mut self, name: &str) -> Option<$crate::crypto::json::Field<'_>> {
                $(if name.eq_ignore_ascii_case(stringify!($field)) {
                    return Some($crate::crypto::json::Field::$kind(&mut self.$field));
                })*
                None
            }
        }
    };
}

pub(crate) use fields;

/// Where JSON stops being what it should be. What stands there may be secret, so it is not kept.
#[derive(Debug, thiserror::Error)]
#[error("the JSON is not as expected at line {line}, column {column}")]
pub struct Malformed {
    line: usize,
    column: usize,
}

impl From<serde_json::Error> for Malformed {
    fn from(error: serde_json::Error) -> Self {
        Self { line: error.line(), column: error.column() }
    }
}

/// Reads one object and nothing but white space around it.
pub(crate) fn object<F: Fields>(json: &[u8]) -> Result<F, Malformed> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let object = reader.deserialize_any(Object(F::default()))?;
    reader.end()?;
    Ok(object)
}

/// Reads one object and leaves alone whatever follows it.
pub fn first_object<F: Fields>(json: &[u8]) -> Result<F, Malformed> {
    Ok(serde_json::Deserializer::from_slice(json).deserialize_any(Object(F::default()))?)
}

struct Object<F>(F);

impl<'de, F: Fields> Visitor<'de> for Object<F> {
    type Value = F;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E: Error>(self) -> Result<F, E> {
        Ok(self.0)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<F, A::Error> {
        while let Some(field) = map.next_key_seed(Name(&mut self.0))? {
            match field {
                Some(Field::Bytes(bytes)) => *bytes = map.next_value_seed(BytesValue)?,
                Some(Field::Text(text)) => *text = map.next_value::<Option<String>>()?.or(text.take()),
                None => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(self.0)
    }
}

/// Reads a field's name and finds the field, without a copy of the name.
struct Name<'f, F>(&'f mut F);

impl<'de, 'f, F: Fields> DeserializeSeed<'de> for Name<'f, F> {
    type Value = Option<Field<'f>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'f, F: Fields> Visitor<'_> for Name<'f, F> {
    type Value = Option<Field<'f>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.field(name))
    }
}

/// Bytes that may be secret; wiped on drop.
#[derive(Default)]
pub struct Bytes(Buffer);

impl Bytes {
    /// Takes the bytes out.
    pub(crate) fn into_inner(self) -> Zeroizing<Vec<u8>> {
        self.0.into_inner()
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({} bytes, redacted)", self.0.len())
    }
}

impl From<Zeroizing<Vec<u8>>> for Bytes {
    fn from(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes.into())
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BytesValue)
    }
}

struct BytesValue;

impl<'de> DeserializeSeed<'de> for BytesValue {
    type Value = Bytes;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Bytes, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for BytesValue {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("base64 text")
    }

    fn visit_unit<E: Error>(self) -> Result<Bytes, E> {
        Ok(Bytes::default())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Bytes, E> {
        base64::decode(text.as_bytes()).map(Bytes::from).ok_or_else(|| E::custom("invalid base64"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<Bytes, A::Error> {
        let mut bytes = Bytes::default();
        while let Some(byte) = numbers.next_element()? {
            bytes.0.push(byte);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Thing {
        data: Bytes,
        label: Option<String>,
    }

    fields!(Thing { Bytes data, Text label });

    fn read(json: &str) -> Option<(Vec<u8>, Option<String>)> {
        let thing: Thing = object(json.as_bytes()).ok()?;
        Some((thing.data.to_vec(), thing.label))
    }

    fn thing(data: &[u8], label: Option<&str>) -> Option<(Vec<u8>, Option<String>)> {
        Some((data.to_vec(), label.map(str::to_owned)))
    }

    #[test]
    fn names_are_found_in_any_case_and_others_skipped() {
        assert_eq!(read(r#"{"DATA":"AQI=","Label":"x","more":{"a":[1,{}]}}"#), thing(&[1, 2], Some("x")));
        assert_eq!(read(r#"{"d\u0061ta":"AQI="}"#), thing(&[1, 2], None));
        assert_eq!(read(r#"{"dáta":"AQI="}"#), thing(&[], None));
    }

    #[test]
    fn the_last_duplicate_wins() {
        assert_eq!(read(r#"{"data":"AQI=","label":"x","DATA":"Aw==","label":"y"}"#), thing(&[3], Some("y")));
    }

    #[test]
    fn null_empties_bytes_and_leaves_text() {
        assert_eq!(read("null"), thing(&[], None));
        assert_eq!(read(r#"{"data":"AQI=","label":"x","data":null,"label":null}"#), thing(&[], Some("x")));
    }

    #[test]
    fn bytes_may_be_numbers() {
        let numbers: Vec<u8> = (0..=255).collect();
        assert_eq!(read(&format!("{{\"data\":{numbers:?}}}")), thing(&numbers, None));
        for bad in ["[256]", "[-1]", "[1.5]", "[\"1\"]", "[[1]]", "1", "true", "{}"] {
            assert_eq!(read(&format!("{{\"data\":{bad}}}")), None, "{bad}");
        }
    }

    #[test]
    fn what_follows_matters_only_to_those_who_ask() {
        assert_eq!(read("{} \n"), thing(&[], None));
        assert_eq!(read("{}x"), None);
        assert!(first_object::<Thing>(b"{}x").is_ok());
        for bad in ["", "[]", "\"\"", "1", "{", "\u{feff}{}"] {
            assert!(first_object::<Thing>(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn errors_and_debug_quote_nothing() {
        let error = object::<Thing>(br#"{"data":"secret!"}"#).err().expect("no base64");
        assert_eq!(error.to_string(), "the JSON is not as expected at line 1, column 17");
        let thing: Thing = object(br#"{"data":"AQI="}"#).expect("valid");
        assert_eq!(format!("{:?}", thing.data), "Bytes(2 bytes, redacted)");
    }
}
