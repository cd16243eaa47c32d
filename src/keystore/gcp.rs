//! Google Secret Manager: each key is a secret, with the stored key as its first version.

mod api;
mod config;
mod login;
mod rights;
mod store;

pub use self::config::{Config, Credentials, SecretManager};
pub use self::store::Store;
