//! `Keys`: decoded keys, fetched once, expired by rule.
//!
//! A cached key is read without a lock. Of many requests for a key that is not cached, one asks the
//! keystore and all get its answer. While the keystore does not answer, keys may be served beyond
//! their time (`offline`).

mod entries;
mod listing;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use self::entries::{Entries, Entry, Rules};
use self::listing::Listings;
use crate::clock::Ticker;
use crate::crypto::Key;
use crate::keystore::{self, KeyStore};
use crate::name::{KeyName, Page, Pattern};

/// How often the keystore is asked for a sign of life.
const PROBE: Duration = Duration::from_secs(10);

/// How often expired keys are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// The `cache:` section of the config file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Config {
    /// No entry is served longer than this after it was fetched. Default 5 minutes.
    pub any: Duration,
    /// Entries not used within this leave. Default 30 seconds.
    pub unused: Duration,
    /// How long after the keystore's last good answer entries go on serving in an outage; zero: not at all.
    pub offline: Duration,
    /// The most entries kept. Default 100,000.
    pub max_entries: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            any: Duration::from_secs(300),
            unused: Duration::from_secs(30),
            offline: Duration::ZERO,
            max_entries: 100_000,
        }
    }
}

/// What was being done when the keystore failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A key was created.
    Create,
    /// A key was read.
    Read,
    /// A key was deleted.
    Delete,
    /// Keys were listed.
    List,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "failed to create key",
            Self::Read => "failed to read key",
            Self::Delete => "failed to delete key",
            Self::List => "failed to list keys",
        })
    }
}

/// The keystore's error, and what for it was asked. Cheap to clone, since many may wait for one answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{action}")]
pub struct Error {
    /// What was being done.
    pub action: Action,
    /// What went wrong.
    pub source: Arc<keystore::Error>,
}

/// How the cache and the keystore behind it are doing.
#[derive(Debug, Clone, Copy)]
pub struct Stats {
    /// Keys in the cache.
    pub entries: usize,
    /// Requests served from the cache.
    pub hits: u64,
    /// Requests that had to ask the keystore.
    pub misses: u64,
    /// Whether the keystore answered when it was last asked.
    pub reachable: bool,
    /// How long ago its last good answer was.
    pub last_answer: Duration,
}

/// The keys of a keystore. Shared; kept over a reload that leaves the keystore as it is.
pub struct Keys {
    config: ArcSwap<Config>,
    /// The keystore, asked once.
    store: Arc<dyn KeyStore>,
    /// The same, asked again while a failure may pass.
    patient: Arc<dyn KeyStore>,
    entries: Entries,
    fetches: Mutex<HashMap<KeyName, Fetch>>,
    listings: Listings,
    ticker: Ticker,
    last_good: AtomicU64,
    reachable: AtomicBool,
    hits: AtomicU64,
    misses: AtomicU64,
    runtime: Handle,
    tasks: TaskTracker,
}

type Fetched = Result<Arc<Key>, Arc<keystore::Error>>;
type Fetch = watch::Receiver<Option<Fetched>>;

impl Keys {
    /// The keys of `store`. Work that outlives its request runs on `runtime`.
    pub fn new(config: Config, store: Arc<dyn KeyStore>, runtime: Handle) -> Arc<Self> {
        let keys = Arc::new(Self {
            config: ArcSwap::from_pointee(config),
            patient: Arc::new(keystore::Retry::new(store.clone())),
            store,
            entries: Entries::new(config.max_entries),
            fetches: Mutex::default(),
            listings: Listings::default(),
            ticker: Ticker::start(Instant::now()),
            last_good: AtomicU64::new(0),
            reachable: AtomicBool::new(true),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            runtime,
            tasks: TaskTracker::new(),
        });
        // They end by themselves once nobody uses the keys any more.
        keys.runtime.spawn(probe(Arc::downgrade(&keys)));
        keys.runtime.spawn(sweep(Arc::downgrade(&keys)));
        keys
    }

