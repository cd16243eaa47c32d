//! The order of checks: a request with several faults is told of the first.

use super::{DENIED, MB, NO_CERTIFICATE, client_over};
use crate::support::client::Request;
use crate::support::{Client, Protocol, TestServer, block_on};

/// Faults in the order in which they are looked for; each request has the fault of its line and all
/// those below it that it can have. Nobody's name means no certificate.
const FAULTS: &[(&str, &str, &str, &str, u16, &str)] = &[
    ("path", "GET", "", "/v1/nope//a.b", 400, "invalid path"),
    ("path", "GET", "", "/v1/key/encrypt/../a.b", 400, "invalid path"),
    ("path", "GET", "", "/v1/key/encrypt/%zz", 400, "invalid path"),
    ("path", "GET", "", "/v1/key/encrypt/%ff", 400, "invalid path"),
    ("route", "GET", "", "/v1/key/nope/a.b", 404, "404 page not found\n"),
    ("route", "GET", "", "/v1/KEY/encrypt/a.b", 404, "404 page not found\n"),
    ("route", "GET", "", "/v1/key%2fencrypt/a.b", 404, "404 page not found\n"),
    ("route", "GET", "", "/v1/key/encrypt", 404, "404 page not found\n"),
    ("method", "GET", "", "/v1/key/encrypt/a.b", 405, "received method 'GET' expected 'PUT'"),
    ("certificate", "PUT", "", "/v1/key/encrypt/a.b", 400, NO_CERTIFICATE),
    ("policy", "PUT", "nobody", "/v1/key/encrypt/a.b", 403, DENIED),
    (
        "name",
        "PUT",
        "admin",
        "/v1/key/encrypt/a.b",
        400,
        "key name 'a.b' is empty, too long or contains invalid characters",
    ),
    ("body", "PUT", "admin", "/v1/key/encrypt/nope", 400, "invalid request body"),
    ("body", "PUT", "admin", "/v1/key/import/my-key", 400, "invalid import key request body"),
];

/// Bodies that are refused, each for another reason.
fn broken_bodies() -> [Vec<u8>; 3] {
    let mut too_large = br#"{"plaintext":""}"#.to_vec();
    too_large.resize(MB + 1, b' ');
    [b"{".to_vec(), br#"{"plaintext":"%","key":"%"}"#.to_vec(), too_large]
}

#[test]
fn of_several_faults_the_first_is_told() {
    let server = TestServer::fixture();
    for protocol in Protocol::ALL {
        for body in broken_bodies() {
            for (fault, method, client, path, status, message) in FAULTS {
                let client = match *client {
                    "" => Client::new(server.address(), None, protocol),
                    name => client_over(&server, name, protocol),
                };
                let answer = block_on(client.send(Request::new(method, path).body(body.clone()))).expect("an answer");
                let told = if answer.status == 404 { answer.text().to_owned() } else { answer.message() };
                assert_eq!(
                    (answer.status, told.as_str()),
                    (*status, *message),
                    "{fault}: {method} {path} {protocol:?}"
                );
            }
        }
    }
}

/// With a good body, what follows: algorithm and size before the name being taken, the key before its
/// abilities, the store last.
#[test]
fn a_good_body_is_followed_by_the_key_and_the_store() {
    const KEY: &str = "31LGMHfYlVQa4MmsnqbJrPRHiDjZmDp8DciduqpKgcw=";
    let import = |key: &str, cipher: &str| format!(r#"{{"key":"{key}","cipher":"{cipher}"}}"#);
    let cases = [
        ("/v1/key/import/my-key", import("AA==", "AES"), 406, "algorithm 'AES' is not supported"),
        ("/v1/key/import/my-key", import("AA==", "AES256"), 406, "invalid key size for 'AES256'"),
        ("/v1/key/import/my-key", import(KEY, "AES256"), 400, "key already exists"),
        ("/v1/key/create/my-key", String::new(), 400, "key already exists"),
        ("/v1/key/encrypt/nope", "{}".into(), 404, "key does not exist"),
        ("/v1/key/decrypt/nope", "{}".into(), 404, "key does not exist"),
        ("/v1/key/hmac/nope", "{}".into(), 404, "key does not exist"),
        ("/v1/key/generate/nope", String::new(), 404, "key does not exist"),
        ("/v1/key/decrypt/my-key", "{}".into(), 400, "decryption failed: ciphertext is not authentic"),
        ("/v1/key/hmac/old", "{}".into(), 409, "key does not support HMAC"),
        ("/v1/key/encrypt/broken", "{}".into(), 502, "failed to read key"),
    ];
    let server = TestServer::fixture();
    let admin = client_over(&server, "admin", Protocol::H2);
    for (path, body, status, message) in cases {
        let answer = block_on(admin.put(path, body));
        assert_eq!((answer.status, answer.message().as_str()), (status, message), "{path}");
    }
}

#[test]
fn whatever_follows_a_question_mark_is_ignored() {
    let server = TestServer::fixture();
    for protocol in Protocol::ALL {
        let admin = client_over(&server, "admin", protocol);
        for query in ["?", "?x=1", "?x=../..", "?//", "?%zz"] {
            assert_eq!(block_on(admin.get(&format!("/v1/key/describe/my-key{query}"))).status, 200, "{query}");
        }
    }
}

/// The same over both protocols; the connection need not survive it.
#[test]
fn a_request_head_is_bounded() {
    let server = TestServer::fixture();
    for protocol in Protocol::ALL {
        let admin = client_over(&server, "admin", protocol);
        let send = |len| block_on(admin.send(Request::new("GET", "/version").header("x-large", &"a".repeat(len))));
        assert_eq!(send(60_000).expect("an answer").status, 200, "{protocol:?}");
        match send(200_000) {
            Ok(answer) => assert_eq!(answer.status, 431, "{protocol:?}"),
            // A client that knows the limit does not even send it.
            Err(_) => assert_eq!(protocol, Protocol::H2),
        }
        assert_eq!(send(1).expect("an answer").status, 200, "{protocol:?}");
    }
}
