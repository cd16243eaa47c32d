//! The log: one JSON object a line on stderr, and the stream of `/v1/log/error`.
//!
//! Code logs with the macros of `tracing`; [`Layer`] turns the events into lines. Lines go through a queue, so that no
//! request waits for a slow terminal. When the queue is full, lines are dropped and counted. Lines of the target
//! [`KEPT`] are never dropped; their writer waits instead.

use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI8, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::oneshot;
use tracing::field::{Field, Visit};

use super::Events;
use crate::clock;
use crate::foreign::printable_json;

/// How many lines may wait for stderr.
const QUEUE: usize = 4_096;

/// The target of events that are never dropped: whoever makes one waits until stderr takes lines again. So it is for
/// threads that may wait, and for what must be on record.
pub const KEPT: &str = "claviger::kept";

/// How long such a thread waits before it tries again.
const AGAIN: Duration = Duration::from_millis(10);

/// How important an event is: the numbers of Go's `slog` (DEBUG -4, INFO 0, WARN 4, ERROR 8), so that
/// levels in between, such as `INFO+2`, have a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(pub i8);

impl Level {
    /// Above every event: nothing is logged.
    const OFF: i8 = i8::MAX;

    /// Parses a level as the config file writes it: a name in any case, a name and what to add, as in `INFO+2`, or
    /// a number. Numbers beyond every level are the outermost one.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_uppercase();
        let (name, offset) = text.split_once('+').unwrap_or((&text, "0"));
        let base = match name {
            "DEBUG" => -4,
            "INFO" => 0,
            "WARN" => 4,
            "ERROR" => 8,
            _ => return text.parse().ok().map(Self::of_number),
        };
        Some(Self::of_number(offset.parse::<i64>().ok()?.saturating_add(base)))
    }

    fn of_number(number: i64) -> Self {
        Self(number.clamp(i8::MIN.into(), (i8::MAX - 1).into()).try_into().expect("clamped to its range"))
    }

    fn of(level: tracing::Level) -> Self {
        Self(match level {
            tracing::Level::ERROR => 8,
            tracing::Level::WARN => 4,
            tracing::Level::INFO => 0,
            _ => -4,
        })
    }
}

/// "INFO", "WARN+2", … as the config file writes levels.
impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, base) = match self.0 {
            8.. => ("ERROR", 8),
            4.. => ("WARN", 4),
            0.. => ("INFO", 0),
            _ => ("DEBUG", -4),
        };
        match self.0 - base {
            0 => f.write_str(name),
            offset => write!(f, "{name}{offset:+}"),
        }
    }
}

/// A line of the log, and what is known of it.
#[derive(Debug, Clone)]
pub struct Record {
    /// The line as it is written to the target: a JSON object.
    pub line: Bytes,
    /// When it was made.
    pub time: OffsetDateTime,
    /// How important it is.
    pub level: Level,
    /// Where it was made.
    pub place: Place,
}

impl AsRef<[u8]> for Record {
    fn as_ref(&self) -> &[u8] {
        &self.line
    }
}

/// A place in the program, which the compiler knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The module.
    pub module: &'static str,
    /// The file, from the root of the program's source.
    pub file: &'static str,
    /// The line in it, from 1.
    pub line: u32,
}

impl Place {
    fn of(event: &tracing::Event<'_>) -> Self {
        let metadata = event.metadata();
        let (module, file) = (metadata.module_path().unwrap_or_default(), metadata.file().unwrap_or_default());
        Self { module, file, line: metadata.line().unwrap_or_default() }
    }
}

/// The log's target, level and stream.
#[derive(Debug)]
pub struct Log {
    threshold: AtomicI8,
    waits: AtomicBool,
    queue: mpsc::SyncSender<Line>,
    events: Events,
    records: Events<Record>,
    written: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Debug)]
enum Line {
    Event(Bytes),
    Flush(oneshot::Sender<()>),
}

impl Log {
    /// A log that writes to `target` from a thread of its own.
    pub fn start(target: impl Write + Send + 'static) -> std::io::Result<Arc<Self>> {
        let (queue, lines) = mpsc::sync_channel(QUEUE);
        std::thread::Builder::new().name("log".into()).spawn(move || write_lines(&lines, target))?;
        Ok(Arc::new(Self {
            threshold: AtomicI8::new(0),
            waits: AtomicBool::new(true),
            queue,
            events: Events::default(),
            records: Events::default(),
            written: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }))
    }

