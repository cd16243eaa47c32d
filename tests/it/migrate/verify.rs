//! `claviger verify`: compares and changes nothing.

use super::support::{Stores, key};

#[test]
fn what_is_missing_different_or_extra_is_listed() {
    let stores = Stores::with_keys(4);
    stores.write("dst/key-00000", &key(0));
    stores.write("dst/key-00002", &key(9));
    stores.write("dst/key-00003", &format!("  {}", key(3)));
    stores.write("dst/mine", &key(8));
    let before = stores.snapshot("dst");
    let run = stores.verify(&[]).expect(3);
    let lines: Vec<_> = run.stdout.lines().collect();
    assert_eq!(lines[0], "missing on the target: key-00001");
    assert!(lines[1].starts_with("different: key-00002 (source "), "{}", lines[1]);
    assert_eq!(lines[2], "only on the target: mine");
    assert_eq!(lines.len(), 3, "{}", run.stdout);

    let run = stores.verify(&["key-00003"]).expect(0);
    assert_eq!(run.stdout, "Verified 1 key: all are on the target and identical.\n");
    stores.verify(&["--exclude", "key-0000[12]"]).expect(0);
    assert!(stores.snapshot("dst") == before);
}

#[test]
fn what_cannot_be_compared_is_a_failure() {
    let stores = Stores::with_keys(1);
    stores.write("dst/key-00000", "no key");
    stores.verify(&[]).expect(1);
    std::fs::remove_dir_all(stores.path("dst")).expect("removed");
    assert!(stores.verify(&[]).expect(1).stderr.contains("the target does not exist"));
    assert!(!stores.path("dst").exists());
    stores.run(&["verify", "--from", "src.yml"]).expect(2);
}
