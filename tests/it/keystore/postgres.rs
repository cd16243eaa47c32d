//! PostgreSQL as key store: a real primary with a real standby.

mod doctor;
mod failover;
mod pooler;
mod rights;
mod suite;
mod trouble;

use std::sync::Arc;

use serde_json::{Value, json};

use claviger::config::Config;
use claviger::crypto::Blob;
use claviger::keystore::{self, Error, KeyStore};
use claviger::name::KeyName;
use claviger::telemetry::log::causes;

/// The rights of a server, and of `migrate --force`.
const RIGHTS: &str = "SELECT, INSERT, UPDATE, DELETE";

/// The key store that such a section of a config file makes.
async fn connect(section: &Value) -> Result<Arc<dyn KeyStore>, keystore::Error> {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("config.yml");
    // JSON is YAML.
    std::fs::write(&file, json!({ "keystore": { "postgres": section } }).to_string()).expect("the file is written");
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

/// What a failure says that will not pass.
#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, Error>) -> String {
    match answer {
        Err(error @ Error::Failed(_)) => causes(&error),
        other => panic!("a refusal, not {other:?}"),
    }
}

/// What a failure says that may pass.
#[track_caller]
fn unanswered<T: std::fmt::Debug>(answer: Result<T, Error>) -> String {
    match answer {
        Err(error @ Error::Unreachable(_)) => causes(&error),
        other => panic!("no answer, not {other:?}"),
    }
}
