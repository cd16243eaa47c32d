//! What lies in Secrets Manager, byte for byte.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::super::{ask, wait_for_log};
use super::section;
use super::server::{serve_cached, session};
use crate::support::moto::Moto;
use crate::support::{block_on, testdata};

const CACHE: &str = "{ expiry: { any: 1ms, unused: 1ms } }";

#[test]
#[ignore = "runs moto: tests/run"]
fn keys_of_the_archived_server_are_read_where_it_put_them() {
    let moto = Moto::start();
    let stored = std::fs::read_to_string(testdata("http/fixture/keys/my-key")).expect("a key");
    moto.put("my-key", &stored);
    moto.ask("CreateSecret", &json!({ "Name": "binary", "SecretBinary": STANDARD.encode(&stored) }));
    let server = serve_cached(&section(&moto.endpoint(), ""), CACHE);
    block_on(async {
        let session = session(&server).await;
        for key in ["my-key", "binary"] {
            assert_eq!(ask(&session, "PUT", &format!("/v1/key/generate/{key}")).await, (200, String::new()));
        }
        assert_eq!(ask(&session, "PUT", "/v1/key/create/new").await, (200, String::new()));
    });
    // It is what a directory would hold.
    let new = moto.value("new");
    assert!(STANDARD.decode(&new).is_ok() && !new.ends_with('\n'), "{} bytes", new.len());
    assert!(!format!("{}{}", server.stdout(), server.stderr()).contains(&new));
}

#[test]
#[ignore = "runs moto: tests/run"]
fn secrets_that_are_no_keys_are_refused_and_with_a_prefix_not_even_seen() {
    let moto = Moto::start();
    moto.put("password", "hunter2");
    moto.put("team/password", "hunter2");
    moto.put("kes/.hidden", "hunter2");
    moto.put("deleted", "hunter2");
    moto.ask("DeleteSecret", &json!({ "SecretId": "deleted", "RecoveryWindowInDays": 7 }));
    let server = serve_cached(&section(&moto.endpoint(), ""), CACHE);
    block_on(async {
        let session = session(&server).await;
        for key in ["password", "deleted"] {
            let answer = ask(&session, "PUT", &format!("/v1/key/generate/{key}")).await;
            assert_eq!(answer, (502, "failed to read key".into()), "{key}");
        }
        let listed = super::super::admin(&server).get("/v1/key/list/*").await.json();
        assert_eq!(listed, json!({ "names": ["password"] }));
    });
    wait_for_log(&server, &["failed to read key", "GetSecretValue of 'deleted'", "restore-secret"]);
    assert!(!server.stderr().contains("hunter2"));

    let server = serve_cached(&section(&moto.endpoint(), "kes/"), CACHE);
    block_on(async {
        let session = session(&server).await;
        let answer = ask(&session, "PUT", "/v1/key/generate/password").await;
        assert_eq!(answer, (404, "key does not exist".into()));
        assert_eq!(ask(&session, "PUT", "/v1/key/create/password").await, (200, String::new()));
        assert_eq!(ask(&session, "DELETE", "/v1/key/delete/password").await, (200, String::new()));
        let listed = super::super::admin(&server).get("/v1/key/list/*").await.json();
        assert_eq!(listed, json!({ "names": [] }));
    });
    assert_eq!(moto.value("password"), "hunter2");
}
