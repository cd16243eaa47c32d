//! Where keys go.

mod store;

use std::fmt;

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::material::{Material, Numbers};
use crate::crypto::Blob;
use crate::keystore::{Access, Charged, Error, Listing, Names, Waits};
use crate::name::KeyName;

pub use self::store::Store;

/// A place that keys are copied to.
#[async_trait]
pub trait Target: fmt::Display + Send + Sync {
    /// Whether the place exists. A place that does not exist counts as empty, and is made just before the first key is
    /// written.
    fn exists(&self) -> bool {
        true
    }

    /// Makes the place if it does not exist.
    async fn prepare(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// As [`crate::keystore::KeyStore::settle`].
    async fn settle(&self, waits: &Waits) -> Result<(), Error> {
        let _ = waits;
        Ok(())
    }

    /// As [`crate::keystore::About::identity`]; none while the place does not exist.
    async fn identity(&self) -> Result<Option<String>, Error>;

    /// Checks that it answers and allows `access`.
    async fn check(&self, access: Access) -> Result<(), Error>;

    /// Everything that it holds.
    async fn list(&self) -> Result<Listing, Error>;

    /// The best number of keys for one call that writes or compares.
    fn batch(&self) -> usize;

    /// What the target cannot take of a key.
    ///
    /// # Errors
    /// Why the target cannot take the key at all.
    fn losses(&self, key: &Material) -> Result<Vec<String>, String> {
        match key.versions.as_slice() {
            [_] => Ok(Vec::new()),
            versions => {
                let numbers: Vec<_> = versions.iter().map(|version| version.number).collect();
                let numbers = Numbers(&numbers);
                Err(format!("it has {numbers}, and the target takes one of a key: move one with --only-version"))
            }
        }
    }

    /// Which names it can have.
    fn names(&self) -> Names {
        Names::ALL
    }

    /// Compares the target's keys of these names with the given ones. The target has listed all of them. Returns an
    /// answer for each, in order.
    async fn compare(&self, keys: &[(&KeyName, &Material)]) -> Vec<Result<There, Error>>;

    /// Does everything that writing would do, and stores nothing.
    async fn rehearse(&self, name: &KeyName, key: &Material) -> Result<(), Error>;

    /// Creates each of these keys, and never overwrites one. Returns an answer for each, in order.
    async fn create(&self, keys: &[(&KeyName, &Material)]) -> Vec<Result<(), Error>>;

    /// Replaces the key that was found by `key`. At every moment the name has one of the two.
    async fn replace(&self, name: &KeyName, found: &Other, key: &Material) -> Result<(), Error>;

    /// Checks that the target has each of these keys, unchanged. Returns an answer for each, in order.
    async fn prove(&self, keys: &[(&KeyName, &Material)]) -> Vec<Result<bool, Error>>;

    /// How keys are proven, for people.
    fn proof(&self) -> &'static str;

    /// What providers charge for.
    fn charges(&self) -> Vec<Charged> {
        Vec::new()
    }

    /// Dangerous settings that the operator must be told about.
    fn warnings(&self) -> &[String] {
        &[]
    }
}

/// What the target has under a name.
#[derive(Debug)]
pub enum There {
    /// The same key: type, bytes and HMAC key. Its owner, age and format may be others.
    Same,
    /// Another key.
    Other(Other),
    /// Not a key, for this reason. It contains nothing of the value.
    NoKey(String),
}

/// Another key than the source's.
#[derive(Debug, Default)]
pub struct Other {
    /// Its fingerprint, where the target gives enough to compute one.
    pub fingerprint: Option<String>,
    /// Why it must not be replaced; none: it may be.
    pub keep: Option<String>,
    /// The value, where the target gives it back.
    pub(super) value: Option<Blob>,
    /// What tells whether it is still this key, where the target does not.
    pub(super) witness: Option<Witness>,
}

/// Something that a key encrypted, and that no other key decrypts.
pub(super) struct Witness {
    pub(super) ciphertext: Vec<u8>,
    pub(super) plaintext: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Witness(…)")
    }
}

impl Other {
    /// Whether both are the same, as far as the target shows.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (&self.value, &other.value) {
            (Some(ours), Some(theirs)) => ours.is_same(theirs),
            _ => true,
        }
    }
}
