//! Adapts the rate of calls to what a throttling service accepts.
//!
//! The SDK has such a limiter, too, but it slows down once for every answer of a burst. With 32 calls in flight, one
//! second over the quota is followed by minutes of almost no calls.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The factor for the rate when the service throttles.
const SLOWER: f64 = 0.7;

/// How much the rate grows in a second without throttling: by this fraction of itself, and at least by this many calls
/// a second.
const FASTER: f64 = 0.1;
const FASTER_AT_LEAST: f64 = 1.0;

/// The slowest and the fastest rate, in calls a second. Above the fastest, calls are not delayed at all.
const SLOWEST: f64 = 1.0;
const FASTEST: f64 = 1_000.0;

/// How long after a change of the rate answers are ignored: they belong to calls sent at the old rate.
const SETTLE: Duration = Duration::from_secs(1);

/// The pace of one kind of call, for all who make it.
#[derive(Debug)]
pub(super) struct Pace(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Calls a second; none: no limit.
    rate: Option<f64>,
    /// When the next call may be sent.
    next: Instant,
    /// When the rate was last lowered.
    slowed: Option<Instant>,
    /// Calls since the beginning of this second, which began then, and those of the second before.
    sent: u32,
    second: Instant,
    before: u32,
}

impl Pace {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self(Mutex::new(State { rate: None, next: now, slowed: None, sent: 0, second: now, before: 0 }))
    }

    /// Waits until the next call may be sent.
    pub(super) async fn turn(&self) {
        let turn = self.lock().reserve(Instant::now());
        sleep_until(turn).await;
    }

    /// Lowers the rate, because the service throttles.
    pub(super) fn slow_down(&self) {
        self.lock().slow_down(Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The moment of the next turn.
    fn reserve(&mut self, now: Instant) -> Instant {
        let turn = self.next.max(now);
        if turn.duration_since(self.second) >= SETTLE {
            (self.before, self.sent, self.second) = (self.sent, 0, turn);
        }
        self.sent += 1;
        if let Some(rate) = self.rate {
            self.next = turn + Duration::from_secs_f64(1.0 / rate);
            let faster = rate + FASTER.max(FASTER_AT_LEAST / rate);
            self.rate = Some(faster).filter(|rate| *rate < FASTEST);
        }
        turn
    }

    fn slow_down(&mut self, now: Instant) {
        if self.slowed.is_some_and(|slowed| now.duration_since(slowed) < SETTLE) {
            return;
        }
        self.slowed = Some(now);
        let rate = self.rate.unwrap_or_else(|| self.before.max(self.sent).into());
        self.rate = Some((rate * SLOWER).max(SLOWEST));
        self.next = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service with a quota, and callers who are as fast as they may; returns what passed and what was refused in
    /// each second.
    async fn run(pace: &Pace, quota: u32, seconds: u32) -> Vec<(u32, u32)> {
        let mut counts = Vec::new();
        for _ in 0..seconds {
            let (begin, mut passed, mut refused) = (Instant::now(), 0, 0);
            while begin.elapsed() < Duration::from_secs(1) {
                pace.turn().await;
                // What a caller needs for one call; 400 a second without a quota.
                tokio::time::sleep(Duration::from_micros(2_500)).await;
                if passed < quota {
                    passed += 1;
                } else {
                    refused += 1;
                    pace.slow_down();
                }
            }
            counts.push((passed, refused));
        }
        counts
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_where_nobody_throttles() {
        let counts = run(&Pace::new(), u32::MAX, 3).await;
        assert!(counts.iter().all(|(passed, _)| *passed > 300), "{counts:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_quota_is_used_and_hardly_exceeded() {
        for quota in [5, 50, 200] {
            let counts = run(&Pace::new(), quota, 60).await;
            let (passed, refused) = counts[10..].iter().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
            assert!(passed > 50 * quota * 6 / 10, "quota {quota}: {counts:?}");
            assert!(refused < passed / 2, "quota {quota}: {counts:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_of_refusals_counts_once() {
        let pace = Pace::new();
        for _ in 0..100 {
            pace.turn().await;
        }
        (0..32).for_each(|_| pace.slow_down());
        assert_eq!(pace.lock().rate, Some(70.0));
    }

    #[tokio::test(start_paused = true)]
    async fn it_recovers_from_the_slowest_within_seconds() {
        let pace = Pace::new();
        for _ in 0..20 {
            pace.slow_down();
            tokio::time::advance(SETTLE).await;
        }
        assert_eq!(pace.lock().rate, Some(SLOWEST));
        let counts = run(&pace, u32::MAX, 10).await;
        assert!((8..20).contains(&counts[9].0), "{counts:?}");
    }
}
