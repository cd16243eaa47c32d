//! The `keystore.fortanix` section of the config file. The backend is not built yet.

use std::path::Path;

use secrecy::SecretString;
use serde::Deserialize;

use super::Backend;
use crate::setting::{self, ServerTls, Url};

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

impl Backend for Config {
    fn files(&self) -> Vec<(&'static str, &Path)> {
        self.sdkms.tls.ca.iter().map(|ca| ("sdkms.tls.ca", ca.as_path())).collect()
    }
}
