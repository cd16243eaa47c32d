//! `--report`, `--json`, and the exit codes.

use serde_json::{Value, json};

use super::support::{Stores, key};

fn names(list: &Value, class: &str) -> Vec<String> {
    let keys = list.as_array().expect("a list").iter().filter(|key| key["class"] == class);
    keys.map(|key| key["name"].as_str().expect("a name").into()).collect()
}

#[test]
fn the_report_lists_every_key() {
    let stores = Stores::with_keys(4);
    stores.write("dst/key-00001", &key(1));
    stores.write("dst/key-00002", &key(77));
    stores.write("dst/mine", &key(78));
    stores.migrate(&["--merge", "--report", "report.json", "--exclude", "key-00003"]).expect(3);
    let report: Value = serde_json::from_str(&stores.read("report.json")).expect("JSON");
    assert_eq!(report["verdict"], "incomplete");
    assert_eq!(report["on_conflict"], "merge");
    assert_eq!(names(&report["keys"], "missing"), ["key-00000"]);
    assert_eq!(names(&report["keys"], "identical"), ["key-00001"]);
    assert_eq!(names(&report["keys"], "different"), ["key-00002"]);
    let results: Vec<_> = report["keys"].as_array().expect("a list").iter().map(|key| &key["result"]).collect();
    assert_eq!(results, ["written", "unchanged", "not migrated"]);
    assert_eq!(report["excluded"], json!(["key-00003"]));
    assert_eq!(report["only_on_target"], json!(["mine"]));
    for key in report["keys"].as_array().expect("a list") {
        assert_eq!(key["fingerprint"].as_str().expect("a text").len(), 16);
        assert_eq!(key["target_fingerprint"].is_string(), key["class"] == "different");
    }
    for side in ["source", "target"] {
        assert!(report[side]["identity"].as_str().expect("a text").contains("inode"), "{report}");
    }
    let entries = std::fs::read_dir(stores.path("")).expect("readable").flatten();
    assert!(entries.into_iter().all(|entry| !entry.file_name().to_string_lossy().contains(".partial")));
}

/// Whoever may write to the report's directory cannot have another file overwritten.
#[test]
fn a_report_follows_no_link() {
    let stores = Stores::with_keys(1);
    stores.write("mine", "mine");
    for link in ["report.json", "report.json.partial"] {
        std::os::unix::fs::symlink("mine", stores.path(link)).expect("a link");
    }
    stores.migrate(&["--report", "report.json"]).expect(0);
    assert_eq!(stores.read("mine"), "mine");
    assert!(stores.read("report.json").contains("\"verdict\": \"complete\""));
    assert!(std::fs::symlink_metadata(stores.path("report.json")).expect("there").is_file());
}

#[test]
fn a_run_that_fails_leaves_no_half_report() {
    let stores = Stores::with_keys(1);
    stores.migrate(&["nope", "--report", "report.json"]).expect(1);
    let entries = std::fs::read_dir(stores.path("")).expect("readable").flatten();
    assert!(entries.into_iter().all(|entry| !entry.file_name().to_string_lossy().contains(".partial")));
    assert!(stores.read("report.json").contains("no key"));
}

#[test]
fn both_sides_have_the_same_fingerprints_afterwards() {
    let stores = Stores::with_keys(3);
    let fingerprints = |run: super::support::Run| -> Vec<Value> {
        let report: Value = serde_json::from_str(&run.stdout).expect("one JSON document and nothing else");
        report["keys"].as_array().expect("a list").iter().map(|key| key["fingerprint"].clone()).collect()
    };
    let before = fingerprints(stores.migrate(&["--json"]).expect(0));
    let after = fingerprints(stores.run(&["verify", "--from", "dst.yml", "--to", "src.yml", "--json"]).expect(0));
    assert_eq!(before, after);
    assert!(before[0] != before[1] && before[1] != before[2]);
}

#[test]
fn a_refused_or_failed_run_has_a_report_as_well() {
    let stores = Stores::with_keys(1);
    stores.write("dst/key-00000", &key(0));
    let report = |args: &[&str]| -> Value {
        serde_json::from_str(&stores.migrate(&[&["--json"], args].concat()).expect(1).stdout).expect("JSON")
    };
    assert_eq!(report(&[])["verdict"], "refused");
    stores.write("src/broken", "no key");
    let failed = report(&[]);
    assert_eq!(failed["verdict"], "failed");
    assert_eq!(failed["problems"][0]["name"], "broken");
    assert!(failed["message"].as_str().expect("a text").contains("'broken' on the source"));
}

#[test]
fn a_report_among_the_keys_or_nowhere_is_refused_before_anything_is_written() {
    let stores = Stores::with_keys(1);
    for bad in ["src/report", "dst/report", "nowhere/report", "src.yml/report"] {
        stores.migrate(&["--report", bad]).expect(1);
    }
    assert!(stores.keys("dst").is_empty());
    assert_eq!(stores.keys("src").len(), 1);
}

#[test]
fn usage_errors_exit_with_2() {
    let stores = Stores::with_keys(1);
    let usage: [&[&str]; 7] = [
        &["--force", "--merge"],
        &["a", "b"],
        &["--nonsense"],
        &["--concurrency", "0"],
        &["--concurrency", "1000000"],
        &["--report"],
        &["--from", "twice.yml"],
    ];
    for args in usage {
        stores.migrate(args).expect(2);
    }
    stores.run(&["migrate"]).expect(2);
    stores.run(&["migrate", "--from", "src.yml"]).expect(2);
    stores.run(&["migrate", "--help"]).expect(0);
    stores.run(&["migrate", "--from", "no.yml", "--to", "dst.yml"]).expect(1);
    stores.run(&["migrate", "--from", "src.yml", "--to", "no.yml"]).expect(1);
    assert!(stores.keys("dst").is_empty());
}
