//! Keys in memory, for `server --dev` and tests. They are lost when the process ends.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::{Error, KeyStore, Listing};
use crate::crypto::Blob;
use crate::name::KeyName;

/// Keys that are gone with the process.
#[derive(Debug, Default)]
pub struct Store(Mutex<BTreeMap<KeyName, Blob>>);

impl Store {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<KeyName, Blob>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mem")
    }
}

#[async_trait]
impl KeyStore for Store {
    async fn create(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        let mut keys = self.lock();
        if keys.contains_key(name) {
            return Err(Error::Exists);
        }
        keys.insert(name.clone(), value.copy());
        Ok(())
    }

    async fn get(&self, name: &KeyName) -> Result<Blob, Error> {
        self.lock().get(name).map(Blob::copy).ok_or(Error::NotFound)
    }

    async fn replace(&self, name: &KeyName, expected: &Blob, value: &Blob) -> Result<(), Error> {
        match self.lock().get_mut(name) {
            None => Err(Error::NotFound),
            Some(stored) if stored.is_same(expected) => {
                *stored = value.copy();
                Ok(())
            }
            Some(_) => Err(Error::Failed("the key has another value than expected".into())),
        }
    }

    async fn delete(&self, name: &KeyName) -> Result<(), Error> {
        self.lock().remove(name).map(drop).ok_or(Error::NotFound)
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        let mut listing = Listing::default();
        for name in self.lock().keys().filter(|name| name.as_str().starts_with(prefix)) {
            listing.insert(name.as_str());
        }
        Ok(listing)
    }

    async fn status(&self) -> Result<Duration, Error> {
        Ok(Duration::ZERO)
    }

    fn behind(&self) -> Option<&dyn KeyStore> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance;
    use super::*;

    #[tokio::test]
    async fn passes_the_suite() {
        conformance::run(&Store::default()).await;
    }
}
