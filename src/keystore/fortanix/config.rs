//! The `keystore.fortanix` section of the config file.

use secrecy::SecretString;
use serde::{Deserialize, Deserializer};

use crate::setting::{self, Prefix, ServerTls, Url};

/// The longest prefix, in bytes.
const MAX_PREFIX: usize = 100;

/// The `keystore.fortanix:` section of the config file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Fortanix SDKMS.
    pub sdkms: Sdkms,
}

/// The `keystore.fortanix.sdkms:` section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sdkms {
    /// Where SDKMS answers.
    pub endpoint: Url,
    /// The group that new keys belong to; none: the application's default group.
    pub group_id: Option<String>,
    /// The prefix of the names of all objects that are keys.
    #[serde(default, deserialize_with = "prefix")]
    pub prefix: Prefix,
    /// How to log in.
    pub credentials: Credentials,
    /// Certificates.
    #[serde(default)]
    pub tls: ServerTls,
}

/// The `keystore.fortanix.sdkms.credentials:` section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// The application's API key.
    #[serde(deserialize_with = "setting::secret")]
    pub key: SecretString,
}

fn prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Prefix, D::Error> {
    Prefix::deserialize_with(deserializer, MAX_PREFIX, b"-_.")
}
