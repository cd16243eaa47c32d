//! The progress of a run, for display.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::keystore::Waits;

/// What a run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Reaching both stores.
    Connecting,
    /// Listing both stores.
    Listing,
    /// Reading and parsing keys of the source.
    Reading,
    /// Comparing them with those of the target.
    Comparing,
    /// Doing everything but storing them.
    Rehearsing,
    /// Writing keys and reading them back.
    Writing,
}

/// Counters that the run advances and the display reads at any time.
#[derive(Debug, Default)]
pub struct Progress {
    step: AtomicU8,
    total: AtomicU64,
    done: AtomicU64,
    waits: Waits,
}

impl Progress {
    /// Begins a step of `total` keys.
    pub(super) fn begin(&self, step: Step, total: usize) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total as u64, Ordering::Relaxed);
        self.step.store(step as u8, Ordering::Release);
    }

    /// Counts this many more keys as done.
    pub(super) fn advance(&self, keys: usize) {
        self.done.fetch_add(keys as u64, Ordering::Relaxed);
    }

    /// The current step.
    pub fn step(&self) -> Step {
        match self.step.load(Ordering::Acquire) {
            0 => Step::Connecting,
            1 => Step::Listing,
            2 => Step::Reading,
            3 => Step::Comparing,
            4 => Step::Rehearsing,
            _ => Step::Writing,
        }
    }

    /// What it waits for.
    pub fn waits(&self) -> &Waits {
        &self.waits
    }

    /// The keys done in this step, and the total of the step.
    pub fn keys(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }
}
