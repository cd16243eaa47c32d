//! Audit events: who asked for what, and the outcome. None is ever dropped.

mod commands;
mod file;
mod target;

use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use self::commands::Command;
use self::file::Appender;
use self::target::{Stream, Target};
use super::Events;
use super::log::Level;
use crate::foreign::{cut, printable_json};

pub use self::commands::{Commands, shown};
pub use self::file::Opened;

/// The level of audit events: a higher threshold switches their target off.
pub const LEVEL: Level = Level(0);

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

/// Where audit events go: standard output, a file, each written by a thread of its own, and a stream.
///
/// Requests wait before anything is done for them, see [`Audit::ready`]. So the events of those that are
/// under way always have a place in the queues: one can be recorded even when its client has left.
#[derive(Debug)]
pub struct Audit {
    stdout: Target,
    /// Once a config named a file.
    file: OnceLock<Appender>,
    events: Events,
    written: AtomicU64,
    waits: AtomicU64,
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
    /// Starts the thread that writes events to `target`, which is standard output.
    pub fn start(target: impl Write + Send + 'static) -> std::io::Result<Self> {
        Ok(Self {
            stdout: Target::start("audit", Stream::new(target))?,
            file: OnceLock::new(),
            events: Events::default(),
            written: AtomicU64::new(0),
            waits: AtomicU64::new(0),
        })
    }

    /// Whether events are written to standard output. Readers of the stream get them in any case.
    pub fn set_on(&self, on: bool) {
        self.stdout.set_on(on);
    }

    /// Opens a file for [`Audit::set_file`].
    ///
    /// # Errors
    /// When it cannot be opened, or nobody can write to it.
    pub fn open(&self, path: &Path) -> std::io::Result<Opened> {
        let opened = Opened::open(path)?;
        if self.file.get().is_none() {
            // Only a reload of the config comes here, and there is one at a time.
            let _ = self.file.set(Appender::start()?);
        }
        Ok(opened)
    }

    /// Writes events to this file, too, from now on, or to none.
    pub fn set_file(&self, file: Option<Opened>) {
        if let Some(appender) = self.file.get() {
            appender.set(file);
        }
    }

    /// Opens the file anew: somebody may have moved it away.
    ///
    /// # Errors
    /// When it cannot be opened. Events go on to the old one.
    pub fn reopen(&self) -> std::io::Result<()> {
        self.file.get().map_or(Ok(()), Appender::reopen)
    }

    fn targets(&self) -> impl Iterator<Item = &Target> {
        [&self.stdout].into_iter().chain(self.file.get().map(|appender| &appender.target))
    }

    /// Whether anybody takes events now; if not, nothing is recorded.
    pub fn is_wanted(&self) -> bool {
        self.targets().any(Target::is_on) || self.events.has_readers()
    }

    /// Waits while a queue is full. To be called before a request is answered whose event is then recorded.
    pub async fn ready(&self, patience: Patience) {
        let full = || self.targets().find(|target| target.is_full(patience));
        let Some(mut next) = full() else { return };
        self.waits.fetch_add(1, Ordering::Relaxed);
        loop {
            next.has_room(patience).await;
            match full() {
                Some(target) => next = target,
                None => return,
            }
        }
    }

    /// Records an event. It is never dropped.
    pub fn record(&self, event: &Event<'_>) {
        if !self.is_wanted() {
            return;
        }
        for line in event.to_lines() {
            self.written.fetch_add(1, Ordering::Relaxed);
            if self.events.has_readers() {
                self.events.send(&line);
            }
            for target in self.targets().filter(|target| target.is_on()) {
                target.send(line.clone());
            }
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

    /// How many requests waited because a queue was full.
    pub fn waits(&self) -> u64 {
        self.waits.load(Ordering::Relaxed)
    }

    /// Events that could not be written, because of a full disk or a closed pipe for example. Those that are tried again
    /// count each time.
    pub fn failed(&self) -> u64 {
        self.targets().map(Target::failed).sum()
    }

    /// Events that wait.
    pub fn queued(&self) -> usize {
        self.targets().map(Target::queued).sum()
    }

    /// Waits until every event recorded so far is written: for ever, if a target takes nothing.
    pub async fn flush(&self) {
        for target in self.targets() {
            target.flush().await;
        }
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc as std_mpsc;

    use super::target::QUEUE;
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

    #[tokio::test]
    async fn requests_wait_for_a_file_that_cannot_be_written_and_nothing_is_lost() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.log");
        let audit = Audit::start(std::io::sink()).expect("a thread");
        drop(audit.open(&path).expect("a file"));
        audit.set_on(false);
        assert!(!audit.is_wanted());
        audit.set_file(Some(Opened::on_full_disk(&path)));
        for _ in 0..QUEUE {
            audit.ready(Patience::Ordinary).await;
            audit.record(&event());
        }
        let mut next = Box::pin(audit.ready(Patience::Ordinary));
        assert!(futures_util::poll!(&mut next).is_pending());
        assert_eq!((audit.waits(), audit.queued()), (1, QUEUE));
        audit.reopen().expect("there is room now");
        next.await;
        audit.flush().await;
        assert!(audit.failed() > 0);
        assert_eq!(std::fs::read_to_string(&path).expect("readable").lines().count(), QUEUE);
    }
}
