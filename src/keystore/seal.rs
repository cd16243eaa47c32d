//! Sealing: the values in a key store are encrypted under data keys that only a provider can unwrap.
//!
//! One format for all providers (`record`), one wrapper for all stores ([`Sealed`]). `docs/sealing.md` is the guide,
//! `docs/formats.md` has the format.

mod kms;
mod local;
mod pkcs11;
mod record;
mod store;
mod transit;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;

pub use self::store::{Examined, Resealed, Sealed};

#[cfg(feature = "aws")]
use self::kms::KmsKey;
use self::local::Local;
#[cfg(feature = "pkcs11")]
use self::pkcs11::TokenKey;
use self::record::{Record, Wrapped};
use self::transit::TransitKey;
use super::{Access, Charged, Error};
use crate::crypto::{Blob, SecretKey};
use crate::name::KeyName;

/// The `keystore.encrypt:` section of the config file.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Section")]
pub struct Config {
    /// The provider that seals new values, and opens values that it has sealed.
    pub provider: ProviderConfig,
    /// Providers that only open values that they have sealed.
    pub also: Vec<ProviderConfig>,
    /// Whether unsealed values are accepted.
    pub allow_plaintext: bool,
}

/// The provider that wraps data keys.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderConfig {
    /// A local key.
    Local(local::Config),
    /// The transit engine of a Vault or an OpenBao.
    #[serde(alias = "openbao")]
    Vault(Box<transit::Config>),
    /// AWS KMS.
    Aws(kms::Config),
    /// A key of a token.
    Pkcs11(Box<pkcs11::Config>),
}

/// The section as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    local: Option<local::Config>,
    #[serde(alias = "openbao")]
    vault: Option<Box<transit::Config>>,
    aws: Option<kms::Config>,
    pkcs11: Option<Box<pkcs11::Config>>,
    #[serde(default)]
    also: Vec<ProviderConfig>,
    #[serde(default)]
    allow_plaintext: bool,
}

impl TryFrom<Section> for Config {
    type Error = &'static str;

    fn try_from(section: Section) -> Result<Self, Self::Error> {
        let providers = [
            section.local.map(ProviderConfig::Local),
            section.vault.map(ProviderConfig::Vault),
            section.aws.map(ProviderConfig::Aws),
            section.pkcs11.map(ProviderConfig::Pkcs11),
        ];
        let mut providers = providers.into_iter().flatten();
        match (providers.next(), providers.next()) {
            (Some(provider), None) => {
                Ok(Self { provider, also: section.also, allow_plaintext: section.allow_plaintext })
            }
            (None, _) => Err("has no provider; add one of the sections 'local', 'vault', 'aws', 'pkcs11'"),
            (Some(_), Some(_)) => {
                Err("has two providers; keep one, and move the other into 'also' if it must still open values")
            }
        }
    }
}

impl Config {
    /// The files that the section names, and the keys below it that name them. Files of the providers in `also` are not
    /// included.
    pub fn files(&self) -> Vec<(String, &Path)> {
        match &self.provider {
            ProviderConfig::Local(config) => {
                config.file().map(|file| ("local.file".into(), file)).into_iter().collect()
            }
            ProviderConfig::Vault(config) => config.files(),
            ProviderConfig::Aws(config) => config.tls.ca.iter().map(|ca| ("aws.tls.ca".into(), ca.as_path())).collect(),
            ProviderConfig::Pkcs11(config) => config.files(),
        }
    }

    /// The setting whose value can be used once, if a provider has one.
    pub(super) fn works_once(&self) -> Option<&'static str> {
        let of_provider = |provider: &ProviderConfig| match provider {
            ProviderConfig::Vault(config) => config.works_once(),
            ProviderConfig::Local(_) | ProviderConfig::Aws(_) | ProviderConfig::Pkcs11(_) => None,
        };
        [&self.provider].into_iter().chain(&self.also).find_map(of_provider)
    }

    /// What is dangerous about those who wrap data keys.
    pub fn warnings(&self) -> Vec<String> {
        let of_provider = |provider: &ProviderConfig| match provider {
            ProviderConfig::Local(_) | ProviderConfig::Pkcs11(_) => Vec::new(),
            ProviderConfig::Vault(config) => config.warnings(),
            ProviderConfig::Aws(config) => config.endpoint.warning().into_iter().collect(),
        };
        [&self.provider].into_iter().chain(&self.also).flat_map(of_provider).collect()
    }
}

