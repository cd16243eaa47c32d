//! `Keys`: decoded keys, fetched once, expired by rule.
//!
//! A cached key is read without a lock. When many requests need a key that is not cached, one of them asks the key
//! store and all get its answer. While the key store does not answer, cached keys may be served for longer than usual
//! (`offline`).

mod entries;
mod health;
mod listing;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use serde::{Deserialize, Deserializer};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use self::entries::{Entries, Entry, Rules};
use self::health::Health;
use self::listing::Listings;
use crate::auth::Identity;
use crate::clock::{self, Ticker};
use crate::crypto::Key;
use crate::keys::{self, MasterKey, New};
use crate::keystore::{self, KeyStore};
use crate::name::{KeyName, Page, Pattern};
use crate::{duration, setting};

pub use crate::keys::{Action, Error, Stats};

/// How often the cache checks that the key store answers.
const PROBE: Duration = Duration::from_secs(10);

/// How long that check may take.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// How long a request that can be served offline waits for the keystore.
const OFFLINE_WAIT: Duration = Duration::from_secs(2);

/// The most reads and writes that may run at once. They outlive the requests that started them, so without a limit
/// clients that disconnect could pile them up.
const MAX_TASKS: usize = 10_000;

/// How often expired keys are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// The `cache:` section of the config file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// When entries expire.
    pub expiry: Expiry,
    /// The most entries kept. Default 100,000.
    #[serde(deserialize_with = "setting::count")]
    pub max_entries: usize,
}

/// The `cache.expiry:` section. For `any` and `unused` zero means the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expiry {
    /// No entry is served longer than this after it was fetched. Default 5 minutes.
    #[serde(deserialize_with = "any")]
    pub any: Duration,
    /// Entries that are not used for this long are removed. Default 30 seconds.
    #[serde(deserialize_with = "unused")]
    pub unused: Duration,
    /// How long after the key store's last good answer expired entries are still served in an outage; zero: not at all.
    #[serde(deserialize_with = "duration::deserialize")]
    pub offline: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { expiry: Expiry::default(), max_entries: 100_000 }
    }
}

impl Default for Expiry {
    fn default() -> Self {
        Self { any: Duration::from_secs(300), unused: Duration::from_secs(30), offline: Duration::ZERO }
    }
}

fn any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    Ok(duration::unless_zero(deserializer)?.unwrap_or(Expiry::default().any))
}

fn unused<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    Ok(duration::unless_zero(deserializer)?.unwrap_or(Expiry::default().unused))
}

/// The keys of a key store. Shared; a reload that does not change the key store keeps them.
pub struct Keys {
    config: ArcSwap<Config>,
    /// The key store, without retries.
    store: Arc<dyn KeyStore>,
    /// What it was asked.
    calls: Arc<keystore::Calls>,
    /// The key store, with retries.
    patient: Arc<dyn KeyStore>,
    entries: Entries,
    fetches: Mutex<HashMap<KeyName, Fetch>>,
    listings: Listings,
    ticker: Ticker,
    health: Health,
    hits: AtomicU64,
    misses: AtomicU64,
    runtime: Handle,
    tasks: TaskTracker,
}

type Fetch = watch::Receiver<Option<Outcome>>;

/// The outcome of a read.
#[derive(Debug, Clone)]
enum Outcome {
    /// The key store returned the key. It was asked at this time of the ticker.
    Fetched(Arc<Key>, u64),
    /// The key store did not answer, and the cached key may still be served.
    Offline(Arc<Key>),
    /// There is no key, or no answer.
    Failed(Arc<keystore::Error>),
}

impl Outcome {
    fn failed(error: keystore::Error) -> Self {
        Self::Failed(Arc::new(error))
    }
}

impl Keys {
    /// The keys of `store`. Work that outlives its request runs on `runtime`.
    pub fn new(config: Config, store: Arc<dyn KeyStore>, runtime: Handle) -> Arc<Self> {
        let store = keystore::Measured::new(store);
        let calls = store.calls();
        let store: Arc<dyn KeyStore> = Arc::new(store);
        let keys = Arc::new(Self {
            config: ArcSwap::from_pointee(config),
            patient: Arc::new(keystore::Retry::new(store.clone())),
            store,
            calls,
            entries: Entries::new(config.max_entries),
            fetches: Mutex::default(),
            listings: Listings::default(),
            ticker: Ticker::start(clock::instant()),
            health: Health::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            runtime,
            tasks: TaskTracker::new(),
        });
        // Both tasks end when nobody uses the keys any more.
        keys.runtime.spawn(probe(Arc::downgrade(&keys)));
        keys.runtime.spawn(sweep(Arc::downgrade(&keys)));
        keys
    }

    /// Applies other settings to the same keystore and the keys cached from it.
    pub fn reconfigure(&self, config: Config) {
        self.entries.set_max(config.max_entries);
        self.config.store(Arc::new(config));
    }

    /// The key store. Its `Display` names it for the operator.
    pub fn store(&self) -> &dyn KeyStore {
        self.store.as_ref()
    }

