//! Sealing with a key of a token: a hardware security module, or whatever else has a PKCS#11 module.

#[cfg(feature = "pkcs11")]
mod key;
#[cfg(feature = "pkcs11")]
mod module;
#[cfg(feature = "pkcs11")]
mod token;

use std::fmt;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

#[cfg(feature = "pkcs11")]
pub(super) use self::key::TokenKey;

use crate::setting;

/// The `keystore.encrypt.pkcs11:` section.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Section")]
pub struct Config {
    /// The module: a shared library of the token's vendor. Its path is absolute.
    pub module: PathBuf,
    /// The token.
    pub token: Token,
    /// The label of the key.
    pub key: String,
    /// What the token wants to see before it uses the key.
    pub pin: Pin,
}

/// Which token of the module it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Token {
    /// The one with this label.
    Label(String),
    /// The one in this slot.
    Slot(u64),
}

/// The PIN of the token's user.
#[derive(Debug, Clone)]
pub enum Pin {
    /// The PIN itself.
    Value(SecretString),
    /// The file that holds it, read again at every login.
    File(PathBuf),
}

/// The section as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    #[serde(deserialize_with = "module")]
    module: PathBuf,
    token: Option<String>,
    slot: Option<u64>,
    #[serde(deserialize_with = "label")]
    key: String,
    pin: PinSection,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PinSection {
    value: Option<SecretString>,
    file: Option<PathBuf>,
}

impl TryFrom<Section> for Config {
    type Error = &'static str;

    fn try_from(Section { module, token, slot, key, pin }: Section) -> Result<Self, Self::Error> {
        let token = match (token.filter(|label| !label.is_empty()), slot) {
            (Some(label), None) => Token::Label(label),
            (None, Some(slot)) => Token::Slot(slot),
            _ => return Err("needs one token; write its label as 'token', or its number as 'slot'"),
        };
        let pin = match (pin.value, pin.file) {
            (Some(value), None) => Pin::Value(value),
            (None, Some(file)) => Pin::File(file),
            _ => return Err("needs a PIN; write 'pin: { value: ${NAME} }' or 'pin: { file: PATH }'"),
        };
        Ok(Self { module, token, key, pin })
    }
}

impl Config {
    /// The files that the section names, and the keys below it that name them.
    pub(super) fn files(&self) -> Vec<(String, &Path)> {
        let pin = match &self.pin {
            Pin::Value(_) => None,
            Pin::File(file) => Some(("pkcs11.pin.file".to_owned(), file.as_path())),
        };
        [("pkcs11.module".to_owned(), self.module.as_path())].into_iter().chain(pin).collect()
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(label) => write!(f, "'{label}'"),
            Self::Slot(slot) => write!(f, "in slot {slot}"),
        }
    }
}

/// A name alone would be looked for in many directories, of which some may be writable for others.
fn module<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let path = setting::path(deserializer)?;
    path.is_absolute().then_some(path).ok_or_else(|| D::Error::custom("must be the absolute path of a shared library"))
}

/// The label stands in sealed values, which have one line a field.
fn label<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let label = setting::text(deserializer)?;
    let is_line = !label.contains(char::is_control);
    is_line.then_some(label).ok_or_else(|| D::Error::custom("must be the label of a key, in one line"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        serde_yaml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_section_names_a_module_a_token_a_key_and_a_pin() {
        let config = parse("{ module: /lib/a.so, token: t, key: k, pin: { value: hunter2 } }").expect("valid");
        assert_eq!((config.token.clone(), config.key.as_str()), (Token::Label("t".into()), "k"));
        assert!(!format!("{config:?}").contains("hunter2"));
        assert_eq!(config.files().len(), 1);
        let config = parse("{ module: /lib/a.so, slot: 7, key: k, pin: { file: p } }").expect("valid");
        assert_eq!(config.token, Token::Slot(7));
        assert_eq!(config.files().len(), 2);
        for bad in [
            "{ module: a.so, token: t, key: k, pin: { value: p } }",
            "{ module: /a.so, key: k, pin: { value: p } }",
            "{ module: /a.so, token: t, slot: 1, key: k, pin: { value: p } }",
            "{ module: /a.so, token: t, key: '', pin: { value: p } }",
            "{ module: /a.so, token: t, key: \"a\\nb\", pin: { value: p } }",
            "{ module: /a.so, token: t, key: k, pin: {} }",
            "{ module: /a.so, token: t, key: k, pin: { value: p, file: f } }",
            "{ module: /a.so, token: t, key: k }",
        ] {
            parse(bad).expect_err(bad);
        }
    }
}
