//! What a reload changes, and what it leaves alone.

use std::time::Duration;

use rustix::process::Signal;

use super::support::server::fixture_config;
use super::support::{Client, Identity, TestServer, block_on, eventually, testdata};

/// The fixture's config with more in its `cache:` section.
fn with_cache(expiry: &str) -> String {
    fixture_config(|config| format!("{config}cache: {{ expiry: {{ {expiry} }} }}\n"))
}

#[test]
fn a_reload_in_an_outage_keeps_what_is_cached() {
    let server = TestServer::with_config(&with_cache("any: 1s, offline: 1h"));
    let admin = Client::fixture(server.address(), "admin");
    let status = |path: &str| block_on(admin.get(path)).status;
    assert_eq!(status("/v1/key/describe/my-key"), 200);
    let away = server.directory().join("away");
    std::fs::rename(server.keys(), &away).expect("renamed");
    server.reload(&with_cache("any: 2s, offline: 1h"));
    assert!(!server.stderr().contains("not reloaded"), "{}", server.stderr());
    // Beyond its time, so that only the outage lets it serve.
    std::thread::sleep(Duration::from_millis(2_500));
    assert_eq!(status("/v1/key/describe/my-key"), 200);
    assert_eq!(status("/v1/ready"), 504);
    std::fs::rename(&away, server.keys()).expect("renamed");
    assert_eq!(status("/v1/ready"), 200);
    assert_eq!(status("/v1/key/describe/my-key2"), 200);
}

#[test]
fn another_key_store_must_connect_first() {
    let server = TestServer::fixture();
    let admin = Client::fixture(server.address(), "admin");
    let status = |path: &str| block_on(admin.get(path)).status;
    assert_eq!(status("/v1/key/describe/my-key"), 200);
    let other = |path: &str| fixture_config(|config| config.replace("path: keys", &format!("path: {path}")));
    server.reload(&other("server.crt/keys"));
    server.says("the old one stays in force");
    assert_eq!(status("/v1/key/describe/my-key"), 200);
    std::fs::create_dir(server.directory().join("more-keys")).expect("a directory");
    std::fs::copy(server.keys().join("my-key"), server.directory().join("more-keys/new-key")).expect("copied");
    server.reload(&other("more-keys"));
    assert_eq!(status("/v1/key/describe/my-key"), 404, "nothing cached is left of the old store");
    assert_eq!(status("/v1/key/describe/new-key"), 200);
}

#[test]
fn keys_of_the_config_are_created_when_they_are_missing() {
    let config = |names: &str| fixture_config(|config| format!("{config}keys: [ {names} ]\n"));
    let before = std::fs::read(testdata("http/fixture/keys/my-key")).expect("the fixture's key");
    let server = TestServer::with_config(&config("{ name: my-key }, { name: made-at-start }"));
    let admin = Client::fixture(server.address(), "admin");
    let describe = |name: &str| block_on(admin.get(&format!("/v1/key/describe/{name}")));
    assert_eq!(describe("made-at-start").json()["created_by"], Identity::fixture("admin").hash());
    assert_eq!(std::fs::read(server.keys().join("my-key")).expect("it is there"), before);
    server.reload(&config("{ name: my-key }, { name: made-later }"));
    assert_eq!(describe("made-later").status, 200);
}

#[test]
fn the_log_has_the_level_of_the_config() {
    let deny = |path: &'static str, server: &TestServer| {
        let app = Client::fixture(server.address(), "app");
        block_on(async { assert_eq!(app.get(path).await.status, 403) });
    };
    let config = |level: &str| fixture_config(|config| config.replace("error: 'on'", &format!("error: {level}")));
    let server = TestServer::with_config(&config("INFO"));
    deny("/v1/key/describe/one", &server);
    eventually("it is logged", || server.stderr().contains("/v1/key/describe/one"));
    let quiet = config("ERROR").replace("  empty: {}\n", "  empty: {}\n  another: {}\n");
    std::fs::write(server.directory().join("config.yml"), quiet).expect("written");
    server.signal(Signal::HUP);
    // The line that says so is below ERROR.
    let admin = Client::fixture(server.address(), "admin");
    eventually("it is loaded", || block_on(admin.get("/v1/policy/describe/another")).status == 200);
    deny("/v1/key/describe/two", &server);
    std::fs::write(server.directory().join("config.yml"), "nonsense: [").expect("written");
    server.signal(Signal::HUP);
    eventually("the failure is logged", || server.stderr().contains("not reloaded"));
    assert!(!server.stderr().contains("/v1/key/describe/two"), "denials are INFO");
}
