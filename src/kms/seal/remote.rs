//! Providers that can seal key stores, too: a local key, a transit engine, AWS KMS.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::crypto::{Blob, SecretKey};
use crate::keystore::Error;
use crate::keystore::seal::{Config, Seal};
use crate::name::KeyName;

/// How long a provider may take to answer. Writes wait during that time; reads do not.
const PATIENCE: Duration = Duration::from_secs(20);

/// The name that sealed root keys are bound to, in the format of sealed values.
const NAME: &str = "claviger-kms-root-key";

/// A provider, and the runtime that its connections run on.
pub struct Remote {
    seal: Seal,
    runtime: Handle,
}

impl Remote {
    /// Connects to the provider of `config`, on the current runtime.
    ///
    /// # Errors
    /// When the settings are invalid, or the provider refuses us.
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        Ok(Self { seal: Seal::connect(Some(config)).await?, runtime: Handle::current() })
    }

    /// Has the provider seal the root key. It blocks, so async tasks must not call it.
    ///
    /// # Errors
    /// When the provider does not answer, or refuses.
    pub(super) fn seal(&self, root: &SecretKey) -> Result<Vec<u8>, Error> {
        let root = Blob::from(root.expose().to_vec());
        Ok(self.wait(self.seal.seal(&name(), &root))?.expose().to_vec())
    }

    /// Has the provider unseal a root key. It blocks, so async tasks must not call it.
    ///
    /// # Errors
    /// When the provider does not answer or refuses, or another one sealed the key.
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
