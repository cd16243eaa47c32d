//! Methods: one for each route, told to those who use another.

use serde_json::json;

use super::client_over;
use crate::support::client::Request;
use crate::support::{Client, Protocol, TestServer, block_on};

/// Whoever asks, with whatever else is wrong.
#[test]
fn a_wrong_method_is_told_the_right_one() {
    let server = TestServer::fixture();
    let listed = block_on(client_over(&server, "admin", Protocol::H2).get("/v1/api")).json();
    for protocol in Protocol::ALL {
        let stranger = Client::new(server.address(), None, protocol);
        block_on(async {
            let mut session = stranger.session().await.expect("a connection");
            for route in listed.as_array().expect("routes") {
                let (path, expected) = (route["path"].as_str().expect("a path"), &route["method"]);
                for method in ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "put", "Get", "FOO"] {
                    if *expected == method || (*expected == "PUT" && method == "POST") {
                        continue;
                    }
                    let answer = session.send(Request::new(method, path)).await.expect("an answer");
                    let message = format!("received method '{method}' expected '{}'", expected.as_str().expect("text"));
                    assert_eq!(answer.status, 405, "{method} {path}");
                    assert_eq!(answer.json(), json!({ "message": message }));
                    assert_eq!(answer.headers["accept"], expected.as_str().expect("text"));
                }
            }
        });
    }
}

/// HTTP allows no body here, over HTTP/2 clients take one for an error.
#[test]
fn head_is_told_in_the_headers_only() {
    let server = TestServer::fixture();
    for protocol in Protocol::ALL {
        let admin = client_over(&server, "admin", protocol);
        for (path, status) in [("/version", 405), ("/v1/key/list/", 405), ("/nope", 404), ("/v1//", 400)] {
            let answer = block_on(admin.send(Request::new("HEAD", path))).expect("an answer");
            assert_eq!((answer.status, answer.text()), (status, ""), "{path} {protocol:?}");
        }
    }
}

#[test]
fn routes_that_take_put_take_post() {
    let server = TestServer::fixture();
    let admin = client_over(&server, "admin", Protocol::H2);
    let import = json!({ "key": "31LGMHfYlVQa4MmsnqbJrPRHiDjZmDp8DciduqpKgcw=", "cipher": "AES256" }).to_string();
    let posts = [
        ("/v1/key/create/posted", String::new()),
        ("/v1/key/import/posted-too", import),
        ("/v1/key/generate/posted", String::new()),
        ("/v1/key/encrypt/posted", "{}".into()),
        ("/v1/key/hmac/posted", "{}".into()),
    ];
    for (path, body) in posts {
        let answer = block_on(admin.send(Request::new("POST", path).body(body))).expect("an answer");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
}
