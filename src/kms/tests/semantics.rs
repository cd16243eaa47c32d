//! The meaning of commands, where the protocol leaves no choice.

use super::*;
use crate::crypto::handover::{Handed, Recipient};
use crate::kms::wire::{
    DecryptRequest, DecryptResponse, DeleteKeyRequest, EncryptRequest, EncryptResponse, ExportKeysRequest,
    ExportKeysResponse, ExportedKeys, GenerateKeyRequest, GenerateKeyResponse, HsmRequest, IdentityRequest,
    IdentityResponse, ImportKeyRequest, KeyStatus, KeyVersionRequest, ListIdentitiesResponse, ListKeysResponse,
    ListRequest, MacRequest, MacResponse, StoredVersion,
};

const ENCLAVE: &str = "tenant";

fn with_enclave() -> Keeper {
    let mut keeper = keeper();
    change(&mut keeper, admin().identity, "", &[create_enclave(ENCLAVE)]).expect("created");
    keeper
}

fn root_change(keeper: &mut Keeper, commands: &[(Action, Change)]) -> Result<(), Error> {
    change(keeper, admin().identity, ENCLAVE, commands)
}

fn root_ask<M: prost::Message + Default>(keeper: &Keeper, action: Action, read: &Query) -> Result<M, Error> {
    ask(keeper, admin().identity, ENCLAVE, action, read)
}

fn rotate(name: &str) -> (Action, Change) {
    let request = CreateKeyRequest { name: name.into(), add_version: true, ..CreateKeyRequest::default() };
    (Action::KeyCreate, Change::KeyCreate(request))
}

fn delete(name: &str, version: u32, all_versions: bool) -> (Action, Change) {
    (Action::KeyDelete, Change::KeyDelete(DeleteKeyRequest { name: name.into(), version, all_versions }))
}

fn status(keeper: &Keeper, name: &str, version: u32) -> Result<KeyStatus, Error> {
    root_ask(keeper, Action::KeyStatus, &Query::KeyStatus(KeyVersionRequest { name: name.into(), version }))
}

fn encrypt(keeper: &Keeper, version: u32) -> Result<EncryptResponse, Error> {
    let request = EncryptRequest { name: "k".into(), version, plaintext: b"m".to_vec(), associated_data: vec![1] };
    root_ask(keeper, Action::KeyEncrypt, &Query::KeyEncrypt(request))
}

fn decrypt(keeper: &Keeper, version: u32, ciphertext: &[u8]) -> Result<DecryptResponse, Error> {
    let (ciphertext, associated_data) = (ciphertext.to_vec(), vec![1]);
    let request = DecryptRequest { name: "k".into(), version, ciphertext, associated_data };
    root_ask(keeper, Action::KeyDecrypt, &Query::KeyDecrypt(request))
}

#[test]
fn a_request_of_writes_is_applied_as_a_whole_or_not_at_all() {
    let mut keeper = with_enclave();
    let commit = keeper.snapshot().commit;
    let refused = root_change(&mut keeper, &[create_key("a"), create_key("b"), create_key("a")]);
    assert!(matches!(refused, Err(Error::KeyExists)));
    assert!(matches!(status(&keeper, "a", 0), Err(Error::NoKey)));
    assert_eq!(keeper.snapshot().commit, commit);
    root_change(&mut keeper, &[create_key("a"), delete("a", 0, true), create_key("a")])
        .expect("each sees the one before");
    assert_eq!(status(&keeper, "a", 0).expect("there").version, 1);
}

