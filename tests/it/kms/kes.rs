//! The KES API over an enclave, beside the key manager's own protocol.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger::client::kms::Commands;
use claviger::kms::Action;
use claviger::kms::wire::{
    CreateKeyRequest, DecryptRequest, DecryptResponse, DeleteKeyRequest, EncryptRequest, EncryptResponse, KeyStatus,
    KeyVersionRequest,
};
use serde_json::{Value, json};

use super::start::refusal;
use crate::support::door::{self, ENCLAVE, HSM, door_config, root};
use crate::support::program::Program;
use crate::support::server::fixture_config;
use crate::support::{Client, Response, TestServer, block_on, testdata};

/// The fixture's admin, over the KES API.
fn admin(server: &TestServer) -> Client {
    Client::fixture(server.address(), "admin")
}

async fn put(client: &Client, path: &str, body: &Value) -> Response {
    client.put_json(path, body).await
}

fn field(response: &Response, name: &str) -> Vec<u8> {
    assert_eq!(response.status, 200, "{response:?}");
    let body: Value = serde_json::from_slice(&response.body).expect("JSON");
    STANDARD.decode(body[name].as_str().expect("text")).expect("base64")
}

async fn encrypt(client: &Client, key: &str, plaintext: &[u8]) -> Vec<u8> {
    let body = json!({ "plaintext": STANDARD.encode(plaintext) });
    field(&put(client, &format!("/v1/key/encrypt/{key}"), &body).await, "ciphertext")
}

async fn decrypt(client: &Client, key: &str, ciphertext: &[u8]) -> Vec<u8> {
    let body = json!({ "ciphertext": STANDARD.encode(ciphertext) });
    field(&put(client, &format!("/v1/key/decrypt/{key}"), &body).await, "plaintext")
}

async fn add_version(server: &TestServer, name: &str) {
    let request = CreateKeyRequest { name: name.into(), add_version: true, ..CreateKeyRequest::default() };
    let done = door::client(server, &root()).change(ENCLAVE, Commands::one(Action::KeyCreate, &request)).await;
    done.expect("a version is added");
}

#[test]
fn keys_are_the_same_for_both_kinds_of_clients_and_every_change_counts_at_once() {
    let server = door::fixture();
    let manager = door::client(&server, &root());
    block_on(async {
        let kes = admin(&server);
        assert_eq!(put(&kes, "/v1/key/create/shared", &json!({})).await.status, 200);
        let old = encrypt(&kes, "shared", b"before").await;
        let generated = put(&kes, "/v1/key/generate/shared", &json!({})).await;
        add_version(&server, "shared").await;
        let new = encrypt(&kes, "shared", b"after").await;
        // Which version it was, the key manager says.
        for (ciphertext, plaintext, version) in [(&old, "before", 1), (&new, "after", 2)] {
            assert_eq!(decrypt(&kes, "shared", ciphertext).await, plaintext.as_bytes());
            let mut request = DecryptRequest { version, ..DecryptRequest::default() };
            (request.name, request.ciphertext) = ("shared".into(), ciphertext.clone());
            let opened: DecryptResponse = manager.ask(ENCLAVE, Action::KeyDecrypt, &request).await.expect("decrypted");
            assert_eq!(opened.plaintext, plaintext.as_bytes());
        }
        let (plaintext, ciphertext) = (field(&generated, "plaintext"), field(&generated, "ciphertext"));
        assert_eq!(decrypt(&kes, "shared", &ciphertext).await, plaintext);
        // The other way round.
        let mut request = EncryptRequest::default();
        (request.name, request.plaintext) = ("shared".into(), b"there".to_vec());
        let made: EncryptResponse = manager.ask(ENCLAVE, Action::KeyEncrypt, &request).await.expect("encrypted");
        assert_eq!(decrypt(&kes, "shared", &made.ciphertext).await, b"there");
        // One version less: what it has encrypted cannot be decrypted any more, at once.
        let request = DeleteKeyRequest { name: "shared".into(), version: 1, ..DeleteKeyRequest::default() };
        manager.change(ENCLAVE, Commands::one(Action::KeyDelete, &request)).await.expect("deleted");
        let body = json!({ "ciphertext": STANDARD.encode(&old) });
        let refused = put(&kes, "/v1/key/decrypt/shared", &body).await;
        assert_eq!(
            (refused.status, refused.message().as_str()),
            (400, "decryption failed: ciphertext is not authentic")
        );
        // A client of the KES API deletes all versions.
        add_version(&server, "shared").await;
        assert_eq!(kes.delete("/v1/key/delete/shared").await.status, 200);
        let request = KeyVersionRequest { name: "shared".into(), ..KeyVersionRequest::default() };
        assert!(manager.ask::<KeyStatus>(ENCLAVE, Action::KeyStatus, &request).await.is_err());
        // And what the key manager deletes is missing for it.
        let request = DeleteKeyRequest { name: "my-key".into(), all_versions: true, ..DeleteKeyRequest::default() };
        manager.change(ENCLAVE, Commands::one(Action::KeyDelete, &request)).await.expect("deleted");
        assert_eq!(kes.get("/v1/key/describe/my-key").await.message(), "key does not exist");
    });
}

