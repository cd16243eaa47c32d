//! What one request may take: of the thread that writes, and of a worker at a stretch.

use std::task::{Context, Poll};

use super::*;
use crate::crypto::{Algorithm, Key};
use crate::kms::command::Revocation;
use crate::kms::ring::VERSIONS;
use crate::kms::wire::{
    DecryptRequest, ExportKeysRequest, ExportKeysResponse, ImportKeyRequest, KeyStatus, KeyVersionRequest, ListRequest,
    StoredVersion,
};

const ENCLAVE: &str = "tenant";

fn with_enclave() -> Keeper {
    let mut keeper = keeper();
    change(&mut keeper, admin().identity, "", &[create_enclave(ENCLAVE)]).expect("created");
    keeper
}

fn rotate(name: &str) -> (Action, Change) {
    let request = CreateKeyRequest { name: name.into(), add_version: true, ..CreateKeyRequest::default() };
    (Action::KeyCreate, Change::KeyCreate(request))
}

/// A key with so many versions, which are all the same.
fn import(name: &str, versions: usize) -> (Action, Change) {
    let key = Key::generate(Algorithm::Aes256, NOW, "").expect("random bytes").encode().expose().to_vec();
    let stored = |at| StoredVersion { number: u32::try_from(at).expect("few"), key: key.clone(), imported: false };
    let request = ImportKeyRequest::whole(name.into(), (1..=versions).map(stored).collect(), 0);
    (Action::KeyImport, Change::KeyImport(request))
}

fn root_change(keeper: &mut Keeper, commands: &[(Action, Change)]) -> Result<(), Error> {
    change(keeper, admin().identity, ENCLAVE, commands)
}

fn invalid<T>(refused: Result<T, Error>) -> String {
    match refused {
        Err(Error::Invalid(text)) => text.into_owned(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was done"),
    }
}

#[test]
fn one_request_cannot_change_more_than_so_many_versions() {
    let mut keeper = with_enclave();
    let names: Vec<_> = (0..28).map(|n| format!("k-{n}")).collect();
    for name in &names {
        root_change(&mut keeper, &[import(name, VERSIONS - 1)]).expect("imported");
    }
    let all: Vec<_> = names.iter().map(|name| rotate(name)).collect();
    let refused = invalid(root_change(&mut keeper, &all));
    assert!(refused.contains("send them in several"), "{refused}");
    root_change(&mut keeper, &all[..14]).expect("half of it");
    root_change(&mut keeper, &all[14..]).expect("the other half");
}

#[test]
fn versions_of_one_key_cost_what_they_are_and_not_their_square() {
    let mut keeper = with_enclave();
    root_change(&mut keeper, &[create_key("k")]).expect("created");
    let many: Vec<_> = (0..1_000).map(|_| rotate("k")).collect();
    let times: Vec<_> = (0..3)
        .map(|_| {
            let since = std::time::Instant::now();
            root_change(&mut keeper, &many).expect("rotated");
            since.elapsed()
        })
        .collect();
    // Generous: it was minutes for some ten thousand.
    assert!(times.iter().sum::<std::time::Duration>() < std::time::Duration::from_secs(30), "{times:?}");
    let refused = root_change(&mut keeper, &many);
    assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    let request = KeyVersionRequest { name: "k".into(), version: 0 };
    let status: KeyStatus =
        ask(&keeper, admin().identity, ENCLAVE, Action::KeyStatus, &Query::KeyStatus(request)).expect("there");
    assert_eq!(status.version, 3_001, "nothing of a refused request is done");
}

#[test]
fn policies_and_tags_are_of_a_size_that_can_be_looked_at() {
    let mut keeper = with_enclave();
    let policy = |count: usize| {
        let rules = (0..count).map(|n| (format!("p-{n}"), Rule {})).collect();
        let allow = [(Action::KeyCreate.to_string(), RuleSet { rules })].into();
        let request = CreatePolicyRequest { name: "p".into(), allow, ..CreatePolicyRequest::default() };
        (Action::PolicyCreate, Change::PolicyCreate(request))
    };
    root_change(&mut keeper, &[policy(4_000)]).expect("created");
    assert_eq!(invalid(root_change(&mut keeper, &[policy(4_001)])), "a policy has at most 4000 patterns");
    let tagged = |len: usize| {
        let (identity, tags) = (identity(1).to_string(), [("t".to_owned(), "x".repeat(len - 1))].into());
        (Action::IdentityCreate, Change::IdentityCreate(CreateIdentityRequest { identity, tags, ..Default::default() }))
    };
    root_change(&mut keeper, &[tagged(8_192)]).expect("created");
    assert!(invalid(root_change(&mut keeper, &[tagged(8_193)])).contains("8192 bytes"));
}

#[test]
fn an_export_holds_so_much_and_no_more() {
    let mut keeper = with_enclave();
    root_change(&mut keeper, &[import("k", VERSIONS)]).expect("imported");
    let export = |count: usize| -> Result<ExportKeysResponse, Error> {
        let recipient = crate::crypto::handover::Recipient::generate().expect("random bytes").public().to_vec();
        let request = ExportKeysRequest { names: vec!["k".into(); count], recipient };
        ask(&keeper, admin().identity, ENCLAVE, Action::KeyExport, &Query::KeyExport(request))
    };
    export(10).expect("exported");
    assert!(invalid(export(300_000)).contains("ask for fewer"));
}

/// How often others get their turn while this is answered.
fn turns(keeper: &Keeper, caller: Identity, action: Action, read: &Query) -> usize {
    let reader = Reader {
        snapshot: keeper.snapshot(),
        caller,
        enclave: ENCLAVE,
        encoding: Encoding::Protobuf,
        has_kes: false,
        cluster: &no_cluster,
    };
    let (mut turn, mut count) = (Turn::new(), 0);
    let mut answer = std::pin::pin!(reader.answer(action, read, &mut turn));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(std::future::poll_fn(|context: &mut Context<'_>| match answer.as_mut().poll(context) {
        Poll::Pending => {
            count += 1;
            Poll::Pending
        }
        Poll::Ready(_) => Poll::Ready(()),
    }));
    count
}