#[test]
fn versions_are_made_used_and_removed() {
    let mut keeper = with_enclave();
    assert!(matches!(root_change(&mut keeper, &[rotate("k")]), Err(Error::NoKey)));
    root_change(&mut keeper, &[create_key("k")]).expect("created");
    let first = encrypt(&keeper, 0).expect("encrypted");
    root_change(&mut keeper, &[rotate("k")]).expect("rotated");
    let second = encrypt(&keeper, 0).expect("encrypted");
    assert_eq!((first.version, second.version, encrypt(&keeper, 1).expect("encrypted").version), (1, 2, 1));
    assert!(matches!(encrypt(&keeper, 3), Err(Error::NoKey)));
    for (version, ciphertext) in [(0, &first), (1, &first), (0, &second), (2, &second)] {
        assert_eq!(decrypt(&keeper, version, &ciphertext.ciphertext).expect("decrypted").plaintext, b"m");
    }
    assert!(matches!(decrypt(&keeper, 2, &first.ciphertext), Err(Error::InvalidCiphertext)));
    root_change(&mut keeper, &[delete("k", 0, false)]).expect("the latest");
    assert!(matches!(decrypt(&keeper, 0, &second.ciphertext), Err(Error::InvalidCiphertext)));
    root_change(&mut keeper, &[rotate("k")]).expect("rotated");
    assert_eq!(encrypt(&keeper, 0).expect("encrypted").version, 3, "2 is used up");
    assert!(matches!(root_change(&mut keeper, &[delete("k", 1, true)]), Err(Error::Invalid(_))));
    root_change(&mut keeper, &[delete("k", 1, false), delete("k", 3, false)]).expect("all");
    assert!(matches!(status(&keeper, "k", 0), Err(Error::NoKey)));
    root_change(&mut keeper, &[create_key("k")]).expect("created");
    assert_eq!(status(&keeper, "k", 0).expect("there").version, 1, "a new key");
}

#[test]
fn data_keys_have_the_length_that_was_asked_for() {
    let mut keeper = with_enclave();
    root_change(&mut keeper, &[create_key("k")]).expect("created");
    for (length, len) in [(0, 32), (1, 1), (32, 32), (1024, 1024)] {
        let request = GenerateKeyRequest { name: "k".into(), version: 0, associated_data: vec![1], length };
        let made: GenerateKeyResponse =
            root_ask(&keeper, Action::KeyGenerate, &Query::KeyGenerate(request)).expect("made");
        assert_eq!((made.plaintext.len(), made.version), (len, 1));
        assert_eq!(decrypt(&keeper, 0, &made.ciphertext).expect("decrypted").plaintext, made.plaintext);
    }
    let request = GenerateKeyRequest { name: "k".into(), length: 1025, ..GenerateKeyRequest::default() };
    let refused: Result<GenerateKeyResponse, _> = root_ask(&keeper, Action::KeyGenerate, &Query::KeyGenerate(request));
    assert!(matches!(refused, Err(Error::Invalid(_))));
}

fn import(name: &str, kind: &str, key: &[u8], versions: &[(u32, &str)], next: u32) -> (Action, Change) {
    let stored = |(number, key): &(u32, &str)| StoredVersion { number: *number, key: (*key).into(), imported: true };
    let (name, kind, key, versions) = (name.into(), kind.into(), key.to_vec(), versions.iter().map(stored).collect());
    (Action::KeyImport, Change::KeyImport(ImportKeyRequest { name, kind, key, versions, next, transit: None }))
}

