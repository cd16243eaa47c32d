//! A keystore that is asked again while a failure may pass.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{Access, Error, KeyStore, Listing};
use crate::crypto::Blob;
use crate::name::KeyName;

/// Asks again what failed in passing.
pub struct Retry(Arc<dyn KeyStore>);

impl Retry {
    /// Wraps `store`.
    pub fn new(store: Arc<dyn KeyStore>) -> Self {
        Self(store)
    }
}

impl fmt::Display for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl KeyStore for Retry {
    async fn create(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        self.0.create(name, value).await
    }
    async fn get(&self, name: &KeyName) -> Result<Blob, Error> {
        self.0.get(name).await
    }
    async fn replace(&self, name: &KeyName, expected: &Blob, value: &Blob) -> Result<(), Error> {
        self.0.replace(name, expected, value).await
    }
    async fn delete(&self, name: &KeyName) -> Result<(), Error> {
        self.0.delete(name).await
    }
    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        self.0.list(prefix).await
    }
    async fn status(&self) -> Result<Duration, Error> {
        self.0.status().await
    }
    async fn check(&self, access: Access) -> Result<(), Error> {
        self.0.check(access).await
    }
    async fn identity(&self) -> Result<String, Error> {
        self.0.identity().await
    }
}
