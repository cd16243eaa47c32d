//! To AWS Secrets Manager and back, as moto answers for it.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::support::{Run, Stores, key};
use crate::support::eventually;
use crate::support::gate::{Gate, Rule};
use crate::support::moto::{Moto, REGION};

/// What AWS says to those who ask too often.
fn rate_exceeded() -> String {
    json!({ "__type": "ThrottlingException", "message": "Rate exceeded" }).to_string()
}

/// A config file whose keys are at this endpoint.
fn config(endpoint: &str, prefix: &str) -> String {
    let credentials = json!({ "accesskey": "anybody", "secretkey": "whatever" });
    let section = json!({ "endpoint": endpoint, "region": REGION, "prefix": prefix, "credentials": credentials });
    json!({ "keystore": { "aws": { "secretsmanager": section } } }).to_string()
}

/// So many keys in a directory, and Secrets Manager as target.
fn stores(count: usize, endpoint: &str, prefix: &str) -> Stores {
    let stores = Stores::with_keys(count);
    stores.write("dst.yml", &config(endpoint, prefix));
    stores
}

/// From the target to a new directory.
fn back(stores: &Stores, args: &[&str]) -> Run {
    stores.write("back.yml", "keystore: { fs: { path: back } }\n");
    stores.run(&[&["migrate", "--from", "dst.yml", "--to", "back.yml"], args].concat())
}

#[test]
#[ignore = "runs moto: tests/run"]
fn thousands_of_keys_go_there_and_come_back_through_throttling_and_interruption() {
    const KEYS: usize = 2_000;
    let moto = Moto::start();
    let gate = Gate::new(moto.address());
    gate.rule("secretsmanager.", Rule::Every(500, 400, rate_exceeded()));
    let stores = stores(KEYS, &gate.endpoint(), "kes/");

    let run = stores.start(&["--report", "report.json"]);
    eventually("some hundred keys are there", || gate.count("CreateSecret") - gate.refused("CreateSecret") > 300);
    kill_process(Pid::from_child(&run), Signal::INT).expect("it runs");
    let run = Run::from(run.wait_with_output().expect("our child")).expect(3);
    let done = moto.names().len();
    assert!(run.stderr.contains(&format!("interrupted: {done} of {KEYS} keys were migrated")), "{}", run.stderr);
    assert!(run.stderr.contains(
        "Charged by AWS Secrets Manager: about 4000 requests for the target, and 2000 more keys that it keeps"
    ));

    let run = stores.migrate(&["--merge"]).expect(0);
    assert!(run.stdout.ends_with(&format!("Migrated {:6} keys successfully!\n", KEYS - done)), "{}", run.stdout);
    assert_eq!(moto.names().len(), KEYS);

    let run = back(&stores, &[]).expect(0);
    assert!(
        run.stderr.contains("Charged by AWS Secrets Manager: about 20 requests for the source\n"),
        "{}",
        run.stderr
    );
    assert!(stores.keys("back") == stores.keys("src"), "all keys came back byte for byte");
    assert!(gate.refused("CreateSecret") > 0 && gate.refused("GetSecretValue") > 0);
}

/// Of AWS it is 50 creates a second; here it is less than any machine can do.
#[test]
#[ignore = "runs moto: tests/run"]
fn a_quota_is_kept_to() {
    let moto = Moto::start();
    let gate = Gate::new(moto.address());
    let stores = stores(200, &gate.endpoint(), "kes/");
    gate.rule("CreateSecret", Rule::Limit(20, 400, rate_exceeded()));
    gate.rule("GetSecretValue", Rule::Limit(20, 400, rate_exceeded()));
    stores.migrate(&["--quiet"]).expect(0);
    assert_eq!(moto.names().len(), 200);
    let (asked, refused) = (gate.count("CreateSecret"), gate.refused("CreateSecret"));
    assert!(refused > 0 && refused < asked - refused, "{refused} of {asked} creates were one too many");
}

#[test]
#[ignore = "runs moto: tests/run"]
fn an_interrupted_way_back_goes_on() {
    const KEYS: usize = 600;
    let moto = Moto::start();
    let stores = stores(KEYS, &moto.endpoint(), "");
    stores.migrate(&["--quiet"]).expect(0);
    stores.write("back.yml", "keystore: { fs: { path: back } }\n");
    std::fs::create_dir(stores.path("back")).expect("made");
    let args = ["migrate", "--from", "dst.yml", "--to", "back.yml", "--concurrency", "1", "--quiet"];
    let mut child = stores.command(&args).spawn().expect("the program starts");
    eventually("some keys are there", || stores.keys("back").len() > 5);
    let _ = child.kill();
    child.wait().expect("our child");
    back(&stores, &["--merge"]).expect(0);
    assert!(stores.keys("back") == stores.keys("src"));
}

