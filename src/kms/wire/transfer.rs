//! Messages that move keys from one server to another. Fields from 1000 on are extensions of Claviger;
//! `docs/formats.md` states them.

use prost::Message;
use serde::Serialize;

use super::{Timestamp, json};

/// The extension for importing keys with all versions: `ImportKeyRequest::versions`.
pub const WHOLE_KEYS: &str = "claviger/whole-keys";

/// The extension for importing transit keys: `ImportKeyRequest::transit`.
pub const TRANSIT_KEYS: &str = "claviger/transit-keys";

/// The extension for exporting keys with all versions: [`ExportKeysRequest`].
pub const EXPORT: &str = "claviger/export";

/// A key to import: either `key` and maybe its type, or, by the extension, all of its versions.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub struct ImportKeyRequest {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// `AES256` or `ChaCha20`; empty: the server's choice.
    #[prost(string, tag = "2")]
    pub kind: String,
    /// The 32 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub key: Vec<u8>,
    /// All versions, in ascending order.
    #[prost(message, repeated, tag = "1000")]
    pub versions: Vec<StoredVersion>,
    /// The number of the next version; 0: the number after the last version.
    #[prost(uint32, tag = "1001")]
    pub next: u32,
    /// The transit key, by another extension; nothing else stands beside it.
    #[prost(message, optional, tag = "1002")]
    pub transit: Option<TransitKey>,
}

impl ImportKeyRequest {
    /// A key of which only the bytes are known, and maybe the type.
    pub fn bare(name: String, kind: String, key: Vec<u8>) -> Self {
        Self { name, kind, key, versions: Vec::new(), next: 0, transit: None }
    }

    /// A key with all of its versions.
    pub fn whole(name: String, versions: Vec<StoredVersion>, next: u32) -> Self {
        Self { name, kind: String::new(), key: Vec::new(), versions, next, transit: None }
    }
}

impl ImportKeyRequest {
    /// A transit key.
    pub fn transit(name: String, transit: TransitKey) -> Self {
        let (kind, key, versions) = (String::new(), Vec::new(), Vec::new());
        Self { name, kind, key, versions, next: 0, transit: Some(transit) }
    }
}

secret!(ImportKeyRequest, key);

/// A transit key with all of its versions: in order, without a gap, from the first available one on.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TransitKey {
    /// What it encrypts with, as Vault names it.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// Whether each context has a key of its own.
    #[prost(bool, tag = "2")]
    pub derived: bool,
    /// Whether clients of the Vault-compatible API may delete it.
    #[prost(bool, tag = "3")]
    pub deletion_allowed: bool,
    /// The first version that decrypts.
    #[prost(uint32, tag = "4")]
    pub min_decryption: u32,
    /// The first version that encrypts; 0: none is excluded.
    #[prost(uint32, tag = "5")]
    pub min_encryption: u32,
    /// The number of the first version; 0: 1, and none was trimmed.
    #[prost(uint32, tag = "6")]
    pub min_available: u32,
    /// The versions.
    #[prost(message, repeated, tag = "7")]
    pub versions: Vec<TransitVersion>,
}

/// A version of a transit key.
#[derive(Clone, PartialEq, Eq, Message)]
#[prost(skip_debug)]
pub struct TransitVersion {
    /// The key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// The HMAC key.
    #[prost(bytes = "vec", tag = "2")]
    pub hmac_key: Vec<u8>,
    /// When it was made.
    #[prost(message, optional, tag = "3")]
    pub created_at: Option<Timestamp>,
    /// The identity that made it; empty: not known.
    #[prost(string, tag = "4")]
    pub created_by: String,
}

secret!(TransitVersion, key, hmac_key);

/// A complete version of a key: also its HMAC key, who made it and when, and whether its type is known.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub struct StoredVersion {
    /// Its number; 0 for the only version of a key: version 1.
    #[prost(uint32, tag = "1")]
    pub number: u32,
    /// The key as a KES stores it.
    #[prost(bytes = "vec", tag = "2")]
    pub key: Vec<u8>,
    /// Whether it was imported from another system, where its type may have been different. Then both types are tried.
    #[prost(bool, tag = "3")]
    pub imported: bool,
}

secret!(StoredVersion, key);

/// The keys to export, and the recipient.
#[derive(Clone, PartialEq, Message)]
pub struct ExportKeysRequest {
    /// Their names.
    #[prost(string, repeated, tag = "1")]
    pub names: Vec<String>,
    /// The X25519 public key that they are sealed to: 32 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub recipient: Vec<u8>,
}

/// Keys that only the recipient can read.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct ExportKeysResponse {
    /// The encapsulated key that the recipient needs beside its private key: 32 bytes.
    #[prost(bytes = "vec", tag = "1")]
    #[serde(skip_serializing_if = "json::is_default", serialize_with = "json::bytes")]
    pub encapsulated: Vec<u8>,
    /// [`ExportedKeys`], sealed.
    #[prost(bytes = "vec", tag = "2")]
    #[serde(skip_serializing_if = "json::is_default", serialize_with = "json::bytes")]
    pub sealed: Vec<u8>,
}

/// Exported keys, each as the request that imports it, in the order that was asked for.
#[derive(Clone, PartialEq, Message)]
pub struct ExportedKeys {
    /// The keys.
    #[prost(message, repeated, tag = "1")]
    pub keys: Vec<ImportKeyRequest>,
}

/// An entry of the key/value engine, as it is stored.
#[derive(Clone, PartialEq, Message)]
pub struct SecretEntry {
    /// When its first version was made.
    #[prost(message, optional, tag = "1")]
    pub created_at: Option<Timestamp>,
    /// When its latest version was made.
    #[prost(message, optional, tag = "2")]
    pub updated_at: Option<Timestamp>,
    /// The number of the latest version.
    #[prost(uint32, tag = "3")]
    pub latest: u32,
    /// The last versions, in order and without a gap.
    #[prost(message, repeated, tag = "4")]
    pub versions: Vec<SecretVersion>,
}

/// A version of an entry of the key/value engine.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub struct SecretVersion {
    /// When it was made.
    #[prost(message, optional, tag = "1")]
    pub created_at: Option<Timestamp>,
    /// The identity that made it.
    #[prost(string, tag = "2")]
    pub created_by: String,
    /// When it was deleted.
    #[prost(message, optional, tag = "3")]
    pub deleted_at: Option<Timestamp>,
    /// Whether its document is gone.
    #[prost(bool, tag = "4")]
    pub is_destroyed: bool,
    /// The JSON.
    #[prost(string, tag = "5")]
    pub document: String,
}

secret!(SecretVersion, document);
