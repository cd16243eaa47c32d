//! Where protobuf's JSON differs from serde's: bytes as base64, and times, durations and large numbers as texts.

use std::fmt::Display;

use serde::{Serialize, Serializer};

use crate::crypto::base64;

/// Whether a field has the value that protobuf leaves out.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Bytes as base64.
pub(super) fn bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&base64::encode(bytes))
}

/// A 64-bit number as text, because JavaScript cannot represent all of them as numbers.
pub(super) fn large<S: Serializer>(number: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

impl Serialize for super::Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use time::format_description::well_known::Rfc3339;
        let text = self.to_time().format(&Rfc3339).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&text)
    }
}

impl Serialize for super::Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.nanos {
            0 => serializer.collect_str(&format_args!("{}s", self.seconds)),
            nanos => serializer.collect_str(&format_args!("{}.{nanos:09}s", self.seconds)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Encoding, KeyStatus, Span, Timestamp};

    proptest! {
        #[test]
        fn every_moment_and_every_span_has_a_text(
            seconds: i64,
            near in -400_000_000_000_i64..400_000_000_000,
            nanos: i32,
        ) {
            for seconds in [seconds, near] {
                let created_at = Some(Timestamp { seconds, nanos });
                let json = Encoding::Json.encode(&KeyStatus { created_at, ..KeyStatus::default() });
                let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
                prop_assert!(json["created_at"].as_str().is_some_and(|time| time.ends_with('Z')));
                let span = serde_json::to_string(&Span { seconds, nanos });
                prop_assert!(span.is_ok());
            }
        }
    }
}
