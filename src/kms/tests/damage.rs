//! The data on disk follows its documented format, and records that were changed, moved, removed or put back are
//! refused.

use super::*;
use crate::kms::keeper::Error as OpenError;
use crate::kms::record::{Damaged, Id};
use crate::kms::store::Seals;
use crate::kms::wire::{
    DecryptRequest, DecryptResponse, IdentityRequest, IdentityResponse, KeyStatus, KeyVersionRequest, MacRequest,
    MacResponse, PolicyResponse,
};

fn recorded() -> (Vectors, Mem) {
    let vectors = vectors();
    let mut store = Mem::default();
    let seals = vectors.seals.iter().map(|(name, seal)| (name.clone(), decode(seal))).collect();
    let id = |text: &str| Id::try_from(decode(text)).expect("32 bytes");
    let puts = vectors.records.iter().map(|(place, value)| (id(place), decode(value))).collect();
    store.commit(&Batch { puts, seals, ..Batch::default() }).expect("committed");
    (vectors, store)
}

fn check_content(keeper: &Keeper, vectors: &Vectors) {
    let root = vectors.root_identity.parse().expect("an identity");
    let user = vectors.user_identity.parse().expect("an identity");
    assert_eq!(keeper.snapshot().commit, 7);
    let request = KeyVersionRequest { name: "my-key".into(), version: 0 };
    let key: KeyStatus = ask(keeper, root, "tenant", Action::KeyStatus, &Query::KeyStatus(request)).expect("a key");
    let created_at = key.created_at.expect("a time");
    assert_eq!((key.version, key.kind.as_str(), created_at.seconds, created_at.nanos), (3, "AES256", 1_700_000_000, 5));
    let request = DecryptRequest {
        name: "my-key".into(),
        ciphertext: decode(&vectors.ciphertext),
        associated_data: b"{}".to_vec(),
        version: 0,
    };
    let decrypted: DecryptResponse =
        ask(keeper, user, "tenant", Action::KeyDecrypt, &Query::KeyDecrypt(request)).expect("decrypted");
    assert_eq!(decrypted.plaintext, b"hello");
    let request = MacRequest { name: "my-key".into(), version: 3, message: b"hello".to_vec() };
    let mac: MacResponse = ask(keeper, root, "tenant", Action::KeyMac, &Query::KeyMac(request)).expect("signed");
    assert_eq!(mac.mac, decode(&vectors.mac_of_hello));
    let policy: PolicyResponse =
        ask(keeper, root, "tenant", Action::PolicyGet, &Query::PolicyGet(name("app"))).expect("a policy");
    assert_eq!(policy.allow, rules(&[(Action::KeyDecrypt, "my-*")]));
    assert_eq!(policy.deny, rules(&[(Action::KeyDelete, "*")]));
    let request = IdentityRequest { identity: vectors.user_identity.clone() };
    let known: IdentityResponse =
        ask(keeper, root, "tenant", Action::IdentityStatus, &Query::IdentityStatus(request)).expect("known");
    assert_eq!((known.policy.as_str(), known.privilege, known.tags["team"].as_str()), ("app", 3, "blue"));
}

fn open_recorded(store: Mem, vectors: &Vectors) -> Result<Keeper, OpenError> {
    let identity = vectors.root_identity.parse().expect("an identity");
    let admin = Admin { identity, is_derived: true };
    Keeper::open(Box::new(store), providers(&[("env", &vectors.hsm_key)]), admin)
}

#[test]
fn data_is_read_as_documented() {
    let (vectors, store) = recorded();
    let root = HsmKey::parse(&vectors.hsm_key).expect("a key").root_api_key();
    assert_eq!(root.expose(), vectors.root_api_key);
    assert_eq!(root.identity().to_string(), vectors.root_identity);
    let user = ApiKey::parse(&vectors.user_api_key).expect("a key");
    assert_eq!(user.identity().to_string(), vectors.user_identity);
    check_content(&open_recorded(store, &vectors).expect("opened"), &vectors);
}

#[test]
fn a_backup_is_read_as_documented() {
    let (vectors, store) = recorded();
    assert_eq!(
        open_recorded(store, &vectors).expect("opened").backup().expect("made").len(),
        decode(&vectors.backup).len()
    );
    let mut keeper = open_recorded(Mem::default(), &vectors).expect("opened");
    keeper.restore(&decode(&vectors.backup)).expect("restored");
    check_content(&keeper, &vectors);
}

/// A store with two enclaves that have keys of the same names, and what was written for each of them.
fn filled() -> Keeper {
    let mut keeper = keeper();
    for enclave in ["one", "two"] {
        change(&mut keeper, admin().identity, "", &[create_enclave(enclave)]).expect("created");
        for key in ["a", "b"] {
            change(&mut keeper, admin().identity, enclave, &[create_key(key)]).expect("created");
        }
    }
    keeper
}

