//! Keys move between a directory and a Vault.

use std::path::Path;

use serde_json::{Value, json};

use claviger::crypto::Blob;
use claviger::keystore::Error;
use claviger::name::KeyName;

use super::{Place, connect};
use crate::support::gate::{Gate, Rule};
use crate::support::openbao::OpenBao;
use crate::support::program::{Outcome, Program};
use crate::support::server::PROGRAM;
use crate::support::{block_on, eventually, testdata};

/// A directory with the configs `fs.yml` and `vault.yml`, and the fixture's key in `keys`.
fn directory(section: &Value) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(directory.path().join("keys")).expect("a directory");
    put(directory.path(), "my-key", "my-key");
    std::fs::write(directory.path().join("fs.yml"), "keystore: { fs: { path: keys } }").expect("written");
    let vault = json!({ "keystore": { "openbao": section } }).to_string();
    std::fs::write(directory.path().join("vault.yml"), vault).expect("written");
    directory
}

/// Puts a key of the fixture there under a name.
fn put(directory: &Path, key: &str, name: &str) {
    let from = testdata("http/fixture/keys").join(key);
    std::fs::copy(from, directory.join("keys").join(name)).expect("copied");
}

fn run(directory: &Path, args: &[&str]) -> Outcome {
    Program::named("claviger", directory).run(args)
}

fn succeeds(directory: &Path, args: &[&str]) {
    let outcome = run(directory, args);
    assert_eq!(outcome.exit, Some(0), "{args:?}: {}{}", outcome.stdout, outcome.stderr);
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn there_and_back_byte_for_byte() {
    let bao = OpenBao::shared();
    for version in [1, 2] {
        let place = Place::new(&bao, version);
        let directory = directory(&place.by_role(&bao.endpoint()));
        let directory = directory.path();
        succeeds(directory, &["migrate", "--from", "fs.yml", "--target", "vault.yml", "--quiet"]);
        succeeds(directory, &["verify", "--from", "fs.yml", "--target", "vault.yml", "--quiet"]);
        std::fs::write(directory.join("back.yml"), "keystore: { fs: { path: back } }").expect("written");
        succeeds(directory, &["migrate", "--from", "vault.yml", "--target", "back.yml", "--quiet"]);
        let read = |place: &str| std::fs::read(directory.join(place).join("my-key")).expect("a key");
        assert!(read("keys") == read("back"), "the key came back as it was");
    }
}

/// A key of the fixture that is not `my-key`.
fn another_key() -> String {
    let keys = std::fs::read_dir(testdata("http/fixture/keys")).expect("keys").flatten();
    let mut names = keys.map(|entry| entry.file_name().into_string().expect("UTF-8"));
    names.find(|name| name != "my-key" && name != "broken").expect("another key")
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn a_key_that_differs_is_replaced_when_that_is_asked_for() {
    let bao = OpenBao::shared();
    let place = Place::new(&bao, 2);
    let directory = directory(&place.by_role(&bao.endpoint()));
    let directory = directory.path();
    let migrate = ["migrate", "--from", "fs.yml", "--target", "vault.yml", "--quiet"];
    succeeds(directory, &migrate);
    put(directory, &another_key(), "my-key");
    assert_ne!(run(directory, &migrate).exit, Some(0), "it is not overwritten by accident");
    succeeds(directory, &[&migrate[..], &["--force"]].concat());
    succeeds(directory, &["verify", "--from", "fs.yml", "--target", "vault.yml", "--quiet"]);
    // The version that every server reads, and nothing left over.
    let metadata = format!("{}/metadata/team/keys", place.engine);
    let listed = bao.ask("LIST", &metadata, Value::Null);
    assert_eq!(listed["data"]["keys"], json!(["my-key"]));
    let entry = bao.ask("GET", &format!("{metadata}/my-key"), Value::Null);
    assert_eq!(entry["data"]["current_version"], 1);
}

/// A replacement is three steps and one to clean up. Whichever a kill follows, the key is there, old or new.
#[test]
#[ignore = "runs OpenBao: tests/run"]
fn a_replacement_that_is_killed_loses_nothing() {
    let bao = OpenBao::shared();
    let steps =
        ["PUT /data/claviger-old-", "DELETE /metadata/my-key", "PUT /data/my-key", "DELETE /metadata/claviger-old-"];
    let name = KeyName::parse("my-key").expect("a name");
    for (number, step) in steps.iter().enumerate() {
        let (place, gate) = (Place::new(&bao, 2), Gate::new(bao.address()));
        let directory = directory(&place.by_role(&gate.endpoint()));
        let directory = directory.path();
        let read = || Blob::from(std::fs::read(directory.join("keys/my-key")).expect("a key"));
        let migrate = ["migrate", "--from", "fs.yml", "--target", "vault.yml", "--quiet"];
        succeeds(directory, &migrate);
        let old = read();
        put(directory, &another_key(), "my-key");
        let new = read();

        let line = step.replace("/data/", &format!("/v1/{}/data/team/keys/", place.engine));
        let line = line.replace("/metadata/", &format!("/v1/{}/metadata/team/keys/", place.engine));
        gate.rule(&line, Rule::Hang);
        let before = gate.count(&line);
        let mut run = std::process::Command::new(PROGRAM);
        let run = run.args(migrate).arg("--force").current_dir(directory);
        let mut run = run.stdin(std::process::Stdio::null()).spawn().expect("it starts");
        eventually("the step is reached", || gate.count(&line) > before);
        run.kill().expect("it runs");
        run.wait().expect("our child");

        block_on(async {
            let store = connect(&place.by_role(&bao.endpoint())).await.expect("connects");
            let expected = if number < 3 { &old } else { &new };
            assert!(store.get(&name).await.expect("it is there").is_same(expected), "before {step}");
            assert_eq!(store.list("").await.expect("lists").names, std::slice::from_ref(&name), "before {step}");
            let created = store.create(&name, &new).await;
            assert!(matches!(created, Err(Error::Exists)), "before {step}: {created:?}");
        });
    }
}
