//! Sealed key stores: every store with every provider passes the one suite, against the real servers.

use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::{Value, json};

use claviger::config::Config;
use claviger::keystore::{self, KeyStore, Seal, Sealed, conformance, mem};
use claviger::name::KeyName;
use claviger::telemetry::log::causes;

use super::places::{Kind, Peers, Place};
use crate::support::client::Request;
use crate::support::gate::Gate;
use crate::support::moto::{Moto, REGION};
use crate::support::openbao::{OpenBao, unique};
use crate::support::server::dev_config;
use crate::support::{Client, Identity, Protocol, TestServer, block_on};

/// The servers, and a directory.
struct Places {
    peers: Peers,
    directory: tempfile::TempDir,
}

impl Places {
    fn new() -> Self {
        Self { peers: Peers::shared(), directory: tempfile::tempdir().expect("a directory") }
    }

    /// Every kind of provider.
    fn providers(&self) -> [Value; 3] {
        [local(), self.transit(), self.kms()]
    }

    fn transit(&self) -> Value {
        let engine = unique("transit");
        self.peers.bao.ask("POST", &format!("sys/mounts/{engine}"), json!({ "type": "transit" }));
        self.peers.bao.ask("POST", &format!("{engine}/keys/seal"), Value::Null);
        json!({ "openbao": {
            "endpoint": self.peers.bao.endpoint(), "engine": engine, "key": "seal", "token": { "value": self.peers.bao.token },
        } })
    }

    fn kms(&self) -> Value {
        json!({ "aws": {
            "endpoint": self.peers.moto.endpoint(), "region": REGION, "key": self.peers.moto.kms_key(),
            "credentials": { "accesskey": "anybody", "secretkey": "whatever" },
        } })
    }

    /// A store, sealed or not.
    async fn connect(&self, store: &Value, encrypt: Option<&Value>) -> Result<Arc<dyn KeyStore>, keystore::Error> {
        self.section(store, encrypt).connect().await
    }

    fn section(&self, store: &Value, encrypt: Option<&Value>) -> keystore::Section {
        let mut section = store.clone();
        if let Some(encrypt) = encrypt {
            section["encrypt"] = encrypt.clone();
        }
        let file = self.directory.path().join(unique("config"));
        // JSON is YAML.
        std::fs::write(&file, json!({ "keystore": section }).to_string()).expect("the file is written");
        let (section, warnings) = Config::load_keystore(&file).unwrap_or_else(|error| panic!("{error}"));
        assert!(warnings.is_empty(), "{warnings:?}");
        section
    }
}