type Content = (Seals, Vec<(Id, Vec<u8>)>);

fn content(keeper: &Keeper) -> Content {
    crate::kms::backup::parse(&keeper.backup().expect("made")).expect("whole")
}

fn open((seals, puts): Content) -> Result<Keeper, OpenError> {
    let mut store = Mem::default();
    store.commit(&Batch { puts, seals, ..Batch::default() }).expect("committed");
    Keeper::open(Box::new(store), providers(&[("env", HSM)]), admin())
}

fn damage(content: Content) -> Damaged {
    match open(content) {
        Err(OpenError::Damaged(damage)) => damage,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was believed"),
    }
}

#[test]
fn what_was_written_is_there_again() {
    let (before, after) = (filled(), open(content(&filled())).expect("opened"));
    assert_eq!(after.snapshot().commit, before.snapshot().commit);
    for enclave in after.snapshot().enclaves.values() {
        assert_eq!(enclave.keys.keys().map(ToString::to_string).collect::<Vec<_>>(), ["a", "b"]);
    }
    assert_eq!(after.snapshot().enclaves.iter().count(), 2);
}

#[test]
fn records_cannot_be_changed_moved_or_swapped() {
    let whole = content(&filled());
    let count = whole.1.len();
    assert_eq!(count, 2 + 4 + 1);
    for at in 0..count {
        let mut changed = whole.clone();
        changed.1[at].1[0] ^= 1;
        assert_eq!(damage(changed), Damaged::NotAuthentic, "{at}");
        for other in 0..at {
            let mut swapped = whole.clone();
            let value = swapped.1[at].1.clone();
            swapped.1[at].1 = std::mem::replace(&mut swapped.1[other].1, value);
            assert_eq!(damage(swapped), Damaged::NotAuthentic, "{at} {other}");
        }
        let mut moved = whole.clone();
        moved.1[at].0 = [9; 32];
        assert_eq!(damage(moved), Damaged::NotAuthentic, "{at}");
    }
}

#[test]
fn records_cannot_be_removed_or_put_back() {
    let mut keeper = filled();
    let old = content(&keeper);
    for at in 0..old.1.len() {
        let mut fewer = old.clone();
        fewer.1.remove(at);
        assert_eq!(damage(fewer), Damaged::Incomplete, "{at}");
    }
    let rotate = CreateKeyRequest { name: "a".into(), add_version: true, ..CreateKeyRequest::default() };
    change(&mut keeper, admin().identity, "one", &[(Action::KeyCreate, Change::KeyCreate(rotate))]).expect("rotated");
    let new = content(&keeper);
    let mut mixed = 0;
    for (id, value) in &old.1 {
        let mut put_back = new.clone();
        let place = put_back.1.iter_mut().find(|(other, _)| other == id).expect("nothing was removed");
        if place.1 != *value {
            place.1.clone_from(value);
            assert_eq!(damage(put_back), Damaged::Incomplete);
            mixed += 1;
        }
    }
    assert_eq!(mixed, 2, "the key, and the record of the state");
    open(old).map(drop).expect("an older whole file is not told from a newer one");
}

#[test]
fn without_the_root_key_no_name_and_no_value_can_be_read() {
    let (_, records) = content(&filled());
    let bytes = records.iter().flat_map(|(id, value)| [&id[..], value]).collect::<Vec<_>>().concat();
    for text in ["one", "AES256", "h1:"] {
        assert!(!bytes.windows(text.len()).any(|window| window == text.as_bytes()), "{text}");
    }
}

#[test]
fn the_wrong_hsm_key_is_refused_and_nothing_is_touched() {
    let whole = content(&filled());
    let mut store = Mem::default();
    let (seals, puts) = whole.clone();
    store.commit(&Batch { puts, seals, ..Batch::default() }).expect("committed");
    let other = HsmKey::generate().expect("random bytes").expose();
    let refused = Keeper::open(Box::new(store), providers(&[("env", &other)]), admin());
    assert!(matches!(refused, Err(OpenError::Sealed(_))));
    let mut keeper = filled();
    let backup = {
        let mut writer = crate::kms::backup::Writer::new(&whole.0);
        whole.1.iter().for_each(|(id, value)| writer.add(id, value));
        writer.finish()
    };
    let mut foreign = Keeper::open(Box::new(Mem::default()), providers(&[("env", &other)]), admin()).expect("opened");
    assert!(matches!(foreign.restore(&backup), Err(OpenError::Sealed(_))));
    let cut = &backup[..backup.len() - 1];
    assert!(matches!(keeper.restore(cut), Err(OpenError::Backup(_))));
    assert_eq!(keeper.snapshot().enclaves.iter().count(), 2);
}

#[test]
fn records_without_a_seal_are_no_new_beginning() {
    let (_, puts) = content(&filled());
    assert_eq!(damage((Seals::new(), puts)), Damaged::Incomplete);
}
