//! Tests the rules of the cache with a scripted key store and a paused clock.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::AtomicUsize;

use async_trait::async_trait;
use futures_util::future::join_all;
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tokio::time::{advance, sleep, sleep_until};

use super::*;
use crate::crypto::{Algorithm, Blob};
use crate::keystore::Listing;

const SECOND: Duration = Duration::from_secs(1);

/// What the store does when it is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Answers,
    /// Says at once that it cannot be reached.
    Unreachable,
    /// Says nothing.
    Silent,
    /// Answers with bytes that are no key.
    Garbled,
    Panics,
}

/// A keystore in memory that counts its reads and misbehaves on demand.
struct Script {
    keys: Mutex<HashMap<KeyName, Vec<u8>>>,
    mood: Mutex<Mood>,
    /// Reads wait for a permit of the semaphore under their name.
    gates: Mutex<HashMap<KeyName, Arc<Semaphore>>>,
    reads: AtomicUsize,
    probes: AtomicUsize,
}

impl Script {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            keys: Mutex::default(),
            mood: Mutex::new(Mood::Answers),
            gates: Mutex::default(),
            reads: AtomicUsize::new(0),
            probes: AtomicUsize::new(0),
        })
    }

    fn is(&self, mood: Mood) {
        *lock(&self.mood) = mood;
    }

    fn put(&self, name: &str) {
        let key = new_key();
        lock(&self.keys).insert(key_name(name), key.encode().expose().to_vec());
    }

    fn take(&self, name: &str) {
        lock(&self.keys).remove(name);
    }

    /// Makes reads of this key wait.
    fn gate(&self, name: &str) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        lock(&self.gates).insert(key_name(name), gate.clone());
        gate
    }

    /// Lets further reads of this key pass; those that wait go on waiting.
    fn open_gate_for_others(&self, name: &str) {
        lock(&self.gates).remove(&key_name(name));
    }

    fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }

    fn probes(&self) -> usize {
        self.probes.load(Ordering::SeqCst)
    }

    async fn react(&self) -> Result<(), keystore::Error> {
        let mood = *lock(&self.mood);
        match mood {
            Mood::Answers | Mood::Garbled => Ok(()),
            Mood::Unreachable => Err(keystore::Error::Unreachable("as the test wants".into())),
            Mood::Silent => std::future::pending().await,
            Mood::Panics => panic!("as the test wants"),
        }
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("script")
    }
}

#[async_trait]
impl KeyStore for Script {
    async fn create(&self, name: &KeyName, value: &Blob) -> Result<(), keystore::Error> {
        self.react().await?;
        let mut keys = lock(&self.keys);
        if keys.contains_key(name) {
            return Err(keystore::Error::Exists);
        }
        keys.insert(name.clone(), value.expose().to_vec());
        Ok(())
    }

    async fn get(&self, name: &KeyName) -> Result<Blob, keystore::Error> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        // What is read is what was there when the read began.
        let value = lock(&self.keys).get(name).cloned();
        let gate = lock(&self.gates).get(name).cloned();
        if let Some(gate) = gate {
            gate.acquire().await.expect("never closed").forget();
        }
        self.react().await?;
        if *lock(&self.mood) == Mood::Garbled {
            return Ok(b"{\"bytes\":\"no key\"}".to_vec().into());
        }
        value.map(Into::into).ok_or(keystore::Error::NotFound)
    }

    async fn replace(&self, _: &KeyName, _: &Blob, _: &Blob) -> Result<(), keystore::Error> {
        unreachable!("the cache replaces nothing")
    }

    async fn delete(&self, name: &KeyName) -> Result<(), keystore::Error> {
        self.react().await?;
        lock(&self.keys).remove(name).map(drop).ok_or(keystore::Error::NotFound)
    }

    async fn list(&self, _: &str) -> Result<Listing, keystore::Error> {
        self.react().await?;
        let mut names: Vec<_> = lock(&self.keys).keys().cloned().collect();
        names.sort();
        Ok(Listing { names, foreign: Vec::new() })
    }

    async fn status(&self) -> Result<Duration, keystore::Error> {
        self.probes.fetch_add(1, Ordering::SeqCst);
        self.react().await.map(|()| Duration::ZERO)
    }

    fn behind(&self) -> Option<&dyn KeyStore> {
        None
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panicked")
}