#[test]
fn a_key_keeps_what_it_has_algorithm_hmac_key_maker_and_time() {
    let server = door::fixture();
    let key_server = TestServer::fixture();
    block_on(async {
        let (kes, other) = (admin(&server), admin(&key_server));
        let bytes = json!({ "key": STANDARD.encode([7; 32]), "cipher": "ChaCha20" });
        assert_eq!(put(&kes, "/v1/key/import/mine", &bytes).await.status, 200);
        let about: Value = serde_json::from_slice(&kes.get("/v1/key/describe/mine").await.body).expect("JSON");
        assert_eq!(about["algorithm"], "ChaCha20");
        let message = json!({ "message": "AAAA" });
        assert_eq!(put(&kes, "/v1/key/hmac/mine", &message).await.status, 200, "it got an HMAC key");
        // Keys that came from a key store are the same here as there.
        for name in ["my-key", "cha", "old"] {
            let path = format!("/v1/key/describe/{name}");
            assert_eq!(kes.get(&path).await.body, other.get(&path).await.body, "{name}");
            let path = format!("/v1/key/hmac/{name}");
            let (here, there) = (put(&kes, &path, &message).await, put(&other, &path, &message).await);
            assert_eq!((here.status, here.body), (there.status, there.body), "{name}");
            let ciphertext = encrypt(&other, name, b"written there").await;
            assert_eq!(decrypt(&kes, name, &ciphertext).await, b"written there");
        }
        // The same public key is the same identity to both.
        let request = KeyVersionRequest { name: "mine".into(), ..KeyVersionRequest::default() };
        let status: KeyStatus =
            door::client(&server, &root()).ask(ENCLAVE, Action::KeyStatus, &request).await.expect("described");
        let shown = claviger::auth::Identity::parse(about["created_by"].as_str().expect("text")).expect("an identity");
        let shown = claviger::auth::enclave::Identity::of(&shown).expect("a hash");
        assert_eq!(status.created_by, shown.to_string());
    });
    let said = server.stderr();
    assert!(said.contains("KEY:IMPORT mine"), "the key manager's own log has it: {said}");
}

#[test]
fn an_enclave_that_is_missing_is_a_server_that_is_not_ready_and_no_missing_key() {
    let server = door::empty(&door_config(|config| config));
    server.says("create it with 'claviger kms add-enclave prod'");
    block_on(async {
        let kes = admin(&server);
        for (response, status, message) in [
            (kes.get("/v1/key/describe/my-key").await, 503, "failed to read key"),
            (put(&kes, "/v1/key/create/my-key", &json!({})).await, 503, "failed to create key"),
            (kes.delete("/v1/key/delete/my-key").await, 503, "failed to delete key"),
            (kes.get("/v1/key/list/*").await, 503, "failed to list keys"),
            (kes.get("/v1/ready").await, 504, "key store is not reachable"),
        ] {
            assert_eq!((response.status, response.message().as_str()), (status, message));
        }
        let status: Value = serde_json::from_slice(&kes.get("/v1/status").await.body).expect("JSON");
        assert_eq!(status["keystore_unreachable"], true);
        door::fill(&server, &server.keys()).await;
        assert_eq!(kes.get("/v1/ready").await.status, 200);
        assert_eq!(kes.get("/v1/key/describe/my-key").await.status, 200);
    });
}