#[test]
fn what_takes_long_lets_others_have_their_turn() {
    let mut keeper = with_enclave();
    root_change(&mut keeper, &[import("k", VERSIONS)]).expect("imported");
    let ciphertext = vec![7; 100_000];
    let decrypt = DecryptRequest { name: "k".into(), ciphertext, ..DecryptRequest::default() };
    assert!(turns(&keeper, admin().identity, Action::KeyDecrypt, &Query::KeyDecrypt(decrypt)) > 3);

    // A listing that finds nothing to show looks at everything.
    let user = identity(1);
    let policy = create_policy("p", &[(Action::KeyList, "*")], &[(Action::KeyList, "hidden-*")]);
    root_change(&mut keeper, &[create_identity(user, "User"), policy, assign("p", user)]).expect("set up");
    for first in (0..20_000).step_by(1_000) {
        let keys: Vec<_> = (first..first + 1_000).map(|n| create_key(&format!("hidden-{n}"))).collect();
        root_change(&mut keeper, &keys).expect("created");
    }
    let list = ListRequest { continue_at: "hidden-".into(), ..ListRequest::default() };
    assert!(turns(&keeper, user, Action::KeyList, &Query::KeyList(list)) > 0);
}

#[test]
fn an_identity_that_revokes_many_sessions_leaves_room_for_others() {
    let mut keeper = with_enclave();
    let mut revoke = |seed: u8, numbers: std::ops::Range<usize>| {
        let revocation = |number: usize| {
            let mut hash = [seed; 32];
            hash[..8].copy_from_slice(&number.to_be_bytes());
            let revocation = Revocation { hash, identity: identity(seed), end: NOW.unix_timestamp() + 1_000 };
            (Action::SessionRevoke, Change::RevokeSession(revocation))
        };
        root_change(&mut keeper, &numbers.map(revocation).collect::<Vec<_>>())
    };
    for begin in (0..5_000).step_by(100) {
        revoke(1, begin..begin + 100).expect("half of all");
    }
    assert!(matches!(revoke(1, 5_000..5_001), Err(Error::Conflict(_))));
    revoke(2, 0..100).expect("there is room for others");
}
