//! What the doctor says.

use serde_json::{Value, json};

use super::RIGHTS;
use crate::support::postgres::Postgres;
use crate::support::program::Program;

#[test]
#[ignore = "runs PostgreSQL: tests/run"]
fn the_doctor_knows_rights_clock_standbys_and_logs() {
    let postgres = Postgres::start();
    let directory = tempfile::tempdir().expect("a directory");
    let doctor = Program::named("claviger", directory.path());
    let examine = |section: &Value, purpose: &str| -> Vec<(String, String, String)> {
        let config = json!({ "keystore": { "postgres": section } });
        std::fs::write(directory.path().join("config.yml"), config.to_string()).expect("written");
        let said = doctor.run(&["doctor", "--config", "config.yml", "--json", "--for", purpose]).stdout;
        let checks: Vec<Value> = serde_json::from_str(&said).expect("a list");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let of_store = checks.iter().filter(|check| text(&check["id"]).starts_with("keystore."));
        of_store.map(|check| (text(&check["id"]), text(&check["status"]), text(&check["message"]))).collect()
    };
    let section = postgres.section(&postgres.table(RIGHTS));
    let checks = examine(&section, "migrate-target");
    let found: Vec<_> = checks.iter().map(|(id, status, _)| (id.as_str(), status.as_str())).collect();
    let expected = [
        ("keystore.reach", "ok"),
        ("keystore.risk", "warning"),
        ("keystore.rights", "ok"),
        ("keystore.latency", "ok"),
        ("keystore.clock", "ok"),
    ];
    assert_eq!(found, expected, "{checks:?}");
    assert!(checks[1].2.contains("asynchronous"), "{checks:?}");

    postgres.set_synchronous(0, "*");
    postgres.psql(0, "postgres", "ALTER ROLE claviger SET log_statement = 'all'");
    let reader = postgres.section(&postgres.table("SELECT"));
    let checks = examine(&reader, "migrate-target");
    let risks: Vec<_> = checks.iter().filter(|(id, ..)| id == "keystore.risk").map(|(.., message)| message).collect();
    assert!(risks.len() == 1 && risks[0].contains("SET log_parameter_max_length = 0"), "{checks:?}");
    let (.., message) =
        checks.iter().find(|(id, status, _)| id == "keystore.rights" && status == "failed").expect("it");
    assert!(message.contains("missing rights: INSERT, UPDATE"), "{message}");
    // As the message says.
    postgres.psql(0, "postgres", "ALTER ROLE claviger SET log_parameter_max_length = 0");
    assert!(!examine(&reader, "migrate-source").iter().any(|(id, ..)| id == "keystore.risk"));
}
