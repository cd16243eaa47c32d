//! The `keystore.kms` section of the config file: an enclave of a key manager, as the source or target of `migrate`. A
//! server cannot use it as its key store.

use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::Deserialize;

use crate::name::EnclaveName;
use crate::setting::{self, ServerTls};

/// The error when a server is configured with it.
pub const NO_STORE: &str =
    "a key manager is no key store of a server; 'migrate' and 'verify' read it, and clients ask it themselves";

/// The `keystore.kms:` section of the config file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where it answers: `host`, `host:port` or `https://host:port`; several of one cluster.
    pub endpoint: Vec<String>,
    /// The enclave.
    pub enclave: EnclaveName,
    /// An API key, `k1:…`.
    #[serde(deserialize_with = "setting::secret")]
    pub api_key: SecretString,
    /// Which server certificates are trusted.
    #[serde(default, deserialize_with = "setting::or_default")]
    pub tls: ServerTls,
}

impl Config {
    pub(super) fn files(&self) -> Vec<(&'static str, &Path)> {
        self.tls.ca.iter().map(|file: &PathBuf| ("tls.ca", file.as_path())).collect()
    }
}
