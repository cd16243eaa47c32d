//! A key store that keys are copied to.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::{Other, Target, There};
use crate::crypto::{Blob, Key};
use crate::keystore::{self, Access, Charged, Error, KeyStore, Listing, Names, Retry, Waits};
use crate::migrate::material::Material;
use crate::name::KeyName;

/// A key store. Its place may not exist yet.
pub struct Store {
    config: keystore::Section,
    store: Option<Arc<dyn KeyStore>>,
    /// The store for rehearsals, while the real one does not exist.
    rehearsal: Option<Arc<dyn KeyStore>>,
    waits: Waits,
}

impl Store {
    /// Connects to the store without creating anything.
    ///
    /// # Errors
    /// When the store, or its seal, cannot be used.
    pub async fn open(config: keystore::Section, waits: &Waits) -> Result<Self, Error> {
        let store = config.open().await?.map(|store| patient(store, waits));
        let rehearsal = match store {
            Some(_) => None,
            None => Some(patient(config.rehearsal().await?, waits)),
        };
        Ok(Self { config, store, rehearsal, waits: waits.clone() })
    }

    /// The store; an error when it does not exist yet.
    fn store(&self) -> Result<&Arc<dyn KeyStore>, Error> {
        self.store.as_ref().ok_or(Error::NotFound)
    }

    async fn get_batch(&self, names: &[KeyName]) -> Vec<Result<Blob, Error>> {
        match self.store() {
            Ok(store) => store.get_batch(names).await,
            Err(_) => names.iter().map(|_| Err(Error::NotFound)).collect(),
        }
    }
}

/// The store with retries.
fn patient(store: Arc<dyn KeyStore>, waits: &Waits) -> Arc<dyn KeyStore> {
    Arc::new(Retry::for_a_run(store, waits.clone()))
}

/// The one value of a key. A key store can hold only one, see [`Target::losses`].
fn value(key: &Material) -> Result<&Blob, Error> {
    key.value().ok_or_else(|| Error::Failed("a key store takes one version of a key".into()))
}

fn names(keys: &[(&KeyName, &Material)]) -> Vec<KeyName> {
    keys.iter().map(|(name, _)| (*name).clone()).collect()
}

/// Compares the stored value with the source's key.
fn compare(key: &Material, stored: Blob) -> Result<There, Error> {
    let ours = Key::parse(value(key)?).map_err(|error| Error::Failed(error.into()))?;
    Ok(match Key::parse(&stored) {
        Ok(theirs) if ours.is_same(&theirs) => There::Same,
        Ok(theirs) => {
            let fingerprint = Some(theirs.fingerprint().to_string());
            There::Other(Other { fingerprint, value: Some(stored), ..Other::default() })
        }
        Err(error) => There::NoKey(error.to_string()),
    })
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.store, &self.config.store) {
            (Some(store), _) => store.fmt(f),
            (None, keystore::Config::Fs(config)) => write!(f, "fs: {} (does not exist yet)", config.path.display()),
            (None, _) => f.write_str("does not exist yet"),
        }
    }
}

#[async_trait]
impl Target for Store {
    fn exists(&self) -> bool {
        self.store.is_some()
    }

    async fn prepare(&mut self) -> Result<(), Error> {
        if self.store.is_none() {
            self.store = Some(patient(self.config.connect().await?, &self.waits));
        }
        Ok(())
    }

    async fn settle(&self, waits: &Waits) -> Result<(), Error> {
        match &self.store {
            Some(store) => store.settle(waits).await,
            None => Ok(()),
        }
    }

    async fn identity(&self) -> Result<Option<String>, Error> {
        match &self.store {
            Some(store) => store.about().identity.await.map(Some),
            None => Ok(None),
        }
    }

    async fn check(&self, access: Access) -> Result<(), Error> {
        match &self.store {
            Some(store) => store.check(access).await,
            None => Ok(()),
        }
    }

    async fn list(&self) -> Result<Listing, Error> {
        match &self.store {
            Some(store) => store.list("").await,
            None => Ok(Listing::default()),
        }
    }

    fn batch(&self) -> usize {
        self.store().map_or(1, |store| store.batch())
    }

    async fn compare(&self, keys: &[(&KeyName, &Material)]) -> Vec<Result<There, Error>> {
        let stored = self.get_batch(&names(keys)).await;
        keys.iter().zip(stored).map(|((_, key), stored)| compare(key, stored?)).collect()
    }

    async fn rehearse(&self, name: &KeyName, key: &Material) -> Result<(), Error> {
        match (&self.store, &self.rehearsal) {
            (Some(store), _) | (None, Some(store)) => store.rehearse(name, value(key)?).await,
            (None, None) => Ok(()),
        }
    }

    async fn create(&self, keys: &[(&KeyName, &Material)]) -> Vec<Result<(), Error>> {
        let values: Result<Vec<_>, Error> = keys.iter().map(|(name, key)| Ok((*name, value(key)?))).collect();
        match (self.store(), values) {
            (Ok(store), Ok(values)) => store.create_batch(&values).await,
            _ => keys.iter().map(|(_, key)| value(key).and(Err(Error::NotFound))).collect(),
        }
    }

    async fn replace(&self, name: &KeyName, found: &Other, key: &Material) -> Result<(), Error> {
        let expected = found.value.as_ref().ok_or(Error::NotFound)?;
        self.store()?.replace(name, expected, value(key)?).await
    }

    /// Byte for byte.
    async fn prove(&self, keys: &[(&KeyName, &Material)]) -> Vec<Result<bool, Error>> {
        let stored = self.get_batch(&names(keys)).await;
        keys.iter().zip(stored).map(|((_, key), stored)| Ok(stored?.is_same(value(key)?))).collect()
    }

    fn proof(&self) -> &'static str {
        "read back and compared"
    }

    fn charges(&self) -> Vec<Charged> {
        self.store.as_ref().or(self.rehearsal.as_ref()).map_or_else(Vec::new, |store| store.about().charges)
    }

    fn names(&self) -> Names {
        self.store.as_ref().map_or(Names::ALL, |store| store.about().names)
    }

    fn warnings(&self) -> &[String] {
        self.store.as_ref().map_or(&[], |store| store.about().warnings)
    }
}

#[cfg(test)]
impl Store {
    /// A target that no config names.
    pub(in crate::migrate) fn of(store: Arc<dyn KeyStore>) -> Self {
        let path = "nowhere".into();
        let config = keystore::Section { store: keystore::Config::Fs(keystore::fs::Config { path }), encrypt: None };
        Self { config, store: Some(store), rehearsal: None, waits: Waits::default() }
    }
}
