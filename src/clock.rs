//! The one place that asks what time it is; everywhere else time is a parameter.

use std::time::{Duration, Instant};

use time::OffsetDateTime;

/// The wall clock, in UTC.
#[expect(clippy::disallowed_methods, reason = "this is the keeper of the wall clock")]
pub fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// The monotonic clock, the one that timeouts and sleeps go by: tests may pause it.
pub fn instant() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A monotonic clock that counts milliseconds from its creation, so that a moment fits an atomic.
#[derive(Debug, Clone, Copy)]
pub struct Ticker(Instant);

impl Ticker {
    /// A ticker that stands at 0.
    pub fn start(now: Instant) -> Self {
        Self(now)
    }

    /// Milliseconds since the start; 0 for moments before it.
    pub fn at(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.0).as_millis()).unwrap_or(u64::MAX)
    }

    /// How long the ticker has been running.
    pub fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.0)
    }
}

/// Milliseconds since the machine was started, also those in which it was suspended.
pub fn since_boot() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanoseconds) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    seconds.unwrap_or_default() * 1_000 + nanoseconds.unwrap_or_default() / 1_000_000
}
