//! Messages about keys and their operations. Those that hold secrets are wiped on drop and print nothing.

use prost::Message;
use serde::Serialize;

use super::{Timestamp, json};

/// A key, or a version of one, to make.
#[derive(Clone, PartialEq, Message)]
pub struct CreateKeyRequest {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// `AES256` or `ChaCha20`; empty: the server's choice.
    #[prost(string, tag = "2")]
    pub kind: String,
    /// Whether to add a version to an existing key.
    #[prost(bool, tag = "3")]
    pub add_version: bool,
}

/// Which versions of a key to delete.
#[derive(Clone, PartialEq, Message)]
pub struct DeleteKeyRequest {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its number.
    #[prost(uint32, tag = "2")]
    pub version: u32,
    /// All of them.
    #[prost(bool, tag = "3")]
    pub all_versions: bool,
}

/// One version of a key; 0 is the latest.
#[derive(Clone, PartialEq, Message)]
pub struct KeyVersionRequest {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its number.
    #[prost(uint32, tag = "2")]
    pub version: u32,
}

/// A version of a key, without its bytes.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct KeyStatus {
    /// The name.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub name: String,
    /// Its number.
    #[prost(uint32, tag = "2")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub version: u32,
    /// `AES256` or `ChaCha20`; empty: the server's choice.
    #[prost(string, tag = "3")]
    #[serde(rename = "type", skip_serializing_if = "json::is_default")]
    pub kind: String,
    /// When it was made.
    #[prost(message, optional, tag = "4")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub created_at: Option<Timestamp>,
    /// The identity that made it; empty: none.
    #[prost(string, tag = "5")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub created_by: String,
    /// Whether a listener for the KES API serves the key, and it has one version only: then a KES could still serve it as
    /// it is. An extension.
    #[prost(bool, tag = "1000")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub fits_a_kes: bool,
}

/// A page of keys, or of the versions of one.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct ListKeysResponse {
    /// Sorted.
    #[prost(message, repeated, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub keys: Vec<KeyStatus>,
    /// The name of the first element of the next page; empty: this is the last page.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub continue_at: String,
}

/// A message to encrypt.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub struct EncryptRequest {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its number.
    #[prost(uint32, tag = "2")]
    pub version: u32,
    /// The plaintext.
    #[prost(bytes = "vec", tag = "3")]
    pub plaintext: Vec<u8>,
    /// The associated data that the ciphertext is bound to.
    #[prost(bytes = "vec", tag = "4")]
    pub associated_data: Vec<u8>,
}

secret!(EncryptRequest, plaintext);

/// An encrypted message.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct EncryptResponse {
    /// Its number.
    #[prost(uint32, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub version: u32,
    /// The ciphertext.
    #[prost(bytes = "vec", tag = "2")]
    #[serde(skip_serializing_if = "json::is_default", serialize_with = "json::bytes")]
    pub ciphertext: Vec<u8>,
}

/// A message to decrypt.
#[derive(Clone, PartialEq, Message)]
pub struct DecryptRequest {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its number.
    #[prost(uint32, tag = "2")]
    pub version: u32,
    /// The ciphertext.
    #[prost(bytes = "vec", tag = "3")]
    pub ciphertext: Vec<u8>,
    /// The associated data that the ciphertext is bound to.
    #[prost(bytes = "vec", tag = "4")]
    pub associated_data: Vec<u8>,
}

/// A decrypted message.
#[derive(Clone, PartialEq, Message, Serialize)]
#[prost(skip_debug)]
pub struct DecryptResponse {
    /// The plaintext.
    #[prost(bytes = "vec", tag = "1")]
    #[serde(skip_serializing_if = "json::is_default", serialize_with = "json::bytes")]
    pub plaintext: Vec<u8>,
}

secret!(DecryptResponse, plaintext);

/// A data key to make.
#[derive(Clone, PartialEq, Message)]
pub struct GenerateKeyRequest {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its number.
    #[prost(uint32, tag = "2")]
    pub version: u32,
    /// The associated data that the ciphertext is bound to.
    #[prost(bytes = "vec", tag = "3")]
    pub associated_data: Vec<u8>,
    /// The length in bytes; 0: 32 bytes.
    #[prost(uint32, tag = "4")]
    pub length: u32,
}

/// A data key, as plaintext and encrypted.
#[derive(Clone, PartialEq, Message, Serialize)]
#[prost(skip_debug)]
pub struct GenerateKeyResponse {
    /// Its number.
    #[prost(uint32, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub version: u32,
    /// The plaintext.
    #[prost(bytes = "vec", tag = "2")]
    #[serde(skip_serializing_if = "json::is_default", serialize_with = "json::bytes")]
    pub plaintext: Vec<u8>,
    /// The ciphertext.
    #[prost(bytes = "vec", tag = "3")]
    #[serde(skip_serializing_if = "json::is_default", serialize_with = "json::bytes")]
    pub ciphertext: Vec<u8>,
}

secret!(GenerateKeyResponse, plaintext);

/// A message to sign.
#[derive(Clone, PartialEq, Message)]
pub struct MacRequest {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its number.
    #[prost(uint32, tag = "2")]
    pub version: u32,
    /// The text.
    #[prost(bytes = "vec", tag = "3")]
    pub message: Vec<u8>,
}

/// The HMAC of a message.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct MacResponse {
    /// Its number.
    #[prost(uint32, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub version: u32,
    /// 32 bytes.
    #[prost(bytes = "vec", tag = "2")]
    #[serde(skip_serializing_if = "json::is_default", serialize_with = "json::bytes")]
    pub mac: Vec<u8>,
}
