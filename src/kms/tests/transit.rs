//! Transit keys among the other keys of an enclave.

use super::*;
use crate::crypto::handover::{Handed, Recipient};
use crate::crypto::transit::Kind;
use crate::kms::transit::{self, Config, What};
use crate::kms::wire::{
    DecryptRequest, DecryptResponse, DeleteKeyRequest, EncryptRequest, EncryptResponse, ExportKeysRequest,
    ExportKeysResponse, ExportedKeys, GenerateKeyRequest, GenerateKeyResponse, ImportKeyRequest, KeyStatus,
    KeyVersionRequest, ListKeysResponse, ListRequest, MacRequest, MacResponse, TransitKey,
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

fn transit(action: Action, name: &str, what: What) -> (Action, Change) {
    (action, Change::Transit(transit::Change { name: name.into(), what }))
}

fn create(name: &str) -> (Action, Change) {
    transit(Action::KeyCreate, name, What::Create { kind: Kind::Aes256Gcm, derived: false })
}

fn delete(name: &str, version: u32, all_versions: bool) -> (Action, Change) {
    (Action::KeyDelete, Change::KeyDelete(DeleteKeyRequest { name: name.into(), version, all_versions }))
}

fn list(keeper: &Keeper, limit: u32, continue_at: &str) -> ListKeysResponse {
    let request = ListRequest { limit, continue_at: continue_at.into(), ..ListRequest::default() };
    ask(keeper, admin().identity, ENCLAVE, Action::KeyList, &Query::KeyList(request)).expect("listed")
}

fn names(list: &ListKeysResponse) -> Vec<&str> {
    list.keys.iter().map(|key| key.name.as_str()).collect()
}

/// The key as the snapshot has it.
fn key(keeper: &Keeper, name: &str) -> Arc<crate::kms::transit::Key> {
    keeper.snapshot().enclaves.get(ENCLAVE).expect("there").transit(name).expect("there").clone()
}

fn export(keeper: &Keeper, name: &str) -> ImportKeyRequest {
    let recipient = Recipient::generate().expect("random bytes");
    let request = ExportKeysRequest { names: vec![name.into()], recipient: recipient.public().to_vec() };
    let response = ask(keeper, admin().identity, ENCLAVE, Action::KeyExport, &Query::KeyExport(request));
    let ExportKeysResponse { encapsulated, sealed } = response.expect("exported");
    let opened = recipient.open(Handed { encapsulated, sealed }, ENCLAVE.as_bytes()).expect("sealed to us");
    let mut keys: ExportedKeys = prost::Message::decode(opened.as_slice()).expect("keys");
    keys.keys.pop().expect("one key")
}

#[test]
fn both_kinds_share_the_names() {
    let mut keeper = with_enclave();
    root_change(&mut keeper, &[create("b"), create_key("a"), create_key("c"), create("d.1")]).expect("created");
    assert!(matches!(root_change(&mut keeper, &[create_key("b")]), Err(Error::KeyExists)));
    assert!(matches!(root_change(&mut keeper, &[create("a")]), Err(Error::KeyExists)));
    let bare = ImportKeyRequest::bare("b".into(), String::new(), vec![1; 32]);
    let import = |request| [(Action::KeyImport, Change::KeyImport(request))];
    assert!(matches!(root_change(&mut keeper, &import(bare)), Err(Error::KeyExists)));
    let all = list(&keeper, 0, "");
    assert_eq!(names(&all), ["a", "b", "c", "d.1"]);
    assert_eq!((all.keys[1].kind.as_str(), all.keys[1].version), ("aes256-gcm96", 1));
    let page = list(&keeper, 2, "b");
    assert_eq!((names(&page), page.continue_at.as_str()), (vec!["b", "c"], "d.1"));
}

#[test]
fn the_protocol_of_the_key_manager_shows_and_deletes_transit_keys_and_no_more() {
    let mut keeper = with_enclave();
    let rotate = transit(Action::KeyCreate, "t", What::Rotate);
    root_change(&mut keeper, &[create("t"), rotate]).expect("created");
    let root = admin().identity;
    let status: KeyStatus = {
        let request = KeyVersionRequest { name: "t".into(), version: 0 };
        ask(&keeper, root, ENCLAVE, Action::KeyStatus, &Query::KeyStatus(request)).expect("there")
    };
    assert_eq!((status.version, status.kind.as_str()), (2, "aes256-gcm96"));
    let request = ListRequest { prefix: "t".into(), ..ListRequest::default() };
    let versions: ListKeysResponse =
        ask(&keeper, root, ENCLAVE, Action::KeyListVersions, &Query::KeyListVersions(request)).expect("there");
    assert_eq!(versions.keys.iter().map(|key| key.version).collect::<Vec<_>>(), [1, 2]);

    let encrypt = EncryptRequest { name: "t".into(), version: 0, plaintext: vec![], associated_data: vec![] };
    let read = Query::KeyEncrypt(encrypt);
    assert!(matches!(ask::<EncryptResponse>(&keeper, root, ENCLAVE, Action::KeyEncrypt, &read), Err(Error::Transit)));
    let read = Query::KeyDecrypt(DecryptRequest { name: "t".into(), ..DecryptRequest::default() });
    assert!(matches!(ask::<DecryptResponse>(&keeper, root, ENCLAVE, Action::KeyDecrypt, &read), Err(Error::Transit)));
    let read = Query::KeyGenerate(GenerateKeyRequest { name: "t".into(), ..GenerateKeyRequest::default() });
    assert!(matches!(
        ask::<GenerateKeyResponse>(&keeper, root, ENCLAVE, Action::KeyGenerate, &read),
        Err(Error::Transit)
    ));
    let read = Query::KeyMac(MacRequest { name: "t".into(), ..MacRequest::default() });
    assert!(matches!(ask::<MacResponse>(&keeper, root, ENCLAVE, Action::KeyMac, &read), Err(Error::Transit)));
    let add_version = CreateKeyRequest { name: "t".into(), add_version: true, ..CreateKeyRequest::default() };
    let rotated = root_change(&mut keeper, &[(Action::KeyCreate, Change::KeyCreate(add_version))]);
    assert!(matches!(rotated, Err(Error::Transit)));

    for (version, all) in [(0, false), (1, false), (2, true)] {
        assert!(matches!(root_change(&mut keeper, &[delete("t", version, all)]), Err(Error::Invalid(_))));
    }
    root_change(&mut keeper, &[delete("t", 0, true)]).expect("deleted");
    assert!(list(&keeper, 0, "").keys.is_empty());
}

#[test]
fn clients_delete_a_key_only_where_that_is_allowed() {
    let mut keeper = with_enclave();
    root_change(&mut keeper, &[create("t")]).expect("created");
    let remove = || transit(Action::KeyDelete, "t", What::Delete);
    let refused = root_change(&mut keeper, &[remove()]).expect_err("refused");
    assert_eq!(refused.to_string(), "deletion is not allowed for this key");
    let allow = Config { deletion_allowed: Some(true), ..Config::default() };
    root_change(&mut keeper, &[transit(Action::KeyDelete, "t", What::Configure(allow)), remove()]).expect("deleted");
    for what in [What::Delete, What::Rotate, What::Trim(1), What::Configure(allow)] {
        assert!(matches!(root_change(&mut keeper, &[transit(Action::KeyDelete, "t", what)]), Err(Error::NoKey)));
    }
}

#[test]
fn a_key_that_exists_is_not_made_again() {
    let mut keeper = with_enclave();
    root_change(&mut keeper, &[create("t")]).expect("created");
    let (_, ciphertext) = key(&keeper, "t").encrypt(0, None, b"", b"m").expect("encrypted");
    let commit = keeper.snapshot().commit;
    let other = What::Create { kind: Kind::ChaCha20Poly1305, derived: true };
    root_change(&mut keeper, &[transit(Action::KeyCreate, "t", other)]).expect("passed over");
    assert_eq!(key(&keeper, "t").decrypt(&ciphertext, None, b"").expect("decrypted").as_slice(), b"m");
    assert_eq!(keeper.snapshot().commit, commit + 1);
}

#[test]
fn keys_are_read_from_the_disk_exported_and_imported_as_they_are() {
    let (mut keeper, root) = (with_enclave(), admin().identity);
    let minima = Config { min_decryption: Some(2), min_encryption: Some(2), deletion_allowed: Some(true) };
    let changes = [
        create("t.1"),
        transit(Action::KeyCreate, "t.1", What::Rotate),
        transit(Action::KeyCreate, "t.1", What::Rotate),
        transit(Action::KeyDelete, "t.1", What::Configure(minima)),
        transit(Action::KeyDelete, "t.1", What::Trim(2)),
    ];
    root_change(&mut keeper, &changes).expect("made");
    let (number, ciphertext) = key(&keeper, "t.1").encrypt(2, None, b"a", b"m").expect("encrypted");
    assert_eq!(number, 2);
    let exported = export(&keeper, "t.1");
    // Also a backup is read as the file is.
    let backup = keeper.backup().expect("a backup");
    let mut other = Keeper::open(Box::new(Mem::default()), providers(&[("env", HSM)]), admin()).expect("opened");
    other.restore(&backup).expect("restored");
    assert_eq!(key(&other, "t.1").to_message(), key(&keeper, "t.1").to_message());
    change(&mut other, root, ENCLAVE, &[delete("t.1", 0, true)]).expect("deleted");
    change(&mut other, root, ENCLAVE, &[(Action::KeyImport, Change::KeyImport(exported.clone()))]).expect("imported");
    assert_eq!(key(&other, "t.1").decrypt(&ciphertext, None, b"a").expect("decrypted").as_slice(), b"m");
    assert_eq!(key(&other, "t.1").to_message(), key(&keeper, "t.1").to_message());
    let mut with_more = exported.clone();
    with_more.key = vec![1; 32];
    with_more.name = "u".into();
    let empty = ImportKeyRequest::transit("u".into(), TransitKey::default());
    for wrong in [exported, with_more, empty] {
        let refused = change(&mut other, root, ENCLAVE, &[(Action::KeyImport, Change::KeyImport(wrong))]);
        assert!(matches!(refused, Err(Error::KeyExists | Error::Invalid(_))), "{refused:?}");
    }
}

#[test]
fn an_enclave_takes_its_transit_keys_with_it() {
    let mut keeper = with_enclave();
    root_change(&mut keeper, &[create("t")]).expect("created");
    let delete = (Action::EnclaveDelete, Change::EnclaveDelete(name(ENCLAVE)));
    change(&mut keeper, admin().identity, "", &[delete]).expect("deleted");
    let backup = keeper.backup().expect("a backup");
    // A record that was left would be a record of no enclave.
    keeper.restore(&backup).expect("whole");
}

/// What `testdata/kms/make.py transit` wrote.
#[derive(Deserialize)]
struct Recorded {
    hsm_key: String,
    root_identity: String,
    backup: String,
    name: String,
    context: String,
    associated_data: String,
    plaintext: String,
    ciphertext: String,
    hmac: String,
}

#[test]
fn a_transit_key_is_read_as_documented() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/kms/transit.json");
    let recorded: Recorded = serde_json::from_slice(&std::fs::read(path).expect("readable")).expect("valid");
    let identity = recorded.root_identity.parse().expect("an identity");
    let admin = Admin { identity, is_derived: true };
    let mut keeper =
        Keeper::open(Box::new(Mem::default()), providers(&[("env", &recorded.hsm_key)]), admin).expect("opened");
    keeper.restore(&decode(&recorded.backup)).expect("restored");
    let key = key(&keeper, &recorded.name);
    let settings = *key.settings();
    assert!(settings.derived && settings.deletion_allowed);
    assert_eq!((settings.min_decryption, settings.min_encryption, settings.min_available), (2, 3, 2));
    assert_eq!(key.latest(), 3);
    let (context, associated) = (recorded.context.as_bytes(), recorded.associated_data.as_bytes());
    let opened = key.decrypt(&recorded.ciphertext, Some(context), associated).expect("decrypted");
    assert_eq!(opened.as_slice(), recorded.plaintext.as_bytes());
    assert_eq!(key.hmac(0, recorded.plaintext.as_bytes()).expect("signed"), recorded.hmac);
}
