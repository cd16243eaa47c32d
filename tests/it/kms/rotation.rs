//! Keys that get a new version because of their age.

use claviger::client::Client;

use super::{HSM, client, create_enclave, create_key, keys, root};
use crate::support::door;
use crate::support::{TestServer, block_on, eventually};

/// The versions of keys by their names.
fn versions(client: &Client) -> Vec<(String, u32)> {
    block_on(keys(client))
}

#[test]
fn keys_that_are_too_old_get_one_new_version_and_others_none() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("kms.yml");
    let write = |rotation: &str| std::fs::write(&config, format!("version: v1\n{rotation}")).expect("written");
    write("");
    let data = directory.path().join("data");
    let server = TestServer::key_manager(&data, HSM, &["--config", config.to_str().expect("text")]);
    let client = client(&server, &root());
    block_on(async {
        create_enclave(&client).await;
        create_key(&client, "new", false).await.expect("made");
        for name in ["old", "kept"] {
            // Made in 2023.
            let value = std::fs::read(crate::support::testdata("http/fixture/keys/my-key")).expect("readable");
            door::import_into(super::ENCLAVE, &client, name, value).await;
        }
    });
    let all = |old: u32| vec![("kept".to_owned(), 1), ("new".to_owned(), 1), ("old".to_owned(), old)];
    assert_eq!(versions(&client), all(1), "nothing is rotated where nobody asked for it");
    write("rotation: { tenant: { after: 24h, keys: { kept: off } } }\n");
    let reload = || {
        let before = server.stderr().matches("config reloaded").count();
        server.signal(rustix::process::Signal::HUP);
        eventually("the reload ends", || server.stderr().matches("config reloaded").count() > before);
    };
    reload();
    eventually("the old key is rotated", || versions(&client) == all(2));
    let said = server.stderr();
    assert!(said.contains("keys got a new version because of their age"), "{said}");
    assert!(said.contains("KEY:CREATE old (new version)"), "the log has it as any change: {said}");
    // It is young now: another look changes nothing.
    write("rotation: { tenant: { after: 25h, keys: { kept: off } }, nowhere: { after: 24h } }\n");
    reload();
    write("rotation: { tenant: { after: 24h, keys: { kept: 48h } } }\n");
    reload();
    eventually("the other one is rotated", || versions(&client)[0] == ("kept".to_owned(), 2));
    assert_eq!(versions(&client)[1..], all(2)[1..]);
    let metrics = block_on(async {
        let client = crate::support::Client::new(
            server.address(),
            Some(crate::support::Identity::enclave(&root())),
            crate::support::Protocol::H2,
        );
        client.get("/v1/health/metrics").await
    });
    let metrics = metrics.text();
    assert!(metrics.contains("claviger_kms_rotations_total 2\n"), "{metrics}");
    assert!(metrics.contains("claviger_kms_rotation_failures_total 0\n"), "{metrics}");
    assert!(server.stop().success());
}
