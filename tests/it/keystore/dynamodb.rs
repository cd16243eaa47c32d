//! DynamoDB as key store: the real moto, with the rights that operators give.

mod outage;
mod rights;
mod suite;

use std::sync::Arc;

use serde_json::{Value, json};

use claviger::config::Config;
use claviger::crypto::Blob;
use claviger::keystore::{self, KeyStore};
use claviger::name::KeyName;

/// The key store that such a section of a config file makes.
async fn connect(section: &Value) -> Result<Arc<dyn KeyStore>, keystore::Error> {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("config.yml");
    // JSON is YAML.
    std::fs::write(&file, json!({ "keystore": { "dynamodb": section } }).to_string()).expect("the file is written");
    let (config, warnings) = Config::load_keystore(&file).unwrap_or_else(|error| panic!("{error}"));
    assert!(warnings.is_empty(), "{warnings:?}");
    config.connect().await
}

fn name(text: &str) -> KeyName {
    KeyName::parse(text).expect("a name")
}

fn value(text: &str) -> Blob {
    text.as_bytes().to_vec().into()
}
