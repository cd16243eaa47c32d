//! Entrust KeyControl: each key is a secret in a box.

mod config;
mod store;

pub use self::config::{Config, Credentials, KeyControl};
pub use self::store::Store;
