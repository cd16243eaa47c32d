//! Durations as the config file writes them: those of Go, such as `1h2m3.5s`, `300ms` or `+5m`.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not of the form.
    #[error("not a duration; write one like '30s', '5m0s' or '1h30m'")]
    Malformed,
    /// A number without a unit.
    #[error("a duration needs a unit; write one like '30s', '5m0s' or '1h30m'")]
    NoUnit,
    /// Less than zero.
    #[error("a duration must not be negative")]
    Negative,
    /// More than 292 years.
    #[error("the duration is too long")]
    TooLong,
}

/// Units in nanoseconds; the longer of two names with a common start stands first.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Parses a duration of at least zero and at most 2^63 - 1 nanoseconds.
pub fn parse(text: &str) -> Result<Duration, Error> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() || text.is_empty() {
        let (nanoseconds, after) = term(rest)?;
        total = total.checked_add(nanoseconds).filter(|total| i64::try_from(*total).is_ok()).ok_or(Error::TooLong)?;
        rest = after;
    }
    if negative && total > 0 { Err(Error::Negative) } else { Ok(Duration::from_nanos(total)) }
}

/// Reads a duration of the config file. A bare number, even 0, is none: it would hide what it counts.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    struct Text;

    impl Visitor<'_> for Text {
        type Value = Duration;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a duration like '30s', '5m0s' or '1h30m'")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
            parse(text).map_err(E::custom)
        }

        fn visit_i64<E: de::Error>(self, _: i64) -> Result<Duration, E> {
            Err(E::custom(Error::NoUnit))
        }

        fn visit_u64<E: de::Error>(self, _: u64) -> Result<Duration, E> {
            Err(E::custom(Error::NoUnit))
        }
    }

    deserializer.deserialize_any(Text)
}

/// Reads a duration of the config file; zero is none.
pub fn unless_zero<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    Ok(Some(deserialize(deserializer)?).filter(|duration| !duration.is_zero()))
}

/// Parses a number and its unit; returns nanoseconds and what follows.
fn term(text: &str) -> Result<(u64, &str), Error> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(Error::Malformed);
    }
    if rest.is_empty() {
        return Err(Error::NoUnit);
    }
    let unit = UNITS.iter().find_map(|(name, scale)| Some((*scale, rest.strip_prefix(name)?)));
    let (scale, rest) = unit.ok_or(Error::Malformed)?;
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().map_err(|_| Error::TooLong)? };
    let whole = whole.checked_mul(scale).ok_or(Error::TooLong)?;
    // Digits beyond the nanosecond are cut off.
    let mut part = 0;
    let mut place = scale;
    for digit in fraction.bytes() {
        place /= 10;
        part += u64::from(digit - b'0') * place;
    }
    Ok((whole.checked_add(part).ok_or(Error::TooLong)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("0s", 0),
            ("-0s", 0),
            ("5m0s", 300_000_000_000),
            ("+5m", 300_000_000_000),
            ("1h2m3.5s", 3_723_500_000_000),
            ("300ms", 300_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("7us", 7_000),
            ("7µs", 7_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanoseconds)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        assert_eq!(parse("30"), Err(Error::NoUnit));
        assert_eq!(parse("-5m"), Err(Error::Negative));
        assert_eq!(parse("300000000000h"), Err(Error::TooLong));
        for text in ["", "s", "5 m", "5x", "1.2.3s", ".s", "5d", "+", "-"] {
            assert_eq!(parse(text), Err(Error::Malformed), "{text}");
        }
    }
}
