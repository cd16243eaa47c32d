//! Sealing with a transit key of a Vault or an OpenBao.

use std::fmt;
use std::path::Path;

use async_trait::async_trait;
use secrecy::ExposeSecret as _;
use serde::Deserialize;

use super::{Provider, Wrapped};
use crate::crypto::{Blob, SecretKey};
use crate::keystore::{Access, Error, vault};
use crate::name::KeyName;

/// The `keystore.encrypt.vault:` section: where the Vault is and how to log in, as for a key store, and the transit key.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct Config(vault::TransitOnly);

impl Config {
    pub(super) fn warnings(&self) -> Vec<String> {
        self.0.warnings()
    }

    pub(super) fn works_once(&self) -> Option<&'static str> {
        self.0.works_once()
    }

    pub(super) fn files(&self) -> Vec<(String, &Path)> {
        self.0.files().into_iter().map(|(key, file)| (format!("vault.{key}"), file)).collect()
    }
}

/// A transit key.
#[derive(Debug)]
pub(super) struct TransitKey {
    transit: vault::Transit,
    key: String,
}

impl TransitKey {
    pub(super) async fn connect(Config(config): &Config) -> Result<Self, Error> {
        let transit = vault::Transit::connect(config).await?;
        let key = transit.path();
        Ok(Self { transit, key })
    }
}

impl fmt::Display for TransitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transit key {}", self.key)
    }
}

#[async_trait]
impl Provider for TransitKey {
    fn kind(&self) -> &'static str {
        "transit"
    }

    fn may_open(&self, key: &str) -> bool {
        key == self.key
    }

    async fn wrap(&self, _: &KeyName, data_key: &SecretKey) -> Result<Wrapped, Error> {
        let wrapped = self.transit.wrap(&Blob::from(data_key.expose().to_vec())).await?;
        Ok(Wrapped { key: self.key.clone(), data_key: wrapped.expose_secret().to_owned() })
    }

    async fn unwrap(&self, _: &KeyName, wrapped: &Wrapped) -> Result<SecretKey, Error> {
        let data_key = self.transit.unwrap(&Blob::from(wrapped.data_key.clone().into_bytes())).await?;
        SecretKey::from_slice(data_key.expose()).ok_or_else(super::not_authentic)
    }

    async fn status(&self) -> Result<(), Error> {
        self.transit.status().await
    }

    async fn check(&self, access: Access) -> Result<(), Error> {
        self.transit.check(access).await
    }

    fn token_age(&self) -> Option<std::time::Duration> {
        self.transit.token_age()
    }
}
