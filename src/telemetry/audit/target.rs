//! A place where audit events are written: a queue, and the thread that empties it.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot};

use super::Patience;

/// How many events may wait before requests wait for them.
pub(super) const QUEUE: usize = 4_096;

/// How many more before those wait that ask how the server is.
const RESERVE: usize = 1_024;

/// How long events gather before they are written together: to wake the thread for each would cost more than all else
/// that is done for an event.
const GATHER: Duration = Duration::from_millis(2);

/// What takes events, one batch after the other.
pub(super) trait Sink: Send + 'static {
    /// Writes these lines, and adds those that could not be written to `failed`.
    fn write(&mut self, lines: &[Bytes], failed: &AtomicU64);
}

#[derive(Debug)]
pub(super) struct Target {
    on: AtomicBool,
    queue: mpsc::UnboundedSender<Line>,
    queued: Arc<Queued>,
    failed: Arc<AtomicU64>,
}

/// How long the queue is.
#[derive(Debug, Default)]
struct Queued {
    events: AtomicUsize,
    shorter: Notify,
}

#[derive(Debug)]
enum Line {
    Event(Bytes),
    Flush(oneshot::Sender<()>),
}

impl Target {
    /// Starts the thread that hands events to `sink`.
    pub(super) fn start(name: &str, sink: impl Sink) -> io::Result<Self> {
        let (queue, lines) = mpsc::unbounded_channel();
        let (failed, queued) = (Arc::new(AtomicU64::new(0)), Arc::new(Queued::default()));
        let target = Self { on: AtomicBool::new(true), queue, queued: queued.clone(), failed: failed.clone() };
        std::thread::Builder::new().name(name.into()).spawn(move || run(sink, lines, &queued, &failed))?;
        Ok(target)
    }

    pub(super) fn set_on(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Puts an event into the queue.
    pub(super) fn send(&self, line: Bytes) {
        self.queued.events.fetch_add(1, Ordering::Relaxed);
        // The thread ends with the queue, not before.
        let _ = self.queue.send(Line::Event(line));
    }

    pub(super) fn is_full(&self, patience: Patience) -> bool {
        let limit = match patience {
            Patience::Ordinary => QUEUE,
            Patience::Reserved => QUEUE + RESERVE,
        };
        self.queued() >= limit
    }

    /// Waits while the queue is full.
    pub(super) async fn has_room(&self, patience: Patience) {
        loop {
            let mut shorter = std::pin::pin!(self.queued.shorter.notified());
            // From here on no notification is missed.
            shorter.as_mut().enable();
            if !self.is_full(patience) {
                return;
            }
            shorter.await;
        }
    }

    /// Events that wait.
    pub(super) fn queued(&self) -> usize {
        self.queued.events.load(Ordering::Relaxed)
    }

    /// Events that could not be written, counted at every attempt.
    pub(super) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Waits until every event so far is written: for ever, if nothing is taken.
    pub(super) async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        if self.queue.send(Line::Flush(done)).is_ok() {
            let _ = wait.await;
        }
    }
}

fn run(mut sink: impl Sink, mut queue: mpsc::UnboundedReceiver<Line>, queued: &Queued, failed: &AtomicU64) {
    let mut batch = Vec::new();
    while queue.blocking_recv_many(&mut batch, QUEUE) > 0 {
        let (mut events, mut flushes) = (Vec::new(), Vec::new());
        for line in batch.drain(..) {
            match line {
                Line::Event(line) => events.push(line),
                Line::Flush(done) => flushes.push(done),
            }
        }
        sink.write(&events, failed);
        queued.events.fetch_sub(events.len(), Ordering::Relaxed);
        queued.shorter.notify_waiters();
        for done in flushes {
            let _ = done.send(());
        }
        gather();
    }
}

#[expect(clippy::disallowed_methods, reason = "the thread that writes events serves no request")]
fn gather() {
    std::thread::sleep(GATHER);
}

/// Standard output. What it refuses is lost.
pub(super) struct Stream<W: Write> {
    target: BufWriter<W>,
    has_failed: bool,
}

impl<W: Write> Stream<W> {
    pub(super) fn new(target: W) -> Self {
        Self { target: BufWriter::with_capacity(64 * 1024, target), has_failed: false }
    }
}

impl<W: Write + Send + 'static> Sink for Stream<W> {
    fn write(&mut self, lines: &[Bytes], failed: &AtomicU64) {
        let written = lines.iter().try_for_each(|line| self.target.write_all(line));
        let Err(error) = written.and_then(|()| self.target.flush()) else { return };
        failed.fetch_add(lines.len() as u64, Ordering::Relaxed);
        if !std::mem::replace(&mut self.has_failed, true) {
            tracing::error!(
                %error,
                "audit events cannot be written to standard output; requests are answered all the same"
            );
        }
    }
}
