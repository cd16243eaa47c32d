//! Whether the keystore answers, and when it last did.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::keystore::Error;
use crate::telemetry::log;

/// The health of the key store, derived from the outcomes of requests. Times are milliseconds of the cache's ticker.
#[derive(Debug)]
pub(super) struct Health {
    last_good: AtomicU64,
    reachable: AtomicBool,
}

/// A key store that has just been connected counts as reachable.
impl Default for Health {
    fn default() -> Self {
        Self { last_good: AtomicU64::new(0), reachable: AtomicBool::new(true) }
    }
}

impl Health {
    /// Whether the keystore answered when it was last asked.
    pub(super) fn is_reachable(&self) -> bool {
        self.reachable.load(Ordering::Relaxed)
    }

    /// When it last gave a good answer.
    pub(super) fn last_good(&self) -> u64 {
        self.last_good.load(Ordering::Relaxed)
    }

    /// The time since its last good answer.
    pub(super) fn since_last_good(&self, now: u64) -> Duration {
        Duration::from_millis(now.saturating_sub(self.last_good()))
    }

    /// Records the outcome of a request. Any answer counts as good, also a refusal. A time-out counts only if the
    /// request was sent after the last good answer: an older one says nothing about a store that has answered since.
    pub(super) fn note(&self, asked: u64, now: u64, error: Option<&Error>, store: &dyn Display) {
        match error {
            Some(error @ Error::Unreachable(_)) => {
                if asked >= self.last_good() && self.reachable.swap(false, Ordering::Relaxed) {
                    tracing::error!(cause = log::causes(error), keystore = %store, "the key store does not answer");
                }
            }
            _ => {
                self.last_good.fetch_max(now, Ordering::Relaxed);
                if !self.reachable.swap(true, Ordering::Relaxed) {
                    tracing::info!(keystore = %store, "the key store answers again");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silence() -> Error {
        Error::Unreachable("silence".into())
    }

    #[test]
    fn an_old_question_that_timed_out_does_not_hide_a_later_answer() {
        let health = Health::default();
        health.note(5, 6, None, &"store");
        health.note(1, 11, Some(&silence()), &"store");
        assert!(health.is_reachable());
        health.note(7, 12, Some(&silence()), &"store");
        assert!(!health.is_reachable());
        assert_eq!(health.since_last_good(12), Duration::from_millis(6));
    }

    #[test]
    fn a_refusal_is_an_answer() {
        let health = Health::default();
        health.note(1, 2, Some(&silence()), &"store");
        health.note(3, 4, Some(&Error::NotFound), &"store");
        assert!(health.is_reachable());
        assert_eq!(health.last_good(), 4);
    }
}
