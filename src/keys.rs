//! Where the KES API has its keys from: the trait [`Keys`], and what all its implementations answer with.
//!
//! A key server has them from a key store, through a cache (`cache.rs`). A listener of the key manager has them from an
//! enclave (`kms/door.rs`).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use zeroize::Zeroizing;

use crate::auth::Identity;
use crate::crypto::{Key, NotAuthentic};
use crate::keystore;
use crate::name::{KeyName, Page, Pattern};

/// The operation that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A key was created.
    Create,
    /// A key was read.
    Read,
    /// A key was deleted.
    Delete,
    /// Keys were listed.
    List,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "failed to create key",
            Self::Read => "failed to read key",
            Self::Delete => "failed to delete key",
            Self::List => "failed to list keys",
        })
    }
}

/// What went wrong, and the operation that failed. Cheap to clone, because many callers may wait for one answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{action}")]
pub struct Error {
    /// The operation.
    pub action: Action,
    /// What went wrong.
    pub source: Arc<keystore::Error>,
}

/// Statistics of a cache, and the state of what is behind it.
#[derive(Debug, Clone, Copy)]
pub struct Stats {
    /// Keys in the cache.
    pub entries: usize,
    /// Requests served from the cache.
    pub hits: u64,
    /// Requests that had to ask the key store.
    pub misses: u64,
    /// Whether the keystore answered when it was last asked.
    pub reachable: bool,
    /// How long ago its last good answer was.
    pub last_answer: Duration,
}

/// A key that a client makes or brings.
#[derive(Debug)]
pub struct New<'a> {
    /// Its name.
    pub name: &'a KeyName,
    /// The key. It says who made it, and when.
    pub key: &'a Key,
    /// Whether the client brought it, so that others know it, too.
    pub imported: bool,
}

/// Why a ciphertext was not decrypted.
#[derive(Debug, thiserror::Error)]
pub enum NotDecrypted {
    /// No version has encrypted it.
    #[error(transparent)]
    NotAuthentic(#[from] NotAuthentic),
    /// It is not certain that all versions are known here.
    #[error(transparent)]
    Uncertain(#[from] Error),
}

/// A master key as clients use it. It may have versions: the latest encrypts, and all decrypt.
#[async_trait]
pub trait MasterKey: Send + Sync {
    /// The latest version.
    fn latest(&self) -> &Key;

    /// The version that encrypts.
    ///
    /// # Errors
    /// When none may at the moment.
    fn encrypting(&self) -> Result<&Key, Error> {
        Ok(self.latest())
    }

    /// Decrypts what any of the versions has encrypted.
    ///
    /// # Errors
    /// When none has encrypted it.
    async fn decrypt(&self, ciphertext: &[u8], context: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotDecrypted>;
}

/// A key without versions.
#[async_trait]
impl MasterKey for Key {
    fn latest(&self) -> &Key {
        self
    }

    async fn decrypt(&self, ciphertext: &[u8], context: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotDecrypted> {
        Ok(Self::decrypt(self, ciphertext, context)?)
    }
}

/// The keys that the API serves. Writes run to their end even when the caller goes away.
#[async_trait]
pub trait Keys: Send + Sync + 'static {
    /// The key with this name.
    async fn get(&self, name: &KeyName) -> Result<Arc<dyn MasterKey>, Error>;

    /// Stores a new key. It never replaces one, even when two calls race.
    async fn create(&self, new: New<'_>) -> Result<(), Error>;

    /// Deletes a key with all its versions, for the caller `by`.
    async fn delete(&self, name: &KeyName, by: Option<&Identity>) -> Result<(), Error>;

    /// A page of names.
    async fn list(&self, pattern: &Pattern) -> Result<Page<KeyName>, Error>;

    /// Checks that keys can be had; returns how long that took.
    async fn status(&self) -> Result<Duration, keystore::Error>;

    /// How the cache is doing.
    fn stats(&self) -> Stats;

    /// What the key store was asked; none: there is no key store.
    fn calls(&self) -> Option<&keystore::Calls>;

    /// The age of the key store's token in use, where there is one.
    fn token_age(&self) -> Option<Duration>;
}
