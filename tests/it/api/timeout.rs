//! Times for a request: the client's to send it, the server's to answer.

use super::{assert_error, client_over};
use crate::support::client::Request;
use crate::support::server::fixture_config;
use crate::support::{Protocol, TestServer, block_on};

/// A server whose routes have the times in `api`.
fn server(api: &[(&str, &str)]) -> TestServer {
    let routes: String = api.iter().map(|(path, time)| format!("  {path}:\n    timeout: {time}\n")).collect();
    TestServer::with_config(&fixture_config(|config| format!("{config}api:\n{routes}")))
}

#[test]
fn a_body_must_arrive_within_the_routes_time() {
    let server = server(&[("/v1/key/encrypt/", "1s"), ("/v1/key/import/", "1s")]);
    for protocol in Protocol::ALL {
        let admin = client_over(&server, "admin", protocol);
        for path in ["/v1/key/encrypt/my-key", "/v1/key/import/stalled"] {
            let request = Request { stalled: true, ..Request::new("PUT", path).body(r#"{"plaintext":"#) };
            let answer = block_on(admin.send(request)).expect("an answer");
            assert_error(&answer, 408, "request body did not arrive in time");
        }
    }
    assert!(!server.keys().join("stalled").exists());
}

/// When the time is over before anything was begun, nothing is.
#[test]
fn an_answer_that_comes_too_late_is_one_to_ask_for_again() {
    let server = server(&[("/v1/key/list/", "1ns"), ("/v1/ready", "1ns"), ("/v1/key/create/", "1ns")]);
    for protocol in Protocol::ALL {
        let admin = client_over(&server, "admin", protocol);
        block_on(async {
            assert_error(&admin.get("/v1/key/list/").await, 503, "request timed out");
            assert_error(&admin.get("/v1/ready").await, 504, "key store is not reachable");
            assert_error(&admin.put("/v1/key/create/late", "").await, 503, "request timed out");
            assert_error(&admin.get("/v1/key/describe/late").await, 404, "key does not exist");
        });
    }
}

#[test]
fn the_routes_are_listed_with_their_times() {
    let server = server(&[("/v1/ready", "7s"), ("/v1/log/audit", "1m"), ("/v1/status", "100ms")]);
    let listed = block_on(client_over(&server, "admin", Protocol::H2).get("/v1/api")).json();
    let time = |path: &str| {
        let routes = listed.as_array().expect("routes");
        routes.iter().find(|route| route["path"] == path).expect("the route")["timeout"].as_u64()
    };
    assert_eq!((time("/v1/ready"), time("/v1/log/audit"), time("/v1/log/error")), (Some(7), Some(60), Some(0)));
    // 0 would mean that there is no limit.
    assert_eq!(time("/v1/status"), Some(1));
}
