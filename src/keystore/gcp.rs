//! The `keystore.gcp` section of the config file. The backend is not built yet.

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer};

use super::Backend;
use crate::crypto::pem;
use crate::setting;

/// The `keystore.gcp:` section of the config file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Google Secret Manager.
    pub secretmanager: SecretManager,
}

impl Backend for Config {}

/// The `keystore.gcp.secretmanager:` section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretManager {
    /// The project's id.
    #[serde(deserialize_with = "setting::text")]
    pub project_id: String,
    /// Where Secret Manager answers; none: Google's own address.
    pub endpoint: Option<String>,
    /// The scopes to ask for; none: what Secret Manager needs.
    #[serde(default, deserialize_with = "scopes")]
    pub scopes: Vec<String>,
    /// How to log in.
    #[serde(default)]
    pub credentials: Credentials,
}

/// The `keystore.gcp.secretmanager.credentials:` section. When all are none, Google's standard chain finds
/// credentials: environment, well-known file, metadata server.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// The service account's address.
    pub client_email: Option<String>,
    /// The service account's id.
    pub client_id: Option<String>,
    /// The id of the service account's key.
    pub private_key_id: Option<String>,
    /// The service account's key, in PEM.
    #[serde(default, deserialize_with = "private_key")]
    pub private_key: Option<SecretString>,
}

/// Reads a list in which empty texts count for nothing.
fn scopes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let mut scopes = Vec::<String>::deserialize(deserializer)?;
    scopes.retain(|scope| !scope.is_empty());
    Ok(scopes)
}

fn private_key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    let key = Option::<SecretString>::deserialize(deserializer)?;
    if let Some(key) = &key {
        let advice =
            "not a private key in PEM; copy 'private_key' of the service account's JSON file, line breaks included";
        pem::private_key(key.expose_secret().as_bytes(), None).map_err(|_| serde::de::Error::custom(advice))?;
    }
    Ok(key)
}
