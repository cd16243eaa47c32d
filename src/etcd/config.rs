//! The settings that every section for etcd has: members, a prefix, a login.

use secrecy::SecretString;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::Credentials;
use crate::setting::Url;

/// What all keys begin with: printable ASCII that ends in a slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    const MAX_LEN: usize = 512;

    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// One of the program's own.
    pub(crate) fn new(text: &'static str) -> Self {
        Self(text.to_owned())
    }

    fn parse(text: String) -> Result<Self, &'static str> {
        let is_valid = text.ends_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_valid || text.len() > Self::MAX_LEN {
            return Err("must be at most 512 letters, digits and signs, without blanks, and end in '/'");
        }
        if text.starts_with("/registry/") {
            return Err("is where Kubernetes keeps its objects; keep keys in an etcd of their own");
        }
        Ok(Self(text))
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// Reads the addresses of members.
pub(crate) fn endpoints<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Url>, D::Error> {
    let urls = Vec::<Url>::deserialize(deserializer)?;
    if urls.is_empty() {
        return Err(D::Error::custom("must name at least one member: 'https://host:2379'"));
    }
    for url in &urls {
        if url.warning().is_some() {
            return Err(D::Error::custom("http is for this machine only; write 'https://host:2379'"));
        }
        if url.as_str().splitn(4, '/').count() > 3 {
            return Err(D::Error::custom("has a path; write 'https://host:2379'"));
        }
    }
    Ok(urls)
}

/// Reads a name and a password, or nothing at all.
pub(crate) fn credentials<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Credentials>, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Section {
        username: Option<String>,
        password: Option<SecretString>,
    }
    match Option::<Section>::deserialize(deserializer)?.unwrap_or_default() {
        Section { username: None, password: None } => Ok(None),
        Section { username: Some(username), password: Some(password) } => Ok(Some(Credentials { username, password })),
        _ => Err(D::Error::custom("needs 'username' and 'password', or neither")),
    }
}
