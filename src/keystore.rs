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
//! [`Section::connect`] puts a store and its seal together; [`Config`] is the list of backends.

pub mod aws;
pub mod azure;
pub mod conformance;
pub mod enclave;
pub mod entrust;
pub mod fixed;
pub mod fortanix;
pub mod fs;
pub mod gcp;
pub mod gemalto;
mod kept;
pub mod kms;
mod measured;
pub mod mem;
mod retry;
pub mod seal;
pub mod vault;

use std::error::Error as StdError;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use time::OffsetDateTime;

use crate::crypto::Blob;
use crate::name::{KeyName, is_reserved};

pub use self::kept::Kept;
pub use self::measured::{Calls, Measured};
pub use self::retry::{Retry, Wait, Waits, patiently};
pub use self::seal::{Seal, Sealed};

/// The `keystore:` section of the config file: one variant a backend. The only list of backends in the
/// program.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Config {
    /// A directory.
    Fs(fs::Config),
    /// One key that is written in the config itself.
    Static(fixed::Config),
    /// HashiCorp Vault or OpenBao.
    #[serde(alias = "openbao")]
    Vault(vault::Config),
    /// Fortanix SDKMS.
    Fortanix(fortanix::Config),
    /// AWS Secrets Manager.
    Aws(aws::Config),
    /// Gemalto KeySecure, now Thales CipherTrust.
    Gemalto(gemalto::Config),
    /// Google Secret Manager.
    Gcp(gcp::Config),
    /// Azure Key Vault.
    Azure(azure::Config),
    /// Entrust KeyControl.
    Entrust(entrust::Config),
    /// An enclave of a key manager: only for migrations, never the store of a server.
    Kms(kms::Config),
    /// An enclave of the key manager that is the same process: no store at all.
    Enclave(enclave::Config),
}

/// The `keystore:` section of the config file.
#[derive(Debug)]
pub struct Section {
    /// The store.
    pub store: Config,
    /// The seal of its keys; none: they are not sealed.
    pub encrypt: Option<seal::Config>,
}

impl Section {
    /// [`connect`]s to the store and its seal.
    ///
    /// # Errors
    /// What is wrong with the store or the seal.
    pub async fn connect(&self) -> Result<Arc<dyn KeyStore>, Error> {
        self.seal(connect(&self.store).await?).await
    }

    /// [`open`]s the store and connects to its seal.
    ///
    /// # Errors
    /// What is wrong with the store or the seal.
    pub async fn open(&self) -> Result<Option<Arc<dyn KeyStore>>, Error> {
        match open(&self.store).await? {
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
        self.store_warnings().into_iter().chain(seal).collect()
    }

    /// [`Section::warnings`] about the store alone. Once it is open, it says the same and more.
    pub fn store_warnings(&self) -> Vec<String> {
        match &self.store {
            Config::Vault(config) => config.warnings(),
            Config::Aws(config) => config.secretsmanager.endpoint.warning().into_iter().collect(),
            _ => Vec::new(),
        }
    }

    async fn seal(&self, store: Arc<dyn KeyStore>) -> Result<Arc<dyn KeyStore>, Error> {
        Ok(Arc::new(Sealed::new(store, Seal::connect(self.encrypt.as_ref()).await?)))
    }
}

/// The backends that are built into this program.
pub const BUILT: &[&str] = &[
    "fs",
    "static",
    "vault",
    #[cfg(feature = "aws")]
    "aws",
];

impl Config {
    /// The section's name below `keystore:`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Fs(_) => "fs",
            Self::Static(_) => "static",
            Self::Vault(_) => "vault",
            Self::Fortanix(_) => "fortanix",
            Self::Aws(_) => "aws",
            Self::Gemalto(_) => "gemalto",
            Self::Gcp(_) => "gcp",
            Self::Azure(_) => "azure",
            Self::Entrust(_) => "entrust",
            Self::Kms(_) => "kms",
            Self::Enclave(_) => "enclave",
        }
    }

    /// The files that the section names (certificates and the like), and the keys below the section that name them.
    pub fn files(&self) -> Vec<(&'static str, &Path)> {
        match self {
            Self::Vault(config) => config.files(),
            Self::Fortanix(config) => config.files(),
            Self::Gemalto(config) => config.files(),
            Self::Entrust(config) => config.files(),
            Self::Kms(config) => config.files(),
            Self::Aws(config) => config.files(),
            Self::Fs(_) | Self::Static(_) | Self::Gcp(_) | Self::Azure(_) | Self::Enclave(_) => Vec::new(),
        }
    }
}

/// Opens a local store, or connects to a remote one. A missing local store is made, and files that killed processes
/// left half-written in it are removed.
pub async fn connect(config: &Config) -> Result<Arc<dyn KeyStore>, Error> {
    Ok(match config {
        Config::Fs(config) => Arc::new(fs::Store::open(config).await?),
        Config::Static(config) => Arc::new(fixed::Store::open(config)?),
        // A replaced key must be the first version again: no other is read.
        Config::Vault(config) if config.version == vault::Version::V2 => {
            Arc::new(Kept::new(vault::Store::connect(config).await?))
        }
        Config::Vault(config) => Arc::new(vault::Store::connect(config).await?),
        #[cfg(feature = "aws")]
        Config::Aws(config) => Arc::new(aws::Store::connect(config).await?),
        Config::Kms(_) => return Err(Error::Failed(kms::NO_STORE.into())),
        Config::Enclave(_) => return Err(Error::Failed(enclave::NO_KEY_MANAGER.into())),
        other => return Err(Error::Failed(not_built(other.name()).into())),
    })
}

