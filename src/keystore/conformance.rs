//! The one suite that every key store passes. A new backend is done when it passes.
//!
//! It works under a random prefix of its own and touches no other key, so it can run against any real server. It panics
//! with the fault that it finds. It is always compiled, so that the tests of the program can use it, too; the linker
//! drops it from a release build, because nothing there calls it.

use futures_util::future::join_all;

use super::{Access, Error, KeyStore};
use crate::crypto::{Blob, random};
use crate::hex;
use crate::name::KeyName;

/// The number of callers that race for one name.
const RACERS: usize = 8;

/// The sizes of values that every store takes, in bytes.
const SIZES: [usize; 6] = [1, 2, 255, 4_096, 25_000, 65_536];

/// The length of the longest value that most stores take, in bytes.
pub const LONGEST: usize = 65_536;

/// Runs the whole suite. Leaves nothing behind when it passes.
pub async fn run(store: &dyn KeyStore) {
    run_up_to(store, LONGEST).await;
}

/// The same for a store that takes values of at most so many bytes.
pub async fn run_up_to(store: &dyn KeyStore, longest: usize) {
    run_but_races(store, longest).await;
    let names = Names::random();
    racing_creates_have_one_winner(store, &names.next("create-race")).await;
    racing_replaces_have_one_winner(store, &names.next("replace-race")).await;
    has_deleted_its_keys(store, &names).await;
}

/// Runs the part that needs no compare-and-set, for stores that are documented to have none.
pub async fn run_without_races(store: &dyn KeyStore) {
    run_but_races(store, LONGEST).await;
}

async fn run_but_races(store: &dyn KeyStore, longest: usize) {
    let names = Names::random();
    answers(store).await;
    for access in [Access::Read, Access::Create, Access::Serve, Access::Replace] {
        store.check(access).await.expect("the suite has every right");
    }
    create_refuses_an_existing_name(store, &names.next("create")).await;
    values_come_back_byte_for_byte(store, &names, longest).await;
    a_missing_key_is_not_found(store, &names.next("missing")).await;
    a_batch_answers_for_each_of_its_keys(store, &names).await;
    replace_wants_the_expected_value(store, &names.next("replace")).await;
    replace_creates_nothing(store, &names.next("replace-missing")).await;
    a_replaced_key_is_never_missing(store, &names.next("replace-read")).await;
    a_deleted_name_is_free_again(store, &names.next("delete")).await;
    listing_is_complete_sorted_and_unique(store, &names).await;
    listing_follows_creates_and_deletes(store, &names.next("list-follows")).await;
    has_deleted_its_keys(store, &names).await;
}

/// Runs the part that changes nothing, against a read-only store that holds only `value` under `name`.
pub async fn run_read_only(store: &dyn KeyStore, name: &KeyName, value: &Blob) {
    let names = Names::random();
    let missing = names.next("missing");
    answers(store).await;
    store.check(Access::Read).await.expect("reading is allowed");
    for access in [Access::Create, Access::Serve, Access::Replace] {
        assert!(matches!(store.check(access).await, Err(Error::Failed(_))), "writing is not");
    }
    assert_holds(store, name, value).await;
    assert!(matches!(store.get(&missing).await, Err(Error::NotFound)), "a missing key is not found");
    for prefix in ["", &name.as_str()[..1], name.as_str()] {
        assert_eq!(listed(store, prefix).await, [name.as_str()], "the names with the prefix '{prefix}'");
    }
    assert_eq!(listed(store, missing.as_str()).await, [""; 0], "no name has this prefix");

    let (created, other) = (store.create(&missing, value).await, text(32));
    assert!(matches!(created, Err(Error::Failed(_))), "a create is refused, not {created:?}");
    let replaced = store.replace(name, value, &other).await;
    assert!(matches!(replaced, Err(Error::Failed(_))), "a replace is refused, not {replaced:?}");
    let deleted = store.delete(name).await;
    assert!(matches!(deleted, Err(Error::Failed(_))), "a delete is refused, not {deleted:?}");
    assert_holds(store, name, value).await;
}

/// Names under a random prefix of this run. They have lower case letters, digits and hyphens, which every store takes.
struct Names(String);

impl Names {
    fn random() -> Self {
        let mut bytes = [0; 8];
        random::fill(&mut bytes).expect("random bytes");
        Self(format!("conformance-{}", hex::encode(&bytes)))
    }

    fn next(&self, what: &str) -> KeyName {
        KeyName::parse(&format!("{}-{what}", self.0)).expect("a valid name")
    }
}

/// A random text, because some stores cannot keep arbitrary bytes.
fn text(len: usize) -> Blob {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = vec![0; len];
    random::fill(&mut bytes).expect("random bytes");
    for byte in &mut bytes {
        *byte = ALPHABET[usize::from(*byte) % ALPHABET.len()];
    }
    bytes.into()
}