    /// The key with this name.
    pub async fn get(self: &Arc<Self>, name: &KeyName) -> Result<Arc<Key>, Error> {
        let now = self.now();
        let cached = self.entries.get(name);
        if let Some(entry) = &cached
            && (entry.is_fresh(&self.rules(), now) || (!self.health.is_reachable() && self.may_serve_offline(now)))
        {
            entry.touch(now);
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(entry.key.clone());
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let mut fetch = self.fetch(name, cached.map(|entry| entry.key.clone()));
        // The task that fetches sends an outcome before it ends, even when it panics: see `fetch`.
        let outcome = fetch.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
        match outcome.unwrap_or_else(|| Outcome::failed(interrupted())) {
            Outcome::Fetched(key, _) | Outcome::Offline(key) => Ok(key),
            Outcome::Failed(source) => Err(Error { action: Action::Read, source }),
        }
    }

    /// Stores a new key. Runs to its end even when the caller goes away.
    pub async fn create(self: &Arc<Self>, name: &KeyName, key: &Key) -> Result<(), Error> {
        let (keys, name, value) = (self.clone(), name.clone(), key.encode());
        self.run(Action::Create, async move {
            let created = keys.patient.create(&name, &value).await;
            keys.forget(&name);
            created
        })
        .await
    }

    /// Deletes a key, from the cache at once. Runs to its end even when the caller goes away.
    pub async fn delete(self: &Arc<Self>, name: &KeyName) -> Result<(), Error> {
        let (keys, name) = (self.clone(), name.clone());
        self.forget(&name);
        self.run(Action::Delete, async move {
            let deleted = keys.patient.delete(&name).await;
            keys.forget(&name);
            deleted
        })
        .await
    }

    /// A page of names. A first page always asks the keystore.
    pub async fn list(self: &Arc<Self>, pattern: &Pattern) -> Result<Page<KeyName>, Error> {
        let now = clock::instant();
        if pattern.after().is_some()
            && let Some(names) = self.listings.get(pattern.prefix(), now)
        {
            return Ok(Page::after(pattern, &names));
        }
        let asked = self.now();
        let listed = self.patient.list(pattern.prefix()).await;
        self.note(asked, listed.as_ref().err());
        let listing = listed.map_err(|error| Error { action: Action::List, source: Arc::new(error) })?;
        let names: Arc<[KeyName]> = listing.names.into();
        let page = Page::after(pattern, &names);
        if page.continue_at.is_some() {
            self.listings.put(pattern.prefix(), names, now);
        }
        Ok(page)
    }

    /// Checks that the key store answers.
    pub async fn status(&self) -> Result<Duration, keystore::Error> {
        let asked = self.now();
        let status = tokio::time::timeout(SIGN_OF_LIFE, self.store.status()).await;
        let status = status.unwrap_or_else(|_| Err(silent(SIGN_OF_LIFE)));
        self.note(asked, status.as_ref().err());
        status
    }

    /// How the cache is doing.
    pub fn stats(&self) -> Stats {
        Stats {
            entries: self.entries.len(),
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            reachable: self.health.is_reachable(),
            last_answer: self.health.since_last_good(self.now()),
        }
    }

    /// How many requests the key store got, and how long they took.
    pub fn calls(&self) -> &keystore::Calls {
        &self.calls
    }

    /// Waits until all running reads and writes are done.
    pub async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn run(
        self: &Arc<Self>,
        action: Action,
        write: impl Future<Output = Result<(), keystore::Error>> + Send + 'static,
    ) -> Result<(), Error> {
        if self.tasks.len() >= MAX_TASKS {
            return Err(Error { action, source: Arc::new(too_busy()) });
        }
        let keys = self.clone();
        let noted = async move {
            let asked = keys.now();
            let written = write.await;
            keys.note(asked, written.as_ref().err());
            written
        };
        let written = self.tasks.spawn_on(noted, &self.runtime).await.unwrap_or_else(|_| Err(interrupted()));
        written.map_err(|source| Error { action, source: Arc::new(source) })
    }

    /// Joins the running fetch of a key, or starts one.
    fn fetch(self: &Arc<Self>, name: &KeyName, cached: Option<Arc<Key>>) -> Fetch {
        let mut fetches = self.fetches();
        if let Some(fetch) = fetches.get(name) {
            return fetch.clone();
        }
        if self.tasks.len() >= MAX_TASKS {
            return watch::channel(Some(Outcome::failed(too_busy()))).1;
        }
        let (answer, fetch) = watch::channel(None);
        fetches.insert(name.clone(), fetch.clone());
        drop(fetches);
        let (keys, name, mine) = (self.clone(), name.clone(), fetch.clone());
        self.tasks.spawn_on(
            async move {
                let worker = tokio::spawn({
                    let (keys, name) = (keys.clone(), name.clone());
                    async move { keys.read(&name, cached).await }
                });
                let outcome = worker.await.unwrap_or_else(|_| Outcome::failed(interrupted()));
                keys.finish_fetch(&name, &mine, &outcome);
                let _ = answer.send(Some(outcome));
            },
            &self.runtime,
        );
        fetch
    }

    /// Reads a key. `cached` is its expired entry in the cache, if there is one.
    async fn read(&self, name: &KeyName, cached: Option<Arc<Key>>) -> Outcome {
        let asked = self.now();
        let fallback = cached.filter(|_| self.may_serve_offline(asked));
        let fetched = if fallback.is_some() {
            // Do not wait for the store to recover: the cached key can be served.
            let fetched = tokio::time::timeout(OFFLINE_WAIT, self.store.get(name)).await;
            fetched.unwrap_or_else(|_| Err(silent(OFFLINE_WAIT)))
        } else {
            self.patient.get(name).await
        };
        self.note(asked, fetched.as_ref().err());
        match (fetched.and_then(|value| decode(&value)), fallback) {
            (Ok(key), _) => Outcome::Fetched(key, asked),
            (Err(keystore::Error::Unreachable(_)), Some(key)) if self.may_serve_offline(self.now()) => {
                Outcome::Offline(key)
            }
            (Err(error), _) => Outcome::failed(error),
        }
    }

    /// Caches what was fetched, unless the key was created or deleted meanwhile.
    fn finish_fetch(&self, name: &KeyName, fetch: &Fetch, outcome: &Outcome) {
        let mut fetches = self.fetches();
        if !fetches.get(name).is_some_and(|current| current.same_channel(fetch)) {
            return;
        }
        fetches.remove(name);
        match outcome {
            Outcome::Fetched(key, asked) => {
                self.entries.insert(name.clone(), Entry::new(key.clone(), *asked, self.now()));
            }
            // The key that was in the cache stays there for as long as it may be needed.
            Outcome::Offline(_) => {}
            Outcome::Failed(error) if matches!(**error, keystore::Error::Unreachable(_)) => {}
            Outcome::Failed(_) => self.entries.remove(name),
        }
    }

    /// Removes the key from the cache, and keeps running fetches from caching it again.
    fn forget(&self, name: &KeyName) {
        let mut fetches = self.fetches();
        fetches.remove(name);
        self.entries.remove(name);
    }

    fn fetches(&self) -> MutexGuard<'_, HashMap<KeyName, Fetch>> {
        self.fetches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds of the ticker.
    fn now(&self) -> u64 {
        self.ticker.at(clock::instant())
    }

    fn may_serve_offline(&self, now: u64) -> bool {
        let offline = self.config.load().expiry.offline;
        !offline.is_zero() && self.health.since_last_good(now) <= offline
    }

    fn rules(&self) -> Rules {
        let Expiry { any, unused, .. } = self.config.load().expiry;
        Rules { any, unused }
    }

    /// Records the outcome of a request that was sent to the key store at `asked`.
    fn note(&self, asked: u64, error: Option<&keystore::Error>) {
        self.health.note(asked, self.now(), error, &*self.store);
    }

    /// Removes expired keys. In an outage they may still be needed, so it removes only those that expired before the
    /// last good answer, or that may no longer be served offline.
    fn sweep(&self, now: Instant) {
        let time = self.ticker.at(now);
        let needless = if self.may_serve_offline(time) { self.health.last_good() } else { time };
        let rules = self.rules();
        self.entries.retain(|entry| entry.expires(&rules) > needless);
        self.listings.sweep(now);
    }
}

#[async_trait]
impl keys::Keys for Arc<Keys> {
    async fn get(&self, name: &KeyName) -> Result<Arc<dyn MasterKey>, Error> {
        Ok(Keys::get(self, name).await?)
    }

