//! Environment variables that `${NAME}` in a config file refers to. No other file of `config` reads the environment.

use zeroize::Zeroizing;

/// Why a variable has no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Error {
    /// It is not set.
    Unset,
    /// Its value is no text.
    NotUtf8,
}

/// The name in `${NAME}`, when that is the whole text. Blanks inside the braces do not count.
pub(super) fn reference(text: &str) -> Option<&str> {
    Some(text.strip_prefix("${")?.strip_suffix('}')?.trim())
}

/// The value of an environment variable.
#[expect(clippy::disallowed_methods, reason = "the keeper of this door")]
pub(super) fn get(name: &str) -> Result<Zeroizing<String>, Error> {
    match std::env::var(name) {
        Ok(value) => Ok(Zeroizing::new(value)),
        Err(std::env::VarError::NotPresent) => Err(Error::Unset),
        Err(std::env::VarError::NotUnicode(_)) => Err(Error::NotUtf8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_text_is_a_reference() {
        for (text, name) in [("${A}", "A"), ("${ A_1 }", "A_1"), ("${}", ""), ("${A}}", "A}")] {
            assert_eq!(reference(text), Some(name), "{text}");
        }
        for text in ["", "A", "$A", "${A", "x${A}", "${A}/b", " ${A}", "$ {A}"] {
            assert_eq!(reference(text), None, "{text}");
        }
    }
}
