//! Names of keys and policies, and listing patterns: valid by construction.
//!
//! The rules are the archived server's; `docs/formats.md` states them.

mod page;

use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::hex;

pub use page::Page;

/// The longest name and the longest pattern, in bytes.
pub const MAX_LEN: usize = 80;

/// Names beginning with this stand for a key that is being replaced; no client may use them.
pub const RESERVED_PREFIX: &str = "claviger-old-";

/// What a name must be, for whoever writes one.
const RULE: &str = "not a name; write 1 to 80 letters, digits, '-' or '_', without '-' at the ends";

/// Why a text is not a name. `Display` is the message clients see.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not the name of a key.
    #[error("key name '{0}' is empty, too long or contains invalid characters")]
    Key(String),
    /// Not the name of a policy.
    #[error("policy name '{0}' is empty, too long or contains invalid characters")]
    Policy(String),
    /// Not the name of an enclave.
    #[error("enclave name '{0}' is empty, too long or contains invalid characters")]
    Enclave(String),
    /// Not a listing pattern.
    #[error("listing pattern '{0}' is empty, too long or is invalid")]
    Pattern(String),
}

/// The name of a master key. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyName(Arc<str>);

impl KeyName {
    /// Parses a name that a client may use: reserved names are refused like malformed ones.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if is_valid(text) && !is_reserved(text) { Ok(Self(text.into())) } else { Err(Error::Key(text.into())) }
    }

    /// The reserved name under which the old value of `name` is kept while it is being replaced:
    /// `claviger-old-` and the first 16 hex digits of the SHA-256 of the name.
    pub fn kept(name: &Self) -> Self {
        let hash: [u8; 32] = Sha256::digest(name.as_str()).into();
        Self(format!("{RESERVED_PREFIX}{}", hex::encode(&hash[..8])).into())
    }

    /// A reserved name, as a store's listing shows it.
    pub fn parse_kept(text: &str) -> Option<Self> {
        (is_valid(text) && is_reserved(text)).then(|| Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Reads the name of the config file.
impl<'de> serde::Deserialize<'de> for KeyName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(|_| serde::de::Error::custom(RULE))
    }
}

impl std::borrow::Borrow<str> for KeyName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The name of a transit key, as Vault has them. Unlike other names it may hold dots. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransitName(Arc<str>);

impl TransitName {
    /// Parses the name of a transit key.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let ends_in_words = text.bytes().next().is_some_and(is_word) && text.bytes().last().is_some_and(is_word);
        let is_valid = ends_in_words && text.bytes().all(|byte| is_word(byte) || matches!(byte, b'-' | b'.'));
        if is_valid && text.len() <= MAX_LEN { Ok(Self(text.into())) } else { Err(Error::Key(text.into())) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The longest path of an entry of the key/value engine, in bytes.
const MAX_PATH: usize = 512;

/// The path of an entry of the key/value engine: names between slashes. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretPath(Arc<str>);

impl SecretPath {
    /// Parses a path; `None` when it is empty or too long, when it has a control character, or when one of its names is
    /// empty or consists of dots as those for folders do.
    pub fn parse(text: &str) -> Option<Self> {
        let are_names = text.split('/').all(|name| !matches!(name, "" | "." | ".."));
        (are_names && text.len() <= MAX_PATH && !text.chars().any(char::is_control)).then(|| Self(text.into()))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for SecretPath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for TransitName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TransitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a policy. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyName(Arc<str>);

impl PolicyName {
    /// Parses the name of a policy.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if is_valid(text) { Ok(Self(text.into())) } else { Err(Error::Policy(text.into())) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Reads the name of the config file.
impl<'de> serde::Deserialize<'de> for PolicyName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(|_| serde::de::Error::custom(RULE))
    }
}

impl std::borrow::Borrow<str> for PolicyName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of an enclave. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EnclaveName(Arc<str>);

impl EnclaveName {
    /// Parses the name of an enclave.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if is_valid(text) { Ok(Self(text.into())) } else { Err(Error::Enclave(text.into())) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Reads the name of the config file.
impl<'de> serde::Deserialize<'de> for EnclaveName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(|_| serde::de::Error::custom(RULE))
    }
}

impl std::borrow::Borrow<str> for EnclaveName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EnclaveName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a listing asks for: the names with a prefix, from the first one or after a given one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    prefix: String,
    after: Option<String>,
}

impl Pattern {
    /// Parses a pattern: empty or `*` (all names), a prefix, a prefix with a final `*`, or the
    /// `continue_at` token of an earlier page.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let invalid = || Error::Pattern(text.into());
        if let Some((prefix, token)) = text.split_once('.') {
            if !is_prefix(prefix) {
                return Err(invalid());
            }
            let after = token::decode(token).ok_or_else(invalid)?;
            return Ok(Self { prefix: prefix.into(), after: Some(after) });
        }
        let prefix = text.strip_suffix('*').unwrap_or(text);
        if text.len() > MAX_LEN || text == "_" || !is_prefix(prefix) {
            return Err(invalid());
        }
        Ok(Self { prefix: prefix.into(), after: None })
    }

