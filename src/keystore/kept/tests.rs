//! Replacements that go well, and those that do not.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::keystore::{conformance, mem};

fn name() -> KeyName {
    KeyName::parse("my-key").expect("valid")
}

fn kept() -> KeyName {
    KeyName::kept(&name())
}

fn blob(text: &str) -> Blob {
    text.as_bytes().to_vec().into()
}

async fn store() -> Kept<mem::Store> {
    let store = Kept::new(mem::Store::default());
    store.create(&name(), &blob("old")).await.expect("created");
    store
}

async fn assert_holds(store: &Kept<mem::Store>, value: &str) {
    assert!(store.get(&name()).await.expect("never missing").is_same(&blob(value)));
    let listing = store.list("my").await.expect("listed");
    assert_eq!(listing.names, [name()]);
    assert!(matches!(store.create(&name(), &blob("other")).await, Err(Error::Exists)));
}

async fn has_copy(store: &Kept<mem::Store>) -> bool {
    store.store.get(&kept()).await.is_ok()
}

/// Lets another process stop after so many steps of replacing "old" by "new".
async fn interrupt(store: &Kept<mem::Store>, steps: usize) {
    let copy = Copy::encode(&name(), &blob("old"), &blob("new")).expect("text");
    store.store.create(&kept(), &copy).await.expect("kept");
    if steps > 0 {
        store.store.delete(&name()).await.expect("deleted");
    }
    if steps > 1 {
        store.store.create(&name(), &blob("new")).await.expect("created");
    }
}

/// Puts a value under the name that no replacement knows of.
async fn intrude(store: &Kept<mem::Store>) {
    let _ = store.store.delete(&name()).await;
    store.store.create(&name(), &blob("another")).await.expect("created");
}

/// A store that cannot read the key so many times, as one does in which it is half deleted.
struct HalfDeleted(mem::Store, AtomicUsize);

