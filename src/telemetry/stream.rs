//! Event streams: what the log and audit endpoints deliver while it happens.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How many events a reader may be behind before it is cut off.
const BACKLOG: usize = 1_000;

/// The sending side of an event stream: any number of readers, none of which can slow the sender.
#[derive(Debug, Default)]
pub struct Events {
    readers: Mutex<Vec<Sender>>,
    /// Readers there are; so that without any, sending takes no lock.
    count: Arc<AtomicUsize>,
    cut_off: AtomicU64,
}

#[derive(Debug)]
struct Sender {
    lines: mpsc::Sender<Bytes>,
    too_slow: CancellationToken,
}

impl Events {
    fn readers(&self) -> MutexGuard<'_, Vec<Sender>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody reads; if not, an event need not be made.
    pub fn has_readers(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Delivers one line to every reader. One that is too far behind is cut off.
    pub fn send(&self, line: &Bytes) {
        self.readers().retain(|reader| match reader.lines.try_send(line.clone()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.cut_off.fetch_add(1, Ordering::Relaxed);
                reader.too_slow.cancel();
                false
            }
        });
    }

    /// A reader of the events from now on.
    pub fn subscribe(&self) -> Reader {
        let (lines, receiver) = mpsc::channel(BACKLOG);
        let too_slow = CancellationToken::new();
        let mut readers = self.readers();
        // Those that have left while nothing happened.
        readers.retain(|reader| !reader.lines.is_closed());
        readers.push(Sender { lines, too_slow: too_slow.clone() });
        self.count.fetch_add(1, Ordering::Relaxed);
        Reader { lines: receiver, too_slow, count: self.count.clone() }
    }

    /// How many readers were cut off because they were too slow.
    pub fn readers_dropped(&self) -> u64 {
        self.cut_off.load(Ordering::Relaxed)
    }
}

/// The receiving side of an event stream.
#[derive(Debug)]
pub struct Reader {
    lines: mpsc::Receiver<Bytes>,
    too_slow: CancellationToken,
    count: Arc<AtomicUsize>,
}

impl Reader {
    /// The next line; `None` once the reader has been cut off.
    pub async fn next(&mut self) -> Option<Bytes> {
        if self.too_slow.is_cancelled() { None } else { self.lines.recv().await }
    }

    /// Cancelled when the reader has fallen more than 1,000 events behind.
    pub fn too_slow(&self) -> CancellationToken {
        self.too_slow.clone()
    }
}

impl Drop for Reader {
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
        let events = Events::default();
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
        let events = Events::default();
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
        assert_eq!(events.readers().len(), 1, "those that left are forgotten");
    }
}
