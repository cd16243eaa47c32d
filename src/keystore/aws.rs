//! AWS Secrets Manager: each key is a secret, with the stored key as its `SecretString`.

#[cfg(feature = "aws")]
pub(in crate::keystore) mod client;
pub(in crate::keystore) mod config;
#[cfg(feature = "aws")]
pub(in crate::keystore) mod error;
#[cfg(feature = "aws")]
pub(in crate::keystore) mod http;
#[cfg(feature = "aws")]
mod keystore;
#[cfg(feature = "aws")]
mod policy;
#[cfg(feature = "aws")]
mod rights;
#[cfg(feature = "aws")]
mod store;

pub use self::config::{Config, Credentials, Endpoint, SecretsManager};
#[cfg(feature = "aws")]
pub use self::store::Store;
