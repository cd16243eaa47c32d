//! Replies on their way to the client: when it must have taken each of them.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Moments are told apart by this much, so that no reply needs a timer of its own.
const SPAN: Duration = Duration::from_secs(10);

/// How many spans ahead there are.
const SPANS: u64 = 64;

/// How long the client has for a small reply: three spans at least.
const LEAST: u64 = 4;

/// How much of a reply it must take in a span, in bytes.
const RATE: usize = 2 << 20;

/// How many replies there are for each span at whose beginning they must have been taken.
#[derive(Debug)]
pub(super) struct Unsent {
    due: [AtomicU32; SPANS as usize],
    /// The last span that [`Unsent::is_overdue`] has seen.
    seen: AtomicU64,
}

/// The span in which a reply is due.
#[derive(Debug, Clone, Copy)]
pub(super) struct Due(u64);

impl Unsent {
    pub(super) fn new(now: u64) -> Self {
        Self { due: std::array::from_fn(|_| AtomicU32::new(0)), seen: AtomicU64::new(span(now)) }
    }

    /// Counts a reply of `len` bytes that begins `now`, in milliseconds, until [`Unsent::end`].
    pub(super) fn begin(&self, now: u64, len: usize) -> Due {
        let allowed = LEAST + (len / RATE) as u64;
        let due = Due(span(now) + allowed.min(SPANS - 2));
        self.of(due).fetch_add(1, Ordering::Relaxed);
        due
    }

    pub(super) fn end(&self, due: Due) {
        self.of(due).fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether there is any.
    pub(super) fn is_any(&self) -> bool {
        self.due.iter().any(|count| count.load(Ordering::Relaxed) > 0)
    }

    /// Whether one should have been taken by `now`. To be asked often.
    pub(super) fn is_overdue(&self, now: u64) -> bool {
        let (now, seen) = (span(now), self.seen.load(Ordering::Relaxed));
        self.seen.store(now, Ordering::Relaxed);
        (seen + 1..=now).rev().take(SPANS as usize).any(|span| self.of(Due(span)).load(Ordering::Relaxed) > 0)
    }

    fn of(&self, Due(span): Due) -> &AtomicU32 {
        &self.due[(span % SPANS) as usize]
    }
}

fn span(milliseconds: u64) -> u64 {
    milliseconds / SPAN.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000;

    fn first_overdue(unsent: &Unsent, from: u64) -> Option<u64> {
        (from..from + 1_000).find(|second| unsent.is_overdue(second * SECOND))
    }

    #[test]
    fn a_reply_has_its_time_whenever_it_begins() {
        for begin in 0..25 {
            let unsent = Unsent::new(0);
            let due = unsent.begin(begin * SECOND, 1);
            let overdue = first_overdue(&unsent, begin).expect("it is never taken") - begin;
            assert!((31..=40).contains(&overdue), "{overdue}");
            unsent.end(due);
            assert!(!unsent.is_any());
        }
    }

    #[test]
    fn a_large_reply_has_more_time_and_one_that_is_taken_is_never_overdue() {
        let unsent = Unsent::new(0);
        unsent.end(unsent.begin(0, 1));
        assert_eq!(first_overdue(&unsent, 0), None);
        let unsent = Unsent::new(0);
        unsent.begin(0, 32 << 20);
        assert_eq!(first_overdue(&unsent, 0), Some(200));
        let unsent = Unsent::new(0);
        unsent.begin(0, usize::MAX);
        assert_eq!(first_overdue(&unsent, 0), Some(620));
    }
}