    /// Applies other settings to the same keystore and the keys cached from it.
    pub fn reconfigure(&self, config: Config) {
        self.entries.set_max(config.max_entries);
        self.config.store(Arc::new(config));
    }

    /// The keystore's name, for the operator.
    pub fn store(&self) -> &dyn KeyStore {
        self.store.as_ref()
    }

    /// The key with this name.
    pub async fn get(self: &Arc<Self>, name: &KeyName) -> Result<Arc<Key>, Error> {
        let now = Instant::now();
        let expired = match self.entries.get(name) {
            Some(entry) => {
                let time = self.ticker.at(now);
                if entry.is_fresh(&self.rules(), time) || (!self.is_reachable() && self.may_serve_offline(now)) {
                    entry.touch(time);
                    self.hits.fetch_add(1, Ordering::Relaxed);
                    return Ok(entry.key.clone());
                }
                Some(entry.key.clone())
            }
            None => None,
        };
        self.misses.fetch_add(1, Ordering::Relaxed);
        let mut fetch = self.fetch(name, expired);
        let fetched = fetch.wait_for(Option::is_some).await.map(|fetched| fetched.clone());
        // The task that fetches sends an answer before it ends, even when it panics: see `fetch`.
        let fetched = fetched.ok().flatten().unwrap_or_else(|| Err(Arc::new(interrupted())));
        fetched.map_err(|source| Error { action: Action::Read, source })
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
        let now = Instant::now();
        if pattern.after().is_some()
            && let Some(names) = self.listings.get(pattern.prefix(), now)
        {
            return Ok(Page::after(pattern, &names));
        }
        let listed = self.patient.list(pattern.prefix()).await;
        self.note(listed.as_ref().err());
        let listing = listed.map_err(|error| Error { action: Action::List, source: Arc::new(error) })?;
        let names: Arc<[KeyName]> = listing.names.into();
        let page = Page::after(pattern, &names);
        if page.continue_at.is_some() {
            self.listings.put(pattern.prefix(), names, now);
        }
        Ok(page)
    }

    /// Asks the keystore for a sign of life.
    pub async fn status(&self) -> Result<Duration, keystore::Error> {
        let status = self.store.status().await;
        self.note(status.as_ref().err());
        status
    }

    /// How the cache is doing.
    pub fn stats(&self) -> Stats {
        let now = Instant::now();
        let last_answer = self.ticker.at(now).saturating_sub(self.last_good.load(Ordering::Relaxed));
        Stats {
            entries: self.entries.len(),
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            reachable: self.is_reachable(),
            last_answer: Duration::from_millis(last_answer),
        }
    }

    /// Waits until every write that was begun is done.
    pub async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn run(
        self: &Arc<Self>,
        action: Action,
        write: impl Future<Output = Result<(), keystore::Error>> + Send + 'static,
    ) -> Result<(), Error> {
        let written = self.tasks.spawn_on(write, &self.runtime).await.unwrap_or_else(|_| Err(interrupted()));
        self.note(written.as_ref().err());
        written.map_err(|source| Error { action, source: Arc::new(source) })
    }

    /// Joins the fetch of a key that is under way, or starts one.
    fn fetch(self: &Arc<Self>, name: &KeyName, expired: Option<Arc<Key>>) -> Fetch {
        let mut fetches = self.fetches();
        if let Some(fetch) = fetches.get(name) {
            return fetch.clone();
        }
        let (answer, fetch) = watch::channel(None);
        fetches.insert(name.clone(), fetch.clone());
        drop(fetches);
        let (keys, name, mine) = (self.clone(), name.clone(), fetch.clone());
        self.tasks.spawn_on(
            async move {
                let worker = tokio::spawn({
                    let (keys, name) = (keys.clone(), name.clone());
                    async move { keys.read(&name, expired).await }
                });
                let fetched = worker.await.unwrap_or_else(|_| Err(Arc::new(interrupted())));
                keys.finish_fetch(&name, &mine, fetched.as_ref().ok());
                let _ = answer.send(Some(fetched));
            },
            &self.runtime,
        );
        fetch
    }

