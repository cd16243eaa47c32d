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
fn a_pattern_that_selects_nothing_is_an_error() {
    let stores = Stores::with_keys(1);
    stores.write("dst/nope-2", &key(2));
    let cases = [
        (&["nope"][..], "the source has no key 'nope'"),
        (&["nope*"], "no key of the source matches 'nope*'"),
        (&["key-00001?"], "no key of the source matches 'key-00001?'"),
        (&["--exclude", "key-*"], "--exclude leaves no key of the source"),
        (&["key*", "--exclude", "key-*"], "--exclude leaves no key of the source"),
    ];
    for (args, expected) in cases {
        for run in [stores.migrate(args), stores.verify(args)] {
            let run = run.expect(1);
            assert!(run.stderr.contains(expected), "{args:?}: {}", run.stderr);
            assert!(!run.stdout.contains("succe") && !run.stdout.contains("Verified"), "{args:?}: {}", run.stdout);
        }
    }
    assert_eq!(stores.keys("dst").len(), 1);
    stores.migrate(&["key-0000?"]).expect(0);
}

/// Ten, and how many more; the report has all of them.
#[test]
fn long_lists_end_after_ten() {
    const KEYS: usize = 1_200;
    let stores = Stores::with_keys(KEYS);
    stores.migrate(&["-q"]).expect(0);
    let list = |run: &super::support::Run, part: &str| {
        let text = format!("{}{}", run.stdout, run.stderr);
        let listed = text.lines().filter(|line| line.contains(part)).count();
        assert!(text.lines().count() < 60, "{text}");
        (listed, text.contains("… and 1,190 more"))
    };
    assert_eq!(list(&stores.migrate(&["--report", "all.json"]).expect(1), ": holds the same key"), (10, true));
    let report: serde_json::Value = serde_json::from_str(&stores.read("all.json")).expect("JSON");
    assert_eq!(report["keys"].as_array().expect("a list").len(), KEYS);

    for n in 0..KEYS {
        stores.write(&format!("dst/key-{n:05}"), &key(n + KEYS));
    }
    assert_eq!(list(&stores.migrate(&[]).expect(1), ": holds ANOTHER KEY"), (10, true));
    assert_eq!(list(&stores.migrate(&["--merge"]).expect(3), "NOT MIGRATED: key-"), (10, true));
    let dry = stores.migrate(&["--force", "--dry-run"]).expect(0);
    assert_eq!(list(&dry, "To be REPLACED: key-"), (10, true));
    assert_eq!(list(&stores.verify(&[]).expect(3), "different: key-"), (10, true));
    stores.write("src/zzz", &key(1));
    let excluded = stores.migrate(&["--exclude", "key-*"]).expect(0);
    assert_eq!(list(&excluded, "Excluded: key-00000, key-00001, "), (1, true));

    let extra = stores.run(&["verify", "--from", "src.yml", "--to", "dst.yml", "zzz"]).expect(0);
    assert_eq!(list(&extra, "only on the target"), (0, false));
    for n in 0..KEYS {
        stores.write(&format!("src/key-{n:05}"), "no key");
    }
    assert_eq!(list(&stores.migrate(&[]).expect(1), "' on the source: "), (10, true));
    for n in 0..KEYS {
        std::fs::remove_file(stores.path(&format!("src/key-{n:05}"))).expect("removed");
    }
    assert_eq!(list(&stores.verify(&[]).expect(0), "only on the target: key-"), (10, true));
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