    /// Sets the least level that is written to the target; `None` switches the target off. Readers
    /// of the stream get events of INFO and above all the same.
    pub fn set_level(&self, level: Option<Level>) {
        self.threshold.store(level.map_or(Level::OFF, |level| level.0), Ordering::Relaxed);
    }

    /// The stream of events.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// The stream of whole lines, as they are written to the target: readers get those of every level, and those of
    /// INFO and above can be kept.
    pub fn records(&self) -> &Events<Record> {
        &self.records
    }

    /// Events so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Lines dropped because the target was too slow.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything logged so far is written: for ever, if the target takes nothing.
    pub async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        let mut flush = Line::Flush(done);
        // A queue of the standard library, since events come from threads that must not wait.
        while let Err(mpsc::TrySendError::Full(line)) = self.queue.try_send(flush) {
            flush = line;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let _ = wait.await;
    }

    fn log(&self, level: Level, place: Place, is_kept: bool, fields: Fields) {
        let to_target = level.0 >= self.threshold.load(Ordering::Relaxed);
        let to_stream = level >= Level(0) && self.events.has_readers();
        let to_records = self.records.has_readers() || level >= Level(0) && self.records.keeps();
        if !to_target && !to_stream && !to_records {
            return;
        }
        self.written.fetch_add(1, Ordering::Relaxed);
        if to_stream {
            self.events.send(&fields.stream_line());
        }
        let time = clock::now();
        let line = fields.target_line(time, level);
        if to_records {
            self.records.send(&Record { line: line.clone(), time, level, place });
        }
        if !to_target {
            return;
        }
        let line = Line::Event(line);
        let is_sent = if is_kept { self.send_patiently(line) } else { self.queue.try_send(line).is_ok() };
        if !is_sent {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn send_patiently(&self, mut line: Line) -> bool {
        loop {
            match self.queue.try_send(line) {
                Ok(()) => return true,
                Err(mpsc::TrySendError::Full(back)) if self.waits.load(Ordering::Relaxed) => {
                    line = back;
                    wait();
                }
                Err(_) => return false,
            }
        }
    }

    /// Stops waiting for a blocked target, because the program ends.
    pub fn stop_waiting(&self) {
        self.waits.store(false, Ordering::Relaxed);
    }
}

#[expect(clippy::disallowed_methods, reason = "only threads that may wait make such lines")]
fn wait() {
    std::thread::sleep(AGAIN);
}

fn write_lines(lines: &mpsc::Receiver<Line>, mut target: impl Write) {
    for line in lines {
        // A target that cannot be written to has no better place to say so.
        let _ = match line {
            Line::Event(line) => target.write_all(&line),
            Line::Flush(done) => {
                let flushed = target.flush();
                let _ = done.send(());
                flushed
            }
        };
    }
}

/// Connects `tracing` with a [`Log`].
#[derive(Debug)]
pub struct Layer(Arc<Log>);

impl Layer {
    /// Makes `log` the place where all events of the program go.
    pub fn install(log: Arc<Log>) -> anyhow::Result<()> {
        Ok(tracing::subscriber::set_global_default(Self::subscriber(log))?)
    }

    /// Hands events to `log`.
    pub(crate) fn subscriber(log: Arc<Log>) -> impl tracing::Subscriber + Send + Sync {
        use tracing_subscriber::layer::SubscriberExt as _;
        tracing_subscriber::registry().with(Self(log))
    }
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Layer {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: tracing_subscriber::layer::Context<'_, S>) -> bool {
        metadata.is_event() && metadata.target().starts_with("claviger") && *metadata.level() <= tracing::Level::DEBUG
    }

    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        self.0.log(Level::of(*metadata.level()), Place::of(event), metadata.target() == KEPT, fields);
    }
}

/// The fields of one event, in the order in which the program names them.
#[derive(Default)]
struct Fields {
    message: String,
    rest: Vec<(&'static str, Value)>,
}

impl Fields {
    fn target_line(self, time: OffsetDateTime, level: Level) -> Bytes {
        let mut object = Map::new();
        let time = time.format(&Rfc3339).unwrap_or_default();
        object.insert("time".into(), Value::String(time));
        object.insert("level".into(), Value::String(level.to_string()));
        object.insert("message".into(), Value::String(self.message));
        for (name, value) in self.rest {
            object.insert(name.into(), value);
        }
        line(object)
    }

