//! etcd as key store: three real members.

mod doctor;
mod rights;
mod suite;
mod trouble;

use std::sync::Arc;

use serde_json::{Value, json};

use claviger::config::Config;
use claviger::keystore::{self, KeyStore};
use claviger::name::KeyName;

use crate::support::server::dev_config;
use crate::support::{Client, Identity, Protocol, Session, TestServer};

/// The key store that such a section of a config file makes.
async fn connect(section: &Value) -> Result<Arc<dyn KeyStore>, keystore::Error> {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("config.yml");
    // JSON is YAML.
    std::fs::write(&file, json!({ "keystore": { "etcd": section } }).to_string()).expect("the file is written");
    let (config, warnings) = Config::load_keystore(&file).unwrap_or_else(|error| panic!("{error}"));
    assert!(warnings.is_empty(), "{warnings:?}");
    config.connect().await
}

fn name(text: &str) -> KeyName {
    KeyName::parse(text).expect("a name")
}

/// A config with this section and this cache.
fn config(section: &Value, cache: &str) -> String {
    let store = json!({ "etcd": section });
    format!("cache: {cache}\n{}", dev_config("").replace("{ fs: { path: keys } }", &store.to_string()))
}

/// A server with this key store and this cache.
fn serve(section: &Value, cache: &str) -> TestServer {
    TestServer::start_in(tempfile::tempdir().expect("a directory"), &config(section, cache))
}

async fn session(server: &TestServer) -> Session {
    let admin = Client::new(server.address(), Some(Identity::dev("admin")), Protocol::H2);
    admin.session().await.expect("connects")
}

/// Asks for something, and compares what comes back.
async fn expect(session: &Session, method: &str, target: &str, expected: (u16, &str)) {
    let (status, message) = super::ask(session, method, target).await;
    assert_eq!((status, message.as_str()), expected, "{method} {target}");
}
