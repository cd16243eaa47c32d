//! Where keys go.

mod store;

use std::fmt;

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::material::{Material, Numbers};
use crate::crypto::Blob;
use crate::keystore::{Access, Charged, Error, Listing, Waits};
use crate::name::KeyName;

pub use self::store::Store;

/// A place that keys are copied to.
#[async_trait]
pub trait Target: fmt::Display + Send + Sync {
    /// Whether there is such a place already. Otherwise it is empty, and made only when the first key is going to be
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

    /// As [`crate::keystore::KeyStore::identity`]; none as long as there is no such place.
    async fn identity(&self) -> Result<Option<String>, Error>;

    /// Checks that it answers and allows `access`.
    async fn check(&self, access: Access) -> Result<(), Error>;

    /// All that it holds.
    async fn list(&self) -> Result<Listing, Error>;

    /// How many keys at a time had best be written or compared.
    fn batch(&self) -> usize;

    /// What of a key would be lost here.
    ///
    /// # Errors
    /// Why it cannot be here at all.
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

    /// Compares what is under these names, which are listed here; an answer for each, in their order.
    async fn compare(&self, keys: &[(&KeyName, &Material)]) -> Vec<Result<There, Error>>;

    /// Does all that writing would do, and stores nothing.
    async fn rehearse(&self, name: &KeyName, key: &Material) -> Result<(), Error>;

    /// Writes each of these, unless there is one of that name; an answer for each, in their order.
    async fn create(&self, keys: &[(&KeyName, &Material)]) -> Vec<Result<(), Error>>;

    /// Replaces what was found by `key`. At no moment is there neither.
    async fn replace(&self, name: &KeyName, found: &Other, key: &Material) -> Result<(), Error>;

    /// Whether each of these arrived as it is; an answer for each, in their order.
    async fn prove(&self, keys: &[(&KeyName, &Material)]) -> Vec<Result<bool, Error>>;

    /// How keys are proven, for people.
    fn proof(&self) -> &'static str;

    /// Who charges for what.
    fn charges(&self) -> Vec<Charged> {
        Vec::new()
    }

    /// What is dangerous about it.
    fn warnings(&self) -> &[String] {
        &[]
    }
}

/// What is under a name that the target has.
#[derive(Debug)]
pub enum There {
    /// The same key: type, bytes and HMAC key. Its owner, age and format may be others.
    Same,
    /// Another key.
    Other(Other),
    /// No key, for this reason. It quotes nothing of the value.
    NoKey(String),
}

/// Another key than the source's.
#[derive(Debug, Default)]
pub struct Other {
    /// Tells it from others, where the target shows that much.
    pub fingerprint: Option<String>,
    /// Why it must not be replaced, if so.
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
    /// Whether both are the same, as far as that can be seen.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (&self.value, &other.value) {
            (Some(ours), Some(theirs)) => ours.is_same(theirs),
            _ => true,
        }
    }
}
