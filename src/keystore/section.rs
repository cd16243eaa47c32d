//! The `keystore:` section of the config file: a store, and the seal of its keys.

use std::sync::Arc;

use super::{Config, Error, KeyStore, Seal, Sealed, backends, mem, seal};

/// The `keystore:` section of the config file.
#[derive(Debug)]
pub struct Section {
    /// The store.
    pub store: Config,
    /// The seal of its keys; none: they are not sealed.
    pub encrypt: Option<seal::Config>,
}

impl Section {
    /// Connects to the store and its seal, see [`Config::connect`].
    ///
    /// # Errors
    /// What is wrong with the store or the seal.
    pub async fn connect(&self) -> Result<Arc<dyn KeyStore>, Error> {
        self.seal(self.store.connect().await?).await
    }

    /// Opens the store and connects to its seal, see [`Config::open`].
    ///
    /// # Errors
    /// What is wrong with the store or the seal.
    pub async fn open(&self) -> Result<Option<Arc<dyn KeyStore>>, Error> {
        if let Some(setting) = self.encrypt.as_ref().and_then(seal::Config::works_once) {
            return Err(backends::works_once(setting));
        }
        match self.store.open().await? {
            Some(store) => self.seal(store).await.map(Some),
            None => Ok(None),
        }
    }

    /// A store in memory, with the same seal: for rehearsals where there is no store yet.
    ///
    /// # Errors
    /// What is wrong with the seal.
    pub async fn rehearsal(&self) -> Result<Arc<dyn KeyStore>, Error> {
        self.seal(Arc::new(mem::Store::default())).await
    }

    /// What of the section works, and is dangerous.
    pub fn warnings(&self) -> Vec<String> {
        let seal = self.encrypt.iter().flat_map(seal::Config::warnings);
        self.store.warnings().into_iter().chain(seal).collect()
    }

    async fn seal(&self, store: Arc<dyn KeyStore>) -> Result<Arc<dyn KeyStore>, Error> {
        Ok(Arc::new(Sealed::new(store, Seal::connect(self.encrypt.as_ref()).await?)))
    }
}