async fn create(store: &dyn KeyStore, name: &KeyName, value: &Blob) {
    store.create(name, value).await.unwrap_or_else(|error| panic!("'{name}' is not created: {error:?}"));
}

async fn delete(store: &dyn KeyStore, name: &KeyName) {
    store.delete(name).await.unwrap_or_else(|error| panic!("'{name}' is not deleted: {error:?}"));
}

async fn listed(store: &dyn KeyStore, prefix: &str) -> Vec<String> {
    let listing = store.list(prefix).await.unwrap_or_else(|error| panic!("'{prefix}' is not listed: {error:?}"));
    listing.names.iter().map(KeyName::to_string).collect()
}

async fn assert_holds(store: &dyn KeyStore, name: &KeyName, value: &Blob) {
    let stored = store.get(name).await.unwrap_or_else(|error| panic!("'{name}' is not read: {error:?}"));
    assert!(stored.is_same(value), "'{name}' comes back as it was stored");
}

async fn has_deleted_its_keys(store: &dyn KeyStore, names: &Names) {
    let left = store.list(&names.0).await.expect("the store lists");
    assert_eq!(left.names, [], "the suite has deleted its keys");
}

async fn answers(store: &dyn KeyStore) {
    store.status().await.expect("the store is there");
    assert!(!store.to_string().is_empty(), "the store has a name for the operator");
    let identity = store.about().identity.await.expect("the store knows what it is");
    assert_eq!(store.about().identity.await.expect("the store is there"), identity, "and it stays that");
}

async fn create_refuses_an_existing_name(store: &dyn KeyStore, name: &KeyName) {
    let value = text(64);
    create(store, name, &value).await;
    for second in [text(64), value.copy()] {
        let created = store.create(name, &second).await;
        assert!(matches!(created, Err(Error::Exists)), "the name is taken, not {created:?}");
    }
    assert_holds(store, name, &value).await;
    delete(store, name).await;
}

async fn racing_creates_have_one_winner(store: &dyn KeyStore, name: &KeyName) {
    let values: Vec<_> = (0..RACERS).map(|_| text(64)).collect();
    let created = join_all(values.iter().map(|value| store.create(name, value))).await;
    let lost = created.iter().filter(|created| matches!(created, Err(Error::Exists))).count();
    let winner = created.iter().position(Result::is_ok).expect("one create succeeds");
    assert_eq!(lost, RACERS - 1, "all the others are told that the name is taken: {created:?}");
    assert_holds(store, name, &values[winner]).await;
    delete(store, name).await;
}

async fn values_come_back_byte_for_byte(store: &dyn KeyStore, names: &Names, longest: usize) {
    let texts =
        ["\n", " a b \r\n", "{\"bytes\":\"QUJD\"}", "\"quoted\\u0000\" <&> '$' `%s`", "\u{e4}\u{20ac}\u{1f511}"];
    let sizes = SIZES.into_iter().filter(|size| *size <= longest);
    let values: Vec<Blob> = sizes.map(text).chain(texts.map(|text| text.as_bytes().to_vec().into())).collect();
    // Side by side, because a create may take seconds.
    let check = async |n: usize, value: &Blob| {
        let name = names.next(&format!("values-{n}"));
        create(store, &name, value).await;
        assert_holds(store, &name, value).await;
        delete(store, &name).await;
    };
    join_all(values.iter().enumerate().map(|(n, value)| check(n, value))).await;
}

async fn a_missing_key_is_not_found(store: &dyn KeyStore, name: &KeyName) {
    let got = store.get(name).await;
    assert!(matches!(got, Err(Error::NotFound)), "a missing key is not found, not {got:?}");
    // Some stores cannot tell.
    let deleted = store.delete(name).await;
    assert!(matches!(deleted, Err(Error::NotFound) | Ok(())), "deleting it is no failure: {deleted:?}");
}

async fn a_batch_answers_for_each_of_its_keys(store: &dyn KeyStore, names: &Names) {
    assert!(store.batch() >= 1, "a batch has at least one key");
    assert!(store.create_batch(&[]).await.is_empty() && store.get_batch(&[]).await.is_empty(), "nothing asked");
    let all = ["batch-0", "batch-1", "batch-2"].map(|name| names.next(name));
    let values = [text(40), text(50), text(60)];
    create(store, &all[1], &values[1]).await;
    let keys: Vec<_> = all.iter().zip(&values).collect();
    let created = store.create_batch(&keys).await;
    assert!(matches!(created[..], [Ok(()), Err(Error::Exists), Ok(())]), "one of three exists: {created:?}");

    delete(store, &all[1]).await;
    let found = store.get_batch(&all).await;
    let [Ok(first), Err(Error::NotFound), Ok(third)] = &found[..] else { panic!("one of three is missing: {found:?}") };
    assert!(first.is_same(&values[0]) && third.is_same(&values[2]), "in the order of the names");
    delete(store, &all[0]).await;
    delete(store, &all[2]).await;
}

