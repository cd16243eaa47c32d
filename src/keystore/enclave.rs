//! The `keystore.enclave` section of the config file: an enclave of the key manager that is the same process. Only the
//! config of a listener of a key manager may have it.

use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;

use super::{Backend, Error, KeyStore};
use crate::name::EnclaveName;

/// The error where no key manager is in the same process.
const NO_KEY_MANAGER: &str = "an enclave is served by its key manager itself: start \
     'claviger kms server DIR --kes FILE' with this config; to copy keys from or to an enclave, write 'keystore.kms'";

/// The `keystore.enclave:` section of the config file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Its name.
    pub name: EnclaveName,
}

#[async_trait]
impl Backend for Config {
    async fn connect(&self) -> Result<Arc<dyn KeyStore>, Error> {
        Err(Error::Failed(NO_KEY_MANAGER.into()))
    }
}
