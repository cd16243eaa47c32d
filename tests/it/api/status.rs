//! `/version`, `/v1/ready`, `/v1/status`, `/v1/api`. `/v1/metrics` is replayed.

use serde_json::json;

use super::{assert_empty, assert_error, client};
use crate::support::{TestServer, block_on};

#[test]
fn the_version_is_that_of_the_program() {
    let server = TestServer::fixture();
    let version = block_on(client(&server, "nobody").get("/version")).json();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert!(version["commit"].as_str().is_some_and(|commit| !commit.is_empty()));
    assert_eq!(version.as_object().map(serde_json::Map::len), Some(2));
}

#[test]
fn the_status_is_in_the_units_that_clients_take() {
    let server = TestServer::fixture();
    let status = block_on(client(&server, "reader").get("/v1/status")).json();
    let (os, arch) = match (std::env::consts::OS, std::env::consts::ARCH) {
        (os, "x86_64") => (os, "amd64"),
        (os, "aarch64") => (os, "arm64"),
        other => other,
    };
    assert_eq!((&status["os"], &status["arch"]), (&json!(os.replace("macos", "darwin")), &json!(arch)));
    for field in ["num_cpu", "num_cpu_used", "mem_heap_used", "mem_stack_used"] {
        assert!(status[field].as_u64().is_some_and(|value| value > 0), "{field}");
    }
    assert!(status["uptime"].is_u64());
    assert!(status["keystore_latency"].as_u64().is_some_and(|latency| latency >= 1_000_000), "nanoseconds");
    assert!(status.get("keystore_unreachable").is_none());
}

/// A directory that vanished is unreachable, a file in its place is no key store.
#[test]
fn a_key_store_that_is_gone_shows() {
    let server = TestServer::fixture();
    let admin = client(&server, "admin");
    block_on(async {
        assert_empty(&admin.get("/v1/ready").await);
        std::fs::remove_dir_all(server.keys()).expect("removed");
        assert_error(&admin.get("/v1/ready").await, 504, "key store is not reachable");
        let status = admin.get("/v1/status").await;
        assert_eq!((status.status, &status.json()["keystore_unreachable"]), (200, &json!(true)));
        assert!(status.json().get("keystore_latency").is_none());
        std::fs::write(server.keys(), "no directory").expect("written");
        assert_error(&admin.get("/v1/ready").await, 502, "key store is unavailable");
        std::fs::remove_file(server.keys()).expect("removed");
        std::fs::create_dir(server.keys()).expect("created");
        assert_empty(&admin.get("/v1/ready").await);
    });
}

/// Paths, methods, limits and times are those of the table that clients know.
#[test]
fn the_routes_are_listed_once_each() {
    let server = TestServer::fixture();
    let listed = block_on(client(&server, "admin").get("/v1/api")).json();
    let mut routes: Vec<_> = listed
        .as_array()
        .expect("routes")
        .iter()
        .map(|route| {
            let text = |field: &str| route[field].as_str().expect("text").to_owned();
            (text("path"), text("method"), route["max_body"].as_u64(), route["timeout"].as_u64())
        })
        .collect();
    routes.sort();
    let table = [
        ("/v1/api", "GET", 0, 10),
        ("/v1/identity/describe/", "GET", 0, 15),
        ("/v1/identity/list/", "GET", 0, 15),
        ("/v1/identity/self/describe", "GET", 0, 15),
        ("/v1/key/create/", "PUT", 0, 15),
        ("/v1/key/decrypt/", "PUT", 1_000_000, 15),
        ("/v1/key/delete/", "DELETE", 0, 15),
        ("/v1/key/describe/", "GET", 0, 15),
        ("/v1/key/encrypt/", "PUT", 1_000_000, 15),
        ("/v1/key/generate/", "PUT", 1_000_000, 15),
        ("/v1/key/hmac/", "PUT", 1_000_000, 15),
        ("/v1/key/import/", "PUT", 1_000_000, 15),
        ("/v1/key/list/", "GET", 0, 15),
        ("/v1/log/audit", "GET", 0, 0),
        ("/v1/log/error", "GET", 0, 0),
        ("/v1/metrics", "GET", 0, 15),
        ("/v1/policy/describe/", "GET", 0, 15),
        ("/v1/policy/list/", "GET", 0, 15),
        ("/v1/policy/read/", "GET", 0, 15),
        ("/v1/ready", "GET", 0, 15),
        ("/v1/status", "GET", 0, 15),
        ("/version", "GET", 0, 10),
    ];
    let table: Vec<_> = table
        .into_iter()
        .map(|(path, method, max_body, timeout)| (path.to_owned(), method.to_owned(), Some(max_body), Some(timeout)))
        .collect();
    assert_eq!(routes, table);
}