/// Like [`connect`], but makes and removes nothing; `None` when the store does not exist.
pub async fn open(config: &Config) -> Result<Option<Arc<dyn KeyStore>>, Error> {
    Ok(match config {
        Config::Fs(config) => fs::Store::open_existing(config).await?.map(|store| Arc::new(store) as _),
        remote => Some(connect(remote).await?),
    })
}

/// The error text for a backend that is not built in. It names those that are.
pub fn not_built(name: &str) -> String {
    format!("the key store '{name}' is not built into this program; it has {}", BUILT.join(", "))
}

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

    /// Completes or undoes interrupted replacements, so that only keys are left. Waits, for minutes at most, until no
    /// other process can be working on them. It registers its pauses in `waits`.
    async fn settle(&self, waits: &Waits) -> Result<(), Error> {
        let _ = waits;
        Ok(())
    }

    /// Removes the key, for good when it returns. [`Error::NotFound`] when there is none, where the
    /// store can tell.
    async fn delete(&self, name: &KeyName) -> Result<(), Error>;

    /// All names that begin with `prefix`, sorted and unique. Entries with that prefix that cannot be keys are listed
    /// apart, with the reason. Pages are made above the trait.
    async fn list(&self, prefix: &str) -> Result<Listing, Error>;

    /// Asks the store for a sign of life; returns how long the answer took.
    async fn status(&self) -> Result<Duration, Error>;

    /// Checks that the store answers and that the credentials allow `access`. The cause of an
    /// [`Error::Failed`] names the missing right, the path it is for, and what grants it.
    async fn check(&self, access: Access) -> Result<(), Error> {
        let _ = access;
        self.status().await.map(drop)
    }

    /// Does everything that [`KeyStore::create`] would do with `value`, and stores nothing, so that errors on the way
    /// show now.
    async fn rehearse(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        let _ = (name, value);
        Ok(())
    }

    /// The best number of keys for one call of [`KeyStore::get_batch`] or [`KeyStore::create_batch`]; 1 where a batch
    /// is no faster than single calls.
    fn batch(&self) -> usize {
        1
    }

    /// [`KeyStore::get`] for each of these names. Returns an answer for each, in order.
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

    /// The services that charge for requests to the store, and how many requests each operation takes.
    fn charges(&self) -> Vec<Charged> {
        Vec::new()
    }

    /// The identity of this store: the same text for the same place, however it is reached. Reports show it; it holds
    /// no secret.
    async fn identity(&self) -> Result<String, Error> {
        Ok(self.to_string())
    }

    /// The age of the token in use, where there is one.
    fn token_age(&self) -> Option<Duration> {
        None
    }

    /// The time of the store's clock, where it tells. To the second at best.
    async fn clock(&self) -> Result<Option<OffsetDateTime>, Error> {
        Ok(None)
    }

    /// Settings that work but are dangerous. The operator must be told.
    fn warnings(&self) -> &[String] {
        &[]
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

/// A service that charges for every request, and the number of requests that operations take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charged {
    /// The service.
    pub by: &'static str,
    /// Requests for a key that is created.
    pub create: usize,
    /// Requests for a key that is read.
    pub get: usize,
    /// Requests for a key that is replaced.
    pub replace: usize,
    /// The most keys that one request lists; none: it takes no part in listings.
    pub page: Option<usize>,
    /// Whether it also charges for every stored key.
    pub keeps: bool,
}

/// What a keystore holds.
#[derive(Debug, Default)]
pub struct Listing {
    /// The names of the keys, sorted and unique.
    pub names: Vec<KeyName>,
    /// Entries that cannot be keys. Names that begin with a dot are left out.
    pub foreign: Vec<Foreign>,
}

impl Listing {
    /// Adds an entry: as a key, or as foreign when its name is not the name of a key.
    pub fn insert(&mut self, name: &str) {
        match KeyName::parse(name) {
            Ok(name) => self.names.push(name),
            Err(_) if is_reserved(name) => self.refuse(name, "a value that a replacement of a key keeps"),
            Err(_) => self.refuse(name, "not the name of a key"),
        }
    }

    /// Adds an entry that cannot be a key, unless its name begins with a dot.
    pub fn refuse(&mut self, name: &str, reason: &'static str) {
        if !name.starts_with('.') {
            self.foreign.push(Foreign { name: name.into(), reason });
        }
    }

    /// The listing with its entries in order, each once.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.names.sort_unstable();
        self.names.dedup();
        self.foreign.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        self.foreign.dedup();
        self
    }
}

/// An entry of a keystore that cannot be a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// The entry's name as the store gives it.
    pub name: String,
    /// Why it is not a key, such as "a directory".
    pub reason: &'static str,
}
