//! Tests with data of the archived servers: every key file, ciphertext and HMAC in `testdata/`.

mod ciphertexts;
mod hmacs;
mod stored_keys;

use std::collections::HashMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Blob, Key, base64};

/// One key file, as `stored-keys/manifest.json` describes it.
#[derive(Deserialize)]
struct KeyFile {
    file: String,
    name: String,
    key: String,
    algorithm: Option<String>,
    hmac_key: Option<String>,
    created_at: Option<String>,
    created_by: Option<String>,
}

/// Base64 in a test vector; `null` is nothing.
#[derive(Default, Deserialize)]
#[serde(from = "Option<String>")]
struct Base64(Vec<u8>);

impl From<Option<String>> for Base64 {
    fn from(text: Option<String>) -> Self {
        Self(base64::decode(text.unwrap_or_default().as_bytes()).expect("base64").to_vec())
    }
}

fn read(path: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn read_json<T: DeserializeOwned>(path: &str) -> T {
    serde_json::from_slice(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn key_files() -> Vec<KeyFile> {
    read_json("stored-keys/manifest.json")
}

/// All keys of the manifest, decoded, by name.
fn keys() -> HashMap<String, Key> {
    let decode = |file: KeyFile| {
        let value = Blob::from(read(&format!("stored-keys/{}", file.file)));
        (file.name, Key::parse(&value).expect("a key"))
    };
    key_files().into_iter().map(decode).collect()
}

fn hex(text: &str) -> Vec<u8> {
    crate::hex::decode(text).expect("hex")
}
