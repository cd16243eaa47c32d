//! The `keystore.etcd` section of the config file.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;

use super::Store;
use crate::etcd::{self, Credentials, Prefix};
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

/// The section as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    #[serde(deserialize_with = "etcd::config::endpoints")]
    endpoints: Vec<Url>,
    prefix: Option<Prefix>,
    #[serde(default, deserialize_with = "etcd::config::credentials")]
    credentials: Option<Credentials>,
    #[serde(default)]
    tls: ClientTls,
}

impl From<Section> for Config {
    fn from(Section { endpoints, prefix, credentials, tls }: Section) -> Self {
        let etcd = etcd::Config { endpoints, credentials, tls, setting: "keystore.etcd.tls.ca", attempt: ATTEMPT };
        Self { etcd, prefix: prefix.unwrap_or_else(|| Prefix::new("claviger/")) }
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
