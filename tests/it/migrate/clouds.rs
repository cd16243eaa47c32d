//! To the stores of vendors of whom there is no server to be had, and back, as their stub answers for them.

use std::process::Command;

use serde_json::{Value, json};

use super::support::{Run, Stores, key};
use crate::keystore::clouds::{VENDORS, Vendor};
use crate::support::clouds::Clouds;

/// A command about keys in a directory and at the stub.
fn command(stores: &Stores, vendor: &Vendor, clouds: &Clouds, args: &[&str]) -> Command {
    let mut command = stores.command(args);
    command.envs(vendor.variables(clouds)).env("HOME", stores.path(""));
    command
}

fn run(stores: &Stores, vendor: &Vendor, clouds: &Clouds, args: &[&str]) -> Run {
    command(stores, vendor, clouds, args).output().expect("the program runs").into()
}

/// So many keys in a directory, and the stub as target.
fn stores(count: usize, vendor: &Vendor, clouds: &Clouds) -> Stores {
    let stores = Stores::with_keys(count);
    stores.write("dst.yml", &json!({ "keystore": vendor.section(clouds) }).to_string());
    stores.write("back.yml", "keystore: { fs: { path: back } }\n");
    stores
}

const THERE: [&str; 5] = ["migrate", "--from", "src.yml", "--to", "dst.yml"];
const BACK: [&str; 5] = ["migrate", "--from", "dst.yml", "--to", "back.yml"];

/// As a migration or a server leaves it that is killed between the two steps of a create: listed, and not there.
#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn a_secret_that_was_begun_and_never_completed_is_a_missing_key() {
    let vendor = &VENDORS[0];
    let clouds = Clouds::start();
    let stores = stores(2, vendor, &clouds);
    let path = format!("/v1/projects/{}/secrets?secretId=key-00001", clouds.fact("GOOGLE_PROJECT"));
    assert_eq!(clouds.as_google("POST", &path, &json!({ "replication": { "automatic": {} } })).status, 200);
    let said = run(&stores, vendor, &clouds, &[&BACK[..], &["--quiet"]].concat()).expect(1).stderr;
    assert!(said.contains("'key-00001' on the source: it is listed, and not there"), "{said}");
    run(&stores, vendor, &clouds, &[&THERE[..], &["--quiet"]].concat()).expect(0);
    run(&stores, vendor, &clouds, &[&BACK[..], &["--quiet"]].concat()).expect(0);
    assert!(stores.keys("back") == stores.keys("src"));
}

#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn a_rehearsal_changes_nothing_and_says_what_the_run_costs() {
    for vendor in VENDORS {
        let clouds = Clouds::start();
        let stores = stores(20, vendor, &clouds);
        let said = run(&stores, vendor, &clouds, &[&THERE[..], &["--dry-run", "--json"]].concat()).expect(0).stdout;
        assert!(clouds.stored(vendor.name).is_empty(), "{}", vendor.name);
        let report: Value = serde_json::from_str(&said).expect("JSON");
        let charges = report["charges"].as_array().cloned().unwrap_or_default();
        assert_eq!(charges.len(), usize::from(vendor.charges.is_some()), "{}: {charges:?}", vendor.name);
        let Some((by, requests)) = vendor.charges else { continue };
        assert_eq!((&charges[0]["by"], &charges[0]["requests"]), (&json!(by), &json!(20 * requests)), "{charges:?}");
    }
}

#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn force_replaces_what_is_another_key() {
    for vendor in VENDORS {
        let clouds = Clouds::start();
        let stores = stores(3, vendor, &clouds);
        run(&stores, vendor, &clouds, &[&THERE[..], &["--quiet"]].concat()).expect(0);
        stores.write("src/key-00001", &key(77));
        run(&stores, vendor, &clouds, &[&THERE[..], &["--quiet"]].concat()).expect(1);
        run(&stores, vendor, &clouds, &[&THERE[..], &["--quiet", "--force"]].concat()).expect(0);
        let verify = ["verify", "--from", "src.yml", "--to", "dst.yml", "--quiet"];
        run(&stores, vendor, &clouds, &verify).expect(0);
        assert_eq!(clouds.stored(vendor.name).len(), 3, "{}: no copy is left", vendor.name);
    }
}