impl fmt::Display for HalfDeleted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl KeyStore for HalfDeleted {
    async fn create(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        self.0.create(name, value).await
    }
    async fn get(&self, asked: &KeyName) -> Result<Blob, Error> {
        let left = self.1.load(Ordering::Relaxed);
        if *asked == name() && left > 0 {
            self.1.store(left - 1, Ordering::Relaxed);
            return Err(failed("it was deleted, and can be recovered"));
        }
        self.0.get(asked).await
    }
    async fn replace(&self, name: &KeyName, expected: &Blob, value: &Blob) -> Result<(), Error> {
        self.0.replace(name, expected, value).await
    }
    async fn delete(&self, name: &KeyName) -> Result<(), Error> {
        self.0.delete(name).await
    }
    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        self.0.list(prefix).await
    }
    async fn status(&self) -> Result<Duration, Error> {
        self.0.status().await
    }
    fn behind(&self) -> Option<&dyn KeyStore> {
        None
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_waits_while_a_key_with_a_copy_is_half_deleted_and_not_for_ever() {
    for (refusals, has_copy) in [(5, true), (usize::MAX, true), (1, false)] {
        let store = Kept::new(HalfDeleted(mem::Store::default(), AtomicUsize::new(0)));
        store.create(&name(), &blob("old")).await.expect("created");
        if has_copy {
            let copy = Copy::encode(&name(), &blob("old"), &blob("new")).expect("text");
            store.store.create(&kept(), &copy).await.expect("kept");
        }
        store.store.1.store(refusals, Ordering::Relaxed);
        let (asked, got) = (Instant::now(), store.get(&name()).await);
        match (refusals, has_copy) {
            (5, true) => assert!(got.expect("it passes").is_same(&blob("old"))),
            _ => assert!(matches!(got, Err(Error::Failed(_))), "{got:?}"),
        }
        assert_eq!(asked.elapsed() >= HALF_DELETED, refusals == usize::MAX);
    }
}

#[tokio::test]
async fn passes_the_suite() {
    conformance::run(&Kept::new(mem::Store::default())).await;
}

#[tokio::test]
async fn a_key_is_replaced_and_its_copy_goes() {
    let store = store().await;
    store.replace(&name(), &blob("old"), &blob("new")).await.expect("replaced");
    assert_holds(&store, "new").await;
    assert!(!has_copy(&store).await);
    assert!(store.replace(&name(), &blob("old"), &blob("newer")).await.is_err());
    assert_holds(&store, "new").await;
}

/// Whatever step a kill follows, the key is there, and who settles ends what was begun.
#[tokio::test(start_paused = true)]
async fn an_interrupted_replacement_loses_nothing() {
    for steps in 0..3 {
        let store = store().await;
        interrupt(&store, steps).await;
        let expected = if steps > 1 { "new" } else { "old" };
        assert_holds(&store, expected).await;
        let leftovers = store.list("").await.expect("listed").foreign;
        assert_eq!(leftovers.len(), 1, "and it is shown: {leftovers:?}");
        let replaced = store.replace(&name(), &blob(expected), &blob("newer")).await;
        assert!(matches!(replaced, Err(Error::Failed(_))), "its owner may live: {replaced:?}");
        assert!(has_copy(&store).await, "after {steps} steps");

        let began = Instant::now();
        store.settle(&Waits::default()).await.expect("settled");
        assert!(began.elapsed() >= ABANDONED, "its owner may live");
        assert_holds(&store, expected).await;
        assert!(!has_copy(&store).await, "after {steps} steps");
        store.replace(&name(), &blob(expected), &blob("newer")).await.expect("replaced after all");
        assert_holds(&store, "newer").await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_lives_ends_it_alone() {
    let store = store().await;
    interrupt(&store, 1).await;
    let ended = async {
        sleep(ABANDONED / 2).await;
        store.store.create(&name(), &blob("new")).await.expect("created");
        store.store.delete(&kept()).await.expect("deleted");
        Instant::now()
    };
    let (settled, ended) = future::join(store.settle(&Waits::default()), ended).await;
    settled.expect("nothing is left");
    assert!(ended.elapsed() <= LOOK_AGAIN, "nobody waits for longer than that");
    assert_holds(&store, "new").await;
}

/// A copy that is another one than a moment ago has an owner that lives.
#[tokio::test(start_paused = true)]
async fn a_new_copy_is_watched_anew() {
    let store = store().await;
    interrupt(&store, 0).await;
    let again = async {
        sleep(ABANDONED - LOOK_AGAIN).await;
        store.store.delete(&kept()).await.expect("deleted");
        interrupt(&store, 1).await;
        Instant::now()
    };
    let (settled, again) = future::join(store.settle(&Waits::default()), again).await;
    settled.expect("settled");
    assert!(again.elapsed() >= ABANDONED);
    assert_holds(&store, "old").await;
}

/// What stands under the name was created by somebody whose value nobody may be given, and the copy is the only one of
/// the old value.
#[tokio::test(start_paused = true)]
async fn a_copy_stays_when_a_value_stands_there_that_it_does_not_know() {
    let store = store().await;
    interrupt(&store, 1).await;
    intrude(&store).await;
    assert_holds(&store, "old").await;
    for _ in 0..2 {
        let error = store.settle(&Waits::default()).await.expect_err("it is for an operator");
        let Error::Failed(cause) = &error else { panic!("{error:?}") };
        for part in ["'my-key'", kept().as_str(), "keeps the old value", "run again"] {
            assert!(cause.to_string().contains(part), "{cause}");
        }
        assert_holds(&store, "old").await;
        assert!(has_copy(&store).await);
    }
    let deleted = store.delete(&name()).await;
    assert!(matches!(deleted, Err(Error::Failed(_))), "the copy would go, too: {deleted:?}");
    assert_holds(&store, "old").await;
    // As it says.
    store.store.delete(&name()).await.expect("deleted");
    store.settle(&Waits::default()).await.expect("settled");
    assert_holds(&store, "old").await;
    assert!(!has_copy(&store).await);
}

/// A copy of a version that noted no hash is removed when the old value stands there, and by nobody otherwise.
#[tokio::test(start_paused = true)]
async fn copies_without_a_hash_are_ended_where_that_is_safe() {
    for (standing, ends) in [(Some("old"), true), (None, true), (Some("new"), false)] {
        let store = Kept::new(mem::Store::default());
        let copy = r#"{"claviger_old":{"name":"my-key","value":"old","owner":"0011223344556677","at":1700000000}}"#;
        store.store.create(&kept(), &blob(copy)).await.expect("kept");
        if let Some(value) = standing {
            store.store.create(&name(), &blob(value)).await.expect("created");
        }
        assert_holds(&store, standing.unwrap_or("old")).await;
        let settled = store.settle(&Waits::default()).await;
        assert_eq!(settled.is_ok(), ends, "{standing:?}: {settled:?}");
        assert_eq!(has_copy(&store).await, !ends);
        assert_holds(&store, standing.unwrap_or("old")).await;
    }
}

/// One that cannot be ended does not keep the others from it.
#[tokio::test(start_paused = true)]
async fn all_others_are_ended_first() {
    let store = store().await;
    interrupt(&store, 1).await;
    intrude(&store).await;
    for other in ["a", "z"].map(|other| KeyName::parse(other).expect("valid")) {
        let copy = Copy::encode(&other, &blob("old"), &blob("new")).expect("text");
        store.store.create(&KeyName::kept(&other), &copy).await.expect("kept");
    }
    store.settle(&Waits::default()).await.expect_err("one is for an operator");
    assert_eq!(store.list("").await.expect("listed").foreign.len(), 1);
    for other in ["a", "z"].map(|other| KeyName::parse(other).expect("valid")) {
        assert!(store.store.get(&other).await.expect("there").is_same(&blob("old")));
    }
}

/// Who creates a key that is being replaced takes its value back, and the replacement waits for that.
#[tokio::test(start_paused = true)]
async fn a_replacement_goes_on_when_what_came_between_is_taken_back() {
    let store = store().await;
    let mut attempt = Attempt::new(&name(), &blob("old"), &blob("new")).expect("text");
    store.keep(&name(), &attempt).await.expect("kept");
    store.store.delete(&name()).await.expect("deleted");
    attempt.deletes = true;
    intrude(&store).await;
    let (new, another) = (blob("new"), blob("another"));
    let take_back = async {
        sleep(TAKEN_BACK / 2).await;
        store.take_back(&name(), &another).await
    };
    let key = name();
    let (renewed, taken_back) = future::join(store.renew(&key, &new, &mut attempt), take_back).await;
    taken_back.expect("taken back");
    renewed.expect("replaced");
    assert_holds(&store, "new").await;
    assert!(!has_copy(&store).await);
}

#[tokio::test(start_paused = true)]
async fn a_replacement_fails_when_what_came_between_stays() {
    let store = store().await;
    let mut attempt = Attempt::new(&name(), &blob("old"), &blob("new")).expect("text");
    store.keep(&name(), &attempt).await.expect("kept");
    attempt.deletes = true;
    intrude(&store).await;
    let renewed = store.renew(&name(), &blob("new"), &mut attempt).await;
    assert!(matches!(renewed, Err(Error::Failed(_))), "{renewed:?}");
    assert!(has_copy(&store).await);
    assert_holds(&store, "old").await;
}

/// A value that was replaced by another process between the look and the copy is not deleted.
#[tokio::test]
async fn what_was_replaced_before_the_copy_stood_is_left_alone() {
    let store = store().await;
    let mut attempt = Attempt::new(&name(), &blob("old"), &blob("new")).expect("text");
    intrude(&store).await;
    store.keep(&name(), &attempt).await.expect("kept");
    let renewed = store.renew(&name(), &blob("new"), &mut attempt).await;
    assert!(matches!(renewed, Err(Error::Failed(_))), "{renewed:?}");
    assert!(!has_copy(&store).await);
    assert_holds(&store, "another").await;
}

/// The order to delete may arrive late: it is given once, and after a minute not at all.
#[tokio::test(start_paused = true)]
async fn a_key_is_told_to_be_deleted_once_and_in_time() {
    let store = store().await;
    let mut attempt = Attempt::new(&name(), &blob("old"), &blob("new")).expect("text");
    store.keep(&name(), &attempt).await.expect("kept");
    attempt.deletes = true;
    let renewed = store.renew(&name(), &blob("new"), &mut attempt).await;
    assert!(matches!(renewed, Err(Error::Unreachable(_))), "{renewed:?}");
    assert_holds(&store, "old").await;
    attempt.deletes = false;
    sleep(LEASE).await;
    let renewed = store.renew(&name(), &blob("new"), &mut attempt).await;
    assert!(matches!(renewed, Err(Error::Failed(_))), "{renewed:?}");
    assert!(store.store.get(&name()).await.expect("there").is_same(&blob("old")));
}

#[tokio::test]
async fn a_deleted_key_does_not_come_back() {
    let store = store().await;
    interrupt(&store, 0).await;
    store.delete(&name()).await.expect("deleted");
    assert!(matches!(store.get(&name()).await, Err(Error::NotFound)));
    assert!(store.list("").await.expect("listed").names.is_empty());
}
