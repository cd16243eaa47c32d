//! Listings in progress: each is served from one sorted snapshot.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::name::KeyName;

/// How long a listing in progress is served from its snapshot.
const KEEP: Duration = Duration::from_secs(60);

/// The most snapshots kept at a time.
const MAX: usize = 16;

/// The snapshots of listings in progress, by prefix.
#[derive(Debug, Default)]
pub(super) struct Listings(Mutex<HashMap<String, Snapshot>>);

#[derive(Debug)]
struct Snapshot {
    taken: Instant,
    names: Arc<[KeyName]>,
}

impl Listings {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Snapshot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, prefix: &str, now: Instant) -> Option<Arc<[KeyName]>> {
        let all = self.lock();
        all.get(prefix).filter(|snapshot| snapshot.is_current(now)).map(|snapshot| snapshot.names.clone())
    }

    pub(super) fn put(&self, prefix: &str, names: Arc<[KeyName]>, now: Instant) {
        let mut all = self.lock();
        if all.len() >= MAX && !all.contains_key(prefix) {
            let oldest = all.iter().min_by_key(|(_, snapshot)| snapshot.taken).map(|(prefix, _)| prefix.clone());
            oldest.and_then(|prefix| all.remove(&prefix));
        }
        all.insert(prefix.into(), Snapshot { taken: now, names });
    }

    pub(super) fn sweep(&self, now: Instant) {
        self.lock().retain(|_, snapshot| snapshot.is_current(now));
    }
}

impl Snapshot {
    fn is_current(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.taken) < KEEP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<KeyName> {
        (0..count).map(|n| KeyName::parse(&format!("key-{n:060}")).expect("valid")).collect()
    }

    #[test]
    fn snapshots_are_few_and_short_lived() {
        let listings = Listings::default();
        let now = Instant::now();
        for n in 0..2 * MAX {
            listings.put(&n.to_string(), names(1).into(), now + Duration::from_millis(n as u64));
        }
        assert_eq!(listings.lock().len(), MAX);
        assert!(listings.get("31", now).is_some());
        assert!(listings.get("31", now + KEEP + Duration::from_secs(1)).is_none());
    }
}
