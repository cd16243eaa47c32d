//! AWS Secrets Manager as key store: the real moto, with the rights that operators give.

mod outage;
mod rights;
mod server;
mod stored;
mod suite;

use std::sync::Arc;

use serde_json::{Value, json};

use claviger::config::Config;
use claviger::keystore::KeyStore;

use crate::support::moto::{Moto, REGION, User};

/// The section of a config file whose keys are here.
fn section(endpoint: &str, prefix: &str) -> Value {
    json!({
        "endpoint": endpoint,
        "region": REGION,
        "prefix": prefix,
        "credentials": { "accesskey": "anybody", "secretkey": "whatever" },
    })
}

/// The same for a user whose rights count.
fn section_of(user: &User, moto: &Moto, prefix: &str) -> Value {
    let mut section = section(&moto.endpoint(), prefix);
    section["credentials"] = json!({ "accesskey": user.access_key, "secretkey": user.secret_key });
    section
}

/// The key store that such a section of a config file makes.
async fn connect(section: &Value) -> Arc<dyn KeyStore> {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("config.yml");
    // JSON is YAML.
    let config = json!({ "keystore": { "aws": { "secretsmanager": section } } });
    std::fs::write(&file, config.to_string()).expect("the file is written");
    let (config, warnings) = Config::load_keystore(&file).unwrap_or_else(|error| panic!("{error}"));
    assert!(warnings.is_empty(), "{warnings:?}");
    config.connect().await.expect("moto answers")
}