fn key_name(name: &str) -> KeyName {
    KeyName::parse(name).expect("valid")
}

fn new_key() -> Key {
    Key::generate(Algorithm::preferred(), OffsetDateTime::UNIX_EPOCH, "").expect("random bytes")
}

fn keys(store: &Arc<Script>, config: Config) -> Arc<Keys> {
    Keys::new(config, store.clone(), Handle::current())
}

fn config() -> Config {
    Config::default()
}

fn offline(offline: Duration) -> Config {
    Config { expiry: Expiry { offline, ..Expiry::default() }, ..config() }
}

/// Gets the key and says whether that took a read.
async fn was_read(keys: &Arc<Keys>, store: &Script, name: &str) -> bool {
    let before = store.reads();
    keys.get(&key_name(name)).await.expect("a key");
    store.reads() > before
}

/// Lets the tasks that are ready run.
async fn settle() {
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
}

fn failure(got: Result<Arc<Key>, Error>) -> Arc<keystore::Error> {
    got.expect_err("no key").source
}

#[tokio::test(start_paused = true)]
async fn an_entry_in_use_leaves_when_any_is_over() {
    let store = Script::new();
    store.put("k");
    let keys = keys(&store, config());
    assert!(was_read(&keys, &store, "k").await);
    // Used every 20 seconds: never unused for 30. The last use is 1 second before 5 minutes.
    for _ in 0..14 {
        advance(20 * SECOND).await;
        assert!(!was_read(&keys, &store, "k").await);
    }
    advance(19 * SECOND).await;
    assert!(!was_read(&keys, &store, "k").await);
    advance(SECOND).await;
    assert!(was_read(&keys, &store, "k").await, "using an entry does not make it younger");
}

#[tokio::test(start_paused = true)]
async fn an_entry_leaves_when_it_was_not_used() {
    let store = Script::new();
    store.put("k");
    let keys = keys(&store, config());
    assert!(was_read(&keys, &store, "k").await);
    advance(29 * SECOND).await;
    assert!(!was_read(&keys, &store, "k").await);
    advance(29 * SECOND).await;
    assert!(!was_read(&keys, &store, "k").await);
    advance(30 * SECOND).await;
    assert!(was_read(&keys, &store, "k").await);
}

#[tokio::test(start_paused = true)]
async fn expired_entries_leave_memory_unasked() {
    let store = Script::new();
    store.put("k");
    let keys = keys(&store, config());
    assert!(was_read(&keys, &store, "k").await);
    sleep(29 * SECOND).await;
    assert_eq!(keys.stats().entries, 1);
    sleep(3 * SECOND).await;
    assert_eq!(keys.stats().entries, 0);
}

#[tokio::test(start_paused = true)]
async fn a_shorter_expiry_holds_for_the_keys_already_cached() {
    let store = Script::new();
    store.put("k");
    let keys = keys(&store, config());
    assert!(was_read(&keys, &store, "k").await);
    keys.reconfigure(Config { expiry: Expiry { any: 5 * SECOND, ..Expiry::default() }, ..config() });
    advance(4 * SECOND).await;
    assert!(!was_read(&keys, &store, "k").await);
    advance(SECOND).await;
    assert!(was_read(&keys, &store, "k").await);
}