    /// What clients of `/v1/log/error` decode: one `message`.
    fn stream_line(&self) -> Bytes {
        let mut message = self.message.clone();
        for (name, value) in &self.rest {
            match value {
                Value::String(text) => message.push_str(&format!(" {name}={text}")),
                value => message.push_str(&format!(" {name}={value}")),
            }
        }
        line(Map::from_iter([("message".into(), Value::String(message))]))
    }
}

fn line(object: Map<String, Value>) -> Bytes {
    let mut line = printable_json(Value::Object(object).to_string().into_bytes());
    line.push(b'\n');
    // No larger than it is: it may be kept for long.
    line.into_boxed_slice().into()
}

/// Numbers and truth values stay what they are, for whoever counts with them.
impl Visit for Fields {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.rest.push((field.name(), value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.rest.push((field.name(), value.into()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.rest.push((field.name(), value.into()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.rest.push((field.name(), value.into()));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.record_debug(field, &format_args!("{}", causes(value)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.rest.push((field.name(), Value::String(format!("{value:?}"))));
        }
    }
}

/// Logs that a thread panicked. What it says may hold anything, so only its place is logged.
pub fn panicked(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(place, "the program panicked; this is a defect, please report it");
}

/// An error and its causes in one line.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Takes nothing before it is told to, then counts lines.
    struct Slow {
        gate: Option<mpsc::Receiver<()>>,
        lines: Arc<AtomicUsize>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if let Some(gate) = self.gate.take() {
                gate.recv().map_err(std::io::Error::other)?;
            }
            self.lines.fetch_add(bytes.iter().filter(|byte| **byte == b'\n').count(), Ordering::Relaxed);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_line_that_must_be_on_record_waits_for_a_slow_target_and_others_do_not() {
        const MANY: usize = QUEUE + 100;
        let (open, gate) = mpsc::channel();
        let lines = Arc::<AtomicUsize>::default();
        let log = Log::start(Slow { gate: Some(gate), lines: lines.clone() }).expect("a thread");
        tracing::subscriber::with_default(Layer::subscriber(log.clone()), || {
            (0..MANY).for_each(|_| tracing::info!("may be dropped"));
        });
        let dropped = log.dropped();
        assert!(dropped >= 99, "{dropped}");
        let other = log.clone();
        let writing = std::thread::spawn(move || {
            tracing::subscriber::with_default(Layer::subscriber(other), || {
                (0..MANY).for_each(|_| tracing::info!(target: KEPT, "must not be dropped"));
            });
        });
        open.send(()).expect("the thread runs");
        writing.join().expect("no panic");
        log.flush().await;
        let dropped_later = log.dropped() - dropped;
        let total = 2 * MANY as u64 - dropped;
        assert_eq!((dropped_later, lines.load(Ordering::Relaxed) as u64), (0, total));
    }

    #[test]
    fn nobody_waits_for_a_stalled_target_when_the_program_ends() {
        let (_open, gate) = mpsc::channel();
        let log = Log::start(Slow { gate: Some(gate), lines: Arc::default() }).expect("a thread");
        let other = log.clone();
        let writing = std::thread::spawn(move || {
            tracing::subscriber::with_default(Layer::subscriber(other), || {
                (0..QUEUE + 100).for_each(|_| tracing::info!(target: KEPT, "must not be dropped"));
            });
        });
        // One is with the target, as many as there is room for are in the queue, and the next one waits.
        while log.written() < QUEUE as u64 + 2 {
            std::thread::yield_now();
        }
        assert_eq!(log.dropped(), 0);
        log.stop_waiting();
        writing.join().expect("no panic");
        assert!(log.dropped() >= 98, "{}", log.dropped());
    }

    #[test]
    fn levels_are_those_of_the_config_file() {
        for (text, level, shown) in [
            ("debug", -4, "DEBUG"),
            ("INFO", 0, "INFO"),
            ("Warn", 4, "WARN"),
            ("ERROR", 8, "ERROR"),
            ("INFO+2", 2, "INFO+2"),
            ("debug+4", 0, "INFO"),
            ("5", 5, "WARN+1"),
            ("-8", -8, "DEBUG-4"),
            ("+8", 8, "ERROR"),
            ("1000", 126, "ERROR+118"),
        ] {
            let parsed = Level::parse(text).expect(text);
            assert_eq!((parsed.0, parsed.to_string().as_str()), (level, shown), "{text}");
        }
        for bad in ["", "trace", "true", "INFO-1", "INFO+", "WARN+x", "INFO + 2", "5.0", "+"] {
            assert_eq!(Level::parse(bad), None, "{bad}");
        }
    }
}
