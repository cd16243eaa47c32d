//! Azure Key Vault: each key is a secret, with the stored key as its oldest version.

mod api;
mod config;
mod login;
mod rights;
mod spelling;
mod store;
mod version;

pub use self::config::{ClientSecret, Config, KeyVault, Login, ManagedIdentity};
pub use self::store::{MAX_VALUE, Store};
