//! Event streams: what the log and audit endpoints deliver while it happens.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::broadcast;

/// How many events a reader may be behind before it is disconnected.
const BACKLOG: usize = 1_000;

/// The sending side of an event stream: any number of readers, none of which can slow the sender.
#[derive(Debug)]
pub struct Events {
    sender: broadcast::Sender<Bytes>,
    readers_dropped: AtomicU64,
}

impl Default for Events {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(BACKLOG), readers_dropped: AtomicU64::new(0) }
    }
}

impl Events {
    /// Whether anybody reads; if not, an event need not be made.
    pub fn has_readers(&self) -> bool {
        self.sender.receiver_count() > 0
    }

    /// Delivers one line to every reader.
    pub fn send(&self, line: Bytes) {
        // An error means that nobody reads.
        let _ = self.sender.send(line);
    }

    /// A reader of the events from now on.
    pub fn subscribe(&self) -> Reader {
        Reader(self.sender.subscribe())
    }

    /// How many readers were disconnected because they were too slow.
    pub fn readers_dropped(&self) -> u64 {
        self.readers_dropped.load(Ordering::Relaxed)
    }

    /// Counts a reader that [`Reader::next`] gave up on.
    pub fn count_dropped_reader(&self) {
        self.readers_dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// The receiving side of an event stream.
#[derive(Debug)]
pub struct Reader(broadcast::Receiver<Bytes>);

/// The reader fell more than 1,000 events behind.
#[derive(Debug, thiserror::Error)]
#[error("the reader is too slow")]
pub struct TooSlow;

impl Reader {
    /// The next line; `None` when the stream has ended.
    ///
    /// # Errors
    /// [`TooSlow`] when events were lost; the reader is then to be disconnected.
    pub async fn next(&mut self) -> Option<Result<Bytes, TooSlow>> {
        match self.0.recv().await {
            Ok(line) => Some(Ok(line)),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Err(TooSlow)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
