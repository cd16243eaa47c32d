//! Keys with versions on their way out.

use super::{Desk, KeyManager, report};
use crate::support::eventually;

/// A key manager with a key of three versions, of which the second was removed, and one of one.
fn rotated() -> (KeyManager, Desk) {
    let (manager, desk) = (KeyManager::start(), Desk::with_keys(0));
    for args in [
        &["add-key", "rotated"][..],
        &["add-key", "rotated", "--version"],
        &["add-key", "rotated", "--version"],
        &["rm-key", "rotated", "--version", "2"],
        &["add-key", "single"],
    ] {
        manager.minkms(args).ok();
    }
    desk.write("kms.yml", &manager.section().to_string());
    (manager, desk)
}

/// A message that this key manager encrypted with the latest version.
fn encrypted(manager: &KeyManager, key: &str) -> String {
    let made = manager.minkms(&["encrypt", key, "message", "context"]).ok();
    let made: serde_json::Value = serde_json::from_str(&made).expect("JSON");
    made["ciphertext"].as_str().expect("text").to_owned()
}

#[test]
fn a_key_store_takes_one_version_and_only_when_somebody_says_which() {
    let (manager, desk) = rotated();
    let run = desk.run(&manager, &["migrate", "--from", "kms.yml", "--to", "dst.yml"]);
    assert_eq!(run.exit, Some(1), "{run:?}");
    assert!(run.stderr.contains("'rotated' on the source: it has versions 1, 3"), "{run:?}");
    assert!(!desk.path().join("dst").exists(), "nothing was written");

    let alone = ["migrate", "--from", "kms.yml", "--to", "dst.yml", "rotated", "--only-version"];
    let none = desk.run(&manager, &[&alone[..], &["2"]].concat());
    assert!(none.exit == Some(1) && none.stderr.contains("it has no version 2"), "{none:?}");
    let run = desk.run(&manager, &[&alone[..], &["3", "--json"]].concat());
    assert_eq!(run.exit, Some(0), "{run:?}");
    assert!(run.stderr.contains("Warning: will be LOST of rotated: version 1"), "{run:?}");
    assert_eq!(report(&run)["keys"][0]["lost"], serde_json::json!(["version 1"]));
    let run = desk.run(&manager, &["migrate", "--from", "kms.yml", "--to", "dst.yml", "single"]);
    assert_eq!(run.exit, Some(0), "{run:?}");
    let ciphertext = encrypted(&manager, "rotated");
    for (name, value) in desk.keys("dst") {
        let key = claviger::crypto::Key::parse(&value.into()).expect("a key");
        assert!(key.has_hmac(), "{name}");
        assert_eq!(key.created_by().map(str::len), Some(64), "as a KES writes it: {name}");
        if name == "rotated" {
            use base64::Engine as _;
            let ciphertext = base64::engine::general_purpose::STANDARD.decode(&ciphertext).expect("base64");
            assert_eq!(key.decrypt(&ciphertext, b"context").expect("the key's").as_slice(), b"message");
        }
    }
}

#[test]
fn another_key_manager_takes_all_versions_with_their_numbers() {
    let (manager, desk) = rotated();
    let old = encrypted(&manager, "rotated");
    let other = KeyManager::number(1);
    let run = desk.run(&other, &["migrate", "--from", "kms.yml"]);
    assert!(run.exit == Some(0) && !run.stderr.contains("LOST"), "{run:?}");
    desk.run(&other, &["verify", "--from", "kms.yml"]).ok();
    assert_eq!(other.minkms(&["ls-key", "--versions", "rotated", "--json"]).ok(), "[\"1\",\"3\"]\n");
    let opened = other.minkms(&["decrypt", "rotated", &old, "context"]).ok();
    assert!(opened.contains("bWVzc2FnZQ=="), "{opened}");
    other.minkms(&["add-key", "rotated", "--version"]).ok();
    assert_eq!(other.minkms(&["ls-key", "--versions", "rotated", "--json"]).ok(), "[\"1\",\"3\",\"4\"]\n");
    let verified = desk.run(&other, &["verify", "--from", "kms.yml"]);
    assert!(verified.exit == Some(3) && verified.stdout.contains("different: rotated"), "{verified:?}");
}

#[test]
fn every_exported_key_is_in_the_audit_log() {
    let (manager, desk) = rotated();
    desk.run(&manager, &["migrate", "--from", "kms.yml", "--to", "dst.yml", "single"]).ok();
    let wanted = r#"{"action":"KEY:EXPORT","name":"single"}"#;
    let events = || manager.server.stdout().lines().filter(|line| line.contains(wanted)).count();
    eventually("the audit event of the key", || events() == 1);
}
