//! `/v1/key/…`, listings apart.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{assert_empty, assert_error, assert_json, client};
use crate::support::certificates::identity_of;
use crate::support::{Identity, TestServer, block_on, eventually};

const IMPORTED: &str = "31LGMHfYlVQa4MmsnqbJrPRHiDjZmDp8DciduqpKgcw=";

#[test]
fn a_created_key_is_its_creators_and_works() {
    let server = TestServer::fixture();
    let (ops, admin) = (client(&server, "ops"), client(&server, "admin"));
    block_on(async {
        let before = OffsetDateTime::now_utc();
        assert_empty(&ops.put("/v1/key/create/new", "").await);
        assert_error(&ops.put("/v1/key/create/new", "").await, 400, "key already exists");
        let described = admin.get("/v1/key/describe/new").await.json();
        assert_eq!(described["name"], "new");
        assert_eq!(described["created_by"], identity_of(&Identity::fixture("ops")));
        assert!(["AES256", "ChaCha20"].contains(&described["algorithm"].as_str().expect("an algorithm")));
        let created = OffsetDateTime::parse(described["created_at"].as_str().expect("a time"), &Rfc3339);
        assert!((before..=OffsetDateTime::now_utc()).contains(&created.expect("RFC 3339")));
        assert_eq!(admin.put("/v1/key/hmac/new", "{}").await.status, 200);
    });
}

#[test]
fn an_imported_key_keeps_its_bytes_and_its_algorithm() {
    let server = TestServer::fixture();
    let admin = client(&server, "admin");
    let ciphers = [
        ("AES256", "AES256"),
        ("AES256-GCM_SHA256", "AES256"),
        ("ChaCha20", "ChaCha20"),
        ("XCHACHA20-POLY1305", "ChaCha20"),
    ];
    block_on(async {
        for (n, (cipher, algorithm)) in ciphers.into_iter().enumerate() {
            let body = json!({ "key": IMPORTED, "cipher": cipher });
            assert_empty(&admin.put_json(&format!("/v1/key/import/imported-{n}"), &body).await);
            let described = admin.get(&format!("/v1/key/describe/imported-{n}")).await.json();
            assert_eq!(described["algorithm"], algorithm);
        }
        // The same key under two names: what one encrypts the other decrypts.
        let sealed = admin.put_json("/v1/key/encrypt/imported-0", &json!({ "plaintext": "aGVsbG8=" })).await.json();
        let opened = admin.put_json("/v1/key/decrypt/imported-1", &sealed).await;
        assert_json(&opened, &json!({ "plaintext": "aGVsbG8=" }));
        let other = admin.put_json("/v1/key/decrypt/imported-2", &sealed).await;
        assert_error(&other, 400, "decryption failed: ciphertext is not authentic");
        let body = json!({ "key": IMPORTED, "cipher": "AES256" });
        assert_error(&admin.put_json("/v1/key/import/imported-0", &body).await, 400, "key already exists");
    });
}

#[test]
fn imports_of_other_algorithms_or_sizes_are_not_acceptable() {
    let server = TestServer::fixture();
    let admin = client(&server, "admin");
    block_on(async {
        for cipher in ["", "aes256", "AES128", "AES-256-GCM-HMAC-SHA-256"] {
            let body = json!({ "key": IMPORTED, "cipher": cipher });
            let message = format!("algorithm '{cipher}' is not supported");
            assert_error(&admin.put_json("/v1/key/import/x", &body).await, 406, &message);
        }
        for size in [0, 16, 31, 33, 64] {
            let body = json!({ "key": STANDARD.encode(vec![1; size]), "cipher": "ChaCha20" });
            assert_error(&admin.put_json("/v1/key/import/x", &body).await, 406, "invalid key size for 'ChaCha20'");
        }
        assert_error(&admin.get("/v1/key/describe/x").await, 404, "key does not exist");
    });
}

#[test]
fn a_deleted_key_is_gone_at_once() {
    let server = TestServer::fixture();
    let admin = client(&server, "admin");
    block_on(async {
        // In the cache first.
        assert_eq!(admin.get("/v1/key/describe/my-key").await.status, 200);
        assert_empty(&admin.delete("/v1/key/delete/my-key").await);
        for path in ["/v1/key/describe/my-key", "/v1/key/list/my-key*"] {
            let answer = admin.get(path).await;
            assert!(!answer.text().contains("\"my-key\""), "{path}: {}", answer.text());
        }
        for operation in ["generate", "encrypt", "decrypt", "hmac"] {
            let answer = admin.put(&format!("/v1/key/{operation}/my-key"), "{}").await;
            assert_error(&answer, 404, "key does not exist");
        }
        assert_error(&admin.delete("/v1/key/delete/my-key").await, 404, "key does not exist");
        assert!(!server.keys().join("my-key").exists());
    });
}

#[test]
fn data_keys_are_random_and_come_back_with_their_context() {
    let server = TestServer::fixture();
    let admin = client(&server, "admin");
    block_on(async {
        let context = json!({ "context": "YnVja2V0L29iamVjdA==" });
        let first = admin.put_json("/v1/key/generate/my-key", &context).await.json();
        let second = admin.put_json("/v1/key/generate/my-key", &context).await.json();
        assert_ne!(first["plaintext"], second["plaintext"]);
        assert_ne!(first["ciphertext"], second["ciphertext"]);
        let plaintext = STANDARD.decode(first["plaintext"].as_str().expect("base64")).expect("base64");
        assert_eq!(plaintext.len(), 32);
        let mut body = json!({ "ciphertext": first["ciphertext"], "context": context["context"] });
        let opened = admin.put_json("/v1/key/decrypt/my-key", &body).await;
        assert_json(&opened, &json!({ "plaintext": first["plaintext"] }));
        body["context"] = "".into();
        let other = admin.put_json("/v1/key/decrypt/my-key", &body).await;
        assert_error(&other, 400, "decryption failed: ciphertext is not authentic");
    });
}

#[test]
fn names_are_checked_everywhere() {
    let server = TestServer::fixture();
    let admin = client(&server, "admin");
    let long = "k".repeat(81);
    block_on(async {
        for name in ["", "_", "-a", "a-", "a.b", "a b", "a/b", "ä", "a*", "claviger-old-0", &long] {
            let message = format!("key name '{name}' is empty, too long or contains invalid characters");
            let encoded = name.replace(' ', "%20").replace('ä', "%C3%A4");
            assert_error(&admin.get(&format!("/v1/key/describe/{encoded}")).await, 400, &message);
            assert_error(&admin.delete(&format!("/v1/key/delete/{encoded}")).await, 400, &message);
            for operation in ["create", "import", "generate", "encrypt", "decrypt", "hmac"] {
                assert_error(&admin.put(&format!("/v1/key/{operation}/{encoded}"), "").await, 400, &message);
            }
        }
    });
}

/// Reply and log of a failure differ: what the store said is for the operator only.
#[test]
fn the_client_is_not_told_what_the_store_said() {
    let server = TestServer::fixture();
    assert_error(&block_on(client(&server, "admin").get("/v1/key/describe/broken")), 502, "failed to read key");
    eventually("the failure is logged", || server.stderr().contains("failed to read key"));
    let log = server.stderr();
    let line = log.lines().find(|line| line.contains("failed to read key")).expect("a line in the log");
    assert!(line.contains("/v1/key/describe/broken") && line.contains("127.0.0.1"), "{line}");
}
