//! The table of cached keys. Reads take no lock; a write copies one small part of the table.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::crypto::Key;
use crate::name::KeyName;

/// The number of parts of the table. With 100,000 entries a write copies 400 pointers.
const SHARDS: usize = 256;

/// A use is recorded only if the last record is at least this old, in milliseconds. So cores seldom write to the same
/// entry.
const TOUCH: u64 = 100;

/// When entries expire.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// After they were fetched.
    pub(super) any: Duration,
    /// After they were last used.
    pub(super) unused: Duration,
}

/// A cached key. Times are milliseconds of the cache's ticker.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Arc<Key>,
    fetched: u64,
    used: AtomicU64,
}

impl Entry {
    /// A key that was requested from the key store at `fetched`, and is used at `now`.
    pub(super) fn new(key: Arc<Key>, fetched: u64, now: u64) -> Self {
        Self { key, fetched, used: AtomicU64::new(now) }
    }

    /// When the entry may no longer be served.
    pub(super) fn expires(&self, rules: &Rules) -> u64 {
        let after =
            |time: u64, span: Duration| time.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
        after(self.fetched, rules.any).min(after(self.used.load(Ordering::Relaxed), rules.unused))
    }

    pub(super) fn is_fresh(&self, rules: &Rules, time: u64) -> bool {
        time < self.expires(rules)
    }

    /// Notes that the entry was used.
    pub(super) fn touch(&self, time: u64) {
        if time.saturating_sub(self.used.load(Ordering::Relaxed)) >= TOUCH {
            self.used.store(time, Ordering::Relaxed);
        }
    }
}

type Shard = HashMap<KeyName, Arc<Entry>>;

/// All cached keys, at most `max`.
pub(super) struct Entries {
    shards: Vec<ArcSwap<Shard>>,
    hasher: RandomState,
    /// Writers take turns.
    writer: Mutex<()>,
    len: AtomicUsize,
    max: AtomicUsize,
}

impl Entries {
    pub(super) fn new(max: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| ArcSwap::default()).collect(),
            hasher: RandomState::new(),
            writer: Mutex::default(),
            len: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
        }
    }

    /// Changes the largest number of entries. Surplus entries are removed as new keys come, or when they expire.
    pub(super) fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    pub(super) fn get(&self, name: &KeyName) -> Option<Arc<Entry>> {
        self.shards[self.shard_of(name)].load().get(name).cloned()
    }

    /// Adds or replaces an entry. When the table is full, an old entry is removed.
    pub(super) fn insert(&self, name: KeyName, entry: Entry) {
        let at = self.shard_of(&name);
        let _turn = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if self.len() >= self.max.load(Ordering::Relaxed) && !self.shards[at].load().contains_key(&name) {
            self.evict(at);
        }
        self.change(at, |shard| {
            shard.insert(name, Arc::new(entry));
        });
    }

    pub(super) fn remove(&self, name: &KeyName) {
        let at = self.shard_of(name);
        let _turn = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if self.shards[at].load().contains_key(name) {
            self.change(at, |shard| {
                shard.remove(name);
            });
        }
    }

    /// Removes the entries for which `keep` is false.
    pub(super) fn retain(&self, keep: impl Fn(&Entry) -> bool) {
        for at in 0..SHARDS {
            if self.shards[at].load().values().all(|entry| keep(entry)) {
                continue;
            }
            let _turn = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            self.change(at, |shard| shard.retain(|_, entry| keep(entry)));
        }
    }

    /// Removes the entry of the first shard at or after `at` that was used least recently.
    fn evict(&self, at: usize) {
        let occupied = (0..SHARDS).map(|n| (at + n) % SHARDS).find(|at| !self.shards[*at].load().is_empty());
        let Some(at) = occupied else { return };
        self.change(at, |shard| {
            let oldest = shard.iter().min_by_key(|(_, entry)| entry.used.load(Ordering::Relaxed));
            if let Some(name) = oldest.map(|(name, _)| name.clone()) {
                shard.remove(&name);
            }
        });
    }

    /// Replaces a shard by a changed copy. The caller must hold `writer`.
    fn change(&self, at: usize, change: impl FnOnce(&mut Shard)) {
        let mut shard = Shard::clone(&self.shards[at].load());
        let before = shard.len();
        change(&mut shard);
        self.len.fetch_add(shard.len().wrapping_sub(before), Ordering::Relaxed);
        self.shards[at].store(Arc::new(shard));
    }

    fn shard_of(&self, name: &KeyName) -> usize {
        usize::try_from(self.hasher.hash_one(name) % SHARDS as u64).unwrap_or(0)
    }
}