/// Wraps data keys, and unwraps them again.
#[async_trait]
trait Provider: fmt::Display + fmt::Debug + Send + Sync {
    /// The name of this kind of provider in sealed values.
    fn kind(&self) -> &'static str;

    /// Whether the key that a value names may be this provider's.
    fn may_open(&self, key: &str) -> bool;

    /// Wraps the data key of the entry `name`.
    async fn wrap(&self, name: &KeyName, data_key: &SecretKey) -> Result<Wrapped, Error>;

    /// Unwraps the data key of the entry `name`.
    async fn unwrap(&self, name: &KeyName, wrapped: &Wrapped) -> Result<SecretKey, Error>;

    /// Checks that the provider answers.
    async fn status(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Checks that the credentials allow to unwrap and, where keys will be written, to wrap.
    async fn check(&self, access: Access) -> Result<(), Error> {
        let _ = access;
        self.status().await
    }

    /// What is dangerous about the key, as far as the provider says.
    fn warnings(&self) -> &[String] {
        &[]
    }

    /// As [`About::charges`](super::About::charges).
    fn charges(&self) -> Option<Charged> {
        None
    }

    /// The age of the token in use, where there is one.
    fn token_age(&self) -> Option<Duration> {
        None
    }
}

/// Seals and opens the values of a key store, as its config says.
#[derive(Debug)]
pub struct Seal {
    /// None: values are written unsealed.
    provider: Option<Box<dyn Provider>>,
    also: Vec<Box<dyn Provider>>,
    allow_plaintext: bool,
}

impl Seal {
    /// Connects to all providers; without a config nothing is sealed.
    ///
    /// # Errors
    /// When a provider's settings are invalid, or it refuses us.
    pub async fn connect(config: Option<&Config>) -> Result<Self, Error> {
        let Some(config) = config else {
            return Ok(Self { provider: None, also: Vec::new(), allow_plaintext: true });
        };
        let provider = Some(connect(&config.provider).await?);
        let mut also = Vec::with_capacity(config.also.len());
        for other in &config.also {
            also.push(connect(other).await?);
        }
        Ok(Self { provider, also, allow_plaintext: config.allow_plaintext })
    }

    #[cfg(test)]
    fn with(provider: impl Provider + 'static) -> Self {
        Self { provider: Some(Box::new(provider)), also: Vec::new(), allow_plaintext: false }
    }

    /// Seals `value` for storing under `name`.
    ///
    /// # Errors
    /// When the provider does not answer, or refuses.
    pub async fn seal(&self, name: &KeyName, value: &Blob) -> Result<Blob, Error> {
        let Some(provider) = &self.provider else { return Ok(value.copy()) };
        let data_key = SecretKey::random().map_err(|error| Error::Failed(error.into()))?;
        let wrapped = provider.wrap(name, &data_key).await?;
        Ok(Record::seal(provider.kind(), wrapped, name, data_key, value)?.to_blob())
    }

    /// Opens the value `stored` under `name`.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when a provider that could open it does not answer, [`Error::Failed`] when no provider
    /// can open it.
    pub async fn open(&self, name: &KeyName, stored: Blob) -> Result<Blob, Error> {
        let Some(record) = Record::parse(&stored)? else {
            return if self.allow_plaintext { Ok(stored) } else { Err(not_sealed()) };
        };
        let mut failure = None;
        for provider in self.providers().filter(|p| p.kind() == record.provider && p.may_open(&record.key)) {
            let wrapped = Wrapped { key: record.key.clone(), data_key: record.data_key.clone() };
            match provider.unwrap(name, &wrapped).await {
                Ok(data_key) => return record.open(name, data_key).ok_or_else(not_authentic),
                // Try the other providers. But `Unreachable` takes precedence: that provider may open it later.
                Err(error) if !matches!(failure, Some(Error::Unreachable(_))) => failure = Some(error),
                Err(_) => {}
            }
        }
        Err(failure.unwrap_or_else(|| self.nobody_opens(&record)))
    }

