//! Counts and lists as people read them.

use std::fmt::Display;

/// The longest list that is shown whole.
const SHOWN: usize = 10;

/// "1 key", "2 keys".
pub fn counted<N: Display + PartialEq + From<u8>>(count: N, what: &str) -> String {
    counted_as(count, what, &format!("{what}s"))
}

/// "1 identity", "2 identities".
pub fn counted_as<N: Display + PartialEq + From<u8>>(count: N, one: &str, many: &str) -> String {
    let word = if count == 1u8.into() { one } else { many };
    format!("{count} {word}")
}

/// The first ten, and how many more there are: "… and 19,990 more".
pub fn first<T: Display>(things: impl IntoIterator<Item = T>) -> Vec<String> {
    let mut things = things.into_iter();
    let mut shown: Vec<_> = things.by_ref().take(SHOWN).map(|thing| thing.to_string()).collect();
    let more = things.count();
    if more > 0 {
        shown.push(format!("… and {} more", grouped(more)));
    }
    shown
}

/// A number with its thousands apart: "19,990".
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        assert_eq!([0, 1, 2].map(|count| counted(count, "key")), ["0 keys", "1 key", "2 keys"]);
    }

    #[test]
    fn a_long_list_ends_after_ten() {
        assert_eq!(first(0..10), (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
        let shown = first(0..20_000);
        assert_eq!((shown.len(), shown[9].as_str(), shown[10].as_str()), (11, "9", "… and 19,990 more"));
        assert!(first::<u8>([]).is_empty());
    }

    #[test]
    fn thousands_stand_apart() {
        let numbers = [1, 999, 1_000, 12_345, 123_456, 1_234_567].map(grouped);
        assert_eq!(numbers, ["1", "999", "1,000", "12,345", "123,456", "1,234,567"]);
    }
}
