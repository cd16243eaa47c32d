//! The `keystore.kms` section of a config file for `migrate`: an enclave of a key manager, as the source or target. It is
//! no key store, so a server cannot use it.

use secrecy::SecretString;
use serde::Deserialize;

use crate::name::EnclaveName;
use crate::setting::{self, ServerTls};

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
