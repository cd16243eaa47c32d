//! What this process was told is stored, so that it notices when a fail-over of the database has lost it.
//!
//! A standby that does not confirm commits may lack the last ones when it becomes the primary. A key that was acknowledged
//! and is gone must not be called missing: an object store would make another one.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::name::KeyName;

/// How long a created key is remembered: longer than any standby should lag behind.
const FOR: Duration = Duration::from_secs(3_600);

/// The most keys that are remembered.
const MOST: usize = 100_000;

/// The keys that were created, and those that are known to be lost.
#[derive(Debug, Default)]
pub(super) struct Acknowledged(Mutex<Keys>);

#[derive(Debug, Default)]
struct Keys {
    created: VecDeque<(Instant, KeyName)>,
    lost: HashSet<KeyName>,
    /// Writes whose answers did not come.
    in_doubt: HashSet<KeyName>,
    /// The timeline on which all of them were there.
    timeline: u32,
}

impl Acknowledged {
    pub(super) fn created(&self, name: &KeyName) {
        let (now, mut keys) = (Instant::now(), self.lock());
        while keys.created.len() >= MOST || keys.created.front().is_some_and(|(at, _)| now.duration_since(*at) > FOR) {
            keys.created.pop_front();
        }
        keys.created.push_back((now, name.clone()));
    }

    pub(super) fn deleted(&self, name: &KeyName) {
        let mut keys = self.lock();
        keys.created.retain(|(_, created)| created != name);
        keys.lost.remove(name);
    }

    /// The keys to look for because the database is on another timeline than when they were last there; none: it is on
    /// the same one, or there are none.
    pub(super) fn to_look_for(&self, timeline: u32) -> Vec<KeyName> {
        let keys = self.lock();
        match keys.timeline == timeline || keys.timeline == 0 {
            true => Vec::new(),
            false => keys.created.iter().map(|(_, name)| name.clone()).collect(),
        }
    }

    /// Of the keys that were looked for on this timeline these are not there.
    pub(super) fn found_lost(&self, timeline: u32, lost: impl IntoIterator<Item = KeyName>) {
        let mut keys = self.lock();
        for name in lost {
            keys.created.retain(|(_, created)| *created != name);
            keys.lost.insert(name);
        }
        keys.timeline = timeline;
    }

    /// The database is on this timeline now.
    pub(super) fn is_on(&self, timeline: u32) -> bool {
        let mut keys = self.lock();
        if keys.timeline == 0 || keys.created.is_empty() {
            keys.timeline = timeline;
        }
        keys.timeline == timeline
    }

    pub(super) fn is_lost(&self, name: &KeyName) -> bool {
        self.lock().lost.contains(name)
    }

    /// A write of this key got no answer.
    pub(super) fn doubt(&self, name: &KeyName) {
        self.lock().in_doubt.insert(name.clone());
    }

    pub(super) fn is_in_doubt(&self, name: &KeyName) -> bool {
        self.lock().in_doubt.contains(name)
    }

    pub(super) fn is_settled(&self, name: &KeyName) {
        self.lock().in_doubt.remove(name);
    }

    fn lock(&self) -> MutexGuard<'_, Keys> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> KeyName {
        KeyName::parse(text).expect("valid")
    }

    #[tokio::test(start_paused = true)]
    async fn only_keys_of_the_last_hour_are_looked_for_and_only_after_a_promotion() {
        let keys = Acknowledged::default();
        assert!(keys.is_on(1));
        keys.created(&name("old"));
        tokio::time::advance(FOR + Duration::from_secs(1)).await;
        keys.created(&name("a"));
        keys.created(&name("b"));
        keys.created(&name("gone"));
        keys.deleted(&name("gone"));
        assert!(keys.is_on(1) && keys.to_look_for(1).is_empty());
        assert!(!keys.is_on(2));
        assert_eq!(keys.to_look_for(2), [name("a"), name("b")]);
        keys.found_lost(2, [name("a")]);
        assert!(keys.is_on(2) && keys.to_look_for(2).is_empty());
        assert!(keys.is_lost(&name("a")) && !keys.is_lost(&name("b")));
        keys.deleted(&name("a"));
        assert!(!keys.is_lost(&name("a")), "somebody has cleaned up");
    }

    #[tokio::test(start_paused = true)]
    async fn not_more_are_remembered_than_fit() {
        let keys = Acknowledged::default();
        assert!(keys.is_on(1));
        for n in 0..MOST + 10 {
            keys.created(&name(&format!("key-{n}")));
        }
        assert_eq!(keys.to_look_for(2).len(), MOST);
    }
}
