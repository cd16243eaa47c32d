//! Where keys come from.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::material::Material;
use crate::keystore::{Access, Charged, Error, KeyStore, Listing, Retry, Waits};
use crate::name::KeyName;

/// A place that keys are read from. Nothing is ever written there.
#[async_trait]
pub trait Source: fmt::Display + Send + Sync {
    /// As [`About::identity`](crate::keystore::About::identity).
    async fn identity(&self) -> Result<String, Error>;

    /// Checks that it answers and allows reading.
    async fn check(&self) -> Result<(), Error>;

    /// Everything that it holds.
    async fn list(&self) -> Result<Listing, Error>;

    /// The best number of keys for one call of [`Source::read`].
    fn batch(&self) -> usize;

    /// Reads these keys; an answer for each, in their order.
    async fn read(&self, names: &[KeyName]) -> Vec<Result<Material, Error>>;

    /// What providers charge for.
    fn charges(&self) -> Vec<Charged> {
        Vec::new()
    }

    /// Dangerous settings that the operator must be told about.
    fn warnings(&self) -> &[String] {
        &[]
    }
}

/// A key store that keys come from.
pub struct Store(Retry);

impl Store {
    /// A source with retries.
    pub fn new(store: Arc<dyn KeyStore>, waits: &Waits) -> Self {
        Self(Retry::for_a_run(store, waits.clone()))
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl Source for Store {
    async fn identity(&self) -> Result<String, Error> {
        self.0.about().identity.await
    }

    async fn check(&self) -> Result<(), Error> {
        self.0.check(Access::Read).await
    }

    async fn list(&self) -> Result<Listing, Error> {
        self.0.list("").await
    }

    fn batch(&self) -> usize {
        self.0.batch()
    }

    async fn read(&self, names: &[KeyName]) -> Vec<Result<Material, Error>> {
        self.0.get_batch(names).await.into_iter().map(|answer| answer.map(Material::single)).collect()
    }

    fn charges(&self) -> Vec<Charged> {
        self.0.about().charges
    }

    fn warnings(&self) -> &[String] {
        self.0.about().warnings
    }
}
