//! Disks that are full or read-only, and keys that appear meanwhile.

use super::support::{Mount, Stores, key};
use crate::support::eventually;

#[test]
fn a_full_disk_stops_the_run_and_merge_goes_on() {
    let stores = Stores::with_keys(60);
    // A page a file: far from enough.
    let disk = Mount::tmpfs(&stores.path("dst"), "size=64k");
    let run = stores.migrate(&["--report", "report.json"]).expect(3);
    assert!(run.stderr.contains("No space left on device"), "{}", run.stderr);
    assert!(run.stderr.contains("of 60 keys were migrated"), "{}", run.stderr);
    assert!(run.stderr.contains("run again with --merge"), "{}", run.stderr);
    assert!(!run.stdout.contains("successfully"), "{}", run.stdout);
    let written = stores.keys("dst");
    assert!(!written.is_empty() && written.len() < 60);
    assert!(written.iter().all(|(name, value)| stores.keys("src")[name] == *value), "whole keys or none");
    let report: serde_json::Value = serde_json::from_str(&stores.read("report.json")).expect("JSON");
    assert_eq!(report["counts"]["written"], written.len());

    disk.remount("size=10m");
    let run = stores.migrate(&["--merge"]).expect(0);
    assert!(run.stdout.ends_with(&format!("Migrated {:6} keys successfully!\n", 60 - written.len())));
    assert_eq!(stores.keys("dst"), stores.keys("src"));
}

#[test]
fn a_disk_without_any_room_fails_with_nothing_done() {
    let stores = Stores::with_keys(3);
    let _disk = Mount::tmpfs(&stores.path("dst"), "nr_inodes=1");
    let run = stores.migrate(&[]).expect(1);
    assert!(run.stderr.contains("0 of 3 keys were migrated"), "{}", run.stderr);
    assert!(stores.keys("dst").is_empty());
}

#[test]
fn a_read_only_target_is_noticed_before_the_plan() {
    let stores = Stores::with_keys(3);
    let _disk = Mount::tmpfs(&stores.path("dst"), "ro");
    for args in [&[][..], &["--dry-run"], &["--force"]] {
        let run = stores.migrate(args).expect(1);
        assert!(run.stderr.contains("the target cannot be used") && run.stderr.contains("Read-only"), "{}", run.stderr);
        assert!(!run.stderr.contains("Plan:"), "{}", run.stderr);
    }
    // To compare, nothing need be written.
    stores.verify(&[]).expect(3);
}

#[test]
fn a_read_only_source_is_good_enough() {
    let stores = Stores::with_keys(3);
    let disk = Mount::bind(&stores.path("src"), &stores.path("src"));
    disk.remount("bind,ro");
    stores.migrate(&[]).expect(0);
    assert_eq!(stores.keys("dst").len(), 3);
}

#[test]
fn a_key_that_appears_on_the_target_is_never_overwritten() {
    let stores = Stores::with_keys(2_000);
    let run = stores.start(&["--concurrency", "1"]);
    eventually("some keys are there", || stores.keys("dst").len() > 5);
    stores.write("dst/.later", &key(99_999));
    std::fs::rename(stores.path("dst/.later"), stores.path("dst/key-01999")).expect("renamed");
    let run = super::support::Run::from(run.wait_with_output().expect("our child")).expect(3);
    assert!(run.stderr.contains("FAILED: key-01999: another key appeared"), "{}", run.stderr);
    assert!(run.stderr.contains("1999 of 2000 keys were migrated"), "{}", run.stderr);
    assert_eq!(stores.read("dst/key-01999"), key(99_999));
    assert_eq!(stores.read("dst/key-01998"), key(1_998));
}

#[test]
fn keys_that_appear_on_the_source_or_vanish_there_are_reported() {
    let stores = Stores::with_keys(2_000);
    let run = stores.start(&["--concurrency", "1", "--report", "report.json"]);
    eventually("some keys are there", || stores.keys("dst").len() > 5);
    stores.write("src/later", &key(99_999));
    std::fs::remove_file(stores.path("src/key-00000")).expect("removed");
    let run = super::support::Run::from(run.wait_with_output().expect("our child")).expect(3);
    assert!(run.stderr.contains("appeared on the source during the run and NOT migrated: later"), "{}", run.stderr);
    assert!(run.stderr.contains("vanished from the source during the run: key-00000"), "{}", run.stderr);
    assert_eq!(stores.read("dst/key-00000"), key(0));
    let report: serde_json::Value = serde_json::from_str(&stores.read("report.json")).expect("JSON");
    assert_eq!(report["appeared"], serde_json::json!(["later"]));
    assert_eq!(report["vanished"], serde_json::json!(["key-00000"]));
    stores.migrate(&["--merge"]).expect(0);
    assert_eq!(stores.read("dst/later"), key(99_999));
}
