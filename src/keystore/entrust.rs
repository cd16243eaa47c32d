//! Entrust KeyControl: each key is a secret in a box.

mod config;
mod store;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use super::{Backend, Error, Kept, KeyStore};

pub use self::config::{Config, Credentials, KeyControl};
pub use self::store::Store;

#[async_trait]
impl Backend for Config {
    async fn connect(&self) -> Result<Arc<dyn KeyStore>, Error> {
        // There is no way to change a value only if it is still the same.
        Ok(Arc::new(Kept::new(Store::connect(self).await?)))
    }

    fn files(&self) -> Vec<(&'static str, &Path)> {
        self.keycontrol.tls.ca.iter().map(|ca| ("keycontrol.tls.ca", ca.as_path())).collect()
    }

    fn warnings(&self) -> Vec<String> {
        self.keycontrol.endpoint.warning().into_iter().collect()
    }
}
