//! Entries of the key/value engine.

use super::*;
use crate::kms::secret::{self, DOCUMENT, Document, Secret, What};
use crate::name::SecretPath;

const ENCLAVE: &str = "tenant";

fn with_enclave() -> Keeper {
    let mut keeper = keeper();
    change(&mut keeper, admin().identity, "", &[create_enclave(ENCLAVE)]).expect("created");
    keeper
}

fn secret(action: Action, path: &str, what: What) -> (Action, Change) {
    (action, Change::Secret(secret::Change { path: SecretPath::parse(path).expect("a path"), what }))
}

fn write(path: &str, json: &str, expected: Option<i64>) -> (Action, Change) {
    let what = What::Write { document: Document::new(json), expected, number: secret::Number::default() };
    secret(Action::SecretWrite, path, what)
}

fn root_change(keeper: &mut Keeper, commands: &[(Action, Change)]) -> Result<(), Error> {
    change(keeper, admin().identity, ENCLAVE, commands)
}

fn found(keeper: &Keeper, path: &str) -> Option<Arc<Secret>> {
    let path = SecretPath::parse(path).expect("a path");
    keeper.snapshot().enclaves.get(ENCLAVE).expect("there").secrets.get(&path).cloned()
}

fn document(keeper: &Keeper, path: &str, version: i64) -> Option<String> {
    let secret = found(keeper, path)?;
    let (_, version) = secret.version(version)?;
    version.document().map(|document| document.expose().to_owned())
}

#[test]
fn the_last_ten_versions_are_kept_and_go_in_steps() {
    let mut keeper = with_enclave();
    for n in 1..=12 {
        root_change(&mut keeper, &[write("a/b", &format!("{{\"n\":{n}}}"), Some(n - 1))]).expect("written");
    }
    let secret_of = |keeper: &Keeper| found(keeper, "a/b").expect("there");
    assert_eq!((secret_of(&keeper).latest(), secret_of(&keeper).oldest()), (12, 3));
    assert_eq!((document(&keeper, "a/b", 2), document(&keeper, "a/b", 3)), (None, Some("{\"n\":3}".into())));
    let delete = |what| secret(Action::SecretDelete, "a/b", what);
    root_change(&mut keeper, &[delete(What::Delete(None)), delete(What::Delete(Some(vec![3, 4, 99])))]).expect("done");
    assert!([0, 3, 4].iter().all(|number| document(&keeper, "a/b", *number).is_none()));
    root_change(&mut keeper, &[delete(What::Destroy(vec![4, 5, -1]))]).expect("destroyed");
    root_change(&mut keeper, &[delete(What::Undelete(vec![3, 4, 5, 12]))]).expect("brought back");
    assert_eq!(document(&keeper, "a/b", 0), Some("{\"n\":12}".into()));
    assert!(document(&keeper, "a/b", 3).is_some());
    assert!([4, 5].iter().all(|number| document(&keeper, "a/b", *number).is_none()), "these are gone");
    root_change(&mut keeper, &[delete(What::Remove)]).expect("removed");
    assert_eq!(found(&keeper, "a/b"), None);
    root_change(&mut keeper, &[delete(What::Remove), delete(What::Delete(None))]).expect("there is nothing to do");
    root_change(&mut keeper, &[write("a/b", "{}", Some(0))]).expect("a new one begins at 1");
    assert_eq!(secret_of(&keeper).latest(), 1);
}

#[test]
fn a_write_that_expects_another_version_changes_nothing() {
    let mut keeper = with_enclave();
    for expected in [-1, 1, 2] {
        assert!(matches!(root_change(&mut keeper, &[write("a", "{}", Some(expected))]), Err(Error::Invalid(_))));
    }
    root_change(&mut keeper, &[write("a", "{}", None), write("a", "{}", Some(1))]).expect("written");
    assert!(root_change(&mut keeper, &[write("a", "{}", Some(0))]).is_err());
    assert_eq!(found(&keeper, "a").expect("there").latest(), 2);
}

#[test]
fn an_enclave_holds_so_many_entries_and_bytes_and_no_more() {
    let mut keeper = with_enclave();
    for begin in (0..10_000).step_by(1_000) {
        let some: Vec<_> = (begin..begin + 1_000).map(|n| write(&format!("e/{n}"), "{}", None)).collect();
        root_change(&mut keeper, &some).expect("there is room");
    }
    assert!(matches!(root_change(&mut keeper, &[write("more", "{}", None)]), Err(Error::Conflict(_))));
    root_change(&mut keeper, &[write("e/1", "{}", None)]).expect("it is there already");
    root_change(&mut keeper, &[secret(Action::SecretDelete, "e/1", What::Remove), write("more", "{}", None)])
        .expect("there is room again");
    root_change(&mut keeper, &[secret(Action::SecretDelete, "more", What::Remove), write("e/1", "{}", None)])
        .expect("as before");
    let large = format!("{{\"x\":\"{}\"}}", "x".repeat(DOCUMENT - 8));
    let written =
        (0..2_000).take_while(|n| root_change(&mut keeper, &[write(&format!("e/{n}"), &large, None)]).is_ok());
    let written = written.count();
    assert!((900..1_024).contains(&written), "{written}");
    assert!(matches!(root_change(&mut keeper, &[write("e/3", &large, None)]), Err(Error::Conflict(_))));
    root_change(&mut keeper, &[secret(Action::SecretDelete, "e/2", What::Destroy(vec![2]))]).expect("destroyed");
    root_change(&mut keeper, &[write("e/3", &large, None)]).expect("there is room again");
}

#[test]
fn whoever_has_no_right_changes_no_entry() {
    let mut keeper = with_enclave();
    let user = identity(1);
    let commands = [
        create_policy("app", &[(Action::SecretWrite, "app/*"), (Action::SecretDelete, "app/x")], &[]),
        create_identity(user, "User"),
        assign("app", user),
    ];
    root_change(&mut keeper, &commands).expect("made");
    let mut as_user = |command| change(&mut keeper, user, ENCLAVE, &[command]);
    as_user(write("app/x", "{}", None)).expect("allowed");
    as_user(secret(Action::SecretDelete, "app/x", What::Delete(None))).expect("allowed");
    for command in [
        write("other", "{}", None),
        write("app", "{}", None),
        secret(Action::SecretDelete, "app/y", What::Remove),
        secret(Action::SecretDelete, "other", What::Destroy(vec![1])),
    ] {
        assert!(matches!(as_user(command), Err(Error::Denied)));
    }
}

#[test]
fn entries_are_in_backups_and_go_with_their_enclave() {
    let mut keeper = with_enclave();
    root_change(&mut keeper, &[write("a", "{\"n\":1}", None), write("a", "{\"n\":2}", None)]).expect("written");
    root_change(&mut keeper, &[secret(Action::SecretDelete, "a", What::Destroy(vec![1]))]).expect("destroyed");
    let (before, backup) = (found(&keeper, "a"), keeper.backup().expect("a backup"));
    change(&mut keeper, admin().identity, "", &[(Action::EnclaveDelete, Change::EnclaveDelete(name(ENCLAVE)))])
        .expect("deleted");
    change(&mut keeper, admin().identity, "", &[create_enclave(ENCLAVE)]).expect("created");
    assert_eq!(found(&keeper, "a"), None);
    assert!(keeper.backup().expect("a backup").len() < backup.len(), "nothing of it is left");
    keeper.restore(&backup).expect("restored");
    assert!(before.is_some());
    assert_eq!(found(&keeper, "a"), before);
}