#[test]
fn a_reload_changes_policies_and_keys_and_an_invalid_one_nothing() {
    let server = door::fixture();
    block_on(async {
        let (kes, app) = (admin(&server), Client::fixture(server.address(), "app"));
        assert_eq!(app.get("/v1/key/describe/my-key").await.status, 403);
        let more = |config: String| {
            config.replace("    - /v1/key/describe/my-app-one\n", "    - /v1/key/describe/*\n")
                + "keys: [ { name: from-config } ]\n"
        };
        server.reload(&door_config(more));
        assert_eq!(app.get("/v1/key/describe/my-key").await.status, 200);
        assert_eq!(kes.get("/v1/key/describe/from-config").await.status, 200);
        server.reload(&fixture_config(|config| config));
        server.says("a listener of a key manager serves an enclave");
        assert_eq!(app.get("/v1/key/describe/my-key").await.status, 200);
    });
}

#[test]
fn what_cannot_be_served_stops_the_start_and_says_what_to_do() {
    let directory = tempfile::tempdir().expect("a directory");
    crate::support::server::copy_fixture(directory.path());
    let said = TestServer::refuses(directory.path(), &door_config(|config| config));
    assert!(said.contains("start 'claviger kms server DIR --kes FILE' with this config"), "{said}");
    let refused = |config: String| {
        let file = directory.path().join("kes.yml");
        let files = |config: String| config.replace("server.", &format!("{}/server.", directory.path().display()));
        std::fs::write(&file, files(config)).expect("written");
        refusal(&directory.path().join("data"), Some(HSM), &["--kes", file.to_str().expect("text")])
    };
    let said = refused(fixture_config(|config| config));
    assert!(said.contains("keystore.fs: a listener of a key manager serves an enclave; write"), "{said}");
    let said = refused(door_config(|config| config + "  encrypt: { local: { file: seal.key } }\n"));
    assert!(said.contains("an enclave's keys are encrypted by the key manager; remove this section"), "{said}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = taken.local_addr().expect("an address").to_string();
    let said = refused(door_config(|config| config.replace("127.0.0.1:0", &address)));
    assert!(said.contains(&format!("failed to listen on {address}, for the KES API, as '")), "{said}");
}

#[test]
fn a_config_for_a_listener_is_examined_like_that_of_a_key_server() {
    let directory = tempfile::tempdir().expect("a directory");
    crate::support::server::copy_fixture(directory.path());
    std::fs::write(directory.path().join("kes.yml"), door_config(|config| config)).expect("written");
    let doctor = |args: &[&str]| {
        Program::named("claviger", directory.path()).run(&[&["doctor", "--config", "kes.yml"], args].concat())
    };
    let said = doctor(&[]).stdout;
    let line = "ok       keystore.reach   the keys are in the enclave 'prod' of the key manager that is started with '--kes'\n";
    assert!(said.contains(line), "{said}");
    let said = doctor(&["--require-keys", "my-key"]).stdout;
    assert!(said.contains("ask the server: 'kms ls-key' lists its keys"), "{said}");
}

/// Objects' keys were made at a KES. Its keys are moved, it is stopped, and a key manager takes its address: clients
/// notice nothing.
#[test]
fn a_key_manager_takes_the_place_of_a_key_server() {
    let key_server = TestServer::fixture();
    let address = key_server.address();
    let objects = block_on(async {
        let app = Client::fixture(address, "app");
        assert_eq!(put(&app, "/v1/key/create/my-app-new", &json!({})).await.status, 200);
        let mut objects = Vec::new();
        for context in ["a/1", "b/2"] {
            let context = STANDARD.encode(context);
            let made = put(&app, "/v1/key/generate/my-app-new", &json!({ "context": context })).await;
            objects.push((context, field(&made, "plaintext"), field(&made, "ciphertext")));
        }
        objects
    });
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(
        directory.path().join("old.yml"),
        format!("keystore: {{ fs: {{ path: '{}' }} }}", key_server.keys().display()),
    )
    .expect("written");
    std::fs::remove_file(key_server.keys().join("broken")).expect("there");
    // The keys are moved while the KES still serves; then it stops.
    let mut manager = door::empty(&door_config(|config| config));
    let minkms = |name: &str| {
        Program::named(name, directory.path())
            .env("MINIO_KMS_SERVER", manager.key_manager_address().to_string())
            .env("MINIO_KMS_API_KEY", root().expose())
            .env("MINIO_KMS_ENCLAVE", ENCLAVE)
    };
    minkms("minkms").run(&["add-enclave", ENCLAVE, "-k"]).ok();
    minkms("claviger").run(&["migrate", "--from", "old.yml", "-k"]).ok();
    assert!(key_server.stop().success());
    let config = door_config(|config| config.replace("127.0.0.1:0", &address.to_string()));
    let moved = tempfile::tempdir().expect("a directory");
    crate::support::server::copy_fixture(moved.path());
    // The directory of a server goes with it.
    manager.signal(rustix::process::Signal::TERM);
    manager.wait_for_exit(std::time::Duration::from_secs(20)).expect("it stops");
    std::fs::rename(manager.directory().join("data"), moved.path().join("data")).expect("moved");
    let manager = TestServer::key_manager_with_door(moved, HSM, &config);
    assert_eq!(manager.address(), address);
    block_on(async {
        let app = Client::fixture(address, "app");
        for (context, plaintext, ciphertext) in &objects {
            let body = json!({ "ciphertext": STANDARD.encode(ciphertext), "context": context });
            assert_eq!(field(&put(&app, "/v1/key/decrypt/my-app-new", &body).await, "plaintext"), *plaintext);
        }
        assert_eq!(put(&app, "/v1/key/create/my-app-new", &json!({})).await.message(), "key already exists");
        add_version(&manager, "my-app-new").await;
        let made = put(&app, "/v1/key/generate/my-app-new", &json!({})).await;
        assert_eq!(decrypt(&app, "my-app-new", &field(&made, "ciphertext")).await, field(&made, "plaintext"));
        let (context, plaintext, ciphertext) = &objects[0];
        let body = json!({ "ciphertext": STANDARD.encode(ciphertext), "context": context });
        assert_eq!(field(&put(&app, "/v1/key/decrypt/my-app-new", &body).await, "plaintext"), *plaintext);
    });
}

/// What the released servers encrypted is decrypted here, whichever format their keys had.
#[test]
fn ciphertexts_of_every_version_are_decrypted() {
    let server = door::empty(&door_config(|config| config));
    let read = |path: &str| -> Value {
        serde_json::from_slice(&std::fs::read(testdata(path)).expect("readable")).expect("JSON")
    };
    block_on(async {
        door::fill(&server, &server.keys()).await;
        let (manager, kes) = (door::client(&server, &root()), admin(&server));
        let mut versions = std::collections::BTreeSet::new();
        for key in read("stored-keys/manifest.json").as_array().expect("keys") {
            let file = key["file"].as_str().expect("text");
            let value = std::fs::read(testdata(format!("stored-keys/{file}"))).expect("readable");
            door::import(&manager, &format!("v-{}", key["name"].as_str().expect("text")), value).await;
            versions.insert(key["kes"].as_str().expect("text").to_owned());
        }
        let mut count = 0;
        for version in versions {
            for case in read(&format!("ciphertexts/{version}.json")).as_array().expect("cases") {
                let path = format!("/v1/key/decrypt/v-{}", case["key"].as_str().expect("text"));
                let body = json!({ "ciphertext": case["ciphertext"], "context": case["context"] });
                let plaintext = case["plaintext"].as_str().unwrap_or_default();
                assert_eq!(STANDARD.encode(field(&put(&kes, &path, &body).await, "plaintext")), plaintext, "{case}");
                count += 1;
            }
        }
        assert_eq!(count, 341);
    });
}
