//! Azure Key Vault: each key is a secret, with the stored key as its oldest version.

mod api;
mod config;
mod login;
mod policy;
mod rights;
mod spelling;
mod store;
mod version;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use super::environment::{self, Variables};
use super::{Backend, Error, Kept, KeyStore};

pub use self::config::{ClientSecret, Config, KeyVault, Login, ManagedIdentity};
pub use self::store::{MAX_VALUE, Store};

impl Config {
    /// Connects where clouds find these environment variables.
    ///
    /// # Errors
    /// What is wrong with the store.
    pub async fn connect_in(&self, variables: Variables<'_>) -> Result<Arc<dyn KeyStore>, Error> {
        // Of a replaced key the oldest version is read, too.
        Ok(Arc::new(Kept::new(Store::connect(self, variables).await?)))
    }
}

#[async_trait]
impl Backend for Config {
    async fn connect(&self) -> Result<Arc<dyn KeyStore>, Error> {
        self.connect_in(&environment::of_process).await
    }

    fn files(&self) -> Vec<(&'static str, &Path)> {
        self.tls.ca.iter().map(|ca| ("tls.ca", ca.as_path())).collect()
    }

    fn warnings(&self) -> Vec<String> {
        self.keyvault.endpoint.warning().into_iter().collect()
    }
}
