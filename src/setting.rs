//! Settings that several parts of the config file have: types that hold only valid values, and functions that read
//! them.
//!
//! An error never shows the value, because it may be a secret. The reader of the config file takes an empty text for
//! `None` where the type is an `Option`.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use hyper::Uri;
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::{Deserialize, Deserializer, Error};

use crate::http;

/// Tells whether two servers have the same settings. It is made without secrets, so it may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hash(u64);

impl Hash {
    /// A hash of 48 bits: a metric, which is a floating-point number, holds it exactly.
    pub fn new([a, b, c, d, e, f]: [u8; 6]) -> Self {
        Self(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
    }

    /// As a number below 2^48.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// Twelve hex digits.
impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}", self.0)
    }
}

/// The address of a server: `https://host[:port][/path]`, or the same with `http`.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    /// Parses an address.
    pub fn parse(text: &str) -> Option<Self> {
        let url: Uri = text.parse().ok()?;
        let is_http = matches!(url.scheme_str(), Some("http" | "https"));
        let has_host = url.host().is_some_and(|host| !host.is_empty());
        // A password has no place in it: it would be shown with the address.
        let has_user = url.authority().is_some_and(|authority| authority.as_str().contains('@'));
        (is_http && has_host && !has_user).then(|| Self(text.trim_end_matches('/').to_owned()))
    }

    /// What is dangerous about keys that go to this address: nothing encrypts them on their way to another machine.
    pub fn warning(&self) -> Option<String> {
        let url: Uri = self.0.parse().ok()?;
        let host = url.host().unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let is_here = host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback());
        (url.scheme_str() == Some("http") && !is_here).then(|| {
            format!(
                "http: anybody between here and '{self}' can read and change every key; write an address with https://"
            )
        })
    }

    /// The address, without a final slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = text(deserializer)?;
        let advice = "not the address of a server; write 'https://host:port', without user and password";
        Self::parse(&text).ok_or_else(|| Error::custom(advice))
    }
}

/// Reads an address; one without a scheme is https, and an empty one is none.
pub fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let url = if text.contains("://") { Url::parse(&text) } else { Url::parse(&format!("https://{text}")) };
    let advice = "not the address of a server; write 'https://host', 'https://host:port', or nothing for the usual one";
    url.map(Some).ok_or_else(|| Error::custom(advice))
}

/// What the names of all entries begin with that are keys; empty: nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    /// A prefix of at most so many letters, digits and these characters.
    pub fn parse(text: &str, max: usize, others: &[u8]) -> Option<Self> {
        let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || others.contains(&byte);
        (text.len() <= max && text.bytes().all(is_valid)).then(|| Self(text.into()))
    }

    /// Reads a prefix of at most so many letters, digits and these characters.
    pub fn deserialize_with<'de, D: Deserializer<'de>>(
        deserializer: D,
        max: usize,
        others: &[u8],
    ) -> Result<Self, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
        Self::parse(&text, max, others).ok_or_else(|| {
            let others = String::from_utf8_lossy(others);
            Error::custom(format!(
                "no name of an entry begins with it; write at most {max} letters, digits, or of '{others}'"
            ))
        })
    }

    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The `tls:` section of a key store that knows no client certificates.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerTls {
    /// PEM file, or directory of such, with the CAs of the key store; none: the system's.
    pub ca: Option<PathBuf>,
}

/// The `tls:` section of a key store that may know client certificates.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(try_from = "ClientTlsSection")]
pub struct ClientTls {
    /// PEM files with the private key and the certificate of the client; none: it shows no certificate.
    pub client: Option<(PathBuf, PathBuf)>,
    /// PEM file, or directory of such, with the CAs of the key store; none: the system's.
    pub ca: Option<PathBuf>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientTlsSection {
    key: Option<PathBuf>,
    cert: Option<PathBuf>,
    ca: Option<PathBuf>,
}

impl TryFrom<ClientTlsSection> for ClientTls {
    type Error = &'static str;

    fn try_from(ClientTlsSection { key, cert, ca }: ClientTlsSection) -> Result<Self, Self::Error> {
        match (key, cert) {
            (Some(key), Some(cert)) => Ok(Self { client: Some((key, cert)), ca }),
            (None, None) => Ok(Self { client: None, ca }),
            _ => Err("needs both 'key' and 'cert', or neither"),
        }
    }
}

impl ClientTls {
    /// The files that the section names, and the keys that name them.
    pub fn files(&self) -> Vec<(&'static str, &Path)> {
        let client = self.client.iter().flat_map(|(key, cert)| [("tls.key", key), ("tls.cert", cert)]);
        client.chain(self.ca.iter().map(|ca| ("tls.ca", ca))).map(|(setting, file)| (setting, file.as_path())).collect()
    }

    /// `setting` is where the CAs are set.
    pub fn for_http(&self, setting: &'static str) -> http::Tls {
        let (key, cert) = self.client.clone().unzip();
        http::Tls { cert, key, ca: self.ca.clone(), setting, insecure_skip_verify: false }
    }
}

/// Reads a text that is not empty.
pub fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    not_empty(String::deserialize(deserializer)?, String::is_empty)
}

/// Reads a path that is not empty. A relative one begins at the working directory.
pub fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    text(deserializer).map(PathBuf::from)
}

/// Reads a secret that is not empty.
pub fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
    not_empty(SecretString::deserialize(deserializer)?, |secret| secret.expose_secret().is_empty())
}

/// Reads a value; an empty text is the default.
pub fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a text; an empty one is the default.
pub fn text_or<'de, D: Deserializer<'de>>(
    default: impl FnOnce() -> String,
    deserializer: D,
) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_else(default))
}

/// Reads a count of at least one.
pub fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    match usize::deserialize(deserializer)? {
        0 => Err(Error::custom("must be at least 1")),
        count => Ok(count),
    }
}

fn not_empty<T, E: Error>(value: T, is_empty: impl FnOnce(&T) -> bool) -> Result<T, E> {
    if is_empty(&value) { Err(Error::custom("must not be empty")) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_scheme_and_host_and_no_user() {
        for (good, kept) in [
            ("https://vault.example", "https://vault.example"),
            ("http://127.0.0.1:8200/", "http://127.0.0.1:8200"),
            ("https://[::1]:8200/v1", "https://[::1]:8200/v1"),
        ] {
            assert_eq!(Url::parse(good).expect(good).as_str(), kept);
        }
        for bad in ["", "127.0.0.1:1", "vault.example", "ftp://x", "https://", "/path", "https://u:p@x", "https://a b"]
        {
            assert_eq!(Url::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn plain_http_to_another_machine_is_dangerous() {
        for (url, is_dangerous) in [
            ("http://vault.example:8200", true),
            ("http://10.0.0.1:8200", true),
            ("http://[2001:db8::1]", true),
            ("https://vault.example:8200", false),
            ("http://127.0.0.1:8200", false),
            ("http://[::1]:8200", false),
            ("http://localhost:8200", false),
        ] {
            assert_eq!(Url::parse(url).expect(url).warning().is_some(), is_dangerous, "{url}");
        }
    }
}
