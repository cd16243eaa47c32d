//! The `keystore.gemalto` section of the config file. The backend is not built yet.

use std::path::Path;
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;

use super::Backend;
use crate::setting::{self, ServerTls, Url};

/// The `keystore.gemalto:` section of the config file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Gemalto KeySecure, now Thales CipherTrust Manager.
    pub keysecure: KeySecure,
}

/// The `keystore.gemalto.keysecure:` section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySecure {
    /// Where KeySecure answers.
    pub endpoint: Url,
    /// How to log in.
    pub credentials: Credentials,
    /// Certificates.
    #[serde(default)]
    pub tls: ServerTls,
}

/// The `keystore.gemalto.keysecure.credentials:` section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// The refresh token.
    #[serde(deserialize_with = "setting::secret")]
    pub token: SecretString,
    /// The domain; none: the root domain.
    pub domain: Option<String>,
    /// How long to wait after a failed login. Default 15 seconds.
    #[serde(default = "retry", deserialize_with = "crate::duration::deserialize")]
    pub retry: Duration,
}

impl Backend for Config {
    fn files(&self) -> Vec<(&'static str, &Path)> {
        self.keysecure.tls.ca.iter().map(|ca| ("keysecure.tls.ca", ca.as_path())).collect()
    }
}

fn retry() -> Duration {
    Duration::from_secs(15)
}
