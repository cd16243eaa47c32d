//! The `static` keystore: one key that stands in the config itself. Read-only.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use serde::Deserialize;

use super::{Access, Error, KeyStore, Listing};
use crate::crypto::Blob;
use crate::name::KeyName;

/// The `keystore.static:` section of the config file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `<name>:<base64 of 32 bytes>`.
    pub key: SecretString,
}

/// A store that holds one key.
#[derive(Debug)]
pub struct Store;

impl Store {
    /// Parses the key.
    pub fn open(_: &Config) -> Result<Self, Error> {
        Err(Error::Failed("not there yet".into()))
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("static")
    }
}

#[async_trait]
impl KeyStore for Store {
    async fn create(&self, _: &KeyName, _: &Blob) -> Result<(), Error> {
        Err(Error::Failed("read-only".into()))
    }
    async fn get(&self, _: &KeyName) -> Result<Blob, Error> {
        Err(Error::NotFound)
    }
    async fn replace(&self, _: &KeyName, _: &Blob, _: &Blob) -> Result<(), Error> {
        Err(Error::Failed("read-only".into()))
    }
    async fn delete(&self, _: &KeyName) -> Result<(), Error> {
        Err(Error::Failed("read-only".into()))
    }
    async fn list(&self, _: &str) -> Result<Listing, Error> {
        Ok(Listing::default())
    }
    async fn status(&self) -> Result<Duration, Error> {
        Ok(Duration::ZERO)
    }
    async fn check(&self, access: Access) -> Result<(), Error> {
        match access {
            Access::Read => Ok(()),
            Access::Create | Access::Replace => Err(Error::Failed("the static key store is read-only".into())),
        }
    }
}
