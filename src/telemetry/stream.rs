//! Event streams of the log and audit endpoints: new events as they happen, and where asked for past ones first.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How many events a reader may be behind before it is cut off.
const BACKLOG: usize = 1_000;

/// What an event that is kept takes beside its bytes, at most: its place in the queue, and what the allocator adds.
const OVERHEAD: usize = 256;

/// The sending side of an event stream: any number of readers, none of which can slow the sender.
///
/// An event is a line, or something that has one.
#[derive(Debug)]
pub struct Events<T = Bytes> {
    inner: Mutex<Inner<T>>,
    /// Readers there are; so that without any, sending takes no lock.
    count: Arc<AtomicUsize>,
    /// How many bytes of the past are kept.
    bound: AtomicUsize,
    cut_off: AtomicU64,
}

/// The past and the readers, together: whoever begins to read has every event either from there or sent.
#[derive(Debug)]
struct Inner<T> {
    readers: Vec<Sender<T>>,
    past: VecDeque<T>,
    /// What `past` takes, in bytes.
    size: usize,
}

#[derive(Debug)]
struct Sender<T> {
    events: mpsc::Sender<T>,
    too_slow: CancellationToken,
}

impl<T> Default for Events<T> {
    fn default() -> Self {
        let inner = Inner { readers: Vec::new(), past: VecDeque::new(), size: 0 };
        Self {
            inner: Mutex::new(inner),
            count: Arc::default(),
            bound: AtomicUsize::default(),
            cut_off: AtomicU64::default(),
        }
    }
}

impl<T: Clone + AsRef<[u8]>> Events<T> {
    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps events from now on, the newest ones that together take no more than `bytes`. At first none are kept.
    pub fn keep(&self, bytes: usize) {
        self.bound.store(bytes, Ordering::Relaxed);
    }

    /// Whether events are kept.
    pub fn keeps(&self) -> bool {
        self.bound.load(Ordering::Relaxed) > 0
    }

    /// Whether anybody reads; if not, and none are kept, an event need not be made.
    pub fn has_readers(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Delivers one event to every reader. One that is too far behind is cut off.
    pub fn send(&self, event: &T) {
        let mut inner = self.lock();
        inner.readers.retain(|reader| match reader.events.try_send(event.clone()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.cut_off.fetch_add(1, Ordering::Relaxed);
                reader.too_slow.cancel();
                false
            }
        });
        inner.note(event, self.bound.load(Ordering::Relaxed));
    }

    /// A reader of the events from now on.
    pub fn subscribe(&self) -> Reader<T> {
        self.subscribe_with(|_| false)
    }

    /// A reader of those kept events that are `wanted`, the oldest first, and then of all from now on: none is
    /// missing in between, and none comes twice. Nobody can send while `wanted` decides.
    pub fn subscribe_with(&self, wanted: impl Fn(&T) -> bool) -> Reader<T> {
        let (events, receiver) = mpsc::channel(BACKLOG);
        let too_slow = CancellationToken::new();
        let mut inner = self.lock();
        // Those that have left while nothing happened.
        inner.readers.retain(|reader| !reader.events.is_closed());
        inner.readers.push(Sender { events, too_slow: too_slow.clone() });
        self.count.fetch_add(1, Ordering::Relaxed);
        let past = inner.past.iter().filter(|event| wanted(event)).cloned().collect();
        Reader { past, events: receiver, too_slow, count: self.count.clone() }
    }

    /// How many readers were cut off because they were too slow.
    pub fn readers_dropped(&self) -> u64 {
        self.cut_off.load(Ordering::Relaxed)
    }
}

impl<T: Clone + AsRef<[u8]>> Inner<T> {
    /// Keeps the event, and forgets the oldest ones.
    fn note(&mut self, event: &T, bound: usize) {
        let size = |event: &T| event.as_ref().len() + OVERHEAD;
        if size(event) > bound {
            return;
        }
        self.size += size(event);
        self.past.push_back(event.clone());
        while self.size > bound {
            let oldest = self.past.pop_front().expect("one alone is within the bound");
            self.size -= size(&oldest);
        }
    }
}

/// The receiving side of an event stream.
#[derive(Debug)]
pub struct Reader<T = Bytes> {
    past: VecDeque<T>,
    events: mpsc::Receiver<T>,
    too_slow: CancellationToken,
    count: Arc<AtomicUsize>,
}

impl<T> Reader<T> {
    /// The next event; `None` once the reader has been cut off.
    pub async fn next(&mut self) -> Option<T> {
        if self.too_slow.is_cancelled() {
            return None;
        }
        match self.past.pop_front() {
            Some(event) => Some(event),
            None => self.events.recv().await,
        }
    }

    /// Cancelled when the reader has fallen more than 1,000 events behind.
    pub fn too_slow(&self) -> CancellationToken {
        self.too_slow.clone()
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: usize) -> Bytes {
        n.to_string().into()
    }

    #[tokio::test]
    async fn a_reader_a_thousand_events_behind_is_kept_and_one_more_cuts_it_off() {
        let events = Events::<Bytes>::default();
        let mut slow = events.subscribe();
        let mut quick = events.subscribe();
        for n in 0..BACKLOG {
            events.send(&line(n));
            assert_eq!(quick.next().await, Some(line(n)));
        }
        assert!(!slow.too_slow().is_cancelled());
        events.send(&line(BACKLOG));
        assert!(slow.too_slow().is_cancelled());
        assert_eq!(slow.next().await, None);
        assert_eq!(quick.next().await, Some(line(BACKLOG)), "others are unaffected");
        assert_eq!(events.readers_dropped(), 1);
    }

    #[tokio::test]
    async fn readers_get_what_happens_while_they_read() {
        let events = Events::<Bytes>::default();
        assert!(!events.has_readers());
        events.send(&line(0));
        let mut reader = events.subscribe();
        assert!(events.has_readers());
        events.send(&line(1));
        assert_eq!(reader.next().await, Some(line(1)));
        drop(reader);
        assert!(!events.has_readers());
        drop(events.subscribe());
        drop(events.subscribe());
        assert_eq!(events.lock().readers.len(), 1, "those that left are forgotten");
    }

    #[tokio::test]
    async fn what_is_kept_comes_first_and_nothing_is_missing_or_comes_twice() {
        let events = Events::<Bytes>::default();
        events.send(&line(0));
        events.keep(3 * (OVERHEAD + 1));
        (1..=5).for_each(|n| events.send(&line(n)));
        assert!(events.keeps() && !events.has_readers());
        let mut all = events.subscribe_with(|_| true);
        let mut some = events.subscribe_with(|line| line.as_ref() >= b"5".as_slice());
        let mut new = events.subscribe();
        (6..=7).for_each(|n| events.send(&line(n)));
        for n in 3..=7 {
            assert_eq!(all.next().await, Some(line(n)));
        }
        for n in 5..=7 {
            assert_eq!(some.next().await, Some(line(n)));
        }
        assert_eq!(new.next().await, Some(line(6)));
        events.send(&vec![b'x'; 3 * OVERHEAD + 4].into());
        let mut after = events.subscribe_with(|_| true);
        assert_eq!(after.next().await, Some(line(5)), "one larger than the whole bound drives none out");
    }

    #[test]
    fn the_past_never_takes_more_than_its_bound() {
        let events = Events::<Bytes>::default();
        events.keep(10_000);
        for n in 0..1_000 {
            events.send(&vec![b'x'; n % 500].into());
            let inner = events.lock();
            let size: usize = inner.past.iter().map(|event| event.len() + OVERHEAD).sum();
            assert!(size == inner.size && size <= 10_000, "{size}");
        }
    }
}
