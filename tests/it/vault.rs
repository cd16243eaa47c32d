//! The Vault-compatible API of the key manager, and the formats that it shares with Vault and OpenBao.

mod clients;
mod credentials;
pub mod door;
mod formats;
mod kv;
mod oracle;
mod sessions;
