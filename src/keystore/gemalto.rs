//! Thales CipherTrust Manager, formerly Gemalto KeySecure: each key is a secret.

mod config;
mod store;

pub use self::config::{Config, Credentials, KeySecure};
pub use self::store::Store;
