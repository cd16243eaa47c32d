//! What the doctor says of the etcd of a cluster.

use serde_json::{Value, json};

use super::HSM;
use crate::support::etcd::{Etcd, tls};
use crate::support::openbao::unique;
use crate::support::peer::free_address;
use crate::support::program::Program;

/// What it finds about a cluster with this section: id, status, message.
fn examine(etcd: &Value) -> Vec<(String, String, String)> {
    let directory = tempfile::tempdir().expect("a directory");
    let config = json!({ "version": "v1", "cluster": { "etcd": etcd } });
    std::fs::write(directory.path().join("kms.yml"), config.to_string()).expect("written");
    let doctor = Program::named("claviger", directory.path()).env("MINIO_KMS_HSM_KEY", HSM);
    let said = doctor.run(&["doctor", "--config", "kms.yml", "--json"]).stdout;
    let checks: Vec<Value> = serde_json::from_str(&said).expect("a list");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let about = checks.iter().filter(|check| text(&check["id"]).starts_with("cluster."));
    about.map(|check| (text(&check["id"]), text(&check["status"]), text(&check["message"]))).collect()
}

#[test]
#[ignore = "runs etcd: tests/run"]
fn it_knows_members_room_sizes_latency_and_data() {
    let etcd = Etcd::shared();
    let found = examine(&etcd.section(&format!("{}/", unique("doctor"))));
    let message = |id: &str| {
        let of = found.iter().find(|(found, status, _)| found == id && status != "failed");
        of.unwrap_or_else(|| panic!("no {id}: {found:?}")).2.clone()
    };
    assert!(message("cluster.etcd").starts_with("3 members answer"), "{found:?}");
    assert!(message("cluster.space").contains("of 2.0 GiB"), "{found:?}");
    assert!(message("cluster.latency").starts_with("half of all commits take "), "{found:?}");
    assert_eq!(message("cluster.data"), "the prefix is empty, 0 servers running");
    message("cluster.requests");
    assert!(
        found.iter().any(|(id, _, message)| id == "cluster.risk" && message.contains("knows no users")),
        "{found:?}"
    );
    assert!(found.iter().all(|(_, status, _)| status != "failed"), "{found:?}");
}

#[test]
#[ignore = "runs etcd: tests/run"]
fn it_says_what_is_wrong_and_which_line_says_so() {
    let mut etcd = Etcd::start(1, &["--max-txn-ops=64", "--max-request-bytes=1000000"]);
    let failure = |section: &Value| {
        let found = examine(section);
        let failed = found.iter().find(|(_, status, _)| status == "failed");
        let (id, _, message) = failed.unwrap_or_else(|| panic!("nothing is wrong: {found:?}"));
        format!("{id}: {message}")
    };
    let mut section = etcd.section("claviger-kms/");
    let said = failure(&section);
    assert!(said.starts_with("cluster.etcd: kms.yml:1:") && said.contains("--max-txn-ops=128"), "{said}");
    section["operations"] = 64.into();
    let said = failure(&section);
    assert!(said.starts_with("cluster.requests: ") && said.contains("too large"), "{said}");

    etcd.enable_users();
    etcd.user("reader", "password", Some(("read", "claviger-kms/")));
    let mut reader = etcd.section_of("reader", "password", "claviger-kms/");
    reader["operations"] = 64.into();
    let said = failure(&reader);
    assert!(said.contains("grant-permission claviger-kms --prefix=true readwrite claviger-kms/"), "{said}");

    section["tls"]["ca"] = "nowhere.crt".into();
    let said = failure(&section);
    assert!(said.contains("cluster.etcd") && said.contains("cannot be read"), "{said}");
    let nobody = format!("https://{}", free_address());
    let said = failure(&json!({ "endpoints": [nobody], "operations": 64, "tls": tls("app") }));
    assert!(said.contains("Status at https://"), "{said}");
}
