//! Another root key: what was sealed before opens nothing of it, nothing is lost on the way, nothing old is left behind.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::kms::keeper::Error as KeeperError;
use crate::kms::record::{Damaged, Id};
use crate::kms::store::{self, Begun, Redb, Seals};
use crate::kms::wire::{DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, HsmRequest};

const SECOND: &str = "hsm:aes256:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

fn hsm(action: Action, name: &str, overwrite: bool) -> (Action, Change) {
    let request = HsmRequest { name: name.into(), overwrite };
    let command = match action {
        Action::ClusterAddHsm => Change::ClusterAddHsm(request),
        _ => Change::ClusterRemoveHsm(request),
    };
    (action, command)
}

fn root_change(keeper: &mut Keeper, enclave: &str, command: (Action, Change)) {
    change(keeper, admin().identity, enclave, &[command]).expect("done");
}

/// A key manager with a key, sealed by the first HSM key and maybe by the second.
fn filled(store: Box<dyn Store>, hsms: &[(&str, &str)]) -> Keeper {
    let mut keeper = Keeper::open(store, providers(hsms), admin()).expect("opened");
    root_change(&mut keeper, "", create_enclave("e"));
    root_change(&mut keeper, "e", create_key("before"));
    root_change(&mut keeper, "e", create_policy("p", &[(Action::KeyCreate, "*")], &[]));
    root_change(&mut keeper, "e", create_identity(identity(1), "User"));
    keeper
}

fn encrypt(keeper: &Keeper) -> Vec<u8> {
    let (plaintext, associated_data) = (b"m".to_vec(), Vec::new());
    let request = EncryptRequest { name: "before".into(), version: 0, plaintext, associated_data };
    let made: EncryptResponse =
        ask(keeper, admin().identity, "e", Action::KeyEncrypt, &Query::KeyEncrypt(request)).expect("encrypted");
    made.ciphertext
}

fn decrypts(keeper: &Keeper, ciphertext: &[u8]) -> bool {
    let ciphertext = ciphertext.to_vec();
    let request = DecryptRequest { name: "before".into(), ciphertext, ..DecryptRequest::default() };
    let opened = ask(keeper, admin().identity, "e", Action::KeyDecrypt, &Query::KeyDecrypt(request));
    opened.is_ok_and(|opened: DecryptResponse| opened.plaintext == b"m")
}

type Content = (Seals, Vec<(Id, Vec<u8>)>);

fn content(backup: &[u8]) -> Content {
    crate::kms::backup::parse(backup).expect("whole")
}

fn open((seals, puts): Content, hsms: &[(&str, &str)]) -> Result<Keeper, KeeperError> {
    let mut store = Mem::default();
    store.commit(&Batch { puts, seals, ..Batch::default() }).expect("committed");
    Keeper::open(Box::new(store), providers(hsms), admin())
}

#[test]
fn an_old_hsm_key_with_an_old_backup_opens_nothing_that_was_made_later() {
    let keeper = filled(Box::new(Mem::default()), &[("env", HSM)]);
    let ciphertext = encrypt(&keeper);
    let old = keeper.backup().expect("made");
    // The HSM key is replaced: its seal goes, and whoever still has it keeps the backup.
    let mut keeper = open(content(&old), &[("env", HSM), ("second", SECOND)]).expect("opened");
    root_change(&mut keeper, "", hsm(Action::ClusterAddHsm, "second", false));
    root_change(&mut keeper, "", hsm(Action::ClusterRemoveHsm, "env", false));
    root_change(&mut keeper, "e", create_key("later"));
    let stolen = |keeper: &Keeper| (content(&old).0, content(&keeper.backup().expect("made")).1);
    assert!(open(stolen(&keeper), &[("env", HSM)]).is_ok(), "resealing alone does not help, as the docs say");

    keeper.rotate_root().expect("rotated");
    root_change(&mut keeper, "e", create_key("after"));
    let refused = open(stolen(&keeper), &[("env", HSM)]);
    assert!(matches!(refused, Err(KeeperError::Damaged(Damaged::NotAuthentic))), "{:?}", refused.err());
    let (new, old_records) = (content(&keeper.backup().expect("made")), content(&old).1);
    let names: Vec<_> = old_records.iter().map(|(id, _)| id).collect();
    assert!(new.1.iter().all(|(id, _)| !names.contains(&id)), "also the places have other names");
    assert!(matches!(open(new.clone(), &[("env", HSM)]), Err(KeeperError::Sealed(_))));

    // Nobody else has lost anything.
    let again = open(new, &[("second", SECOND)]).expect("opened");
    for keeper in [&keeper, &again] {
        let enclave = keeper.snapshot().enclaves.get("e").expect("there");
        assert!(enclave.keys.keys().map(|name| name.as_str()).eq(["after", "before", "later"]));
        assert_eq!((enclave.policies.iter().count(), enclave.identities.iter().count()), (1, 1));
        assert!(decrypts(keeper, &ciphertext));
        assert_eq!(keeper.snapshot().seals, ["second"]);
    }
    assert_eq!(again.snapshot().commit, keeper.snapshot().commit);
    let mut first = open(content(&old), &[("env", HSM)]).expect("an old backup opens with its own HSM key");
    assert!(decrypts(&first, &ciphertext));
    first.restore(&old).expect("restored");
}