    async fn read(&self, name: &KeyName, expired: Option<Arc<Key>>) -> Fetched {
        if let Some(key) = expired.filter(|_| !self.config.load().offline.is_zero()) {
            // There is something to fall back on, so nobody need wait for the store to recover.
            let fetched = self.store.get(name).await;
            self.note(fetched.as_ref().err());
            return match fetched {
                Err(keystore::Error::Unreachable(_)) if self.may_serve_offline(Instant::now()) => Ok(key),
                fetched => fetched.and_then(|value| decode(&value)).map_err(Arc::new),
            };
        }
        let fetched = self.patient.get(name).await;
        self.note(fetched.as_ref().err());
        fetched.and_then(|value| decode(&value)).map_err(Arc::new)
    }

    /// Caches what was fetched, unless the key was created or deleted meanwhile.
    fn finish_fetch(&self, name: &KeyName, fetch: &Fetch, key: Option<&Arc<Key>>) {
        let mut fetches = self.fetches();
        if !fetches.get(name).is_some_and(|current| current.same_channel(fetch)) {
            return;
        }
        fetches.remove(name);
        match key {
            Some(key) if self.is_reachable() => {
                self.entries.insert(name.clone(), Entry::new(key.clone(), self.ticker.at(Instant::now())));
            }
            // Served from what was there before.
            Some(_) => {}
            None if self.is_reachable() => self.entries.remove(name),
            None => {}
        }
    }

    /// Makes sure that nothing which was read up to now is served from the cache.
    fn forget(&self, name: &KeyName) {
        let mut fetches = self.fetches();
        fetches.remove(name);
        self.entries.remove(name);
    }

    fn fetches(&self) -> MutexGuard<'_, HashMap<KeyName, Fetch>> {
        self.fetches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_reachable(&self) -> bool {
        self.reachable.load(Ordering::Relaxed)
    }

    fn may_serve_offline(&self, now: Instant) -> bool {
        let since = self.ticker.at(now).saturating_sub(self.last_good.load(Ordering::Relaxed));
        let offline = self.config.load().offline;
        !offline.is_zero() && Duration::from_millis(since) <= offline
    }

    fn rules(&self) -> Rules {
        let config = self.config.load();
        Rules { any: config.any, unused: config.unused }
    }

    /// Remembers whether the keystore answered. Any answer is a good one, a refusal too.
    fn note(&self, error: Option<&keystore::Error>) {
        let reachable = !matches!(error, Some(keystore::Error::Unreachable(_)));
        if reachable {
            self.last_good.store(self.ticker.at(Instant::now()), Ordering::Relaxed);
        }
        if self.reachable.swap(reachable, Ordering::Relaxed) != reachable {
            match error {
                Some(error) => {
                    let cause = crate::telemetry::log::causes(error);
                    tracing::error!(cause, keystore = %self.store, "the key store does not answer");
                }
                None => tracing::info!(keystore = %self.store, "the key store answers again"),
            }
        }
    }

    /// Drops expired keys. In an outage they may be needed: so only those that expired before the last
    /// good answer, or that may not be served offline any more.
    fn sweep(&self, now: Instant) {
        let time = self.ticker.at(now);
        let needless = if self.may_serve_offline(now) { self.last_good.load(Ordering::Relaxed) } else { time };
        let rules = self.rules();
        self.entries.retain(|entry| entry.expires(&rules) > needless);
        self.listings.sweep(now);
    }
}

fn decode(value: &crate::crypto::Blob) -> Result<Arc<Key>, keystore::Error> {
    Key::parse(value).map(Arc::new).map_err(|error| keystore::Error::Failed(error.into()))
}

fn interrupted() -> keystore::Error {
    keystore::Error::Failed("the task that asked the key store was interrupted".into())
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
        keys.sweep(Instant::now());
    }
}
