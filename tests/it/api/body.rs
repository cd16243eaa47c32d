//! Request bodies: how large they may be, and how they may be written.

use serde_json::json;

use super::{MB, assert_empty, assert_error, client, client_over};
use crate::support::client::Request;
use crate::support::{Protocol, TestServer, block_on};

/// A body of `len` bytes: a JSON object, and spaces within it.
fn padded(object: &str, len: usize) -> String {
    let (start, end) = object.split_at(object.len() - 1);
    format!("{start}{}{end}", " ".repeat(len - object.len()))
}

const IMPORT: &str = r#"{"key":"31LGMHfYlVQa4MmsnqbJrPRHiDjZmDp8DciduqpKgcw=","cipher":"AES256"}"#;

/// Whether its length is told beforehand or not.
#[test]
fn a_body_may_have_a_million_bytes_and_not_one_more() {
    let server = TestServer::fixture();
    for protocol in Protocol::ALL {
        let admin = client_over(&server, "admin", protocol);
        let send = |path: &str, body: String, chunked: bool| {
            let request = Request { chunked, ..Request::new("PUT", path).body(body) };
            block_on(admin.send(request)).expect("an answer")
        };
        for chunked in [false, true] {
            for operation in ["generate", "encrypt", "decrypt", "hmac"] {
                let path = format!("/v1/key/{operation}/my-key");
                let allowed = send(&path, padded("{}", MB), chunked);
                // An empty ciphertext is not authentic, but it was looked at.
                let expected = if operation == "decrypt" { 400 } else { 200 };
                assert_eq!(allowed.status, expected, "{operation} {protocol:?}");
                assert!(!allowed.text().contains("invalid request body"), "{operation} {protocol:?}");
                let refused = send(&path, padded("{}", MB + 1), chunked);
                assert_error(&refused, 400, "invalid request body");
            }
            let name = format!("imported-{protocol:?}-{chunked}");
            let refused = send(&format!("/v1/key/import/{name}"), padded(IMPORT, MB + 1), chunked);
            assert_error(&refused, 400, "invalid import key request body");
            assert!(!server.keys().join(&name).exists(), "nothing of it was processed");
            assert_empty(&send(&format!("/v1/key/import/{name}"), padded(IMPORT, MB), chunked));
        }
    }
}

#[test]
fn what_follows_the_object_counts_too() {
    let server = TestServer::fixture();
    let admin = client(&server, "admin");
    let body = |len: usize| format!("{}{}", "{}", "x".repeat(len - 2));
    assert_eq!(block_on(admin.put("/v1/key/encrypt/my-key", body(MB))).status, 200);
    assert_error(&block_on(admin.put("/v1/key/encrypt/my-key", body(MB + 1))), 400, "invalid request body");
}

#[test]
fn routes_without_a_body_ignore_one() {
    let server = TestServer::fixture();
    for protocol in Protocol::ALL {
        let admin = client_over(&server, "admin", protocol);
        let send = |method: &str, path: String| {
            let request = Request::new(method, &path).body("x".repeat(900_000));
            block_on(admin.send(request)).expect("an answer")
        };
        assert_empty(&send("PUT", format!("/v1/key/create/ignored-{protocol:?}")));
        assert_eq!(send("GET", "/v1/key/list/ignored".into()).status, 200);
        assert_empty(&send("DELETE", format!("/v1/key/delete/ignored-{protocol:?}")));
    }
}

/// A client that says it will send a body, and does not, still learns the answer of a route that takes none.
#[test]
fn an_ignored_body_need_not_arrive() {
    let server = TestServer::fixture();
    let admin = client_over(&server, "admin", Protocol::H1);
    let request = Request::new("GET", "/version").header("Content-Length", "5");
    assert_eq!(block_on(admin.send(request)).expect("an answer").status, 200);
}

#[test]
fn json_is_read_as_go_reads_it() {
    let server = TestServer::fixture();
    let admin = client(&server, "admin");
    let mac = |body: &str| {
        let answer = block_on(admin.put("/v1/key/hmac/my-key", body.to_owned()));
        if answer.status == 200 { answer.json()["hmac"].as_str().map(str::to_owned) } else { None }
    };
    let (hello, empty) = (mac(r#"{"message":"aGVsbG8="}"#), mac("{}"));
    assert!(hello.is_some() && empty.is_some() && hello != empty);
    for same in [
        r#"{"MESSAGE":"aGVsbG8="}"#,
        r#"{"message":"AAAA","message":"aGVsbG8="}"#,
        r#"{"message":"aGVsbG8=","other":[{"message":1}],"version":"v1"}"#,
        r#"{"message":"aGVs\r\nbG8=\n"}"#,
        r#"{"message":"\u0061GVsbG8="}"#,
        r#"{"message":[104,101,108,108,111]}"#,
        r#"{"message":"aGVsbG8="} and more"#,
        "\n\t {\"message\" : \"aGVsbG8=\" }",
        r#"{"message":"aGVsbG9="}"#,
    ] {
        assert_eq!(mac(same), hello, "{same}");
    }
    for nothing in ["null", r#"{"message":null}"#, r#"{"message":""}"#, r#"{"message":"aGVsbG8=","message":null}"#] {
        assert_eq!(mac(nothing), empty, "{nothing}");
    }
    for bad in [
        "",
        " ",
        "[]",
        "\"\"",
        "1",
        "{",
        r#"{"message":"aGVsbG8"}"#,
        r#"{"message":"_-__"}"#,
        r#"{"message":"aGVs bG8="}"#,
        r#"{"message":1}"#,
        r#"{"message":{}}"#,
        r#"{"message":[256]}"#,
        r#"{"message":"","version":1}"#,
        "\u{feff}{}",
        "{'message':''}",
    ] {
        assert_eq!(mac(bad), None, "{bad:?}");
    }
}

#[test]
fn the_content_type_is_not_looked_at() {
    let server = TestServer::fixture();
    let admin = client(&server, "admin");
    for kind in ["", "text/plain", "application/x-www-form-urlencoded", "nonsense"] {
        let request = Request::new("PUT", "/v1/key/hmac/my-key").body("{}").header("content-type", kind);
        let answer = block_on(admin.send(request)).expect("an answer");
        assert_eq!((answer.status, answer.headers["content-type"].as_str()), (200, "application/json"));
    }
}

/// A message of every length is encrypted into 44 bytes more, and decrypted with the same context only.
#[test]
fn what_was_encrypted_decrypts() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let server = TestServer::fixture();
    let admin = client(&server, "admin");
    for key in ["my-key", "cha", "old"] {
        for len in [0, 1, 2, 3, 31, 32, 33, 1_000, 700_000] {
            let (plaintext, context) = (STANDARD.encode(vec![7; len]), STANDARD.encode(b"context"));
            block_on(async {
                let body = json!({ "plaintext": plaintext, "context": context });
                let sealed = admin.put_json(&format!("/v1/key/encrypt/{key}"), &body).await.json();
                let ciphertext = sealed["ciphertext"].as_str().expect("a ciphertext");
                assert_eq!(STANDARD.decode(ciphertext).expect("base64").len(), len + 44);
                let path = format!("/v1/key/decrypt/{key}");
                let body = json!({ "ciphertext": ciphertext, "context": context });
                assert_eq!(admin.put_json(&path, &body).await.json(), json!({ "plaintext": plaintext }));
                let other = admin.put_json(&path, &json!({ "ciphertext": ciphertext })).await;
                assert_error(&other, 400, "decryption failed: ciphertext is not authentic");
            });
        }
    }
}
