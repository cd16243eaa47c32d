//! A deployment that outgrew its built-in key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::support::{Stores, secret};

fn stores() -> Stores {
    let stores = Stores::empty();
    let key = STANDARD.encode(secret(1));
    stores.write("static.yml", &format!("keystore:\n  static:\n    key: \"minio-default:{key}\"\n"));
    stores
}

#[test]
fn a_built_in_key_moves_and_stays_without_algorithm() {
    let stores = stores();
    let run = stores.run(&["migrate", "--from", "static.yml", "--to", "dst.yml"]).expect(0);
    assert!(run.stdout.ends_with("Migrated      1 keys successfully!\n"), "{}", run.stdout);
    let expected = format!(r#"{{"bytes":"{}"}}"#, STANDARD.encode(secret(1)));
    assert_eq!(stores.read("dst/minio-default"), expected);
    stores.run(&["verify", "--from", "static.yml", "--to", "dst.yml"]).expect(0);
    stores.run(&["verify", "--from", "dst.yml", "--to", "static.yml"]).expect(0);
}

#[test]
fn a_built_in_key_is_no_target() {
    let stores = stores();
    for args in [&[][..], &["--force"], &["--merge"], &["--dry-run"]] {
        let run = stores.run(&[&["migrate", "--from", "src.yml", "--to", "static.yml"], args].concat()).expect(1);
        assert!(run.stderr.contains("read-only"), "{}", run.stderr);
        assert!(!run.stderr.contains("Plan:"), "{}", run.stderr);
    }
}
