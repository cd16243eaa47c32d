//! Audit events: who asked for what, and the outcome. None is ever dropped.

mod commands;

use std::io::{BufWriter, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::{Notify, mpsc, oneshot};

use self::commands::Command;
use super::Events;
use super::log::Level;
use crate::foreign::{cut, printable_json};

pub use self::commands::{Commands, shown};

/// The level of audit events: a higher threshold switches their target off.
pub const LEVEL: Level = Level(0);

/// How many events may wait for the target before requests wait for them.
const QUEUE: usize = 4_096;

/// How many more before those wait that ask how the server is.
const RESERVE: usize = 1_024;

/// How long events gather before they are written together: to wake the thread for each would cost more than all else
/// that is done for an event.
const GATHER: Duration = Duration::from_millis(2);

/// How much of a path is recorded, in bytes. That of a request which names anything is shorter.
pub const MAX_PATH: usize = 512;

/// Which requests wait when the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// As most do.
    Ordinary,
    /// Those that show the operator why the others wait: a little later.
    Reserved,
}

/// Where audit events go: a target, written by a thread of its own, and a stream.
///
/// Requests wait before anything is done for them, see [`Audit::ready`]. So the events of those that are
/// under way always have a place in the queue: one can be recorded even when its client has left.
#[derive(Debug)]
pub struct Audit {
    on: AtomicBool,
    queue: mpsc::UnboundedSender<Line>,
    queued: Arc<Queued>,
    events: Events,
    written: AtomicU64,
    waits: AtomicU64,
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

/// One request that matched a route, or several that are alike.
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
    /// What it asked for, where the path does not say it.
    pub commands: Option<&'a Commands>,
    /// How many requests this stands for, where it is more than this one.
    pub count: Option<u64>,
}

