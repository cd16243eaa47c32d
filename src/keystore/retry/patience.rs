//! How long requests to a store are retried, and the pauses between attempts.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::later::wanted;
use super::waits::{Waiting, Waits};
use crate::keystore::{BoxError, Error};
use crate::telemetry::log::causes;

/// How long requests are retried. A request has 15 s, so there is time left to answer its client.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// How long a run over many keys retries, from the first failure: long enough for a restart of the store, or for
/// throttling to end.
pub(super) const PATIENCE_OF_RUN: Duration = Duration::from_secs(60);

/// When a read of a run is abandoned: listing very many keys takes long.
const LONGEST_QUESTION: Duration = Duration::from_secs(600);

/// The pause before the second attempt; every further one is twice as long, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause between two attempts.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What a store is asked for.
#[derive(Debug, Clone)]
pub(super) enum Purpose {
    Request,
    /// A run over many keys. The waits are for display.
    Run(Waits),
}

/// What is left of the time, and the next pause.
pub(super) struct Patience {
    /// When the time is over; none: it starts with the first failure.
    end: Option<Instant>,
    /// When a read is abandoned.
    pub(super) deadline: Instant,
    pause: Duration,
    waits: Option<Waits>,
    waiting: Option<Waiting>,
}

impl Patience {
    pub(super) fn new(purpose: &Purpose) -> Self {
        let now = Instant::now();
        let (end, deadline, waits) = match purpose {
            Purpose::Request => (Some(now + PATIENCE), now + PATIENCE, None),
            Purpose::Run(waits) => (None, now + LONGEST_QUESTION, Some(waits.clone())),
        };
        Self { end, deadline, pause: FIRST_PAUSE, waits, waiting: None }
    }

    /// Waits before the next attempt. When no time is left for one, returns the `cause` of the last.
    pub(super) async fn pause(&mut self, cause: BoxError) -> Result<(), Error> {
        if self.has_paused(&cause).await { Ok(()) } else { Err(Error::Unreachable(cause)) }
    }

    /// Waits before the next attempt, if there is time for one: our own pause at least, and as long as the service wants.
    async fn has_paused(&mut self, cause: &BoxError) -> bool {
        let now = Instant::now();
        let end = *self.end.get_or_insert(now + PATIENCE_OF_RUN);
        let next = now + self.pause.max(wanted(cause));
        if next >= end {
            return false;
        }
        match (&self.waiting, &self.waits) {
            (Some(waiting), _) => waiting.set(causes(&**cause)),
            (None, Some(waits)) => self.waiting = Some(waits.begin(causes(&**cause), end)),
            (None, None) => {}
        }
        sleep_until(next).await;
        self.pause = LONGEST_PAUSE.min(2 * self.pause);
        true
    }

    /// Repeats a read until it is answered. Abandons the last attempt when the time is over.
    pub(super) async fn ask<T, F>(&mut self, question: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let (asked, mut last) = (Instant::now(), None);
        loop {
            match timeout_at(self.deadline, question()).await {
                Ok(Err(Error::Unreachable(cause))) if self.has_paused(&cause).await => last = Some(cause),
                Ok(answer) => return answer,
                // An earlier error says more than the time-out now.
                Err(_) => return Err(last.map_or_else(|| no_answer(asked), Error::Unreachable)),
            }
        }
    }
}

pub(super) fn no_answer(asked: Instant) -> Error {
    Error::Unreachable(format!("no answer within {} s", asked.elapsed().as_secs()).into())
}