#[tokio::test(start_paused = true)]
async fn many_requests_for_one_key_are_one_read() {
    let store = Script::new();
    store.put("k");
    let gate = store.gate("k");
    let keys = keys(&store, config());
    let name = key_name("k");
    let all = tokio::spawn({
        let keys = keys.clone();
        async move { join_all((0..1_000).map(|_| keys.get(&name))).await }
    });
    settle().await;
    gate.add_permits(1);
    let got = all.await.expect("no panic");
    assert_eq!(got.len(), 1_000);
    assert!(got.iter().all(Result::is_ok));
    assert_eq!(store.reads(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_shared_too_and_not_remembered() {
    let store = Script::new();
    let gate = store.gate("k");
    let keys = keys(&store, config());
    let name = key_name("k");
    let all = tokio::spawn({
        let keys = keys.clone();
        async move { join_all((0..100).map(|_| keys.get(&name))).await }
    });
    settle().await;
    gate.add_permits(1);
    for got in all.await.expect("no panic") {
        assert!(matches!(*failure(got), keystore::Error::NotFound));
    }
    assert_eq!(store.reads(), 1);
    store.put("k");
    gate.add_permits(1);
    assert!(was_read(&keys, &store, "k").await, "not-found is never cached");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_cancels_its_wait_and_not_the_read() {
    let store = Script::new();
    store.put("k");
    let gate = store.gate("k");
    let keys = keys(&store, config());
    let waiter = tokio::spawn({
        let keys = keys.clone();
        async move { keys.get(&key_name("k")).await }
    });
    settle().await;
    waiter.abort();
    assert!(waiter.await.expect_err("aborted").is_cancelled());
    gate.add_permits(1);
    settle().await;
    assert!(!was_read(&keys, &store, "k").await);
    assert_eq!(store.reads(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_key_holds_up_no_other() {
    let store = Script::new();
    store.put("slow");
    store.put("k");
    let gate = store.gate("slow");
    let keys = keys(&store, config());
    let slow = tokio::spawn({
        let keys = keys.clone();
        async move { keys.get(&key_name("slow")).await }
    });
    settle().await;
    assert!(was_read(&keys, &store, "k").await);
    assert!(!slow.is_finished());
    gate.add_permits(1);
    assert!(slow.await.expect("no panic").is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_deleted_key_is_gone_at_once() {
    let store = Script::new();
    store.put("k");
    let keys = keys(&store, config());
    assert!(was_read(&keys, &store, "k").await);
    keys.delete(&key_name("k")).await.expect("deleted");
    assert!(matches!(*failure(keys.get(&key_name("k")).await), keystore::Error::NotFound));
    assert_eq!(keys.stats().entries, 0);
}

#[tokio::test(start_paused = true)]
async fn a_read_begun_before_a_delete_is_not_cached() {
    let store = Script::new();
    store.put("k");
    let gate = store.gate("k");
    let keys = keys(&store, config());
    let early = tokio::spawn({
        let keys = keys.clone();
        async move { keys.get(&key_name("k")).await }
    });
    settle().await;
    store.open_gate_for_others("k");
    keys.delete(&key_name("k")).await.expect("deleted");
    // Whoever asks now must not be given what the early read is about to bring.
    let late = tokio::spawn({
        let keys = keys.clone();
        async move { keys.get(&key_name("k")).await }
    });
    settle().await;
    gate.add_permits(1);
    assert!(early.await.expect("no panic").is_ok(), "it asked before the delete");
    assert!(matches!(*failure(late.await.expect("no panic")), keystore::Error::NotFound));
    assert_eq!(keys.stats().entries, 0);
}

#[tokio::test(start_paused = true)]
async fn a_read_begun_before_a_create_hides_nothing() {
    let store = Script::new();
    let gate = store.gate("k");
    let keys = keys(&store, config());
    let early = tokio::spawn({
        let keys = keys.clone();
        async move { keys.get(&key_name("k")).await }
    });
    settle().await;
    keys.create(&key_name("k"), &new_key()).await.expect("created");
    gate.add_permits(2);
    assert!(keys.get(&key_name("k")).await.is_ok(), "a read that begins after the create finds the key");
    assert!(matches!(*failure(early.await.expect("no panic")), keystore::Error::NotFound));
    assert!(!was_read(&keys, &store, "k").await);
}

#[tokio::test(start_paused = true)]
async fn a_create_is_never_answered_from_the_cache() {
    let store = Script::new();
    store.put("k");
    let keys = keys(&store, config());
    assert!(was_read(&keys, &store, "k").await);
    // Somebody else deletes it: the cache does not know, the store does.
    store.take("k");
    keys.create(&key_name("k"), &new_key()).await.expect("created");
    assert!(was_read(&keys, &store, "k").await, "what was cached is of the old key");
}

#[tokio::test(start_paused = true)]
async fn a_write_runs_to_its_end_when_its_client_leaves() {
    let store = Script::new();
    let keys = keys(&store, config());
    let (name, key) = (key_name("k"), new_key());
    let mut create = Box::pin(keys.create(&name, &key));
    assert!(futures_util::poll!(&mut create).is_pending());
    drop(create);
    keys.finish().await;
    assert!(lock(&store.keys).contains_key(&name));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_key_is_never_cached() {
    let store = Script::new();
    store.put("k");
    store.is(Mood::Garbled);
    let keys = keys(&store, config());
    assert!(matches!(*failure(keys.get(&key_name("k")).await), keystore::Error::Failed(_)));
    assert_eq!(keys.stats().entries, 0);
    store.is(Mood::Answers);
    assert!(was_read(&keys, &store, "k").await);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_backend_fails_one_read_and_is_no_answer() {
    let store = Script::new();
    store.put("k");
    let keys = keys(&store, config());
    advance(5 * SECOND).await;
    store.is(Mood::Panics);
    assert!(matches!(*failure(keys.get(&key_name("k")).await), keystore::Error::Failed(_)));
    let created = keys.create(&key_name("x"), &new_key()).await;
    assert!(matches!(*created.expect_err("it panicked").source, keystore::Error::Failed(_)));
    assert_eq!(keys.stats().last_answer, 5 * SECOND);
    store.is(Mood::Answers);
    assert!(was_read(&keys, &store, "k").await);
}

#[tokio::test(start_paused = true)]
async fn without_offline_nothing_expired_is_served() {
    let store = Script::new();
    store.put("k");
    let keys = keys(&store, config());
    assert!(was_read(&keys, &store, "k").await);
    store.is(Mood::Unreachable);
    sleep(29 * SECOND).await;
    assert!(!was_read(&keys, &store, "k").await, "within its time an entry needs no store");
    sleep(31 * SECOND).await;
    assert!(matches!(*failure(keys.get(&key_name("k")).await), keystore::Error::Unreachable(_)));
}

#[tokio::test(start_paused = true)]
async fn in_an_outage_entries_serve_until_the_last_good_answer_plus_offline() {
    let store = Script::new();
    store.put("k");
    store.put("other");
    let keys = keys(&store, offline(600 * SECOND));
    assert!(was_read(&keys, &store, "k").await);
    // The last good answer is the probe at 10 s; the outage begins right after it.
    sleep(SECOND * 21 / 2).await;
    assert_eq!(store.probes(), 1);
    store.is(Mood::Unreachable);
    let outage = tokio::time::Instant::now();
    for round in 1..60 {
        sleep_until(outage + round * 10 * SECOND).await;
        keys.get(&key_name("k")).await.expect("served offline");
        assert!(keys.get(&key_name("other")).await.is_err(), "what was not cached cannot be served");
    }
    assert!(!keys.stats().reachable);
    // 610 s; half a second later is too late.
    sleep_until(outage + SECOND * 1199 / 2).await;
    keys.get(&key_name("k")).await.expect("at the last moment");
    sleep(SECOND).await;
    assert!(matches!(*failure(keys.get(&key_name("k")).await), keystore::Error::Unreachable(_)));
    sleep(2 * SECOND).await;
    assert_eq!(keys.stats().entries, 0, "and then they leave memory");
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_expires_before_the_outage_is_noticed_serves_too() {
    let store = Script::new();
    store.put("k");
    let keys = keys(&store, offline(600 * SECOND));
    sleep(SECOND / 2).await;
    assert!(was_read(&keys, &store, "k").await);
    // The last good probe is at 30 s. The entry expires at 30.5 s, the outage shows at 40 s.
    sleep(SECOND * 59 / 2 + SECOND / 10).await;
    assert_eq!(store.probes(), 3);
    store.is(Mood::Unreachable);
    sleep(5 * SECOND).await;
    assert!(keys.stats().reachable, "nobody has noticed");
    keys.get(&key_name("k")).await.expect("served offline");
    assert!(!keys.stats().reachable, "the read noticed");
}

#[tokio::test(start_paused = true)]
async fn an_outage_ends_with_the_first_answer() {
    let store = Script::new();
    store.put("k");
    let keys = keys(&store, offline(600 * SECOND));
    assert!(was_read(&keys, &store, "k").await);
    store.is(Mood::Unreachable);
    sleep(310 * SECOND).await;
    assert!(!was_read(&keys, &store, "k").await);
    store.is(Mood::Answers);
    store.take("k");
    sleep(11 * SECOND).await;
    assert!(keys.stats().reachable, "the probe noticed");
    assert!(matches!(*failure(keys.get(&key_name("k")).await), keystore::Error::NotFound), "and nothing old is served");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_says_nothing_is_as_good_as_down() {
    let store = Script::new();
    store.put("k");
    let keys = keys(&store, offline(600 * SECOND));
    assert!(was_read(&keys, &store, "k").await);
    sleep(SECOND * 59 / 2).await;
    store.is(Mood::Silent);
    sleep(SECOND).await;
    let asked = tokio::time::Instant::now();
    keys.get(&key_name("k")).await.expect("served offline");
    assert_eq!(asked.elapsed(), OFFLINE_WAIT);
    let asked = tokio::time::Instant::now();
    keys.get(&key_name("k")).await.expect("served offline");
    assert_eq!(asked.elapsed(), Duration::ZERO, "the silence is known now");
    assert!(matches!(keys.status().await, Err(keystore::Error::Unreachable(_))));
}

#[tokio::test(start_paused = true)]
async fn an_old_key_does_not_come_back_as_a_new_one() {
    let store = Script::new();
    store.put("k");
    let keys = keys(&store, offline(600 * SECOND));
    sleep(SECOND / 2).await;
    assert!(was_read(&keys, &store, "k").await);
    sleep(SECOND * 61 / 2).await;
    // The read finds no store; before it ends, another question is answered.
    let gate = store.gate("k");
    store.is(Mood::Unreachable);
    let stale = tokio::spawn({
        let keys = keys.clone();
        async move { keys.get(&key_name("k")).await }
    });
    settle().await;
    gate.add_permits(1);
    settle().await;
    assert!(stale.await.expect("no panic").is_ok(), "served offline");
    store.is(Mood::Answers);
    keys.status().await.expect("answers");
    gate.add_permits(1);
    assert!(was_read(&keys, &store, "k").await, "an expired key is read again as soon as it can be");
}

#[tokio::test(start_paused = true)]
async fn there_are_never_more_entries_than_allowed() {
    let store = Script::new();
    let keys = keys(&store, Config { max_entries: 10, ..config() });
    for n in 0..50 {
        let name = format!("k{n}");
        store.put(&name);
        assert!(was_read(&keys, &store, &name).await);
        assert!(!was_read(&keys, &store, &name).await, "the newest is kept");
        assert!(keys.stats().entries <= 10);
    }
    assert_eq!(keys.stats().entries, 10);
}

#[tokio::test(start_paused = true)]
async fn reads_that_nobody_waits_for_do_not_pile_up() {
    let store = Script::new();
    store.is(Mood::Silent);
    let keys = keys(&store, config());
    for n in 0..MAX_TASKS {
        let name = key_name(&format!("k{n}"));
        assert!(futures_util::poll!(Box::pin(keys.get(&name))).is_pending());
    }
    assert!(matches!(*failure(keys.get(&key_name("x")).await), keystore::Error::Unreachable(_)));
    assert_eq!(keys.tasks.len(), MAX_TASKS);
    assert!(keys.stats().reachable, "that says nothing about the store");
}

#[tokio::test(start_paused = true)]
async fn the_store_is_probed_every_ten_seconds_until_nobody_needs_it() {
    let store = Script::new();
    let keys = keys(&store, config());
    sleep(SECOND * 61).await;
    assert_eq!(store.probes(), 6);
    drop(keys);
    sleep(SECOND * 60).await;
    assert_eq!(store.probes(), 6);
    assert_eq!(Arc::strong_count(&store), 1, "and the store is let go");
}

#[tokio::test(start_paused = true)]
async fn hits_and_misses_are_counted() {
    let store = Script::new();
    store.put("k");
    let keys = keys(&store, config());
    for _ in 0..3 {
        keys.get(&key_name("k")).await.expect("a key");
    }
    let stats = keys.stats();
    assert_eq!((stats.hits, stats.misses, stats.entries), (2, 1, 1));
}
