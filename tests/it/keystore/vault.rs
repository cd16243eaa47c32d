//! Vault as key store: the real OpenBao, with the logins and the rights that operators have.

mod cluster;
mod doctor;
mod login;
mod migrate;
mod outage;
mod race;
mod rights;
mod session;
mod stored;
mod suite;

use std::sync::Arc;

use serde_json::{Value, json};

use claviger::config::Config;
use claviger::keystore::{self, KeyStore};

use crate::support::client::Request;
use crate::support::openbao::Admin;
use crate::support::server::dev_config;
use crate::support::{Client, Identity, Protocol, Session, TestServer};

/// Keys are asked for again at once.
const NO_CACHE: &str = "{ expiry: { any: 1ms, unused: 1ms } }";
/// Keys that were read are kept.
const CACHE: &str = "{ expiry: { any: 1h, unused: 1h } }";

const OK: (u16, &str) = (200, "");
const NO_ANSWER: (u16, &str) = (503, "failed to read key");
const REFUSED: (u16, &str) = (502, "failed to read key");

/// A place for keys in an OpenBao, and a role that has the rights to it.
struct Place {
    namespace: Option<String>,
    engine: String,
    version: u8,
    prefix: &'static str,
    /// The id and the secret.
    role: (String, String),
    /// The name of the role, and of its policy.
    policy: String,
}

/// What the policy of a role is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rights {
    /// What the documentation says that a server needs.
    Server,
    /// Replacing keys, too.
    Replace,
}

impl Place {
    /// A place in the root namespace for a server.
    fn new(bao: &Admin, version: u8) -> Self {
        Self::within(bao, None, version, Rights::Server, "", json!({}))
    }

    /// `more` is more of the role's policy, `settings` are those of the role.
    fn within(bao: &Admin, namespace: Option<&str>, version: u8, rights: Rights, more: &str, settings: Value) -> Self {
        let (engine, prefix) = (bao.kv(namespace, version), "team/keys");
        let policy = format!("{}\n{more}", policy(&engine, prefix, version, rights));
        let (role, policy) = bao.role(namespace, &policy, settings);
        Self { namespace: namespace.map(Into::into), engine, version, prefix, role, policy }
    }

    /// The section of the key store without a login.
    fn section(&self, endpoint: &str) -> Value {
        json!({
            "endpoint": endpoint,
            "engine": self.engine,
            "version": format!("v{}", self.version),
            "namespace": self.namespace.as_deref().unwrap_or_default(),
            "prefix": self.prefix,
        })
    }

    /// The section with a login by the role.
    fn by_role(&self, endpoint: &str) -> Value {
        let mut section = self.section(endpoint);
        section["approle"] = json!({ "id": self.role.0, "secret": self.role.1 });
        section
    }
}

/// The policy that gives these rights and no other.
fn policy(engine: &str, prefix: &str, version: u8, rights: Rights) -> String {
    let update = if rights == Rights::Replace { "\"update\", " } else { "" };
    match version {
        1 => format!(r#"path "{engine}/{prefix}/*" {{ capabilities = ["create", "read", {update}"delete", "list"] }}"#),
        // Replacing needs nothing more: the name is freed, and used again.
        _ => format!(
            r#"path "{engine}/data/{prefix}/*" {{ capabilities = ["create", "read"] }}
path "{engine}/metadata/{prefix}/*" {{ capabilities = ["delete", "list"] }}"#
        ),
    }
}

/// The key store that such a section of a config file makes.
async fn connect(section: &Value) -> Result<Arc<dyn KeyStore>, keystore::Error> {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("config.yml");
    // JSON is YAML.
    std::fs::write(&file, json!({ "keystore": { "vault": section } }).to_string()).expect("the file is written");
    let (config, warnings) = Config::load_keystore(&file).unwrap_or_else(|error| panic!("{error}"));
    assert!(warnings.is_empty(), "{warnings:?}");
    config.connect().await
}

/// A config with this section and this cache.
fn config(section: &Value, cache: &str) -> String {
    let store = json!({ "vault": section });
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

/// Asks until the answer is a success. Until then it is a failure that passes.
async fn recovers(session: &Session, target: &str) {
    recovers_from(session, target, &[NO_ANSWER.0]).await;
}

async fn recovers_from(session: &Session, target: &str, failures: &[u16]) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let (status, message) = super::ask(session, "GET", target).await;
        match status {
            200 => return,
            _ if failures.contains(&status) && std::time::Instant::now() < deadline => {}
            _ => panic!("{target} does not recover: {status} {message}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// Creates a key that is in the cache and one that is not.
async fn hot_and_cold(session: &Session) {
    for key in ["hot", "cold"] {
        let response = session.another().send(Request::new("PUT", &format!("/v1/key/create/{key}"))).await;
        assert_eq!(response.expect("an answer").status, 200);
    }
    expect(session, "GET", HOT, OK).await;
}

const HOT: &str = "/v1/key/describe/hot";
const COLD: &str = "/v1/key/describe/cold";