#[test]
#[ignore = "runs moto: tests/run"]
fn force_makes_a_new_version_that_counts() {
    let moto = Moto::start();
    let stores = stores(3, &moto.endpoint(), "kes/");
    moto.put("kes/key-00001", &key(77));
    moto.put("kes/key-00002", &key(2));
    stores.migrate(&[]).expect(1);
    assert_eq!(moto.names().len(), 2, "nothing was written");
    let run = stores.migrate(&["--force"]).expect(0);
    // A create and a read of one; two reads, two calls and a read of the other.
    assert!(
        run.stderr.contains("Charged by AWS Secrets Manager: about 7 requests for the target, and 1 more key that"),
        "{}",
        run.stderr
    );
    assert_eq!(moto.value("kes/key-00001"), key(1));
    stores.verify(&["--quiet"]).expect(0);
    let versions = moto.ask("ListSecretVersionIds", &json!({ "SecretId": "kes/key-00001" }));
    let stages: Vec<_> = versions["Versions"].as_array().expect("a list").iter().map(|v| &v["VersionStages"]).collect();
    assert_eq!(stages, [&json!(["AWSPREVIOUS"]), &json!(["claviger-new", "AWSCURRENT"])]);
    let previous = moto.ask("GetSecretValue", &json!({ "SecretId": "kes/key-00001", "VersionStage": "AWSPREVIOUS" }));
    assert_eq!(previous["SecretString"], key(77));
}

#[test]
#[ignore = "runs moto: tests/run"]
fn a_rehearsal_changes_nothing_and_says_what_the_run_costs() {
    let moto = Moto::start();
    let gate = Gate::new(moto.address());
    let stores = stores(250, &gate.endpoint(), "");
    let run = stores.migrate(&["--dry-run", "--json"]).expect(0);
    assert_eq!(moto.names(), [""; 0]);
    let report: Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(
        report["charges"],
        json!([{ "by": "AWS Secrets Manager", "side": "target", "requests": 500, "keys": 250 }])
    );
    let before = ["CreateSecret", "GetSecretValue"].map(|action| gate.count(action));
    stores.migrate(&["--quiet"]).expect(0);
    let after = ["CreateSecret", "GetSecretValue"].map(|action| gate.count(action));
    // One create and one question more, which find out about rights and whether somebody answers.
    assert_eq!([after[0] - before[0], after[1] - before[1]], [251, 251]);
}

#[test]
#[ignore = "runs moto: tests/run"]
fn secrets_that_are_no_keys_are_named_or_nobodys_business() {
    let moto = Moto::start();
    let stores = stores(1, &moto.endpoint(), "");
    stores.migrate(&["--quiet"]).expect(0);
    for (name, value) in [("password", "hunter2"), ("team/password", "hunter2"), ("deleted", "hunter2")] {
        moto.put(name, value);
    }
    moto.ask("DeleteSecret", &json!({ "SecretId": "deleted", "RecoveryWindowInDays": 7 }));
    let said = back(&stores, &["--dry-run"]).expect(1).stderr;
    for line in [
        "'password' on the source: the stored value is no key",
        "'team/password' on the source: not the name of a key",
        "'deleted' on the source: scheduled for deletion; get it back with 'aws secretsmanager restore-secret",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(!said.contains("hunter2"), "{said}");
    back(&stores, &["--exclude", "*password", "--exclude", "deleted", "--quiet"]).expect(0);
    assert_eq!(stores.keys("back"), stores.keys("src"));

    // With a prefix nobody reads them.
    stores.write("dst.yml", &config(&moto.endpoint(), "kes/"));
    stores.migrate(&["--quiet"]).expect(0);
    std::fs::remove_dir_all(stores.path("back")).expect("removed");
    back(&stores, &["--quiet"]).expect(0);
    assert_eq!(stores.keys("back"), stores.keys("src"));
}

#[test]
#[ignore = "runs moto: tests/run"]
fn one_account_is_one_store_however_it_is_called() {
    let moto = Moto::start();
    let stores = stores(1, &moto.endpoint(), "kes/");
    stores.migrate(&["--quiet"]).expect(0);
    stores.write("src.yml", &config(&moto.endpoint(), "kes/"));
    let said = stores.migrate(&[]).expect(1).stderr;
    assert!(said.contains("source and target are the same store"), "{said}");
    // Another part of it is another store.
    stores.write("dst.yml", &config(&moto.endpoint(), "new/"));
    stores.migrate(&["--quiet"]).expect(0);
    assert_eq!(moto.names(), ["kes/key-00000", "new/key-00000"]);
}
