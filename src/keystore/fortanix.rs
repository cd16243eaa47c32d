//! Fortanix SDKMS: each key is an opaque security object.

mod config;
mod store;

pub use self::config::{Config, Credentials, Sdkms};
pub use self::store::Store;
