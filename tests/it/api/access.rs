//! Who may ask what: every endpoint, allowed to one identity that is not the admin and to no other.

use serde_json::json;

use super::{DENIED, NO_CERTIFICATE, assert_error, client, stranger};
use crate::support::certificates::{identity_of, leaf, self_signed};
use crate::support::client::{Request, Session};
use crate::support::lines::Lines;
use crate::support::server::fixture_config;
use crate::support::{Client, Identity, Protocol, TestServer, block_on};

/// Every endpoint that policies are about: a request for it, and the status when it is allowed.
const ENDPOINTS: &[(&str, &str, &str, u16)] = &[
    ("GET", "/v1/ready", "", 200),
    ("GET", "/v1/status", "", 200),
    ("GET", "/v1/metrics", "", 200),
    ("GET", "/v1/api", "", 200),
    ("PUT", "/v1/key/create/new", "", 200),
    (
        "PUT",
        "/v1/key/import/imported",
        r#"{"key":"31LGMHfYlVQa4MmsnqbJrPRHiDjZmDp8DciduqpKgcw=","cipher":"AES256"}"#,
        200,
    ),
    ("GET", "/v1/key/describe/my-key", "", 200),
    ("GET", "/v1/key/list/my", "", 200),
    ("PUT", "/v1/key/generate/my-key", "{}", 200),
    ("PUT", "/v1/key/encrypt/my-key", r#"{"plaintext":"aGVsbG8="}"#, 200),
    ("PUT", "/v1/key/decrypt/my-key", "{}", 400),
    ("PUT", "/v1/key/hmac/my-key", r#"{"message":"aGVsbG8="}"#, 200),
    ("DELETE", "/v1/key/delete/x_y", "", 200),
    ("GET", "/v1/policy/describe/ops", "", 200),
    ("GET", "/v1/policy/read/ops", "", 200),
    ("GET", "/v1/policy/list/", "", 200),
    ("GET", "/v1/identity/describe/nobody", "", 404),
    ("GET", "/v1/identity/list/", "", 200),
];

/// Streams, which answer with headers only.
const STREAMS: &[&str] = &["/v1/log/error", "/v1/log/audit"];

/// A server on which the n-th path is allowed to the n-th identity.
fn one_identity_a_path(paths: &[&str]) -> (TestServer, Vec<Identity>) {
    let identities: Vec<_> = paths.iter().map(|path| self_signed(leaf(path))).collect();
    let policies = paths.iter().zip(&identities).enumerate().map(|(n, (path, identity))| {
        format!("  only-{n}:\n    allow: [ '{path}' ]\n    identities: [ {} ]\n", identity_of(identity))
    });
    let policies: String = policies.collect();
    let config = fixture_config(|config| config.replace("policy:\n", &format!("policy:\n{policies}")));
    (TestServer::with_config(&config), identities)
}

async fn session(server: &TestServer, identity: Option<Identity>) -> Session {
    Client::new(server.address(), identity, Protocol::H2).session().await.expect("a connection")
}

fn request(&(method, path, body, _): &(&str, &str, &str, u16)) -> Request {
    Request::new(method, path).body(body.to_owned())
}

#[test]
fn an_endpoint_is_open_to_those_whose_policy_names_it_and_to_nobody_else() {
    let paths: Vec<_> = ENDPOINTS.iter().map(|(_, path, ..)| *path).collect();
    let (server, identities) = one_identity_a_path(&paths);
    block_on(async {
        for (n, identity) in identities.into_iter().enumerate() {
            let mut session = session(&server, Some(identity)).await;
            for (other, endpoint) in ENDPOINTS.iter().enumerate() {
                let answer = session.send(request(endpoint)).await.expect("an answer");
                if other == n {
                    assert_eq!(answer.status, endpoint.3, "{}: {}", endpoint.1, answer.text());
                } else {
                    assert_error(&answer, 403, DENIED);
                }
            }
        }
    });
}

#[test]
fn an_endpoint_is_closed_to_identities_without_policy_and_to_strangers() {
    let server = TestServer::fixture();
    block_on(async {
        let mut nobody = session(&server, Some(Identity::fixture("nobody"))).await;
        let mut stranger = session(&server, None).await;
        let streams = STREAMS.iter().map(|path| ("GET", *path, "", 0));
        for endpoint in ENDPOINTS.iter().copied().chain(streams) {
            assert_error(&nobody.send(request(&endpoint)).await.expect("an answer"), 403, DENIED);
            assert_error(&stranger.send(request(&endpoint)).await.expect("an answer"), 400, NO_CERTIFICATE);
        }
        let mut created = client(&server, "admin").get("/v1/key/list/new").await.json();
        assert_eq!(created["names"].take(), json!([]));
    });
}

#[test]
fn log_streams_are_open_to_those_whose_policy_names_them() {
    let (server, identities) = one_identity_a_path(STREAMS);
    block_on(async {
        for (n, identity) in identities.into_iter().enumerate() {
            let client = Client::new(server.address(), Some(identity), Protocol::H2);
            assert_eq!(Lines::open(&client, STREAMS[n]).await.status, 200);
            assert_error(&client.get(STREAMS[1 - n]).await, 403, DENIED);
        }
    });
}

/// Every route is in the tables above, or is one that no policy is asked about.
#[test]
fn no_endpoint_is_forgotten() {
    let server = TestServer::fixture();
    let listed = block_on(client(&server, "admin").get("/v1/api")).json();
    for route in listed.as_array().expect("routes") {
        let path = route["path"].as_str().expect("a path");
        let is_tested = |tested: &str| if path.ends_with('/') { tested.starts_with(path) } else { tested == path };
        let is_open = ["/version", "/v1/identity/self/describe"].contains(&path);
        let tested = ENDPOINTS.iter().any(|(_, tested, ..)| is_tested(tested)) || STREAMS.contains(&path);
        assert!(tested || is_open, "{path}");
    }
}

#[test]
fn the_version_is_open_to_everybody() {
    let server = TestServer::fixture();
    for client in [stranger(&server), client(&server, "nobody"), client(&server, "deny"), client(&server, "admin")] {
        assert_eq!(block_on(client.get("/version")).status, 200);
    }
}

/// A server on which `app` may do what `allow` says but not what `deny` says.
fn with_policy(allow: &[&str], deny: &[&str]) -> TestServer {
    let list = |patterns: &[&str]| patterns.iter().map(|pattern| format!("'{pattern}'")).collect::<Vec<_>>().join(", ");
    let policy = format!("  my-app:\n    deny: [ {} ]\n    allow: [ {} ]\n    identities:\n", list(deny), list(allow),);
    TestServer::with_config(&fixture_config(|config| {
        let start = config.find("  my-app:\n").expect("the policy");
        let end = start + config[start..].find("identities:\n").expect("its end") + "identities:\n".len();
        format!("{}{policy}{}", &config[..start], &config[end..])
    }))
}

fn statuses(server: &TestServer, paths: &[&str]) -> Vec<u16> {
    let app = client(server, "app");
    block_on(async {
        let mut session = app.session().await.expect("a connection");
        let mut statuses = Vec::new();
        for path in paths {
            statuses.push(session.send(Request::new("GET", path)).await.expect("an answer").status);
        }
        statuses
    })
}

#[test]
fn policies_see_the_decoded_path() {
    let server = with_policy(&["/v1/key/describe/my-*"], &["/v1/key/describe/my-key"]);
    let paths = [
        "/v1/key/describe/my-key2",
        "/v1/key/describe/%6d%79%2dkey2",
        "/v1/key/%64escribe/my-key2",
        "/v1/key/describe/my-key",
        "/v1/key/describe/my-ke%79",
        "/v1/%6bey/describe/m%79-key",
        "/v1/key/describe/my-key?x=my-key2",
        "/v1/key/describe/my-key%32",
    ];
    assert_eq!(statuses(&server, &paths), [200, 200, 200, 403, 403, 403, 403, 200]);
}

#[test]
fn policies_see_a_listing_without_slash_as_one_with() {
    let server = with_policy(&["/v1/key/list/*", "/v1/policy/list/"], &["/v1/identity/list"]);
    let paths = ["/v1/key/list", "/v1/key/list/", "/v1/policy/list", "/v1/policy/list/", "/v1/identity/list"];
    assert_eq!(statuses(&server, &paths), [200, 200, 200, 200, 403]);
    let server = with_policy(&["/v1/key/list"], &[]);
    assert_eq!(statuses(&server, &["/v1/key/list", "/v1/key/list/"]), [403, 403]);
    let server = with_policy(&["/v1/*"], &["/v1/key/list/"]);
    assert_eq!(statuses(&server, &["/v1/key/list", "/v1/key/list/", "/v1/key/list/my"]), [403, 403, 200]);
}

#[test]
fn deny_wins_and_an_empty_pattern_or_a_star_inside_matches_nothing() {
    let server = with_policy(&["", "/v1/*/my-key", "/v1/ready", "/v1/key/describe/*"], &["/v1/key/describe/a*", ""]);
    let paths = ["/v1/ready", "/v1/status", "/v1/key/describe/my-key", "/v1/key/describe/a", "/v1/key/describe/A"];
    assert_eq!(statuses(&server, &paths), [200, 403, 200, 403, 200]);
}