impl Audit {
    /// Starts the thread that writes events to `target`.
    pub fn start(target: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (queue, lines) = mpsc::unbounded_channel();
        let (failed, queued) = (Arc::new(AtomicU64::new(0)), Arc::new(Queued::default()));
        let writer = Writer {
            target: BufWriter::with_capacity(64 * 1024, target),
            queued: queued.clone(),
            failed: failed.clone(),
        };
        std::thread::Builder::new().name("audit".into()).spawn(move || writer.run(lines))?;
        Ok(Self {
            on: AtomicBool::new(true),
            queue,
            queued,
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

    /// Whether anybody takes events now; if not, nothing is recorded.
    pub fn is_wanted(&self) -> bool {
        self.on.load(Ordering::Relaxed) || self.events.has_readers()
    }

    /// Waits while the queue is full. To be called before a request is answered whose event is then recorded.
    pub async fn ready(&self, patience: Patience) {
        if !self.queued.is_full(patience) {
            return;
        }
        self.waits.fetch_add(1, Ordering::Relaxed);
        loop {
            let mut shorter = std::pin::pin!(self.queued.shorter.notified());
            // From here on no notification is missed.
            shorter.as_mut().enable();
            if !self.queued.is_full(patience) {
                return;
            }
            shorter.await;
        }
    }

    /// Records an event. It is never dropped.
    pub fn record(&self, event: &Event<'_>) {
        let to_target = self.on.load(Ordering::Relaxed);
        let to_stream = self.events.has_readers();
        if !to_target && !to_stream {
            return;
        }
        for line in event.to_lines() {
            self.send(line, to_target, to_stream);
        }
    }

    fn send(&self, line: Bytes, to_target: bool, to_stream: bool) {
        self.written.fetch_add(1, Ordering::Relaxed);
        if to_stream {
            self.events.send(&line);
        }
        if to_target {
            self.queued.events.fetch_add(1, Ordering::Relaxed);
            // The thread ends with the queue, not before.
            let _ = self.queue.send(Line::Event(line));
        }
    }

    /// The stream of events.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Events so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// How many requests waited because the queue was full.
    pub fn waits(&self) -> u64 {
        self.waits.load(Ordering::Relaxed)
    }

    /// Lines the target refused, because of a full disk or a closed pipe for example.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Events that wait for the target.
    pub fn queued(&self) -> usize {
        self.queued.events.load(Ordering::Relaxed)
    }

    /// Waits until every event recorded so far is written: for ever, if the target takes nothing.
    pub async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        if self.queue.send(Line::Flush(done)).is_ok() {
            let _ = wait.await;
        }
    }
}

impl Queued {
    fn is_full(&self, patience: Patience) -> bool {
        let limit = match patience {
            Patience::Ordinary => QUEUE,
            Patience::Reserved => QUEUE + RESERVE,
        };
        self.events.load(Ordering::Relaxed) >= limit
    }

    fn shorten(&self, events: usize) {
        self.events.fetch_sub(events, Ordering::Relaxed);
        self.shorter.notify_waiters();
    }
}

impl Event<'_> {
    /// One line; of a request with very many commands several, each with some of them.
    fn to_lines(&self) -> Vec<Bytes> {
        let parts = self.commands.map(Commands::parts).unwrap_or_else(|| vec![&[]]);
        let count = parts.len();
        parts.iter().zip(1..).map(|(commands, part)| self.to_line(commands, (part, count))).collect()
    }

    fn to_line(&self, commands: &[Command], (part, parts): (usize, usize)) -> Bytes {
        #[derive(Serialize)]
        struct Object<'a> {
            time: String,
            request: Request<'a>,
            response: Response,
            #[serde(skip_serializing_if = "str::is_empty")]
            enclave: &'a str,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            commands: &'a [Command],
            #[serde(skip_serializing_if = "Option::is_none")]
            part: Option<usize>,
            #[serde(skip_serializing_if = "Option::is_none")]
            parts: Option<usize>,
            #[serde(skip_serializing_if = "Option::is_none")]
            count: Option<u64>,
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
        let path = cut(self.path, MAX_PATH);
        let line = Object {
            time: self.time.format(&Rfc3339).unwrap_or_default(),
            request: Request { ip: self.ip, path: &path, identity: self.identity },
            response: Response { code: self.code, time: u64::try_from(self.took.as_nanos()).unwrap_or(u64::MAX) },
            enclave: self.commands.map(Commands::enclave).unwrap_or_default(),
            commands,
            part: (parts > 1).then_some(part),
            parts: (parts > 1).then_some(parts),
            count: self.count,
        };
        let mut bytes = Vec::with_capacity(256 + path.len());
        // Writing to memory cannot fail, and the line holds nothing that JSON cannot express.
        let _ = serde_json::to_writer(&mut bytes, &line);
        bytes.push(b'\n');
        printable_json(bytes).into()
    }
}

/// The thread that writes to the target.
struct Writer<T: Write> {
    target: BufWriter<T>,
    queued: Arc<Queued>,
    failed: Arc<AtomicU64>,
}

impl<T: Write> Writer<T> {
    fn run(mut self, mut lines: mpsc::UnboundedReceiver<Line>) {
        let mut batch = Vec::new();
        while lines.blocking_recv_many(&mut batch, QUEUE) > 0 {
            let mut flushes = Vec::new();
            let mut written = Ok(());
            let mut count = 0;
            for line in batch.drain(..) {
                match line {
                    Line::Event(line) => {
                        count += 1;
                        written = written.and_then(|()| self.target.write_all(&line));
                    }
                    Line::Flush(done) => flushes.push(done),
                }
            }
            if let Err(error) = written.and_then(|()| self.target.flush()) {
                self.fail(count, &error);
            }
            self.queued.shorten(count);
            for done in flushes {
                let _ = done.send(());
            }
            gather();
        }
    }

