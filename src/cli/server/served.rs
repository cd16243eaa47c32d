//! The keys that a KES API serves: those of a key store, through a cache, or those of an enclave of the same process.

use std::fmt;
use std::sync::Arc;

use anyhow::{Context as _, bail};

use crate::auth::Identity;
use crate::cache;
use crate::config::Config;
use crate::crypto::{Algorithm, Key};
use crate::keys::{Keys, New};
use crate::kms::{self, Door};
use crate::name::KeyName;
use crate::{clock, keystore};

/// The keys, and what they need of the process.
#[derive(Clone)]
pub(super) enum Served {
    Store(Arc<cache::Keys>),
    Enclave(Door),
}

impl Served {
    /// Connects to what the config names, and creates the keys that it names. `kms`: the key manager of this process.
    pub(super) async fn connect(config: &Config, kms: Option<&Arc<kms::State>>) -> anyhow::Result<Self> {
        let place = || config.keystore_place("").to_string();
        let served = match (&config.keystore.store, kms) {
            (keystore::Config::Enclave(enclave), Some(kms)) => {
                let door = Door::new(kms.clone(), enclave.name.clone());
                if !door.leads_somewhere() {
                    // The other enclaves must not wait for it, and it can only be made while the key manager runs.
                    tracing::warn!("{}; until then clients of the KES API are told to try again", door.to_missing());
                    return Ok(Self::Enclave(door));
                }
                Self::Enclave(door)
            }
            (_, Some(_)) => bail!(
                "{}: a listener of a key manager serves an enclave; write 'keystore: {{ enclave: {{ name: NAME }} }}'",
                place()
            ),
            (_, None) => {
                let store = config.keystore.connect().await.with_context(place)?;
                for warning in store.about().warnings {
                    tracing::warn!(keystore = %store, "{warning}");
                }
                Self::Store(cache::Keys::new(config.cache, store, tokio::runtime::Handle::current()))
            }
        };
        served.create(&config.keys, &config.admin).await?;
        Ok(served)
    }

    /// The keys for the API.
    pub(super) fn keys(&self) -> Arc<dyn Keys> {
        match self {
            Self::Store(keys) => Arc::new(keys.clone()),
            Self::Enclave(door) => Arc::new(door.clone()),
        }
    }

    /// Creates the keys that the config names, where they are missing.
    pub(super) async fn create<'a>(
        &self,
        names: impl IntoIterator<Item = &'a KeyName>,
        admin: &Identity,
    ) -> anyhow::Result<()> {
        let keys = self.keys();
        for name in names {
            create_key(&*keys, name, admin).await.with_context(|| format!("failed to create the key '{name}'"))?;
        }
        Ok(())
    }

    /// Applies other settings to the same keys.
    pub(super) fn reconfigure(&self, config: cache::Config) {
        if let Self::Store(keys) = self {
            keys.reconfigure(config);
        }
    }

    /// Whether both are the same keys, with the same cache.
    pub(super) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Store(keys), Self::Store(others)) => Arc::ptr_eq(keys, others),
            _ => false,
        }
    }

    /// Waits until all running reads and writes are done. Those of an enclave are the key manager's business.
    pub(super) async fn finish(&self) {
        if let Self::Store(keys) = self {
            keys.finish().await;
        }
    }
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(keys) => keys.store().fmt(f),
            Self::Enclave(door) => door.fmt(f),
        }
    }
}

async fn create_key(keys: &dyn Keys, name: &KeyName, admin: &Identity) -> anyhow::Result<()> {
    let key = Key::generate(Algorithm::preferred(), clock::now(), admin.as_str())?;
    match keys.create(New { name, key: &key, imported: false }).await {
        Err(error) if !matches!(*error.source, keystore::Error::Exists) => Err(error.into()),
        created => {
            if created.is_ok() {
                tracing::info!(key = %name, "key created, as the config says");
            }
            Ok(())
        }
    }
}