async fn replace_wants_the_expected_value(store: &dyn KeyStore, name: &KeyName) {
    let (first, second) = (text(64), text(80));
    create(store, name, &first).await;
    for wrong in [text(64), text(63)] {
        let replaced = store.replace(name, &wrong, &second).await;
        assert!(matches!(replaced, Err(Error::Failed(_))), "another value is expected, not {replaced:?}");
        assert_holds(store, name, &first).await;
    }
    store.replace(name, &first, &second).await.expect("the expected value is replaced");
    assert_holds(store, name, &second).await;
    delete(store, name).await;
}

async fn replace_creates_nothing(store: &dyn KeyStore, name: &KeyName) {
    let replaced = store.replace(name, &text(64), &text(64)).await;
    assert!(matches!(replaced, Err(Error::NotFound)), "nothing is there to replace, not {replaced:?}");
    let got = store.get(name).await;
    assert!(matches!(got, Err(Error::NotFound)), "and nothing is afterwards, not {got:?}");
}

async fn a_replaced_key_is_never_missing(store: &dyn KeyStore, name: &KeyName) {
    let values = [text(64), text(64)];
    create(store, name, &values[0]).await;
    let replace = async {
        for round in 0..4 {
            let (old, new) = (&values[round % 2], &values[(round + 1) % 2]);
            store.replace(name, old, new).await.expect("the expected value is replaced");
        }
    };
    let read = async {
        for _ in 0..16 {
            let stored = store.get(name).await.expect("the key is never missing");
            assert!(values.iter().any(|value| stored.is_same(value)), "the old value or the new one");
        }
    };
    futures_util::future::join(replace, read).await;
    delete(store, name).await;
}

async fn racing_replaces_have_one_winner(store: &dyn KeyStore, name: &KeyName) {
    let first = text(64);
    create(store, name, &first).await;
    let values: Vec<_> = (0..RACERS).map(|_| text(64)).collect();
    let replaced = join_all(values.iter().map(|value| store.replace(name, &first, value))).await;
    let lost = replaced.iter().filter(|replaced| matches!(replaced, Err(Error::Failed(_)))).count();
    let winner = replaced.iter().position(Result::is_ok).expect("one replace succeeds");
    assert_eq!(lost, RACERS - 1, "all the others find another value than they expect: {replaced:?}");
    assert_holds(store, name, &values[winner]).await;
    delete(store, name).await;
}

async fn a_deleted_name_is_free_again(store: &dyn KeyStore, name: &KeyName) {
    for _ in 0..2 {
        let value = text(64);
        create(store, name, &value).await;
        assert_holds(store, name, &value).await;
        delete(store, name).await;
        let got = store.get(name).await;
        assert!(matches!(got, Err(Error::NotFound)), "a deleted key is not found, not {got:?}");
    }
}

async fn listing_is_complete_sorted_and_unique(store: &dyn KeyStore, names: &Names) {
    // Names that are prefixes of one another, and an order that is not the one of creation.
    let mut keys: Vec<_> = ["list-b", "list-a", "list-aa", "list-a-b", "list-a0", "list-c9", "list-c10", "lis"]
        .map(|what| names.next(what))
        .into();
    keys.extend((0..20).map(|n| names.next(&format!("list-many-{n}"))));
    join_all(keys.iter().map(async |key| create(store, key, &text(32)).await)).await;
    keys.sort_unstable();
    for prefix in ["", "-lis", "-list-", "-list-a", "-list-a-b", "-list-c1", "-list-many-1", "-list-z"] {
        let prefix = format!("{}{prefix}", names.0);
        let expected: Vec<_> = keys.iter().filter(|key| key.as_str().starts_with(&prefix)).collect();
        let listing = store.list(&prefix).await.expect("the store lists");
        assert_eq!(listing.names.iter().collect::<Vec<_>>(), expected, "the names with the prefix '{prefix}'");
        assert_eq!(listing.foreign, [], "no key is foreign");
    }
    let all = store.list("").await.expect("the store lists");
    assert!(all.names.is_sorted_by(|a, b| a < b), "all names are sorted and unique");
    assert!(keys.iter().all(|key| all.names.binary_search(key).is_ok()), "all names are there");
    join_all(keys.iter().map(|key| delete(store, key))).await;
}

async fn listing_follows_creates_and_deletes(store: &dyn KeyStore, name: &KeyName) {
    assert_eq!(listed(store, name.as_str()).await, [""; 0], "nothing is listed before it is created");
    create(store, name, &text(32)).await;
    assert_eq!(listed(store, name.as_str()).await, [name.as_str()], "what is created is listed");
    delete(store, name).await;
    assert_eq!(listed(store, name.as_str()).await, [""; 0], "what is deleted is not");
}