#[test]
fn an_old_backup_is_restored_after_a_rotation_and_the_other_way_round() {
    let hsms = [("env", HSM)];
    let mut keeper = filled(Box::new(Mem::default()), &hsms);
    let (old, ciphertext) = (keeper.backup().expect("made"), encrypt(&keeper));
    keeper.rotate_root().expect("rotated");
    root_change(&mut keeper, "e", create_key("after"));
    let new = keeper.backup().expect("made");
    for (backup, count) in [(&old, 1), (&new, 2), (&old, 1)] {
        keeper.restore(backup).expect("restored");
        assert_eq!(keeper.snapshot().enclaves.get("e").expect("there").keys.iter().count(), count);
        assert!(decrypts(&keeper, &ciphertext));
    }
    keeper.rotate_root().expect("rotated");
    assert!(decrypts(&keeper, &ciphertext));
}

#[test]
fn a_seal_is_not_lost_because_its_hsm_is_missing() {
    let keeper = filled(Box::new(Mem::default()), &[("env", HSM), ("second", SECOND)]);
    let backup = keeper.backup().expect("made");
    let mut keeper = open(content(&backup), &[("env", HSM)]).expect("opened");
    let refused = keeper.rotate_root().expect_err("the second would have no seal any more").to_string();
    assert!(refused.contains("'second'") && refused.contains("claviger kms rm-hsm second"), "{refused}");
    assert!(content(&keeper.backup().expect("made")) == content(&backup), "nothing has changed");
}

/// A store that leaves out two records once it is told to. One of them may be the record of the state, which is made anew.
struct Forgetful(Mem, Arc<AtomicBool>);

impl Store for Forgetful {
    fn seals(&self) -> Result<Seals, store::Error> {
        self.0.seals()
    }

    fn get(&self, id: &Id) -> Result<Option<Vec<u8>>, store::Error> {
        self.0.get(id)
    }

    fn for_each(&self, each: &mut dyn FnMut(&Id, &[u8]) -> bool) -> Result<(), store::Error> {
        let mut skip = 2 * usize::from(self.1.load(Ordering::Relaxed));
        self.0.for_each(&mut |id, value| {
            let is_shown = skip == 0;
            skip = skip.saturating_sub(1);
            !is_shown || each(id, value)
        })
    }

    fn settle(&mut self) -> Result<(), store::Error> {
        self.0.settle()
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), store::Error> {
        self.0.commit(batch)
    }

    fn begin(&self, seals: &Seals) -> Result<Box<dyn Begun>, store::Error> {
        self.0.begin(seals)
    }
}

#[test]
fn what_is_not_all_there_is_not_written_again() {
    let keeper = filled(Box::new(Mem::default()), &[("env", HSM), ("second", SECOND)]);
    let (seals, puts) = content(&keeper.backup().expect("made"));
    let mut store = Mem::default();
    store.commit(&Batch { puts, seals, ..Batch::default() }).expect("committed");
    let forgets = Arc::new(AtomicBool::new(false));
    let store = Forgetful(store, forgets.clone());
    let hsms = providers(&[("env", HSM), ("second", SECOND)]);
    let mut keeper = Keeper::open(Box::new(store), hsms, admin()).expect("opened");
    forgets.store(true, Ordering::Relaxed);
    let refused = keeper.rotate_root();
    assert!(matches!(refused, Err(KeeperError::Damaged(_))), "{refused:?}");
    let removal = hsm(Action::ClusterRemoveHsm, "second", false);
    assert!(matches!(change(&mut keeper, admin().identity, "", &[removal]), Err(Error::Unavailable(_))));
    forgets.store(false, Ordering::Relaxed);
    keeper.rotate_root().expect("rotated");
    root_change(&mut keeper, "e", create_key("after"));
}

#[test]
fn nothing_of_an_old_seal_is_left_in_the_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("claviger.kms");
    let has = |sealed: &[u8]| {
        let file = std::fs::read(&path).expect("readable");
        file.windows(sealed.len()).any(|window| window == sealed)
    };
    let reopen = |directory: &Path| Box::new(Redb::open(directory).expect("opened"));
    let hsms = [("env", HSM), ("second", SECOND)];
    let mut keeper = filled(reopen(directory.path()), &hsms);
    let seals = |keeper: &Keeper| content(&keeper.backup().expect("made")).0;
    let backup = keeper.backup().expect("made");

    let before = seals(&keeper);
    assert!(has(&before["env"]) && has(&before["second"]));
    root_change(&mut keeper, "", hsm(Action::ClusterRemoveHsm, "env", false));
    assert!(!has(&before["env"]) && has(&before["second"]), "a seal that was removed");

    root_change(&mut keeper, "", hsm(Action::ClusterAddHsm, "env", false));
    let before = seals(&keeper);
    root_change(&mut keeper, "", hsm(Action::ClusterAddHsm, "env", true));
    assert!(!has(&before["env"]) && has(&seals(&keeper)["env"]), "a seal that was replaced");

    let before = seals(&keeper);
    keeper.rotate_root().expect("rotated");
    assert!(before.values().all(|sealed| !has(sealed)), "the seals of an old root key");
    assert!(seals(&keeper).values().all(|sealed| has(sealed)));

    let before = seals(&keeper);
    keeper.restore(&backup).expect("restored");
    assert!(before.values().all(|sealed| !has(sealed)), "the seals of what a backup replaced");
    drop(keeper);
    Keeper::open(reopen(directory.path()), providers(&hsms), admin()).map(drop).expect("opened again");
}
