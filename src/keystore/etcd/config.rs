//! The `keystore.etcd` section of the config file.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::Store;
use crate::etcd::{self, Credentials};
use crate::keystore::{Backend, Error, KeyStore};
use crate::setting::{ClientTls, Url};

/// How long one member may take, so that three can be asked within the 10 seconds of a request.
const ATTEMPT: Duration = Duration::from_millis(2_500);

/// The `keystore.etcd:` section of the config file.
#[derive(Debug, Deserialize)]
#[serde(from = "Section")]
pub struct Config {
    /// The cluster.
    pub etcd: etcd::Config,
    /// What keys begin with.
    pub prefix: Prefix,
}

#[async_trait]
impl Backend for Config {
    async fn connect(&self) -> Result<Arc<dyn KeyStore>, Error> {
        Ok(Arc::new(Store::connect(self).await?))
    }

    fn files(&self) -> Vec<(&'static str, &Path)> {
        self.etcd.tls.files()
    }
}

/// What all keys begin with: printable ASCII that ends in a slash. Default `claviger/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    const MAX_LEN: usize = 512;

    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        &self.0
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

impl Default for Prefix {
    fn default() -> Self {
        Self("claviger/".into())
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map_or_else(|| Ok(Self::default()), Self::parse).map_err(D::Error::custom)
    }
}

/// The section as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    #[serde(deserialize_with = "endpoints")]
    endpoints: Vec<Url>,
    #[serde(default)]
    prefix: Prefix,
    #[serde(default, deserialize_with = "credentials")]
    credentials: Option<Credentials>,
    #[serde(default)]
    tls: ClientTls,
}

impl From<Section> for Config {
    fn from(Section { endpoints, prefix, credentials, tls }: Section) -> Self {
        let etcd = etcd::Config { endpoints, credentials, tls, setting: "keystore.etcd.tls.ca", attempt: ATTEMPT };
        Self { etcd, prefix }
    }
}

/// Reads the addresses of members.
fn endpoints<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Url>, D::Error> {
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
fn credentials<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Credentials>, D::Error> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn section(text: &str) -> Result<Config, String> {
        serde_yaml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn members_are_addresses_without_path_and_http_is_for_this_machine() {
        for good in ["https://10.0.0.1:2379", "http://127.0.0.1:2379", "http://localhost:2379/"] {
            assert_eq!(section(&format!("endpoints: ['{good}']")).expect(good).etcd.endpoints.len(), 1);
        }
        for (bad, says) in [
            ("[]", "at least one"),
            ("['http://10.0.0.1:2379']", "this machine only"),
            ("['https://10.0.0.1:2379/v3']", "has a path"),
            ("['10.0.0.1:2379']", "not the address"),
        ] {
            let error = section(&format!("endpoints: {bad}")).expect_err(bad);
            assert!(error.contains(says), "{bad}: {error}");
        }
    }

    #[test]
    fn a_prefix_ends_in_a_slash_and_is_not_that_of_kubernetes() {
        let with = |prefix: &str| section(&format!("endpoints: ['https://h:1']\nprefix: '{prefix}'"));
        assert_eq!(section("endpoints: ['https://h:1']").expect("valid").prefix.as_str(), "claviger/");
        assert_eq!(with("/team/a/").expect("valid").prefix.as_str(), "/team/a/");
        for bad in ["claviger", "a b/", "\u{e4}/", "/registry/secrets/", "/registry/"] {
            assert!(with(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn half_a_login_is_none() {
        let with =
            |credentials: &str| section(&format!("endpoints: ['https://h:1']\ncredentials: {{ {credentials} }}"));
        assert!(with("").expect("valid").etcd.credentials.is_none());
        assert!(with("username: u").is_err() && with("password: p").is_err());
        let config = with("username: u, password: hunter2").expect("valid");
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(section("endpoints: ['https://h:1']\ntls: { key: k }").is_err());
    }
}
