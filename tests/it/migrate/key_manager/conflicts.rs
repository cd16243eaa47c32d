//! Keys that the key manager has already.

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

#[test]
fn one_place_is_not_copied_onto_itself() {
    let (manager, desk) = setup();
    desk.write("kms.yml", &manager.section().to_string());
    let run = desk.run(&manager, &["migrate", "--from", "kms.yml"]);
    assert!(run.exit == Some(1) && run.stderr.contains("source and target are the same store"), "{run:?}");
}
