//! Thales CipherTrust Manager, formerly Gemalto KeySecure: each key is a secret.

mod config;
mod store;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use super::{Backend, Error, Kept, KeyStore};

pub use self::config::{Config, Credentials, KeySecure};
pub use self::store::Store;

#[async_trait]
impl Backend for Config {
    async fn connect(&self) -> Result<Arc<dyn KeyStore>, Error> {
        // There is no way to change a value only if it is still the same.
        Ok(Arc::new(Kept::new(Store::connect(self).await?)))
    }

    fn files(&self) -> Vec<(&'static str, &Path)> {
        self.keysecure.tls.ca.iter().map(|ca| ("keysecure.tls.ca", ca.as_path())).collect()
    }

    fn warnings(&self) -> Vec<String> {
        self.keysecure.endpoint.warning().into_iter().collect()
    }
}