    /// Names the seal of a stored value, with the version of the provider's key where it has versions.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn label(stored: &Blob) -> Result<String, Error> {
        Ok(Record::parse(stored)?.map_or_else(|| "not sealed".into(), |record| record.label()))
    }

    /// The label of values that are sealed now, see [`Seal::label`].
    ///
    /// # Errors
    /// When the provider does not answer, or refuses.
    pub async fn newest(&self) -> Result<String, Error> {
        let name = KeyName::parse("claviger").expect("a name");
        Self::label(&self.seal(&name, &Blob::from(Vec::new())).await?)
    }

    /// Checks that the provider that seals answers.
    async fn status(&self) -> Result<(), Error> {
        match &self.provider {
            Some(provider) => provider.status().await,
            None => Ok(()),
        }
    }

    async fn check(&self, access: Access) -> Result<(), Error> {
        if let Some(provider) = &self.provider {
            provider.check(access).await?;
        }
        for provider in &self.also {
            provider.check(Access::Read).await?;
        }
        Ok(())
    }

    /// The service that charges for sealing and opening, and the number of requests.
    pub fn charges(&self) -> Option<Charged> {
        self.provider.as_ref().and_then(|provider| provider.charges())
    }

    /// What is dangerous about the keys of all providers, as far as they say.
    pub fn warnings(&self) -> Vec<String> {
        self.providers().flat_map(|provider| provider.warnings().iter().cloned()).collect()
    }

    fn token_age(&self) -> Option<Duration> {
        self.providers().filter_map(Provider::token_age).max()
    }

    fn providers(&self) -> impl Iterator<Item = &dyn Provider> {
        self.provider.iter().chain(&self.also).map(|provider| &**provider)
    }

    fn nobody_opens(&self, record: &Record) -> Error {
        let (label, section) = (record.label(), record.section());
        Error::Failed(match &self.provider {
            None => format!("the value is sealed by the {label}; add the section keystore.encrypt.{section}").into(),
            Some(_) => {
                format!("the value is sealed by the {label}, which is not among keystore.encrypt and its 'also'").into()
            }
        })
    }
}

impl fmt::Display for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.provider {
            Some(provider) => write!(f, "sealed by {provider}"),
            None => f.write_str("not sealed"),
        }
    }
}

async fn connect(config: &ProviderConfig) -> Result<Box<dyn Provider>, Error> {
    Ok(match config {
        ProviderConfig::Local(config) => Box::new(Local::open(config)?),
        ProviderConfig::Vault(config) => Box::new(TransitKey::connect(config).await?),
        #[cfg(feature = "aws")]
        ProviderConfig::Aws(config) => Box::new(KmsKey::connect(config).await?),
        #[cfg(not(feature = "aws"))]
        ProviderConfig::Aws(_) => return Err(Error::Failed(super::backends::not_built("aws").into())),
        #[cfg(feature = "pkcs11")]
        ProviderConfig::Pkcs11(config) => Box::new(TokenKey::connect(config).await?),
        #[cfg(not(feature = "pkcs11"))]
        ProviderConfig::Pkcs11(_) => {
            return Err(Error::Failed("PKCS#11 is not built into this program; it needs the feature 'pkcs11'".into()));
        }
    })
}

fn not_sealed() -> Error {
    Error::Failed(
        "the value is not sealed, although the key store has 'encrypt'; seal it with 'claviger reseal', or set \
         keystore.encrypt.allow_plaintext"
            .into(),
    )
}

fn not_authentic() -> Error {
    Error::Failed("the sealed value is not authentic: it was sealed for another name, or has been changed".into())
}
