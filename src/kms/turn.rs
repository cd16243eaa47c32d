//! Pauses in long work on a worker thread, so that its other clients are served.

use std::time::{Duration, Instant};

use crate::clock;

/// How long work may go on until others get their turn.
const SHARE: Duration = Duration::from_millis(1);

/// The number of short steps between two looks at the clock, which cost about as much as a step.
const STEPS: u32 = 64;

/// Measures the time since the work last yielded.
pub struct Turn {
    since: Instant,
    steps: u32,
    share: Duration,
}

impl Default for Turn {
    fn default() -> Self {
        Self::new()
    }
}

impl Turn {
    /// Starts a turn now.
    pub fn new() -> Self {
        Self { since: clock::instant(), steps: 0, share: SHARE }
    }

    /// A turn that never ends.
    #[cfg(test)]
    pub(super) fn endless() -> Self {
        Self { share: Duration::MAX, ..Self::new() }
    }

    /// Notes a step of less than ten microseconds.
    pub async fn step(&mut self) {
        self.steps += 1;
        if self.steps >= STEPS {
            self.pass().await;
        }
    }

    /// Yields to others, if this turn has been long enough.
    pub async fn pass(&mut self) {
        self.steps = 0;
        if clock::instant().saturating_duration_since(self.since) >= self.share {
            tokio::task::yield_now().await;
            self.since = clock::instant();
        }
    }
}
