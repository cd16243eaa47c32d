//! Audit events in a file that logrotate moves away, in both servers.

use std::path::Path;

use rustix::process::Signal;

use crate::kms::{self, HSM};
use crate::support::program::Program;
use crate::support::server::fixture_config;
use crate::support::{Client, TestServer, block_on, eventually};

/// The fixture's config with audit events in this file and nowhere else.
fn config(file: &str) -> String {
    fixture_config(|config| config.replace("  audit: 'on'\n", &format!("  audit: off\n  audit_file: {file}\n")))
}

/// How many events of a path a file has.
fn count(file: &Path, path: &str) -> usize {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let events = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a whole line"));
    events.filter(|event| event["request"]["path"] == path).count()
}

#[test]
fn events_go_to_the_file_and_to_a_new_one_after_a_hangup() {
    let server = TestServer::with_config(&config("audit.log"));
    let (now, before) = (server.directory().join("audit.log"), server.directory().join("audit.log.1"));
    let admin = Client::fixture(server.address(), "admin");
    let ask = |path: &str| block_on(admin.get(path)).status;
    assert_eq!(ask("/v1/key/describe/my-key"), 200);
    eventually("the event is written", || count(&now, "/v1/key/describe/my-key") == 1);
    std::fs::rename(&now, &before).expect("moved away");
    assert_eq!(ask("/v1/key/describe/my-key"), 200);
    eventually("events follow the file", || count(&before, "/v1/key/describe/my-key") == 2);
    server.reload(&config("audit.log"));
    assert_eq!(ask("/v1/key/describe/my-key"), 200);
    eventually("the new file has the event", || count(&now, "/v1/key/describe/my-key") == 1);
    // Also while the config is in error: what was moved away is soon compressed.
    std::fs::rename(&now, &before).expect("moved away");
    server.reload("nonsense: 1\n");
    assert_eq!(ask("/v1/key/describe/my-key"), 200);
    eventually("the new file has the event", || count(&now, "/v1/key/describe/my-key") == 1);
    assert_eq!(server.stdout(), "");
    server.reload(&config("other.log"));
    assert_eq!(ask("/v1/key/describe/my-key"), 200);
    eventually("the other file has the event", || {
        count(&server.directory().join("other.log"), "/v1/key/describe/my-key") == 1
    });
    server.reload(&fixture_config(|config| config));
    assert_eq!(ask("/v1/key/describe/my-key"), 200);
    eventually("standard output has it", || server.stdout().contains("/v1/key/describe/my-key"));
    assert_eq!(count(&server.directory().join("other.log"), "/v1/key/describe/my-key"), 1);
}

#[test]
fn a_key_manager_writes_and_reopens_it_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let (now, before) = (directory.path().join("audit.log"), directory.path().join("audit.log.1"));
    let config = directory.path().join("kms.yml");
    std::fs::write(&config, format!("version: v1\nlog: {{ audit_file: {} }}\n", now.display())).expect("written");
    let args = ["--config", config.to_str().expect("text")];
    let server = TestServer::key_manager(&directory.path().join("data"), HSM, &args);
    server.says(&format!("audit={}\n", now.display()));
    let client = kms::client(&server, &kms::root());
    block_on(kms::create_enclave(&client));
    eventually("both have the event", || count(&now, "/v1/kms/") == 1 && server.stdout().contains("/v1/kms/"));
    std::fs::rename(&now, &before).expect("moved away");
    server.signal(Signal::HUP);
    eventually("the file is made anew", || now.exists());
    assert!(block_on(kms::create_key(&client, "k", false)).is_ok());
    eventually("the new file has the event", || {
        std::fs::read_to_string(&now).is_ok_and(|text| text.contains("KEY:CREATE"))
    });
    assert_eq!(count(&before, "/v1/kms/"), 1);
}

#[test]
fn a_file_that_cannot_be_written_stops_the_start_and_is_seen_before() {
    let server = TestServer::with_config(&config("audit.log"));
    let directory = server.directory();
    let said = TestServer::refuses(directory, &config("nowhere/audit.log"));
    assert!(said.contains("log.audit_file: failed to open 'nowhere/audit.log'"), "{said}");
    let outcome = Program::named("claviger", directory).run(&["config", "check", "config.yml"]);
    assert!(
        outcome.exit == Some(1) && outcome.stderr.contains("log.audit_file: the directory 'nowhere' "),
        "{outcome:?}"
    );
    let said = TestServer::refuses(directory, &config("keys"));
    assert!(said.contains("log.audit_file: failed to open 'keys'"), "{said}");
    server.reload(&config("nowhere/audit.log"));
    server.says("the old one stays in force");
}
