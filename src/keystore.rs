//! Key stores: the trait that every store of master keys implements, and its error.
//!
//! Begin reading at [`KeyStore`]: its doc comments are the contract, and `conformance.rs` tests it. The way of a read:
//!
//! 1. `cache::Keys` misses a key and asks its store, a backend in up to three wrappers.
//! 2. [`Retry`] asks again while a failure may pass by itself, for a limited time.
//! 3. [`Sealed`] (`seal/`) opens values that are sealed, by the `encrypt` section of the config.
//! 4. [`Kept`] makes `replace` safe in stores whose readers see only a key's first version.
//! 5. The backend (`fs`, `vault`, `aws`, …) moves opaque bytes. Only `cache::Keys` makes keys of them.
//!
//! [`Section::connect`] puts a store and its seal together. `backends.rs` is the table of all backends, and says how one
//! is added. A wrapper implements the six operations and [`KeyStore::behind`]; whatever else it does not change reaches
//! the store behind it.

mod about;
pub mod aws;
pub mod azure;
mod backends;
pub mod conformance;
pub mod dynamodb;
pub mod enclave;
pub mod entrust;
pub mod environment;
pub mod etcd;
pub mod fixed;
pub mod fortanix;
pub mod fs;
pub mod gcp;
pub mod gemalto;
mod kept;
mod listing;
mod measured;
pub mod mem;
mod pace;
pub mod postgres;
mod rest;
mod retry;
pub mod seal;
mod section;
#[cfg(test)]
mod tests;
pub mod vault;

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::crypto::Blob;
use crate::name::KeyName;

pub use self::about::{About, Asked, Charged, Names};
pub use self::backends::{Backend, Config};
pub use self::kept::Kept;
pub use self::listing::{Foreign, Listing};
pub use self::measured::{Calls, Measured};
pub use self::retry::{Retry, Wait, Waits, patiently};
pub use self::seal::{Seal, Sealed};
pub use self::section::Section;

/// The cause of a failure, for the log and never for a client.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// What a caller can act on. How it came about stays in `source`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name is taken.
    #[error("key already exists")]
    Exists,
    /// The store answered that it has no such key. Any doubt is another error.
    #[error("key does not exist")]
    NotFound,
    /// No usable answer: unreachable, timed out, throttled, sealed, standby, a directory that vanished. It may pass by
    /// itself. It is unknown whether a write was done. If it was, it is durable, so reading the key back proves that it
    /// was stored.
    #[error("keystore is unreachable")]
    Unreachable(#[source] BoxError),
    /// The store cannot or will not do it, and that will not pass by itself: access denied, an invalid answer, a full
    /// disk, a read-only store.
    #[error("keystore request failed")]
    Failed(#[source] BoxError),
}

/// Durable storage for opaque bytes. Names are valid by construction; backends do not re-check
/// them. `Display` names the store for the operator, without secrets: `fs: /var/lib/keys`.
///
/// A backend must implement the six operations and [`KeyStore::behind`]. The other methods have defaults that are right
/// for every store, and correct for every wrapper: those that could weaken a promise go through the wrapper's own six
/// operations, and the rest is passed on to the store behind.
#[async_trait]
pub trait KeyStore: fmt::Display + Send + Sync + 'static {
    /// Stores `value` only if `name` is free; never overwrites, even when two calls race. When it
    /// returns, the value survives a power cut.
    async fn create(&self, name: &KeyName, value: &Blob) -> Result<(), Error>;

    /// The value under `name`, byte for byte as it was stored.
    async fn get(&self, name: &KeyName) -> Result<Blob, Error>;

    /// Replaces `expected` by `value`, or fails with [`Error::Failed`] when something else is
    /// stored and with [`Error::NotFound`] when nothing is; at no moment does `get(name)` answer
    /// `NotFound`, also after a crash half-way. When it returns, the value survives a power cut.
    async fn replace(&self, name: &KeyName, expected: &Blob, value: &Blob) -> Result<(), Error>;

    /// Removes the key, for good when it returns. [`Error::NotFound`] when there is none, where the
    /// store can tell.
    async fn delete(&self, name: &KeyName) -> Result<(), Error>;

    /// All names that begin with `prefix`, sorted and unique. Entries with that prefix that cannot be keys are listed
    /// apart, with the reason. Pages are made above the trait.
    async fn list(&self, prefix: &str) -> Result<Listing, Error>;

    /// Asks the store for a sign of life; returns how long the answer took.
    async fn status(&self) -> Result<Duration, Error>;

    /// The store that this one wraps; `None` for a backend. There is no default, so that no wrapper can forget it: the
    /// defaults below ask that store.
    fn behind(&self) -> Option<&dyn KeyStore>;

    /// What the store says about itself. The default knows its name only.
    fn about(&self) -> About<'_> {
        match self.behind() {
            Some(store) => store.about(),
            None => About::named(self.to_string()),
        }
    }

    /// Completes or undoes interrupted replacements, so that only keys are left. Waits, for minutes at most, until no
    /// other process can be working on them. It registers its pauses in `waits`.
    async fn settle(&self, waits: &Waits) -> Result<(), Error> {
        match self.behind() {
            Some(store) => store.settle(waits).await,
            None => Ok(()),
        }
    }

    /// Checks that the store answers and that the credentials allow `access`. The cause of an
    /// [`Error::Failed`] names the missing right, the path it is for, and what grants it.
    async fn check(&self, access: Access) -> Result<(), Error> {
        match self.behind() {
            Some(store) => store.check(access).await,
            None => self.status().await.map(drop),
        }
    }

    /// Does everything that [`KeyStore::create`] would do with `value`, and stores nothing, so that errors on the way
    /// show now.
    async fn rehearse(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        match self.behind() {
            Some(store) => store.rehearse(name, value).await,
            None => Ok(()),
        }
    }

    /// The best number of keys for one call of [`KeyStore::get_batch`] or [`KeyStore::create_batch`]; 1 where a batch
    /// is no faster than single calls.
    fn batch(&self) -> usize {
        1
    }

    /// [`KeyStore::get`] for each of these names. Returns an answer for each, in order. The default reads one at a time:
    /// the caller's batches set the concurrency.
    async fn get_batch(&self, names: &[KeyName]) -> Vec<Result<Blob, Error>> {
        let mut answers = Vec::with_capacity(names.len());
        for name in names {
            answers.push(self.get(name).await);
        }
        answers
    }

    /// [`KeyStore::create`] for each of these keys. Returns an answer for each, in order.
    async fn create_batch(&self, keys: &[(&KeyName, &Blob)]) -> Vec<Result<(), Error>> {
        let mut answers = Vec::with_capacity(keys.len());
        for (name, value) in keys {
            answers.push(self.create(name, value).await);
        }
        answers
    }
}

/// What a store will be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// List and read.
    Read,
    /// List, read and create.
    Create,
    /// List, read, create and delete, as a server does. The right to delete is checked where that is possible.
    Serve,
    /// List, read, create and replace, with all rights that replacing needs.
    Replace,
}
