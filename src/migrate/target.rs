//! Where keys go. The only part of a migration that knows what kind of target it is.

use std::sync::Arc;

use crate::crypto::Blob;
use crate::keystore::{self, Access, Charged, Error, KeyStore, Listing};
use crate::name::KeyName;

/// A key store that keys are copied to. Its place may not exist yet: then it is empty, and made only when the first
/// key is going to be written.
pub struct Target {
    config: keystore::Section,
    store: Option<Arc<dyn KeyStore>>,
    /// What rehearsals are made with while there is no store.
    rehearsal: Option<Arc<dyn KeyStore>>,
}

impl Target {
    /// Connects to the store without creating anything.
    pub async fn open(config: keystore::Section) -> Result<Self, Error> {
        let store = config.open().await?.map(patient);
        let rehearsal = match store {
            Some(_) => None,
            None => Some(patient(config.rehearsal().await?)),
        };
        Ok(Self { config, store, rehearsal })
    }

    /// Whether there is such a place already.
    pub fn exists(&self) -> bool {
        self.store.is_some()
    }

    /// As [`KeyStore::warnings`].
    pub fn warnings(&self) -> &[String] {
        self.store.as_ref().map_or(&[], |store| store.warnings())
    }

    /// Makes the store's place if it does not exist.
    pub async fn prepare(&mut self) -> Result<(), Error> {
        if self.store.is_none() {
            self.store = Some(patient(self.config.connect().await?));
        }
        Ok(())
    }

    pub(super) async fn check(&self, access: Access) -> Result<(), Error> {
        match &self.store {
            Some(store) => store.check(access).await,
            None => Ok(()),
        }
    }

    /// As [`KeyStore::identity`]; none as long as there is no such place.
    pub async fn identity(&self) -> Result<Option<String>, Error> {
        match &self.store {
            Some(store) => store.identity().await.map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn charges(&self) -> Vec<Charged> {
        self.store.as_ref().or(self.rehearsal.as_ref()).map_or_else(Vec::new, |store| store.charges())
    }

    pub(super) async fn list(&self) -> Result<Listing, Error> {
        match &self.store {
            Some(store) => store.list("").await,
            None => Ok(Listing::default()),
        }
    }

    pub(super) async fn get(&self, name: &KeyName) -> Result<Blob, Error> {
        self.store()?.get(name).await
    }

    pub(super) async fn get_batch(&self, names: &[KeyName]) -> Vec<Result<Blob, Error>> {
        match self.store() {
            Ok(store) => store.get_batch(names).await,
            Err(_) => names.iter().map(|_| Err(Error::NotFound)).collect(),
        }
    }

    pub(super) fn batch(&self) -> usize {
        self.store().map_or(1, |store| store.batch())
    }

    pub(super) async fn create_batch(&self, keys: &[(&KeyName, &Blob)]) -> Vec<Result<(), Error>> {
        match self.store() {
            Ok(store) => store.create_batch(keys).await,
            Err(_) => keys.iter().map(|_| Err(Error::NotFound)).collect(),
        }
    }

    /// Does all that writing would do, and stores nothing.
    pub(super) async fn rehearse(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        match (&self.store, &self.rehearsal) {
            (Some(store), _) | (None, Some(store)) => store.rehearse(name, value).await,
            (None, None) => Ok(()),
        }
    }

    pub(super) async fn replace(&self, name: &KeyName, expected: &Blob, value: &Blob) -> Result<(), Error> {
        self.store()?.replace(name, expected, value).await
    }

    /// A place that does not exist holds no key.
    fn store(&self) -> Result<&Arc<dyn KeyStore>, Error> {
        self.store.as_ref().ok_or(Error::NotFound)
    }
}

/// The same store, asked again when a failure may pass.
fn patient(store: Arc<dyn KeyStore>) -> Arc<dyn KeyStore> {
    Arc::new(keystore::Retry::for_a_run(store))
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.store, &self.config.store) {
            (Some(store), _) => store.fmt(f),
            (None, keystore::Config::Fs(config)) => write!(f, "fs: {} (does not exist yet)", config.path.display()),
            (None, _) => f.write_str("does not exist yet"),
        }
    }
}

#[cfg(test)]
impl Target {
    /// A target that no config names.
    pub(super) fn of(store: Arc<dyn KeyStore>) -> Self {
        let path = "nowhere".into();
        let config = keystore::Section { store: keystore::Config::Fs(keystore::fs::Config { path }), encrypt: None };
        Self { config, store: Some(store), rehearsal: None }
    }
}
