//! Which keys, and what is no key.

use super::support::{Stores, key};

#[test]
fn an_exclusion_is_named_and_its_key_stays_behind() {
    let stores = Stores::with_keys(4);
    let run = stores.migrate(&["--exclude", "key-00001", "--exclude", "*3", "key-*"]).expect(0);
    assert!(run.stdout.ends_with("Migrated      2 keys successfully!\n"), "{}", run.stdout);
    assert!(run.stderr.contains("Excluded: key-00001, key-00003"), "{}", run.stderr);
    assert_eq!(stores.keys("dst").into_keys().collect::<Vec<_>>(), ["key-00000", "key-00002"]);
}

#[test]
fn a_malformed_pattern_is_a_usage_error() {
    let stores = Stores::with_keys(1);
    for bad in ["[", "[]", "[!a]", "a\\", "{a"] {
        assert!(stores.migrate(&[bad]).expect(2).stderr.contains("malformed pattern"), "{bad}");
        assert!(stores.migrate(&["--exclude", bad]).expect(2).stderr.contains("malformed pattern"), "{bad}");
        assert!(stores.verify(&[bad]).expect(2).stderr.contains("malformed pattern"), "{bad}");
    }
    assert!(stores.keys("dst").is_empty());
}

#[test]
fn a_name_must_be_there_and_a_glob_need_not_match() {
    let stores = Stores::with_keys(1);
    assert!(stores.migrate(&["nope"]).expect(1).stderr.contains("the source has no key 'nope'"));
    let run = stores.migrate(&["nope*"]).expect(0);
    assert_eq!(run.stdout, "Starting key migration:\n\nMigration succeeded! No keys migrated.\n");
    stores.migrate(&["key-00000"]).expect(0);
}

#[test]
fn every_entry_that_is_no_key_is_named_before_anything_is_written() {
    let stores = Stores::with_keys(2);
    stores.write("src/broken", "no key");
    stores.write("src/empty", "");
    stores.write("src/not a name", &key(7));
    stores.write("src/.hidden", "nobody's business");
    std::fs::create_dir(stores.path("src/folder")).expect("made");
    std::os::unix::fs::symlink("nowhere", stores.path("src/dangling")).expect("made");
    let run = stores.migrate(&[]).expect(1);
    for name in ["broken", "empty", "not a name", "folder", "dangling"] {
        assert!(run.stderr.contains(&format!("'{name}' on the source: ")), "{name}: {}", run.stderr);
    }
    assert!(!run.stderr.contains("hidden") && !run.stderr.contains("no key\n"), "{}", run.stderr);
    assert!(stores.keys("dst").is_empty());

    let exclusions = ["broken", "empty", "not a name", "folder", "dangling"].map(|name| ["--exclude", name]);
    stores.migrate(&exclusions.concat()).expect(0);
    assert_eq!(stores.keys("dst").len(), 2);
}

#[test]
fn an_entry_of_the_target_that_is_no_key_stops_the_run_as_well() {
    let stores = Stores::with_keys(2);
    std::fs::create_dir(stores.path("dst/lost+found")).expect("made");
    stores.write("dst/key-00001", "half a k");
    let run = stores.migrate(&["--force"]).expect(1);
    assert!(run.stderr.contains("'lost+found' on the target: a directory"), "{}", run.stderr);
    assert!(run.stderr.contains("'key-00001' on the target: "), "{}", run.stderr);
    assert!(!stores.path("dst/key-00000").exists());
    stores.migrate(&["--exclude", "lost*", "--exclude", "key-00001"]).expect(0);
    assert_eq!(stores.read("dst/key-00001"), "half a k");

    // A pattern leaves them out as well.
    stores.migrate(&["key-00000", "--merge"]).expect(0);
}

#[test]
fn a_reserved_name_is_reported_and_left_alone() {
    let stores = Stores::with_keys(1);
    stores.write("src/claviger-old-0123456789abcdef", r#"{"claviger_old":{"name":"x","value":"y"}}"#);
    let run = stores.migrate(&[]).expect(0);
    assert!(run.stderr.contains("'claviger-old-0123456789abcdef' on the source: "), "{}", run.stderr);
    assert_eq!(stores.keys("dst").len(), 1);
}
