//! Long work on a worker, which has other clients, too.

use std::time::{Duration, Instant};

use crate::clock;

/// How long work goes on until others get their turn.
const SHARE: Duration = Duration::from_millis(1);

/// After how many short steps the clock is looked at: it takes about as long as a step.
const STEPS: u32 = 64;

/// The time that work has had since others had theirs.
pub(super) struct Turn {
    since: Instant,
    steps: u32,
    share: Duration,
}

impl Turn {
    /// A turn that begins now.
    pub(super) fn new() -> Self {
        Self { since: clock::instant(), steps: 0, share: SHARE }
    }

    /// A turn that never ends.
    #[cfg(test)]
    pub(super) fn endless() -> Self {
        Self { share: Duration::MAX, ..Self::new() }
    }

    /// Notes a step of less than ten microseconds.
    pub(super) async fn step(&mut self) {
        self.steps += 1;
        if self.steps >= STEPS {
            self.pass().await;
        }
    }

    /// Lets others have their turn, if this one has been long enough.
    pub(super) async fn pass(&mut self) {
        self.steps = 0;
        if clock::instant().saturating_duration_since(self.since) >= self.share {
            tokio::task::yield_now().await;
            self.since = clock::instant();
        }
    }
}