    fn fail(&self, count: usize, error: &std::io::Error) {
        if self.failed.fetch_add(count as u64, Ordering::Relaxed) == 0 {
            tracing::error!(
                %error,
                "audit events cannot be written to standard output; requests are answered all the same"
            );
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the thread that writes events serves no request")]
fn gather() {
    std::thread::sleep(GATHER);
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc as std_mpsc;

    use super::*;

    /// Takes one write for each permit that the test sends.
    struct Stalled {
        permits: std_mpsc::Receiver<()>,
        seen: std_mpsc::Sender<usize>,
    }

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.permits.recv().map_err(std::io::Error::other)?;
            let _ = self.seen.send(bytes.iter().filter(|byte| **byte == b'\n').count());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn event() -> Event<'static> {
        Event {
            time: OffsetDateTime::UNIX_EPOCH,
            ip: IpAddr::from([127, 0, 0, 1]),
            path: "/v1/key/create/k",
            identity: "",
            code: 200,
            took: Duration::from_nanos(1_500),
            commands: None,
            count: None,
        }
    }

    #[test]
    fn a_line_is_what_clients_decode() {
        assert_eq!(
            event().to_lines(),
            ["{\"time\":\"1970-01-01T00:00:00Z\",\"request\":{\"ip\":\"127.0.0.1\",\"path\":\"/v1/key/create/k\",\
             \"identity\":\"\"},\"response\":{\"code\":200,\"time\":1500}}\n"]
        );
    }

    #[test]
    fn a_request_of_many_commands_makes_several_events_that_together_name_each() {
        let mut commands = Commands::of("tenant");
        commands.add("KEY:DECRYPT", "k", "");
        fn lines_of(commands: &Commands) -> Vec<Bytes> {
            Event { commands: Some(commands), ..event() }.to_lines()
        }
        let lines = lines_of(&commands);
        let [one] = &lines[..] else { panic!("one line") };
        let end: &[u8] =
            b"\"time\":1500},\"enclave\":\"tenant\",\"commands\":[{\"action\":\"KEY:DECRYPT\",\"name\":\"k\"}]}\n";
        assert!(one.ends_with(end), "{one:?}");
        (0..2_000).for_each(|n| commands.add("KEY:DELETE", &n.to_string(), "all versions"));
        let lines = lines_of(&commands);
        let mut names = Vec::new();
        for (at, line) in lines.iter().enumerate() {
            assert!(line.len() < 8_192, "{}", line.len());
            let line: serde_json::Value = serde_json::from_slice(line).expect("JSON");
            assert_eq!((&line["part"], &line["parts"]), (&(at + 1).into(), &lines.len().into()));
            assert_eq!((&line["response"]["code"], &line["enclave"]), (&200.into(), &"tenant".into()));
            names.extend(line["commands"].as_array().expect("commands").iter().map(|c| c["name"].clone()));
        }
        assert!(names.len() == 2_001 && names[2_000] == "1999");
    }

    #[test]
    fn whatever_a_client_sends_a_line_is_short_and_shows_what_it_says() {
        let path = format!("/v1/key/create/\u{9b}2J\u{202e}{}", "x".repeat(60_000));
        let line = Event { path: &path, count: Some(84), ..event() }.to_lines();
        let [line] = &line[..] else { panic!("one line") };
        let line = std::str::from_utf8(line).expect("text");
        assert!(line.len() < 800 && line.contains("/create/\\u009b2J\\u202exx") && line.contains("x…\""), "{line}");
        assert!(line.ends_with(",\"count\":84}\n"), "{line}");
    }

    #[tokio::test]
    async fn when_the_queue_is_full_requests_wait_and_nothing_is_lost() {
        let (permit, permits) = std_mpsc::channel();
        let (seen, lines) = std_mpsc::channel();
        let audit = Audit::start(Stalled { permits, seen }).expect("a thread");
        for _ in 0..QUEUE {
            audit.ready(Patience::Ordinary).await;
            audit.record(&event());
        }
        audit.ready(Patience::Reserved).await;
        let mut next = Box::pin(audit.ready(Patience::Ordinary));
        assert!(futures_util::poll!(&mut next).is_pending());
        assert_eq!((audit.waits(), audit.queued()), (1, QUEUE));
        // One that was under way already need not wait.
        audit.record(&event());
        for _ in 0..QUEUE {
            permit.send(()).expect("the thread runs");
        }
        next.await;
        audit.flush().await;
        assert_eq!(audit.queued(), 0);
        assert_eq!(lines.try_iter().sum::<usize>(), QUEUE + 1);
        assert_eq!(audit.written(), QUEUE as u64 + 1);
    }

    #[tokio::test]
    async fn a_target_that_fails_holds_up_nobody_and_is_counted() {
        let (_, permits) = std_mpsc::channel();
        let (seen, _) = std_mpsc::channel();
        let audit = Audit::start(Stalled { permits, seen }).expect("a thread");
        for _ in 0..2 * QUEUE {
            audit.ready(Patience::Ordinary).await;
            audit.record(&event());
        }
        audit.flush().await;
        assert_eq!(audit.failed(), 2 * QUEUE as u64);
    }
}
