//! The `keystore.gemalto` section of the config file.

use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Deserializer};

use crate::setting::{self, Prefix, ServerTls, Url};

/// The longest prefix, in bytes.
const MAX_PREFIX: usize = 100;

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
    /// The prefix of the names of all objects that are keys.
    #[serde(default, deserialize_with = "prefix")]
    pub prefix: Prefix,
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

fn retry() -> Duration {
    Duration::from_secs(15)
}

fn prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Prefix, D::Error> {
    Prefix::deserialize_with(deserializer, MAX_PREFIX, b"-_.")
}
