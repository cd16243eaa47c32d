//! The table of all key stores.
//!
//! A new one is a folder, a row and its tests:
//!
//! 1. The folder `keystore/NAME` with `Config`, the section of the config file, and `Store`. `Store` implements
//!    [`KeyStore`], and `Config` implements [`Backend`].
//! 2. A row in the table at the foot of this file.
//! 3. Tests that run [`conformance::run`](super::conformance::run) over the store.
//!
//! Nothing else lists key stores. `CONTRIBUTING.md` names the documents that go with a new one.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;

use super::{
    Error, KeyStore, aws, azure, dynamodb, enclave, entrust, etcd, fixed, fortanix, fs, gcp, gemalto, postgres, vault,
};

/// The section of a key store in the config file.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Opens a local store, or connects to a remote one. A missing local store is made, and files that killed processes
    /// left half-written in it are removed.
    ///
    /// Only sections of stores that are not built into this program leave it out.
    async fn connect(&self) -> Result<Arc<dyn KeyStore>, Error> {
        Err(Error::Failed("this key store is not built into this program".into()))
    }

    /// Like [`Backend::connect`], but makes and removes nothing; `None` when the store does not exist.
    async fn open(&self) -> Result<Option<Arc<dyn KeyStore>>, Error> {
        self.connect().await.map(Some)
    }

    /// The setting whose value can be used once: connecting uses it up, and only the server may.
    fn works_once(&self) -> Option<&'static str> {
        None
    }

    /// The files that the section names (certificates and the like), and the keys below the section that name them.
    fn files(&self) -> Vec<(&'static str, &Path)> {
        Vec::new()
    }

    /// Settings that work and are dangerous. Once the store is open, it says the same and more.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

macro_rules! backends {
    ($($(#[$doc:meta])+ $variant:ident($config:ty): $name:literal $(or $alias:literal)*, built: $built:expr;)+) => {
        /// The store in the `keystore:` section of the config file.
        #[derive(Debug, Deserialize)]
        pub enum Config {
            $($(#[$doc])+ #[serde(rename = $name $(, alias = $alias)*)] $variant($config),)+
        }

        impl Config {
            /// The section's name below `keystore:`.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => $name,)+ }
            }

            fn backend(&self) -> &dyn Backend {
                match self { $(Self::$variant(config) => config,)+ }
            }
        }

        /// The names of all key stores, and which are built into this program.
        const ALL: &[(&str, bool)] = &[$(($name, $built)),+];
    };
}

impl Config {
    /// As [`Backend::connect`].
    ///
    /// # Errors
    /// What is wrong with the store.
    pub async fn connect(&self) -> Result<Arc<dyn KeyStore>, Error> {
        self.check_built()?;
        self.backend().connect().await
    }

    /// As [`Backend::open`].
    ///
    /// # Errors
    /// What is wrong with the store.
    pub async fn open(&self) -> Result<Option<Arc<dyn KeyStore>>, Error> {
        self.check_built()?;
        match self.backend().works_once() {
            Some(setting) => Err(works_once(setting)),
            None => self.backend().open().await,
        }
    }

    /// As [`Backend::files`].
    pub fn files(&self) -> Vec<(&'static str, &Path)> {
        self.backend().files()
    }

    /// As [`Backend::warnings`].
    pub fn warnings(&self) -> Vec<String> {
        self.backend().warnings()
    }

    /// Why the store cannot be used by this program; none: it can.
    pub fn not_built(&self) -> Option<String> {
        let is_built = built().any(|name| name == self.name());
        (!is_built).then(|| not_built(self.name()))
    }

    fn check_built(&self) -> Result<(), Error> {
        self.not_built().map_or(Ok(()), |message| Err(Error::Failed(message.into())))
    }
}

/// The error of a program that must leave a setting to the server.
pub(super) fn works_once(setting: &str) -> Error {
    let advice = "it can be used once, and the server needs it; use a copy of the config with another login";
    Error::Failed(format!("'{setting}' is not used here: {advice}").into())
}

fn built() -> impl Iterator<Item = &'static str> {
    ALL.iter().filter(|(_, is_built)| *is_built).map(|(name, _)| *name)
}

/// The error text for a backend that is not built in. It names those that are.
pub(super) fn not_built(name: &str) -> String {
    let built: Vec<_> = built().collect();
    format!("the key store '{name}' is not built into this program; it has {}", built.join(", "))
}

backends! {
    /// A directory.
    Fs(fs::Config): "fs", built: true;
    /// One key that is written in the config itself.
    Static(fixed::Config): "static", built: true;
    /// HashiCorp Vault or OpenBao.
    Vault(vault::Config): "vault" or "openbao", built: true;
    /// Fortanix SDKMS.
    Fortanix(fortanix::Config): "fortanix", built: true;
    /// AWS Secrets Manager.
    Aws(aws::Config): "aws", built: cfg!(feature = "aws");
    /// Gemalto KeySecure, now Thales CipherTrust.
    Gemalto(gemalto::Config): "gemalto", built: true;
    /// Google Secret Manager.
    Gcp(gcp::Config): "gcp", built: true;
    /// Azure Key Vault.
    Azure(azure::Config): "azure", built: true;
    /// Entrust KeyControl.
    Entrust(entrust::Config): "entrust", built: true;
    /// etcd.
    Etcd(etcd::Config): "etcd", built: true;
    /// PostgreSQL.
    Postgres(postgres::Config): "postgres", built: true;
    /// Amazon DynamoDB.
    DynamoDb(dynamodb::Config): "dynamodb", built: cfg!(feature = "aws");
    /// An enclave of the key manager that is the same process: no store at all, and the key manager looks for it first.
    Enclave(enclave::Config): "enclave", built: true;
}
