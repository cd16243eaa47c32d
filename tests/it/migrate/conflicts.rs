//! Keys that the target has already: refusal, `--merge`, `--force`, `--dry-run`.

use std::os::unix::fs::PermissionsExt as _;

use super::support::{Stores, key, stored_key};

/// `key-00000` is missing, `key-00001` the same, `key-00002` another one, `mine` nobody else's.
fn stores() -> Stores {
    let stores = Stores::with_keys(3);
    stores.write("dst/key-00001", &key(1));
    stores.write("dst/key-00002", &key(77));
    stores.write("dst/mine", &key(78));
    stores
}

#[test]
fn a_refusal_lists_every_key_and_writes_nothing() {
    let stores = stores();
    let before = stores.snapshot("dst");
    let run = stores.migrate(&[]).expect(1);
    assert_eq!(run.stdout, "Starting key migration:\n\n");
    assert!(run.stderr.contains("key-00001: holds the same key"), "{}", run.stderr);
    assert!(run.stderr.contains("key-00002: holds ANOTHER KEY"), "{}", run.stderr);
    assert!(!run.stderr.contains("key-00000:") && !run.stderr.contains("mine:"), "{}", run.stderr);
    assert!(stores.snapshot("dst") == before);
}

#[test]
fn merge_writes_what_is_missing_and_says_loudly_what_differs() {
    let stores = stores();
    let run = stores.migrate(&["--merge"]).expect(3);
    assert!(run.stdout.ends_with("Migrated      1 keys successfully!\n"), "{}", run.stdout);
    assert!(run.stderr.contains("NOT MIGRATED: key-00002: the target holds ANOTHER KEY"), "{}", run.stderr);
    assert_eq!(stores.read("dst/key-00000"), key(0));
    assert_eq!(stores.read("dst/key-00002"), key(77));

    // Also when nobody wants to hear the rest.
    let run = stores.migrate(&["--merge", "-q"]).expect(3);
    assert_eq!(run.stdout, "");
    assert!(run.stderr.contains("NOT MIGRATED: key-00002"), "{}", run.stderr);
}

#[test]
fn merge_is_complete_when_nothing_differs() {
    let stores = stores();
    let run = stores.migrate(&["--merge", "--exclude", "key-00002"]).expect(0);
    assert!(run.stdout.ends_with("Migrated      1 keys successfully!\n"), "{}", run.stdout);
    let run = stores.migrate(&["--merge", "--exclude", "key-00002"]).expect(0);
    assert!(run.stdout.ends_with("Migration succeeded! No keys migrated.\n"), "{}", run.stdout);
}

#[test]
fn force_writes_what_is_missing_or_differs_and_nothing_else() {
    let stores = stores();
    let same = std::fs::metadata(stores.path("dst/key-00001")).expect("there").modified().expect("a time");
    let run = stores.migrate(&["--force"]).expect(0);
    assert!(run.stdout.ends_with("Migrated      2 keys successfully!\n"), "{}", run.stdout);
    assert!(run.stderr.contains("1 written, 1 replaced"), "{}", run.stderr);
    for n in 0..3 {
        assert_eq!(stores.read(&format!("dst/key-0000{n}")), key(n));
    }
    assert_eq!(stores.read("dst/mine"), key(78));
    let now = std::fs::metadata(stores.path("dst/key-00001")).expect("there").modified().expect("a time");
    assert_eq!(now, same);
    let mode = std::fs::metadata(stores.path("dst/key-00002")).expect("there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn a_rehearsal_writes_nothing_and_ends_as_the_run_would() {
    let stores = stores();
    let before = stores.snapshot("dst");
    for (args, code) in [(&["--dry-run"][..], 1), (&["--dry-run", "--merge"], 3), (&["--dry-run", "--force"], 0)] {
        let run = stores.migrate(args).expect(code);
        assert!(run.stderr.contains("1 missing on the target, 1 identical, 1 different"), "{}", run.stderr);
        assert_eq!(run.stdout.contains("Dry run: nothing was written."), code != 1, "{}", run.stdout);
        let replaced = "To be REPLACED: key-00002: the target holds ANOTHER KEY (";
        assert_eq!(run.stderr.contains(replaced), args.contains(&"--force"), "{}", run.stderr);
    }
    assert!(stores.snapshot("dst") == before);
}

#[test]
fn neither_a_rehearsal_nor_a_refusal_makes_the_target() {
    let stores = Stores::with_keys(1);
    std::fs::remove_dir(stores.path("dst")).expect("removed");
    stores.migrate(&["--dry-run"]).expect(0);
    stores.write("src/broken", "no key");
    stores.migrate(&[]).expect(1);
    assert!(!stores.path("dst").exists());
    stores.migrate(&["--exclude", "broken"]).expect(0);
    assert_eq!(stores.read("dst/key-00000"), key(0));
}

#[test]
fn a_key_is_the_same_in_every_format_and_another_one_without_its_hmac_key() {
    let (value, secret) = stored_key("HEAD");
    let stores = Stores::empty();
    stores.write("src/k", &value);
    stores.write("dst/k", &format!("\n{value}\n"));
    assert!(stores.migrate(&[]).expect(1).stderr.contains("k: holds the same key"));

    let without_hmac = format!(r#"{{"bytes":"{secret}","algorithm":"AES256"}}"#);
    stores.write("dst/k", &without_hmac);
    assert!(stores.migrate(&[]).expect(1).stderr.contains("k: holds ANOTHER KEY"));

    // One that names no algorithm has ciphertexts of two kinds: it is another one, too.
    stores.write("src/k", &without_hmac);
    stores.write("dst/k", &format!(r#"{{"bytes":"{secret}"}}"#));
    assert!(stores.migrate(&[]).expect(1).stderr.contains("k: holds ANOTHER KEY"));
    stores.migrate(&["--force"]).expect(0);
    assert_eq!(stores.read("dst/k"), without_hmac);
}
