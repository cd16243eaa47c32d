//! Several servers over one key store.

use std::net::TcpListener;

use serde_json::Value;

use crate::support::program::Program;
use crate::support::server::dev_config;
use crate::support::{Client, Identity, Protocol, TestServer, block_on, certs};

/// Servers over one directory of keys.
struct Replicas {
    servers: Vec<TestServer>,
    directory: tempfile::TempDir,
}

impl Replicas {
    fn start(count: usize) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let config = config(&directory);
        Self { servers: (0..count).map(|_| TestServer::with_config(&config)).collect(), directory }
    }

    fn addresses(&self) -> Vec<String> {
        self.servers.iter().map(|server| server.address().to_string()).collect()
    }

    /// The program as the admin of all of them.
    fn program(&self) -> Program {
        Program::named("claviger", self.directory.path())
            .env("MINIO_KES_CLIENT_KEY", certs("admin.key").display().to_string())
            .env("MINIO_KES_CLIENT_CERT", certs("admin.crt").display().to_string())
    }

    /// Which servers still make data keys with this key.
    fn who_uses(&self, key: &str) -> Vec<bool> {
        let uses = |address: &String| self.program().run(&["key", "dek", "-k", "-s", address, key]).exit == Some(0);
        self.addresses().iter().map(uses).collect()
    }

    fn status(&self, server: usize) -> Value {
        let status = self.program().run(&["status", "-k", "--server", &self.addresses()[server], "--json"]).ok();
        serde_json::from_str(&status).expect("JSON")
    }
}

fn config(keys: &tempfile::TempDir) -> String {
    let config = dev_config("");
    let own = config.find("keystore:").expect("the section");
    format!("{}keystore: {{ fs: {{ path: {:?} }} }}\n", &config[..own], keys.path().join("keys"))
}

#[test]
fn a_key_that_is_deleted_everywhere_is_used_by_nobody() {
    let replicas = Replicas::start(3);
    let addresses = replicas.addresses();
    let all = addresses.join(",");
    for key in ["plain", "everywhere"] {
        replicas.program().run(&["key", "create", "-k", "-s", &addresses[0], key]).ok();
        assert_eq!(replicas.who_uses(key), [true; 3]);
    }
    replicas.program().run(&["key", "rm", "-k", "-s", &all, "plain"]).ok();
    assert_eq!(replicas.who_uses("plain"), [false, true, true], "caches are what --everywhere is about");

    replicas.program().run(&["key", "rm", "-k", "-s", &all, "--everywhere", "everywhere"]).ok();
    assert_eq!(replicas.who_uses("everywhere"), [false; 3]);
    // Once more makes those forget it that have not: the key store is not asked to have it.
    let again = replicas.program().run(&["key", "rm", "-k", "-s", &all, "--everywhere", "plain"]);
    assert!(again.stderr.contains("key does not exist"), "{}", again.stderr);
    assert_eq!(replicas.who_uses("plain"), [false; 3]);
}

#[test]
fn who_did_not_forget_a_deleted_key_is_named() {
    let replicas = Replicas::start(2);
    let addresses = replicas.addresses();
    let nobody =
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").to_string();
    replicas.program().run(&["key", "create", "-k", "-s", &addresses[0], "gone"]).ok();
    assert_eq!(replicas.who_uses("gone"), [true; 2]);
    let servers = format!("{nobody},{}", addresses.join(","));
    let removed = replicas.program().run(&["key", "rm", "-k", "-s", &servers, "--everywhere", "gone"]);
    assert_eq!(removed.exit, Some(1));
    let stderr = &removed.stderr;
    assert!(stderr.contains("the key is deleted, but these servers have not confirmed"), "{stderr}");
    assert!(
        stderr.contains(&format!("  {nobody}: ")) && !stderr.contains(&format!("  {}: ", addresses[0])),
        "{stderr}"
    );
    assert_eq!(replicas.who_uses("gone"), [false; 2], "the others are asked all the same");

    let failed =
        replicas.program().run(&["key", "rm", "-k", "-s", &format!("{nobody},{nobody}"), "--everywhere", "gone"]);
    assert!(failed.stderr.contains("no server deleted it:"), "{}", failed.stderr);
}

#[test]
fn the_hash_of_the_settings_tells_whose_config_is_another() {
    let replicas = Replicas::start(2);
    let hash = |server| replicas.status(server)["config_hash"].as_str().expect("a hash").to_owned();
    let before = hash(0);
    assert_eq!((before.len(), hash(1)), (12, before.clone()));
    let changed = config(&replicas.directory).replace("policy:\n", "policy:\n  extra: { allow: [ /v1/ready ] }\n");
    replicas.servers[1].reload(&changed);
    assert_eq!(hash(0), before);
    assert_ne!(hash(1), before);
    replicas.servers[0].reload(&changed);
    assert_eq!(hash(0), hash(1));
    let admin = Client::new(replicas.servers[0].address(), Some(Identity::dev("admin")), Protocol::H1);
    let number = u64::from_str_radix(&hash(0), 16).expect("hex");
    let metrics = block_on(admin.get("/v1/metrics"));
    assert!(metrics.text().contains(&format!("\nclaviger_config_hash {number}\n")), "{}", metrics.text());
    let program = replicas.program().env("MINIO_KES_SERVER", replicas.addresses()[0].clone());
    let shown = program.run(&["status", "-k"]).ok();
    assert!(shown.contains(&format!("Config   {}", hash(0))), "{shown}");
}
