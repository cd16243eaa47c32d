//! The `keystore.entrust` section of the config file.

use secrecy::SecretString;
use serde::Deserialize;

use crate::setting::{self, ServerTls, Url};

/// The `keystore.entrust:` section of the config file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Entrust KeyControl.
    pub keycontrol: KeyControl,
}

/// The `keystore.entrust.keycontrol:` section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyControl {
    /// Where KeyControl answers.
    pub endpoint: Url,
    /// The vault's id.
    #[serde(deserialize_with = "setting::text")]
    pub vault_id: String,
    /// The id of the box that holds the keys.
    #[serde(deserialize_with = "setting::text")]
    pub box_id: String,
    /// How to log in.
    pub credentials: Credentials,
    /// Certificates.
    #[serde(default)]
    pub tls: ServerTls,
}

/// The `keystore.entrust.keycontrol.credentials:` section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// The user's name.
    #[serde(deserialize_with = "setting::text")]
    pub username: String,
    /// The user's password.
    #[serde(deserialize_with = "setting::secret")]
    pub password: SecretString,
}
