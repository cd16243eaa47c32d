//! Audit events: who asked for what, and what came of it. Never dropped.

use std::io::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::{mpsc, oneshot};

use super::Events;
use super::log::Level;

/// The level of audit events: a higher threshold switches their target off.
pub const LEVEL: Level = Level(0);

/// How many events may be on their way to stdout, those of running requests included, before further
/// requests wait.
const QUEUE: usize = 32_768;

/// Where audit events go: a target, written by a thread of its own, and a stream.
#[derive(Debug)]
pub struct Audit {
    on: AtomicBool,
    queue: mpsc::Sender<Line>,
    events: Events,
    written: AtomicU64,
    waits: AtomicU64,
    failed: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Line {
    Event(Bytes),
    Flush(oneshot::Sender<()>),
}

/// One request that matched a route.
#[derive(Debug)]
pub struct Event<'a> {
    /// When the request arrived.
    pub time: OffsetDateTime,
    /// Where it came from.
    pub ip: IpAddr,
    /// The decoded path.
    pub path: &'a str,
    /// Who asked; empty when that is not known.
    pub identity: &'a str,
    /// The HTTP status of the answer.
    pub code: u16,
    /// How long the answer took.
    pub took: Duration,
}

impl Audit {
    /// Starts the thread that writes events to `target`.
    pub fn start(target: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (queue, lines) = mpsc::channel(QUEUE);
        let failed = Arc::new(AtomicU64::new(0));
        let failures = failed.clone();
        std::thread::Builder::new().name("audit".into()).spawn(move || write_lines(lines, target, &failures))?;
        Ok(Self {
            on: AtomicBool::new(true),
            queue,
            events: Events::default(),
            written: AtomicU64::new(0),
            waits: AtomicU64::new(0),
            failed,
        })
    }

    /// Whether events are written to the target. Readers of the stream get them in any case.
    pub fn set_on(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    /// Takes a place for an event that is to come; waits while the queue is full. None when nobody wants
    /// events.
    pub async fn place(&self) -> Option<Place<'_>> {
        let target = self.on.load(Ordering::Relaxed);
        if !target && !self.events.has_readers() {
            return None;
        }
        let in_queue = match self.queue.try_reserve() {
            _ if !target => None,
            Err(mpsc::error::TrySendError::Full(())) => {
                self.waits.fetch_add(1, Ordering::Relaxed);
                self.queue.reserve().await.ok()
            }
            reserved => reserved.ok(),
        };
        Some(Place { audit: self, in_queue })
    }

    /// The stream of events.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Events so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// How often a request waited because the queue was full.
    pub fn waits(&self) -> u64 {
        self.waits.load(Ordering::Relaxed)
    }

    /// Lines the target refused, because of a full disk or a closed pipe for example.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Events on their way to the target, those of running requests included.
    pub fn queued(&self) -> usize {
        QUEUE - self.queue.capacity()
    }

    /// Waits until every event recorded so far is written.
    pub async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        if self.queue.send(Line::Flush(done)).await.is_ok() {
            let _ = wait.await;
        }
    }
}

/// A place for one event. Taken before a request is answered, so that recording it afterwards neither
/// waits nor fails.
#[derive(Debug)]
pub struct Place<'a> {
    audit: &'a Audit,
    /// None when only readers of the stream want the event.
    in_queue: Option<mpsc::Permit<'a, Line>>,
}

impl Place<'_> {
    /// Records the event.
    pub fn record(self, event: &Event<'_>) {
        let line = event.to_line();
        self.audit.written.fetch_add(1, Ordering::Relaxed);
        if self.audit.events.has_readers() {
            self.audit.events.send(line.clone());
        }
        if let Some(place) = self.in_queue {
            place.send(Line::Event(line));
        }
    }
}

impl Event<'_> {
    fn to_line(&self) -> Bytes {
        #[derive(Serialize)]
        struct Object<'a> {
            time: String,
            request: Request<'a>,
            response: Response,
        }
        #[derive(Serialize)]
        struct Request<'a> {
            ip: IpAddr,
            path: &'a str,
            identity: &'a str,
        }
        #[derive(Serialize)]
        struct Response {
            code: u16,
            /// Nanoseconds: clients decode a Go duration.
            time: u64,
        }
        let line = Object {
            time: self.time.format(&Rfc3339).unwrap_or_default(),
            request: Request { ip: self.ip, path: self.path, identity: self.identity },
            response: Response { code: self.code, time: u64::try_from(self.took.as_nanos()).unwrap_or(u64::MAX) },
        };
        let mut bytes = Vec::with_capacity(256 + self.path.len());
        // Writing to memory cannot fail, and the line holds nothing that JSON cannot express.
        let _ = serde_json::to_writer(&mut bytes, &line);
        bytes.push(b'\n');
        bytes.into()
    }
}

fn write_lines(mut lines: mpsc::Receiver<Line>, target: impl Write, failures: &AtomicU64) {
    let mut target = std::io::BufWriter::with_capacity(64 * 1024, target);
    let mut batch = Vec::new();
    while lines.blocking_recv_many(&mut batch, 256) > 0 {
        let mut flushes = Vec::new();
        let mut written = Ok(());
        let mut count = 0;
        for line in batch.drain(..) {
            match line {
                Line::Event(line) => {
                    count += 1;
                    written = written.and_then(|()| target.write_all(&line));
                }
                Line::Flush(done) => flushes.push(done),
            }
        }
        if let Err(error) = written.and_then(|()| target.flush())
            && failures.fetch_add(count, Ordering::Relaxed) == 0
        {
            tracing::error!(%error, "audit events cannot be written to standard output; requests are answered all the same");
        }
        for done in flushes {
            let _ = done.send(());
        }
    }
}
