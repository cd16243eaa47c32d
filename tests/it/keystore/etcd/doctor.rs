//! What the doctor and a starting server say.

use serde_json::{Value, json};

use super::super::wait_for_log;
use super::serve;
use crate::support::etcd::Etcd;
use crate::support::openbao::unique;
use crate::support::program::Program;

#[test]
#[ignore = "runs etcd: tests/run"]
fn the_doctor_knows_rights_latency_users_and_members() {
    let mut etcd = Etcd::start(1, &[]);
    let directory = tempfile::tempdir().expect("a directory");
    let doctor = Program::named("claviger", directory.path());
    let examine = |section: &Value| -> Vec<(String, String, String)> {
        let config = json!({ "keystore": { "etcd": section } });
        std::fs::write(directory.path().join("config.yml"), config.to_string()).expect("written");
        let said = doctor.run(&["doctor", "--config", "config.yml", "--json", "--for", "migrate-target"]).stdout;
        let checks: Vec<Value> = serde_json::from_str(&said).expect("a list");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let of_store = checks.iter().filter(|check| text(&check["id"]).starts_with("keystore."));
        of_store.map(|check| (text(&check["id"]), text(&check["status"]), text(&check["message"]))).collect()
    };
    let checks = examine(&etcd.section("claviger/"));
    let found: Vec<_> = checks.iter().map(|(id, status, _)| (id.as_str(), status.as_str())).collect();
    let expected = [
        ("keystore.reach", "ok"),
        ("keystore.risk", "warning"),
        ("keystore.risk", "warning"),
        ("keystore.rights", "ok"),
        ("keystore.latency", "ok"),
    ];
    assert_eq!(found, expected, "{checks:?}");
    assert!(checks[1].2.contains("etcd knows no users") && checks[2].2.contains("fewer than three"), "{checks:?}");

    etcd.enable_users();
    etcd.user("reader", "password", Some(("read", "claviger/")));
    let checks = examine(&etcd.section_of("reader", "password", "claviger/"));
    assert!(!checks.iter().any(|(.., message)| message.contains("knows no users")), "{checks:?}");
    let (.., message) =
        checks.iter().find(|(id, status, _)| id == "keystore.rights" && status == "failed").expect("it");
    assert!(message.contains("grant-permission claviger --prefix=true readwrite claviger/"), "{message}");
}

#[test]
#[ignore = "runs etcd: tests/run"]
fn a_server_says_at_its_start_that_there_are_no_users() {
    let etcd = Etcd::shared();
    let server = serve(&etcd.section(&format!("{}/", unique("warned"))), "{}");
    wait_for_log(&server, &["WARN", "etcd knows no users", "keystore.encrypt"]);
    assert!(!server.stderr().contains("fewer than three"));
}