    /// The names asked for begin with this; empty means all.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The last name of the page before; none for the first page.
    pub fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// The token that asks for the page after `last`: `<prefix>.<base64url of last>`, so that a
    /// policy that allows the prefix allows its later pages and no others.
    pub fn continue_at(&self, last: &str) -> String {
        format!("{}.{}", self.prefix, token::encode(last))
    }
}

mod token {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    pub(super) fn encode(name: &str) -> String {
        URL_SAFE_NO_PAD.encode(name)
    }

    pub(super) fn decode(token: &str) -> Option<String> {
        let name = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
        super::is_valid(&name).then_some(name)
    }
}

/// Whether `text` follows the naming rules, reserved or not.
pub fn is_valid(text: &str) -> bool {
    is_prefix(text) && !text.is_empty() && text != "_" && !text.starts_with('-') && !text.ends_with('-')
}

/// Whether `text` is a name that only a replacement in progress uses.
pub fn is_reserved(text: &str) -> bool {
    text.starts_with(RESERVED_PREFIX)
}

fn is_prefix(text: &str) -> bool {
    text.len() <= MAX_LEN && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
        let longest = "k".repeat(80);
        for good in ["a", "9", "A1", "x_y", "__", "_a", "my-key", longest.as_str()] {
            assert_eq!(KeyName::parse(good).expect(good).as_str(), good);
        }
        let too_long = "k".repeat(81);
        for bad in ["", "_", "-x", "x-", "a.b", "a/b", "a b", "ä", "a*", too_long.as_str()] {
            assert_eq!(KeyName::parse(bad), Err(Error::Key(bad.into())), "{bad}");
        }
    }

    #[test]
    fn names_of_transit_keys_may_hold_dots() {
        for good in ["a", "_", "my-key", "3f2a.1.2", "a..b", "a.-b"] {
            assert_eq!(TransitName::parse(good).expect(good).as_str(), good);
        }
        let too_long = "k".repeat(81);
        for bad in ["", "-a", "a-", ".a", "a.", "a/b", "a b", "ä", &too_long] {
            assert!(TransitName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn reserved_names_are_refused() {
        assert!(KeyName::parse("claviger-old-0123456789abcdef").is_err());
        assert!(KeyName::parse("claviger-older").is_ok());
        let kept = KeyName::kept(&KeyName::parse("my-key").expect("valid"));
        assert_eq!(kept.as_str(), "claviger-old-5e78863ed1ffb9fc");
        assert_eq!(KeyName::parse_kept(kept.as_str()), Some(kept));
        assert_eq!(KeyName::parse_kept("my-key"), None);
    }

    #[test]
    fn patterns_are_prefixes() {
        for (text, prefix) in [("", ""), ("*", ""), ("my", "my"), ("my*", "my"), ("my-", "my-"), ("_*", "_")] {
            let pattern = Pattern::parse(text).expect(text);
            assert_eq!((pattern.prefix(), pattern.after()), (prefix, None), "{text}");
        }
        for bad in ["_", "**", "a*b", "*a", "a.b", "a ", "a/b", "."] {
            assert_eq!(Pattern::parse(bad), Err(Error::Pattern(bad.into())), "{bad}");
        }
    }

    #[test]
    fn a_token_continues_its_own_listing() {
        let token = Pattern::parse("my*").expect("valid").continue_at("my-key");
        assert!(token.starts_with("my."));
        let next = Pattern::parse(&token).expect("valid");
        assert_eq!((next.prefix(), next.after()), ("my", Some("my-key")));
    }
}