fn local() -> Value {
    json!({ "local": { "key": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=" } })
}

fn name(text: &str) -> KeyName {
    KeyName::parse(text).expect("a name")
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn every_store_passes_the_suite_with_every_provider() {
    let places = Places::new();
    let fs = json!({ "fs": { "path": places.directory.path().join("keys") } });
    let encrypted = places.providers().map(|provider| places.section(&fs, Some(&provider)).encrypt);
    // Nothing can be replaced in version 1 of the engine without the right to overwrite.
    let kinds = || Kind::all().into_iter().filter(|kind| !matches!(kind, Kind::Vault(1)));
    let sealed = encrypted.iter().flat_map(|encrypt| kinds().map(move |kind| (kind, encrypt.as_ref())));
    let sealed: Vec<_> = sealed.map(|(kind, encrypt)| (Place::new(kind, &places.peers), encrypt)).collect();
    block_on(async {
        for encrypt in &encrypted {
            let seal = Seal::connect(encrypt.as_ref()).await.expect("connects");
            conformance::run(&Sealed::new(Arc::new(mem::Store::default()), seal)).await;
        }
        // Beside each other: some have to wait.
        join_all(sealed.iter().map(async |(place, encrypt)| {
            let seal = Seal::connect(*encrypt).await.expect("connects");
            let longest = match place.kind {
                // What is sealed is longer.
                Kind::Vendor(vendor) => vendor.longest * 2 / 3,
                _ => conformance::LONGEST,
            };
            conformance::run_up_to(&Sealed::new(place.connect().await, seal), longest).await;
        }))
        .await;
    });
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn nothing_that_lies_in_the_store_is_the_key() {
    let places = Places::new();
    block_on(async {
        for provider in places.providers() {
            let store = json!({ "fs": { "path": places.directory.path().join(unique("keys")) } });
            let sealed = places.connect(&store, Some(&provider)).await.expect("connects");
            let value = br#"{"bytes":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}"#.to_vec();
            sealed.create(&name("one"), &value.clone().into()).await.expect("created");
            assert!(sealed.get(&name("one")).await.expect("there").is_same(&value.into()));

            let keys = store["fs"]["path"].as_str().expect("a path");
            let stored = std::fs::read_to_string(format!("{keys}/one")).expect("a file");
            assert!(stored.starts_with(r#"{"claviger_sealed":{"version":1,"#), "{stored}");
            for secret in ["AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8", "0001020304050607", "bytes"] {
                assert!(!stored.contains(secret), "{stored}");
            }
            // Under another name it is nobody's.
            std::fs::copy(format!("{keys}/one"), format!("{keys}/two")).expect("copied");
            let error = sealed.get(&name("two")).await.expect_err("moved");
            assert!(matches!(error, keystore::Error::Failed(_)), "{error:?}");
            assert!(causes(&error).contains("sealed for another name"), "{}", causes(&error));
            // And without the section the message says which one is missing.
            let unsealed = places.connect(&store, None).await.expect("connects");
            let section = provider.as_object().expect("a section").keys().next().expect("a provider");
            let section = section.replace("openbao", "vault");
            let error = causes(&unsealed.get(&name("one")).await.expect_err("sealed"));
            assert!(error.contains(&format!("add the section keystore.encrypt.{section}")), "{error}");
        }
    });
}

#[test]
#[ignore = "runs moto: tests/run"]
fn an_outage_of_the_provider_is_one_of_the_store() {
    let moto = Moto::start();
    let places = Places::new();
    let store = json!({ "fs": { "path": places.directory.path().join("keys") } });
    let bao = OpenBao::start();
    bao.ask("POST", "sys/mounts/transit", json!({ "type": "transit" }));
    bao.ask("POST", "transit/keys/seal", Value::Null);
    let transit = json!({ "vault": { "endpoint": bao.endpoint(), "key": "seal", "token": { "value": bao.token } } });
    let mut kms = places.kms();
    kms["aws"]["endpoint"] = moto.endpoint().into();
    kms["aws"]["key"] = moto.kms_key().into();
    block_on(async {
        let by_transit = places.connect(&store, Some(&transit)).await.expect("connects");
        let by_kms = places.connect(&store, Some(&kms)).await.expect("connects");
        by_transit.create(&name("transit"), &b"value".to_vec().into()).await.expect("created");
        by_kms.create(&name("kms"), &b"value".to_vec().into()).await.expect("created");
        drop((bao, moto));
        for (sealed, key) in [(by_transit, "transit"), (by_kms, "kms")] {
            let error = sealed.get(&name(key)).await.expect_err("nobody opens it");
            assert!(matches!(error, keystore::Error::Unreachable(_)), "{key}: {error:?}");
            let error = sealed.get(&name("missing")).await.expect_err("missing");
            assert!(matches!(error, keystore::Error::NotFound), "what is not there needs nobody: {error:?}");
        }
    });
}

/// Tokens for the transit key are renewed, and replaced when they cannot be any more, before a request needs them.
#[test]
#[ignore = "runs OpenBao: tests/run"]
fn a_seal_outlives_its_tokens() {
    let bao = OpenBao::shared();
    let engine = unique("transit");
    bao.ask("POST", &format!("sys/mounts/{engine}"), json!({ "type": "transit" }));
    bao.ask("POST", &format!("{engine}/keys/seal"), Value::Null);
    let rights = ["encrypt", "decrypt"]
        .map(|what| format!("path \"{engine}/{what}/seal\" {{ capabilities = [\"update\"] }}\n"))
        .concat();
    let settings = json!({ "token_ttl": "5s", "token_max_ttl": "11s" });
    let ((id, secret), _) = bao.role(None, &rights, settings);
    let gate = Gate::new(bao.address());
    let (login, renewal) = ("/v1/auth/approle/login", "/v1/auth/token/renew-self");
    let transit = json!({ "vault": {
        "endpoint": gate.endpoint(), "engine": engine, "key": "seal", "approle": { "id": id, "secret": secret },
    } });
    let places = Places::new();
    let store = json!({ "fs": { "path": places.directory.path().join("keys") } });
    block_on(async {
        let sealed = places.connect(&store, Some(&transit)).await.expect("connects");
        let mut keys = 0;
        // Two tokens come to the end of all their renewals.
        while gate.count(login) < 3 {
            keys += 1;
            let (name, value) = (name(&format!("key-{keys}")), b"value".to_vec().into());
            sealed.create(&name, &value).await.expect("created");
            assert!(sealed.get(&name).await.expect("there").is_same(&value));
        }
        let age = sealed.about().token_age.expect("there is a token");
        assert!(age < std::time::Duration::from_secs(11), "{age:?}");
    });
    assert!(gate.count(renewal) >= 4, "each was renewed before: {}", gate.count(renewal));
}

/// What an outage of the key store is for clients, that of who seals is: cached keys serve, others are tried again and
/// then 503, and all is well by itself when it is over.
#[test]
#[ignore = "runs OpenBao: tests/run"]
fn clients_see_an_outage_of_the_provider_as_one_of_the_store() {
    let bao = OpenBao::start();
    bao.ask("POST", "sys/mounts/transit", json!({ "type": "transit" }));
    bao.ask("POST", "transit/keys/seal", Value::Null);
    let transit = json!({ "endpoint": bao.endpoint(), "key": "seal", "token": { "value": bao.token } });
    let store = json!({ "fs": { "path": "keys" }, "encrypt": { "vault": transit } });
    let config = dev_config("").replace("{ fs: { path: keys } }", &store.to_string());
    let config = format!("cache: {{ expiry: {{ any: 1h, unused: 1h }} }}\n{config}");
    let server = TestServer::start_in(tempfile::tempdir().expect("a directory"), &config);
    block_on(async {
        let admin = Client::new(server.address(), Some(Identity::dev("admin")), Protocol::H2);
        let session = admin.session().await.expect("connects");
        for key in ["hot", "cold"] {
            let request = Request::new("PUT", &format!("/v1/key/create/{key}"));
            assert_eq!(session.another().send(request).await.expect("an answer").status, 200);
        }
        let (hot, cold) = ("/v1/key/describe/hot", "/v1/key/describe/cold");
        assert_eq!(super::ask(&session, "GET", hot).await.0, 200);
        bao.ask("PUT", "sys/seal", Value::Null);
        assert_eq!(super::ask(&session, "GET", hot).await.0, 200);
        assert_eq!(super::ask(&session, "GET", cold).await, (503, "failed to read key".to_owned()));
        assert_eq!(super::ask(&session, "GET", "/v1/ready").await.0, 504);
        bao.unseal();
        // The first request waits for it.
        assert_eq!(super::ask(&session, "GET", cold).await.0, 200);
        assert_eq!(super::ask(&session, "GET", "/v1/ready").await.0, 200);
    });
}