/// A key as old servers store it.
fn stored(byte: u8, created_by: &str) -> String {
    let bytes = base64::encode(&[byte; 32]);
    let bytes = bytes.as_str();
    format!(r#"{{"bytes":"{bytes}","created_at":"2020-01-02T03:04:05Z","created_by":"{created_by}"}}"#)
}

#[test]
fn an_imported_key_is_what_it_was() {
    let mut keeper = with_enclave();
    root_change(&mut keeper, &[import("plain", "ChaCha20", &[3; 32], &[], 0)]).expect("imported");
    assert_eq!(status(&keeper, "plain", 0).expect("there").kind, "ChaCha20");
    assert!(matches!(root_change(&mut keeper, &[import("plain", "", &[3; 32], &[], 0)]), Err(Error::KeyExists)));
    let maker = "97802856".to_owned() + &"ab".repeat(28);
    root_change(&mut keeper, &[import("whole", "", &[], &[(0, &stored(3, &maker))], 0)]).expect("imported");
    let shown = status(&keeper, "whole", 0).expect("there");
    assert_eq!((shown.kind.as_str(), shown.created_at.map(|time| time.seconds)), ("AES256", Some(1_577_934_245)));
    assert!(shown.created_by.parse::<Identity>().is_ok(), "{}", shown.created_by);
    let mac = |name: &str| -> Result<MacResponse, Error> {
        let request = MacRequest { name: name.into(), version: 0, message: b"m".to_vec() };
        root_ask(&keeper, Action::KeyMac, &Query::KeyMac(request))
    };
    assert!(matches!(mac("plain"), Err(Error::NoHmac)) && matches!(mac("whole"), Err(Error::NoHmac)));
}

#[test]
fn a_key_of_a_year_that_cannot_be_written_is_not_taken_in() {
    let mut keeper = with_enclave();
    let maker = "97802856".to_owned() + &"ab".repeat(28);
    let of = |time: &str| stored(3, &maker).replace("2020-01-02T03:04:05Z", time);
    for time in ["0000-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01"] {
        let refused = root_change(&mut keeper, &[import("k", "", &[], &[(1, &of(time))], 0)]);
        assert!(matches!(&refused, Err(Error::Invalid(why)) if why.contains("0 to 9999")), "{refused:?}");
    }
    // Protobuf, with and without an HMAC key, 2^40 seconds before 1970.
    for value in [
        "CiQKIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHEAEaCwiAgICAgOD///8B",
        "CiQKIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHEAESJAogBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcQARoLCICAgICA4P///wE=",
    ] {
        let refused = root_change(&mut keeper, &[import("k", "", &[], &[(1, value)], 0)]);
        assert!(matches!(&refused, Err(Error::Invalid(why)) if why.contains("0 to 9999")), "{refused:?}");
    }
    root_change(&mut keeper, &[import("k", "", &[], &[(1, &of("0000-01-01T00:00:00Z"))], 0)]).expect("the first year");
    let request = Query::KeyStatus(KeyVersionRequest { name: "k".into(), version: 0 });
    let snapshot = keeper.snapshot();
    let reader = Reader {
        snapshot,
        caller: admin().identity,
        enclave: ENCLAVE,
        encoding: Encoding::Json,
        has_kes: false,
        cluster: &no_cluster,
    };
    let answer = answer(&reader, Action::KeyStatus, &request).expect("there");
    assert!(std::str::from_utf8(&answer).expect("text").contains("0000-01-01T00:00:00Z"));
}

#[test]
fn an_import_that_makes_no_sense_is_refused() {
    let mut keeper = with_enclave();
    let key = stored(3, "");
    let key = key.as_str();
    for wrong in [
        import("x", "", &[3; 31], &[], 0),
        import("x", "DES", &[3; 32], &[], 0),
        import("x", "", &[3; 32], &[(1, key)], 0),
        import("x", "AES256", &[], &[(1, key)], 0),
        import("x", "", &[], &[(1, "{}")], 0),
        import("x", "", &[], &[(0, key), (1, key)], 0),
        import("x", "", &[], &[(2, key), (1, key)], 0),
        import("x", "", &[], &[(1, key), (1, key)], 0),
        import("x", "", &[], &[(2, key)], 2),
        import("x", "", &[], &[(u32::MAX, key)], 0),
    ] {
        assert!(matches!(root_change(&mut keeper, &[wrong]), Err(Error::Invalid(_))));
    }
}

fn export(keeper: &Keeper, names: &[&str]) -> Result<ExportedKeys, Error> {
    let recipient = Recipient::generate().expect("random bytes");
    let names = names.iter().map(ToString::to_string).collect();
    let request = ExportKeysRequest { names, recipient: recipient.public().to_vec() };
    let response: ExportKeysResponse = root_ask(keeper, Action::KeyExport, &Query::KeyExport(request))?;
    let handed = Handed { encapsulated: response.encapsulated, sealed: response.sealed };
    let bytes = recipient.open(handed, ENCLAVE.as_bytes()).expect("sealed to us, for this enclave");
    Ok(prost::Message::decode(bytes.as_slice()).expect("exported keys"))
}

#[test]
fn an_exported_key_is_the_same_where_it_is_imported() {
    let mut keeper = with_enclave();
    let old = stored(3, "somebody");
    root_change(&mut keeper, &[import("moved", "", &[], &[(3, &old), (5, &stored(4, ""))], 9)]).expect("imported");
    root_change(&mut keeper, &[create_key("made")]).expect("made");
    let exported = export(&keeper, &["moved", "made"]).expect("exported");
    assert_eq!(exported.keys[0].versions.iter().map(|version| version.number).collect::<Vec<_>>(), [3, 5]);
    assert_eq!((exported.keys[0].next, &*exported.keys[0].versions[0].key), (9, old.as_bytes()));
    let mut other = with_enclave();
    for key in &exported.keys {
        root_change(&mut other, &[(Action::KeyImport, Change::KeyImport(key.clone()))]).expect("imported");
    }
    assert_eq!(export(&other, &["moved", "made"]).expect("exported"), exported);
    assert!(matches!(export(&keeper, &["moved", "gone"]), Err(Error::NoKey)));
}

#[test]
fn listings_come_in_pages_that_begin_where_the_last_one_ended() {
    let mut keeper = with_enclave();
    let names: Vec<_> = (0..25).map(|n| format!("app-{n:02}")).collect();
    let commands: Vec<_> = names.iter().chain(&["zoo".to_owned()]).map(|name| create_key(name)).collect();
    root_change(&mut keeper, &commands).expect("created");
    let page = |prefix: &str, continue_at: &str, limit| -> ListKeysResponse {
        let request = ListRequest { prefix: prefix.into(), continue_at: continue_at.into(), limit };
        root_ask(&keeper, Action::KeyList, &Query::KeyList(request)).expect("listed")
    };
    let (mut seen, mut next) = (Vec::new(), String::new());
    loop {
        let page = page("app", &next, 10);
        assert!(page.keys.len() <= 10 && page.keys.first().is_none_or(|key| next.is_empty() || key.name == next));
        seen.extend(page.keys.into_iter().map(|key| key.name));
        next = page.continue_at;
        if next.is_empty() {
            break;
        }
    }
    assert_eq!(seen, names);
    assert_eq!((page("", "", 0).keys.len(), page("app-1", "", 0).keys.len(), page("x", "", 0).keys.len()), (26, 10, 0));
    assert_eq!(page("app", "zoo", 0).keys.len(), 0, "not within the prefix");
    let all = page("app", "", 25);
    assert_eq!((all.keys.len(), all.continue_at.as_str()), (25, ""));
}

#[test]
fn a_listing_of_versions_is_of_one_key() {
    let mut keeper = with_enclave();
    root_change(&mut keeper, &[create_key("k"), rotate("k"), rotate("k"), delete("k", 2, false), create_key("k2")])
        .expect("made");
    let page = |prefix: &str, continue_at: &str, limit| -> Result<ListKeysResponse, Error> {
        let request = ListRequest { prefix: prefix.into(), continue_at: continue_at.into(), limit };
        root_ask(&keeper, Action::KeyListVersions, &Query::KeyListVersions(request))
    };
    let numbers = |page: &ListKeysResponse| page.keys.iter().map(|key| key.version).collect::<Vec<_>>();
    assert_eq!(numbers(&page("k", "", 0).expect("listed")), [1, 3]);
    let first = page("k", "", 1).expect("listed");
    assert_eq!((numbers(&first), first.continue_at.as_str()), (vec![1], "3"));
    assert_eq!(numbers(&page("k", "3", 1).expect("listed")), [3]);
    assert!(matches!(page("", "", 0), Err(Error::NoKey)));
}

#[test]
fn a_service_account_has_the_rights_of_its_maker_and_goes_with_it() {
    let (user, service, other) = (identity(1), identity(2), identity(3));
    let mut keeper = with_enclave();
    let allow = [(Action::KeyCreate, "app*"), (Action::IdentityCreate, "*"), (Action::IdentityDelete, "*")];
    root_change(
        &mut keeper,
        &[
            create_identity(user, "User"),
            create_identity(other, "Admin"),
            create_policy("p", &allow, &[]),
            assign("p", user),
        ],
    )
    .expect("set up");
    change(&mut keeper, user, ENCLAVE, &[create_service_account(service)]).expect("created");
    change(&mut keeper, service, ENCLAVE, &[create_key("app-1")]).expect("as its maker may");
    assert!(matches!(change(&mut keeper, service, ENCLAVE, &[create_key("x")]), Err(Error::Denied)));
    let known = |keeper: &Keeper, identity: Identity| -> Result<IdentityResponse, Error> {
        let request = IdentityRequest { identity: identity.to_string() };
        root_ask(keeper, Action::IdentityStatus, &Query::IdentityStatus(request))
    };
    let shown = known(&keeper, service).expect("known");
    assert_eq!((shown.is_service_account, shown.policy.as_str(), shown.privilege), (true, "p", 3));
    assert_eq!(known(&keeper, user).expect("known").service_accounts, [service.to_string()]);
    for refused in [
        change(&mut keeper, service, ENCLAVE, &[create_service_account(identity(4))]),
        change(&mut keeper, user, ENCLAVE, &[create_service_account(user)]),
        change(&mut keeper, other, ENCLAVE, &[create_service_account(user)]),
        root_change(&mut keeper, &[assign("p", service)]),
        root_change(&mut keeper, &[create_service_account(admin().identity)]),
    ] {
        assert!(matches!(refused, Err(Error::Invalid(_) | Error::Conflict(_))), "{refused:?}");
    }
    let request = IdentityRequest { identity: user.to_string() };
    let remove = [(Action::IdentityDelete, Change::IdentityDelete(request))];
    root_change(&mut keeper, &remove).expect("removed");
    assert!(matches!(known(&keeper, service), Err(Error::NoIdentity)));
    assert!(matches!(change(&mut keeper, service, ENCLAVE, &[create_key("app-2")]), Err(Error::Denied)));
}

#[test]
fn nobody_makes_or_changes_who_is_more_powerful() {
    let (user, powerful) = (identity(1), identity(2));
    let mut keeper = with_enclave();
    let allow = [(Action::IdentityCreate, "*"), (Action::IdentityDelete, "*")];
    let made = [
        create_identity(user, ""),
        create_identity(powerful, "Admin"),
        create_policy("p", &allow, &[]),
        assign("p", user),
    ];
    root_change(&mut keeper, &made).expect("set up");
    change(&mut keeper, user, ENCLAVE, &[create_identity(identity(3), "User")]).expect("an equal");
    let remove = |identity: Identity| {
        (Action::IdentityDelete, Change::IdentityDelete(IdentityRequest { identity: identity.to_string() }))
    };
    for (caller, command) in [
        (user, create_identity(identity(4), "Admin")),
        (user, create_identity(powerful, "User")),
        (user, remove(powerful)),
        (powerful, create_identity(identity(4), "SysAdmin")),
    ] {
        assert!(matches!(change(&mut keeper, caller, ENCLAVE, &[command]), Err(Error::Denied)));
    }
    change(&mut keeper, powerful, ENCLAVE, &[remove(user)]).expect("removed");
    root_change(&mut keeper, &[create_identity(identity(5), "SysAdmin")]).expect("the administrator may");
    assert!(matches!(change(&mut keeper, powerful, ENCLAVE, &[remove(identity(5))]), Err(Error::Denied)));
    change(&mut keeper, identity(5), "", &[create_enclave("another")]).expect("may do everything");
}

fn show(keeper: &Keeper, identity: Identity) -> Result<IdentityResponse, Error> {
    let request = IdentityRequest { identity: identity.to_string() };
    root_ask(keeper, Action::IdentityStatus, &Query::IdentityStatus(request))
}

#[test]
fn an_account_is_never_overwritten() {
    let (maker, other, user) = (identity(1), identity(2), identity(3));
    let mut keeper = with_enclave();
    let allow = [(Action::IdentityCreate, "*"), (Action::PolicyAssign, "*")];
    let admins = [create_identity(maker, "Admin"), create_identity(other, "Admin"), create_policy("p", &allow, &[])];
    root_change(&mut keeper, &admins).expect("set up");
    let by = |keeper: &mut Keeper, caller, command| change(keeper, caller, ENCLAVE, &[command]);
    change(&mut keeper, maker, ENCLAVE, &[create_identity(user, "User"), assign("p", user)]).expect("set up");
    let before = show(&keeper, user).expect("known");
    by(&mut keeper, maker, create_identity(user, "User")).expect("the same request of the same admin");
    let tagged = CreateIdentityRequest {
        identity: user.to_string(),
        tags: [("team".to_owned(), "blue".to_owned())].into(),
        ..CreateIdentityRequest::default()
    };
    let neighbour = identity(4);
    root_change(&mut keeper, &[create_identity(neighbour, "User"), assign("p", neighbour)]).expect("set up");
    for (caller, command) in [
        (maker, create_identity(user, "Admin")),
        (maker, create_service_account(user)),
        (maker, (Action::IdentityCreate, Change::IdentityCreate(tagged))),
        (other, create_identity(user, "User")),
        (other, create_service_account(user)),
        (neighbour, create_service_account(user)),
        (neighbour, create_identity(user, "User")),
        (user, create_identity(user, "User")),
        (admin().identity, create_identity(user, "User")),
        (admin().identity, create_service_account(user)),
    ] {
        let refused = by(&mut keeper, caller, command);
        assert!(matches!(refused, Err(Error::IdentityExists)), "{caller}: {refused:?}");
    }
    assert_eq!(show(&keeper, user).expect("known"), before, "policy, owner, age and labels are as they were");
    let service = identity(5);
    by(&mut keeper, neighbour, create_service_account(service)).expect("created");
    by(&mut keeper, neighbour, create_service_account(service)).expect("again");
    assert!(matches!(by(&mut keeper, maker, create_service_account(service)), Err(Error::IdentityExists)));
    // Nobody gives a policy to who is more powerful.
    assert!(matches!(by(&mut keeper, neighbour, assign("p", maker)), Err(Error::Denied)));
    root_change(&mut keeper, &[create_identity(identity(6), "SysAdmin")]).expect("created");
    assert!(matches!(by(&mut keeper, maker, assign("p", identity(6))), Err(Error::Denied)));
}

#[test]
fn a_system_administrator_is_one_until_its_last_such_account_is_gone() {
    let (sysadmin, service) = (identity(1), identity(2));
    let mut keeper = with_enclave();
    let root = admin().identity;
    change(&mut keeper, root, "", &[create_enclave("a"), create_enclave("b")]).expect("created");
    for enclave in ["a", "b"] {
        change(&mut keeper, root, enclave, &[create_identity(sysadmin, "SysAdmin")]).expect("created");
    }
    change(&mut keeper, sysadmin, "a", &[create_service_account(service)]).expect("created");
    let remove = |identity: Identity| {
        (Action::IdentityDelete, Change::IdentityDelete(IdentityRequest { identity: identity.to_string() }))
    };
    let may = |keeper: &Keeper| (keeper.snapshot().is_sysadmin(&sysadmin), keeper.snapshot().is_sysadmin(&service));
    assert_eq!(may(&keeper), (true, true));
    change(&mut keeper, root, "b", &[remove(sysadmin)]).expect("removed");
    assert_eq!(may(&keeper), (true, true));
    // What is worked out anew from the disk says the same.
    let backup = keeper.backup().expect("made");
    keeper.restore(&backup).expect("restored");
    assert_eq!(may(&keeper), (true, true));
    change(&mut keeper, root, "", &[(Action::EnclaveDelete, Change::EnclaveDelete(name("a")))]).expect("deleted");
    assert_eq!(may(&keeper), (false, false));
    assert!(!keeper.snapshot().knows(&sysadmin) && !keeper.snapshot().knows(&service));
    change(&mut keeper, root, "b", &[create_identity(sysadmin, "User")]).expect("created");
    assert!(keeper.snapshot().knows(&sysadmin));
    assert_eq!(may(&keeper), (false, false));
}

#[test]
fn a_policy_that_is_deleted_is_nobodys_any_more() {
    let user = identity(1);
    let mut keeper = with_enclave();
    let policy = || create_policy("p", &[(Action::KeyCreate, "*")], &[]);
    root_change(&mut keeper, &[policy(), create_identity(user, "User"), assign("p", user)]).expect("set up");
    change(&mut keeper, user, ENCLAVE, &[create_key("a")]).expect("allowed");
    root_change(&mut keeper, &[(Action::PolicyDelete, Change::PolicyDelete(name("p"))), policy()]).expect("replaced");
    assert!(matches!(change(&mut keeper, user, ENCLAVE, &[create_key("b")]), Err(Error::Denied)));
    assert!(matches!(root_change(&mut keeper, &[assign("x", user)]), Err(Error::NoPolicy)));
    assert!(matches!(root_change(&mut keeper, &[assign("p", identity(9))]), Err(Error::NoIdentity)));
}

#[test]
fn an_enclave_takes_everything_with_it() {
    let mut keeper = with_enclave();
    root_change(&mut keeper, &[create_key("a"), create_identity(identity(1), "User"), create_policy("p", &[], &[])])
        .expect("filled");
    let records = || (Action::EnclaveDelete, Change::EnclaveDelete(name(ENCLAVE)));
    change(&mut keeper, admin().identity, "", &[records()]).expect("deleted");
    let (_, left) = crate::kms::backup::parse(&keeper.backup().expect("made")).expect("whole");
    assert_eq!(left.len(), 1, "the record of the state");
    assert!(matches!(change(&mut keeper, admin().identity, "", &[records()]), Err(Error::NoEnclave)));
    change(&mut keeper, admin().identity, "", &[create_enclave(ENCLAVE)]).expect("created");
    assert!(matches!(status(&keeper, "a", 0), Err(Error::NoKey)));
}

#[test]
fn a_listing_shows_nothing_that_its_policy_denies() {
    let user = identity(1);
    let mut keeper = with_enclave();
    let list = [Action::KeyList, Action::IdentityList];
    let allow: Vec<_> = list.iter().map(|action| (*action, "*")).collect();
    let policy = create_policy("p", &allow, &[(Action::KeyList, "secret*")]);
    let made = [create_key("a"), create_key("secret-1"), create_identity(user, "User"), policy, assign("p", user)];
    root_change(&mut keeper, &made).expect("set up");
    let keys: ListKeysResponse =
        ask(&keeper, user, ENCLAVE, Action::KeyList, &Query::KeyList(ListRequest::default())).expect("listed");
    assert_eq!(keys.keys.iter().map(|key| key.name.as_str()).collect::<Vec<_>>(), ["a"]);
    let prefix = ListRequest { prefix: "secret-".into(), ..ListRequest::default() };
    let refused: Result<ListKeysResponse, _> = ask(&keeper, user, ENCLAVE, Action::KeyList, &Query::KeyList(prefix));
    assert!(matches!(refused, Err(Error::Denied)));
    let identities: ListIdentitiesResponse =
        ask(&keeper, user, ENCLAVE, Action::IdentityList, &Query::IdentityList(ListRequest::default()))
            .expect("listed");
    assert_eq!(identities.identities.len(), 1);
}

#[test]
fn a_second_seal_is_added_and_the_first_removed() {
    let second = HsmKey::generate().expect("random bytes").expose();
    let store = || Box::new(Mem::default());
    let derived = Admin { is_derived: true, ..admin() };
    let both = || providers(&[("env", HSM), ("second", &second)]);
    let mut keeper = Keeper::open(store(), providers(&[("env", HSM)]), derived).expect("opened");
    let hsm = |name: &str| HsmRequest { name: name.into(), overwrite: false };
    let add = |name: &str| (Action::ClusterAddHsm, Change::ClusterAddHsm(hsm(name)));
    let remove = |name: &str| (Action::ClusterRemoveHsm, Change::ClusterRemoveHsm(hsm(name)));
    assert!(matches!(change(&mut keeper, admin().identity, "", &[add("second")]), Err(Error::Invalid(_))));
    assert!(matches!(change(&mut keeper, admin().identity, "", &[remove("env")]), Err(Error::Conflict(_))));

    let backup = keeper.backup().expect("made");
    let mut keeper = Keeper::open(store(), both(), admin()).expect("opened");
    keeper.restore(&backup).expect("restored");
    assert!(
        matches!(change(&mut keeper, admin().identity, "", &[remove("env")]), Err(Error::Conflict(_))),
        "the last one"
    );
    change(&mut keeper, admin().identity, "", &[add("second")]).expect("added");
    assert!(matches!(change(&mut keeper, admin().identity, "", &[add("second")]), Err(Error::Conflict(_))));
    change(&mut keeper, admin().identity, "", &[remove("env")]).expect("removed");
    assert_eq!(keeper.snapshot().seals, ["second"]);
    let backup = keeper.backup().expect("made");
    let mut alone = Keeper::open(store(), providers(&[("other name", &second)]), admin()).expect("opened");
    alone.restore(&backup).expect("the second is enough");
    let mut first = Keeper::open(store(), providers(&[("env", HSM)]), admin()).expect("opened");
    assert!(first.restore(&backup).is_err(), "the first opens nothing any more");
}
