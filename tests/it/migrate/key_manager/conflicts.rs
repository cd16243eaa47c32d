//! Keys that the key manager has already.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use super::{Desk, KeyManager, report};

/// Three keys, of which the enclave has the first, and another one under the name of the second.
fn setup() -> (KeyManager, Desk) {
    let (manager, desk) = (KeyManager::start(), Desk::with_keys(3));
    let run = desk.run(&manager, &["migrate", "--from", "src.yml", "key-00000"]);
    assert_eq!(run.exit, Some(0), "{run:?}");
    manager.minkms(&["add-key", "key-00001"]).ok();
    (manager, desk)
}

#[test]
fn nothing_is_written_unless_somebody_says_what_to_do_with_them() {
    let (manager, desk) = setup();
    let run = desk.run(&manager, &["migrate", "--from", "src.yml", "--json"]);
    assert_eq!(run.exit, Some(1), "{run:?}");
    let report = report(&run);
    assert_eq!(report["verdict"], "refused");
    let counts = ["missing", "identical", "different"].map(|class| report["counts"][class].as_u64().expect("a number"));
    assert_eq!(counts, [1, 1, 1]);
    assert!(run.stderr.contains("key-00001: holds ANOTHER KEY"), "{run:?}");
    assert_eq!(manager.keys(), 2);
}

#[test]
fn merge_adds_what_is_missing_and_force_replaces_what_differs() {
    let (manager, desk) = setup();
    let merged = desk.run(&manager, &["migrate", "--from", "src.yml", "--merge"]);
    assert!(merged.exit == Some(3) && merged.stderr.contains("NOT MIGRATED: key-00001"), "{merged:?}");
    assert_eq!(desk.run(&manager, &["verify", "--from", "src.yml"]).exit, Some(3));
    let forced = desk.run(&manager, &["migrate", "--from", "src.yml", "--force"]);
    assert!(forced.exit == Some(0) && forced.stderr.contains("0 written, 1 replaced"), "{forced:?}");
    desk.run(&manager, &["verify", "--from", "src.yml"]).ok();
}

#[test]
fn a_key_that_was_rotated_there_is_not_replaced_even_by_force() {
    let (manager, desk) = setup();
    manager.minkms(&["add-key", "key-00000", "--version"]).ok();
    let before = manager.minkms(&["ls-key", "--versions", "key-00000", "--json"]).ok();
    let forced = desk.run(&manager, &["migrate", "--from", "src.yml", "--force"]);
    assert_eq!(forced.exit, Some(1), "{forced:?}");
    assert!(forced.stderr.contains("it has been rotated there up to version 2"), "{forced:?}");
    assert_eq!(manager.minkms(&["ls-key", "--versions", "key-00000", "--json"]).ok(), before);
    assert_eq!(manager.keys(), 2, "nothing was written");
}

/// Even `--force` replaces the key that was there when the plan was made, and no other.
#[test]
fn a_key_that_was_replaced_since_the_plan_is_not_replaced_even_by_force() {
    const KEYS: usize = 400;
    let (manager, desk) = (KeyManager::start(), Desk::with_keys(KEYS));
    desk.run(&manager, &["migrate", "--from", "src.yml", "--quiet"]).ok();
    for n in 0..KEYS {
        desk.write(&format!("src/key-{n:05}"), &crate::migrate::support::key(n + KEYS));
    }
    let program = manager.program("claviger", desk.path(), &manager.root);
    let mut run = program.command(&["migrate", "--from", "src.yml", "--force", "--concurrency", "1"]);
    let mut run = run.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut said = BufReader::new(run.stderr.take().expect("piped")).lines().map(|line| line.expect("text"));
    assert!(said.any(|line| line.starts_with("To come: 400 writes")), "there is a plan");
    let pid = Pid::from_child(&run);
    kill_process(pid, Signal::STOP).expect("it runs");
    let last = format!("key-{:05}", KEYS - 1);
    manager.minkms(&["rm-key", &last, "--all"]).ok();
    manager.minkms(&["add-key", &last]).ok();
    kill_process(pid, Signal::CONT).expect("it runs");
    let said: Vec<_> = said.collect();
    assert_eq!(run.wait().expect("our child").code(), Some(3), "{said:?}");
    let failed = said.iter().find(|line| line.starts_with(&format!("FAILED: {last}: ")));
    let failed = failed.unwrap_or_else(|| panic!("{said:?}"));
    assert!(failed.contains("the key has been replaced by another one since the plan was made"), "{failed}");
    let verified = desk.run(&manager, &["verify", "--from", "src.yml"]);
    assert!(verified.stdout.starts_with(&format!("different: {last} ")), "{verified:?}");
}

#[test]
fn one_place_is_not_copied_onto_itself() {
    let (manager, desk) = setup();
    desk.write("kms.yml", &manager.section().to_string());
    let run = desk.run(&manager, &["migrate", "--from", "kms.yml"]);
    assert!(run.exit == Some(1) && run.stderr.contains("source and target are the same store"), "{run:?}");
}
