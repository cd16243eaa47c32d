//! `/v1/log/…`: what makes an event, and what does not.

use serde_json::Value;

use super::{client, client_over, stranger};
use crate::support::client::Request;
use crate::support::lines::Lines;
use crate::support::{Protocol, TestServer, block_on};

/// The path and status of an audit event.
fn what(line: &str) -> (String, u64) {
    let event: Value = serde_json::from_str(line).expect("an event");
    let path = event["request"]["path"].as_str().expect("a path").to_owned();
    (path, event["response"]["code"].as_u64().expect("a status"))
}

/// Whatever its status, without certificate and of a wrong method too; not of unknown paths and `/version`.
#[test]
fn every_request_that_matched_a_route_makes_one_audit_event() {
    let server = TestServer::fixture();
    for protocol in Protocol::ALL {
        block_on(async {
            let admin = client_over(&server, "admin", protocol);
            let mut lines = Lines::open(&admin, "/v1/log/audit").await;
            admin.get("/version").await;
            admin.get("/nope").await;
            admin.get("/v1//key").await;
            admin.get("/v1/key/describe/%6dy-key").await;
            admin.get("/v1/key/list").await;
            admin.get("/v1/key/describe/a.b").await;
            admin.get("/v1/key/create/x").await;
            admin.put("/v1/key/encrypt/my-key", "{").await;
            admin.get("/v1/key/describe/nope").await;
            admin.get("/v1/key/describe/broken").await;
            client(&server, "nobody").get("/v1/status").await;
            stranger(&server).get("/v1/ready").await;
            client(&server, "nobody").get("/v1/identity/self/describe").await;
            let expected = [
                ("/v1/key/describe/my-key", 200),
                ("/v1/key/list/", 200),
                ("/v1/key/describe/a.b", 400),
                ("/v1/key/create/x", 405),
                ("/v1/key/encrypt/my-key", 400),
                ("/v1/key/describe/nope", 404),
                ("/v1/key/describe/broken", 502),
                ("/v1/status", 403),
                ("/v1/ready", 400),
                ("/v1/identity/self/describe", 404),
            ];
            let mut seen = Vec::new();
            while seen.len() < expected.len() {
                let event = what(&lines.next().await.expect("an event"));
                if event.0 != "/v1/log/audit" {
                    seen.push(event);
                }
            }
            let expected: Vec<_> = expected.iter().map(|(path, code)| ((*path).to_owned(), *code)).collect();
            assert_eq!(seen, expected, "{protocol:?}");
        });
    }
}

/// A client that asks for a deletion and resets the stream at once leaves its event all the same.
#[test]
fn a_client_that_leaves_at_once_leaves_its_event() {
    let server = TestServer::fixture();
    block_on(async {
        let admin = client(&server, "admin");
        let mut lines = Lines::open(&admin, "/v1/log/audit").await;
        let mut deletions = 0;
        for key in ["a", "A", "A1", "9", "x_y"] {
            let mut session = admin.session().await.expect("a connection");
            let request = Request::new("DELETE", &format!("/v1/key/delete/{key}"));
            // Long enough for the request to arrive now and then, and seldom for its answer.
            let _ = tokio::time::timeout(std::time::Duration::from_micros(600), session.send(request)).await;
            drop(session);
            deletions += 1;
        }
        assert_eq!(deletions, 5);
        // What was deleted has an event, whoever waited for the answer.
        std::thread::sleep(std::time::Duration::from_millis(500));
        let gone: Vec<_> =
            ["a", "A", "A1", "9", "x_y"].into_iter().filter(|key| !server.keys().join(key).exists()).collect();
        admin.get("/v1/key/describe/the-end").await;
        let mut audited = Vec::new();
        loop {
            let (path, _) = what(&lines.next().await.expect("an event"));
            match path.strip_prefix("/v1/key/delete/") {
                Some(key) => audited.push(key.to_owned()),
                None if path.ends_with("the-end") => break,
                None => {}
            }
        }
        for key in gone {
            assert!(audited.iter().any(|audited| audited == key), "'{key}' was deleted without an event");
        }
    });
}