    async fn create(&self, New { name, key, .. }: New<'_>) -> Result<(), Error> {
        Keys::create(self, name, key).await
    }

    async fn delete(&self, name: &KeyName, _: Option<&Identity>) -> Result<(), Error> {
        Keys::delete(self, name).await
    }

    async fn list(&self, pattern: &Pattern) -> Result<Page<KeyName>, Error> {
        Keys::list(self, pattern).await
    }

    async fn status(&self) -> Result<Duration, keystore::Error> {
        Keys::status(self).await
    }

    fn stats(&self) -> Stats {
        Keys::stats(self)
    }

    fn calls(&self) -> Option<&keystore::Calls> {
        Some(Keys::calls(self))
    }

    fn token_age(&self) -> Option<Duration> {
        self.store().about().token_age
    }
}

fn decode(value: &crate::crypto::Blob) -> Result<Arc<Key>, keystore::Error> {
    Key::parse(value).map(Arc::new).map_err(|error| keystore::Error::Failed(error.into()))
}

fn interrupted() -> keystore::Error {
    keystore::Error::Failed("the task that asked the key store was interrupted".into())
}

fn silent(waited: Duration) -> keystore::Error {
    keystore::Error::Unreachable(format!("no answer within {} seconds", waited.as_secs()).into())
}

fn too_busy() -> keystore::Error {
    keystore::Error::Unreachable("too many requests wait for the key store".into())
}

async fn probe(keys: Weak<Keys>) {
    loop {
        tokio::time::sleep(PROBE).await;
        let Some(keys) = keys.upgrade() else { return };
        let _ = keys.status().await;
    }
}

async fn sweep(keys: Weak<Keys>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(keys) = keys.upgrade() else { return };
        keys.sweep(clock::instant());
    }
}
