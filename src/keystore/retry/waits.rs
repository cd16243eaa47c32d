//! What a run is waiting for, for display.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// All current waits. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Waits(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    waits: BTreeMap<u64, Wait>,
}

/// A current wait.
#[derive(Debug, Clone)]
pub struct Wait {
    /// Why: "no connection to 127.0.0.1:7373".
    pub why: String,
    /// When the wait ends at the latest.
    pub until: Instant,
}

/// Registers a wait until it is dropped.
pub(in crate::keystore) struct Waiting {
    waits: Waits,
    number: u64,
}

impl Waits {
    /// The oldest current wait.
    pub fn first(&self) -> Option<Wait> {
        self.lock().waits.first_key_value().map(|(_, wait)| wait.clone())
    }

    pub(in crate::keystore) fn begin(&self, why: String, until: Instant) -> Waiting {
        let mut inner = self.lock();
        let number = inner.next;
        inner.next += 1;
        inner.waits.insert(number, Wait { why, until });
        Waiting { waits: self.clone(), number }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    pub(in crate::keystore) fn set(&self, why: String) {
        if let Some(wait) = self.waits.lock().waits.get_mut(&self.number) {
            wait.why = why;
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.waits.lock().waits.remove(&self.number);
    }
}
