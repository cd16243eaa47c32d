//! What a run shows while it runs.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::support::{Run, Stores};
use crate::support::gate::{Gate, Rule};
use crate::support::openbao::OpenBao;
use crate::support::peer::free_address;
use crate::support::{eventually, pty};

#[test]
fn a_terminal_shows_a_bar_with_rate_and_time_left() {
    let stores = Stores::with_keys(3_000);
    let command = stores.command(&["migrate", "--from", "src.yml", "--to", "dst.yml", "--concurrency", "1"]);
    let (shown, code) = pty::run(command);
    assert_eq!(code, Some(0), "{shown}");
    let bar = shown.split('\r').find(|text| text.contains("Writing [")).unwrap_or_else(|| panic!("no bar: {shown}"));
    assert!(bar.contains("/3000 keys, ") && bar.contains("/s, ") && bar.contains(" left"), "{bar}");
    let last = shown.lines().last().expect("a line");
    assert!(last.ends_with("Migrated   3000 keys successfully!"), "{last}");
}

#[test]
fn elsewhere_there_is_a_line_a_second() {
    let stores = Stores::with_keys(2_000);
    let child = stores.start(&["--concurrency", "1"]);
    eventually("some keys are there", || stores.keys("dst").len() > 5);
    // However fast the disk: a second passes while the run is under way.
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::STOP).expect("it runs");
    std::thread::sleep(Duration::from_millis(1_100));
    kill_process(pid, Signal::CONT).expect("it runs");
    let run = Run::from(child.wait_with_output().expect("our child")).expect(0);
    let lines = run.stderr.lines().filter(|line| line.starts_with("Writing: ") && line.contains("/2000 keys, "));
    assert!(lines.clone().count() >= 1, "{}", run.stderr);
    assert!(lines.clone().all(|line| line.ends_with(" left")), "{}", run.stderr);
    assert!(!run.stderr.contains('\x1b') && !run.stderr.contains('\r'), "{}", run.stderr);
}

#[test]
fn quiet_is_silent_when_all_is_well() {
    let stores = Stores::with_keys(10);
    let run = stores.migrate(&["-q"]).expect(0);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""));
    assert_eq!(stores.keys("dst").len(), 10);
}

/// Runs until it says a line like this, then kills it; returns the line.
fn says(stores: &Stores, args: &[&str], part: &str) -> String {
    let mut command = stores.command(args);
    let mut run = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let mut lines = BufReader::new(run.stderr.take().expect("piped")).lines().map(|line| line.expect("text"));
    let mut said = Vec::new();
    let line = loop {
        let Some(line) = lines.next() else { panic!("it never says '{part}': {said:#?}") };
        if line.contains(part) {
            break line;
        }
        said.push(line);
    };
    run.kill().expect("it runs");
    run.wait().expect("our child");
    line
}

/// Whoever does not answer is waited for, and named.
#[test]
#[ignore = "runs OpenBao: tests/run"]
fn a_run_says_what_it_waits_for() {
    let stores = Stores::with_keys(1);
    let nobody = free_address().to_string();
    let enclave =
        ["--server", &nobody, "--enclave", "e", "--api-key", "k1:4uEFSJ6DZPAW7QZyGY1virZxach1r0t1jjinj_4Q4IQ"];
    let line = says(&stores, &[&["migrate", "--from", "src.yml"], &enclave[..]].concat(), "Waiting for up to ");
    assert!(line.contains(&nobody) && line.contains(" s: "), "{line}");

    let bao = OpenBao::shared();
    let (engine, gate) = (bao.kv(None, 2), Gate::new(bao.address()));
    let vault =
        json!({ "endpoint": gate.endpoint(), "engine": engine, "version": "v2", "token": { "value": bao.token } });
    stores.write("vault.yml", &json!({ "keystore": { "vault": vault } }).to_string());
    gate.rule("/metadata/", Rule::Answer(503, json!({ "errors": ["Vault is sealed"] }).to_string()));
    for args in [
        &["migrate", "--from", "src.yml", "--to", "vault.yml"][..],
        &["verify", "--from", "vault.yml", "--to", "src.yml"],
        &["reseal", "--config", "vault.yml", "--target", "vault.yml"],
    ] {
        let line = says(&stores, args, "Waiting for up to ");
        assert!(line.contains("the server is sealed or down"), "{args:?}: {line}");
    }

    // A replacement that was cut off, too.
    gate.open();
    stores.run(&["migrate", "-q", "--from", "src.yml", "--to", "vault.yml"]).expect(0);
    let (name, copy) = (
        "claviger-old-0011223344556677",
        json!({ "claviger_old": {
        "name": "key-00000", "value": super::support::key(0), "owner": "0011223344556677", "at": 1_700_000_000,
    } }),
    );
    let entry = json!({ "data": { name: copy.to_string() }, "options": { "cas": 0 } });
    bao.ask("PUT", &format!("{engine}/data/{name}"), entry);
    let sealed =
        json!({ "vault": vault, "encrypt": { "local": { "key": "A".repeat(43) + "=" }, "allow_plaintext": true } });
    stores.write("sealed.yml", &json!({ "keystore": sealed }).to_string());
    let waits = "1 replacement that another process began";
    let line = says(&stores, &["reseal", "--config", "vault.yml", "--target", "sealed.yml"], waits);
    assert!(line.starts_with("Waiting for up to 1"), "{line}");
    stores.write("src/key-00000", &super::support::key(7));
    let line = says(&stores, &["migrate", "--from", "src.yml", "--to", "vault.yml", "--force"], waits);
    assert!(line.starts_with("Waiting for up to 1"), "{line}");
}
