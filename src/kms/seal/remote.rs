//! Providers that can seal key stores, too: a local key, a transit engine, AWS KMS.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::crypto::{Blob, SecretKey};
use crate::keystore::Error;
use crate::keystore::seal::{Config, Seal};
use crate::name::KeyName;

/// How long a provider may take. Changes of the state wait meanwhile, reads do not.
const PATIENCE: Duration = Duration::from_secs(20);

/// The name that root keys are sealed for, in the format of sealed values.
const NAME: &str = "claviger-kms-root-key";

/// A provider, and the runtime in which its connections live.
pub struct Remote {
    seal: Seal,
    runtime: Handle,
}

impl Remote {
    /// Connects to the provider of `config`, in the runtime that this is called in.
    ///
    /// # Errors
    /// When its settings are of no use, or it refuses us.
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        Ok(Self { seal: Seal::connect(Some(config)).await?, runtime: Handle::current() })
    }

    /// Has the root key sealed. Waits, so it must not be called by a task.
    ///
    /// # Errors
    /// When the provider does not answer, or refuses.
    pub(super) fn seal(&self, root: &SecretKey) -> Result<Vec<u8>, Error> {
        let root = Blob::from(root.expose().to_vec());
        Ok(self.wait(self.seal.seal(&name(), &root))?.expose().to_vec())
    }

    /// Has a root key unsealed. Waits, so it must not be called by a task.
    ///
    /// # Errors
    /// When the provider does not answer, refuses, or has not sealed it.
    pub(super) fn unseal(&self, sealed: &[u8]) -> Result<SecretKey, Error> {
        let root = self.wait(self.seal.open(&name(), Blob::from(sealed.to_vec())))?;
        SecretKey::from_slice(root.expose()).ok_or_else(|| Error::Failed("it is no root key".into()))
    }

    fn wait<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let late = |_| Err(Error::Unreachable(format!("no answer within {PATIENCE:?}").into()));
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, call).await.unwrap_or_else(late) })
    }
}

fn name() -> KeyName {
    KeyName::parse(NAME).expect("a name")
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.seal.fmt(f)
    }
}
