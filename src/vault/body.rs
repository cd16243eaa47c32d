//! Bodies of requests: JSON, read as leniently as Vault does where clients need that, and within limits.

use std::fmt;
use std::ops::Deref;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use zeroize::Zeroizing;

use super::reply::bad;
use crate::crypto::base64;
use crate::server::Error;

/// The most items of a batch.
pub(super) const ITEMS: usize = 1_000;

/// Reads a body; an empty one is `{}`, and so is `null`, which Go clients send where there is nothing to say.
///
/// # Errors
/// When it is not a JSON object, or a field has the wrong type. The text quotes nothing of it.
pub(super) fn parse<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Error> {
    let body = if matches!(body.trim_ascii(), b"" | b"null") { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        bad(format!("failed to decode JSON input: it is not as expected at line {line}, column {column}"))
    })
}

/// A text that may be secret. It is borrowed from the body where it stands there as it is, else it is wiped.
pub(super) enum Text<'b> {
    Borrowed(&'b str),
    Owned(Zeroizing<String>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Owned(text) => text,
        }
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Text(redacted)")
    }
}

impl<'de: 'b, 'b> Deserialize<'de> for Text<'b> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyText;

        impl<'de> Visitor<'de> for AnyText {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text::Borrowed(text))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text::Owned(Zeroizing::new(text.to_owned())))
            }
        }

        deserializer.deserialize_str(AnyText)
    }
}

/// A number, or a text that is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number(pub(super) i64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyNumber;

        impl Visitor<'_> for AnyNumber {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }

            fn visit_i64<E>(self, number: i64) -> Result<Number, E> {
                Ok(Number(number))
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Number, E> {
                i64::try_from(number).map(Number).map_err(|_| E::custom("too large"))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Number, E> {
                text.parse().map(Number).map_err(|_| E::custom("not a number"))
            }
        }

        deserializer.deserialize_any(AnyNumber)
    }
}

/// Yes or no, also as a text or a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flag(pub(super) bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyFlag;

        impl Visitor<'_> for AnyFlag {
            type Value = Flag;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true or false")
            }

            fn visit_bool<E>(self, flag: bool) -> Result<Flag, E> {
                Ok(Flag(flag))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Flag, E> {
                Ok(Flag(number != 0))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Flag, E> {
                match text {
                    "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Flag(true)),
                    "0" | "f" | "F" | "false" | "FALSE" | "False" | "" => Ok(Flag(false)),
                    _ => Err(E::custom("neither true nor false")),
                }
            }
        }

        deserializer.deserialize_any(AnyFlag)
    }
}

/// A length of time in seconds: a number, or a text with a unit or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seconds(pub(super) u64);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnySeconds;

        impl Visitor<'_> for AnySeconds {
            type Value = Seconds;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of seconds, or a duration like '1h'")
            }

            fn visit_u64<E>(self, number: u64) -> Result<Seconds, E> {
                Ok(Seconds(number))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Seconds, E> {
                let seconds = || crate::duration::parse(text).map(|duration| duration.as_secs());
                text.parse().or_else(|_| seconds()).map(Seconds).map_err(|_| E::custom("not a duration"))
            }
        }

        deserializer.deserialize_any(AnySeconds)
    }
}

/// The items of a batch.
#[derive(Debug)]
pub(super) enum Batch<T> {
    Items(Vec<T>),
    /// More than [`ITEMS`]. They were not kept.
    TooMany,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Batch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
            type Value = Batch<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Batch<T>, A::Error> {
                let mut items = Vec::new();
                while items.len() < ITEMS {
                    match seq.next_element()? {
                        Some(item) => items.push(item),
                        None => return Ok(Batch::Items(items)),
                    }
                }
                if seq.next_element::<IgnoredAny>()?.is_none() {
                    return Ok(Batch::Items(items));
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Batch::TooMany)
            }
        }

        deserializer.deserialize_seq(Items(std::marker::PhantomData))
    }
}

/// Decodes base64, and says where it is wrong as Go does.
pub(super) fn decode(text: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    base64::decode(text.as_bytes())
        .ok_or_else(|| format!("illegal base64 data at input byte {}", first_wrong(text.as_bytes())))
}

/// Where Go's decoder stops in a text that is not standard base64.
fn first_wrong(text: &[u8]) -> usize {
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let is_break = |byte: u8| matches!(byte, b'\r' | b'\n');
    let mut in_quantum = 0;
    for (at, byte) in text.iter().enumerate() {
        match byte {
            byte if is_break(*byte) => {}
            byte if is_digit(*byte) => in_quantum = (in_quantum + 1) % 4,
            b'=' if in_quantum >= 2 => {
                let mut rest = text.iter().enumerate().skip(at + 1).filter(|(_, byte)| !is_break(**byte));
                if in_quantum == 2 {
                    match rest.next() {
                        None => return text.len(),
                        Some((_, b'=')) => {}
                        Some((at, _)) => return at - 1,
                    }
                }
                return rest.next().map_or(text.len(), |(at, _)| at);
            }
            _ => return at,
        }
    }
    text.len() - in_quantum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Body<'b> {
        #[serde(borrow)]
        text: Option<Text<'b>>,
        number: Option<Number>,
        flag: Option<Flag>,
        ttl: Option<Seconds>,
        batch: Option<Batch<Number>>,
    }

    fn read(json: &str) -> Option<Body<'_>> {
        parse(json.as_bytes()).ok()
    }

    #[test]
    fn fields_are_read_leniently() {
        let body = read(r#"{"text":"aé","number":"-1","flag":"true","ttl":"1h","other":{"a":[]}}"#).expect("valid");
        assert_eq!(body.text.as_deref(), Some("aé"));
        assert_eq!((body.number, body.flag, body.ttl), (Some(Number(-1)), Some(Flag(true)), Some(Seconds(3_600))));
        let body = read(r#"{"text":null,"number":7,"flag":0,"ttl":"60"}"#).expect("valid");
        assert!(body.text.is_none());
        assert_eq!((body.number, body.flag, body.ttl), (Some(Number(7)), Some(Flag(false)), Some(Seconds(60))));
        assert!(["", " ", "{}", "null", "null\n"].into_iter().all(|body| read(body).is_some()));
        for wrong in
            ["[]", "1", "{", "{}x", r#"{"text":1}"#, r#"{"number":"x"}"#, r#"{"number":1.5}"#, r#"{"batch":{}}"#]
        {
            assert!(read(wrong).is_none(), "{wrong}");
        }
        let deep = format!("{{\"x\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(read(&deep).is_some(), "what is passed over takes no stack");
    }

    #[test]
    fn a_batch_has_a_limit() {
        for (count, is_taken) in [(0, true), (ITEMS, true), (ITEMS + 1, false), (5 * ITEMS, false)] {
            let json = format!("{{\"batch\":{:?}}}", vec![1; count]);
            let batch = read(&json).expect("valid").batch.expect("there");
            assert_eq!(matches!(batch, Batch::Items(items) if items.len() == count), is_taken, "{count}");
        }
    }

    #[test]
    fn wrong_base64_is_told_as_go_tells_it() {
        for (text, at) in [
            ("!", 0),
            ("ab", 0),
            ("abc", 0),
            ("abcd!", 4),
            ("abcde", 4),
            ("ab=", 3),
            ("ab=c", 2),
            ("YQ==x", 4),
            ("=", 0),
        ] {
            assert_eq!(decode(text).expect_err("wrong"), format!("illegal base64 data at input byte {at}"), "{text}");
        }
        assert_eq!(decode("YQ\n==").expect("right").as_slice(), b"a");
    }
}
