//! Audit events in a file, which may be moved away and opened anew. None is lost: what cannot be written is tried again
//! until it is, and requests wait.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::target::{Sink, Target};

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// The permissions of a file that is made: its group may read it.
const MODE: u32 = 0o640;

/// A file that is open, and can be written to.
#[derive(Debug)]
pub struct Opened {
    path: PathBuf,
    file: File,
}

impl Opened {
    /// Opens a file to append to it; makes it where it is missing.
    ///
    /// # Errors
    /// When it cannot be opened, or is no regular file.
    pub fn open(path: &Path) -> io::Result<Self> {
        // Not to wait for the reader of a pipe.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().append(true).create(true).mode(MODE).custom_flags(flags).open(path)?;
        match file.metadata()?.is_file() {
            true => Ok(Self { path: path.to_owned(), file }),
            false => Err(io::Error::other("it is no regular file")),
        }
    }
}

#[cfg(test)]
impl Opened {
    /// A file at `path`, as long as it is not opened anew on a disk that is full.
    pub(super) fn on_full_disk(path: &Path) -> Self {
        let file = File::options().write(true).open("/dev/full").expect("it is everywhere");
        Self { path: path.to_owned(), file }
    }
}

/// The file that is written to, and the thread that does it.
#[derive(Debug)]
pub(super) struct Appender {
    pub(super) target: Target,
    path: Mutex<Option<PathBuf>>,
    next: Arc<Next>,
}

/// What the thread takes up before it writes: another file, or none.
#[derive(Debug, Default)]
struct Next {
    change: Mutex<Option<Option<File>>>,
    changed: Condvar,
}

impl Appender {
    /// Starts the thread. There is no file yet.
    pub(super) fn start() -> io::Result<Self> {
        let next = Arc::new(Next::default());
        let target = Target::start("audit-file", Writer { file: None, next: next.clone(), has_failed: false })?;
        target.set_on(false);
        Ok(Self { target, path: Mutex::default(), next })
    }

    /// Writes to this file from now on, or to none.
    pub(super) fn set(&self, opened: Option<Opened>) {
        let (path, file) = opened.map(|Opened { path, file }| (path, file)).unzip();
        self.target.set_on(path.is_some());
        *self.path.lock().unwrap_or_else(PoisonError::into_inner) = path;
        self.next.change_to(file);
    }

    /// Opens the same file anew.
    pub(super) fn reopen(&self) -> io::Result<()> {
        let path = self.path.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(path) = path else { return Ok(()) };
        let Opened { file, .. } = Opened::open(&path)
            .map_err(|error| io::Error::new(error.kind(), format!("'{}': {error}", path.display())))?;
        self.next.change_to(Some(file));
        Ok(())
    }
}

impl Next {
    fn change_to(&self, file: Option<File>) {
        *self.change.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        self.changed.notify_one();
    }

    fn take(&self) -> Option<Option<File>> {
        self.change.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits for a change, but not for long.
    fn wait(&self) {
        let change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_timeout_while(change, PAUSE, |change| change.is_none()));
    }
}

/// What the thread does.
struct Writer<W> {
    /// None: there is no file any more, and what still comes is lost.
    file: Option<W>,
    next: Arc<Next>,
    has_failed: bool,
}

impl Sink for Writer<File> {
    fn write(&mut self, lines: &[Bytes], failed: &AtomicU64) {
        let bytes = lines.concat();
        let mut done = 0;
        loop {
            if let Some(file) = self.next.take() {
                self.file = file;
                done = start_of_line(&bytes, done);
            }
            let Some(file) = &mut self.file else {
                failed.fetch_add(lines.len() as u64, Ordering::Relaxed);
                return;
            };
            let Err(error) = append(file, &bytes, &mut done) else { break };
            failed.fetch_add(lines.len() as u64, Ordering::Relaxed);
            if !std::mem::replace(&mut self.has_failed, true) {
                tracing::error!(%error, "audit events cannot be written to the file; requests wait until they can");
            }
            self.next.wait();
        }
        if std::mem::take(&mut self.has_failed) {
            tracing::info!("audit events are written to the file again");
        }
    }
}

/// Writes what follows the first `done` bytes, and counts it as done as far as it is.
fn append(file: &mut impl Write, bytes: &[u8], done: &mut usize) -> io::Result<()> {
    while *done < bytes.len() {
        match file.write(&bytes[*done..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => *done += written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Where the line begins that was written in part: another file gets the whole of it.
fn start_of_line(bytes: &[u8], done: usize) -> usize {
    bytes[..done].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, and then fails.
    struct Full(Vec<u8>, usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let room = self.1 - self.0.len();
            match room.min(bytes.len()) {
                0 => Err(io::ErrorKind::StorageFull.into()),
                len => {
                    self.0.extend_from_slice(&bytes[..len]);
                    Ok(len)
                }
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_was_cut_off_goes_on_where_it_ended_and_is_whole_in_another_file() {
        let (text, mut done) = (b"one\ntwo\nthree\n", 0);
        let mut disk = Full(Vec::new(), 6);
        assert!(append(&mut disk, text, &mut done).is_err());
        assert_eq!((disk.0.as_slice(), done), (&b"one\ntw"[..], 6));
        let mut other = Full(Vec::new(), 100);
        let mut anew = start_of_line(text, done);
        append(&mut other, text, &mut anew).expect("there is room");
        assert_eq!(other.0, b"two\nthree\n");
        disk.1 = 100;
        append(&mut disk, text, &mut done).expect("there is room");
        assert_eq!(disk.0, text);
        assert_eq!((start_of_line(text, 0), start_of_line(text, 4)), (0, 4));
    }

    #[tokio::test]
    async fn events_follow_the_path_and_end_with_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.log");
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).expect("readable");
        let appender = Appender::start().expect("a thread");
        let write = async |line: &'static str| {
            appender.target.send(Bytes::from_static(line.as_bytes()));
            appender.target.flush().await;
        };
        std::fs::write(&path, "before\n").expect("written");
        appender.set(Some(Opened::open(&path).expect("a file")));
        assert!(appender.target.is_on());
        write("one\n").await;
        std::fs::rename(&path, directory.path().join("audit.log.1")).expect("moved away");
        write("two\n").await;
        appender.reopen().expect("opened");
        write("three\n").await;
        assert_eq!((read("audit.log.1").as_str(), read("audit.log").as_str()), ("before\none\ntwo\n", "three\n"));
        appender.set(None);
        assert!(!appender.target.is_on());
        write("lost\n").await;
        assert_eq!((read("audit.log").as_str(), appender.target.failed()), ("three\n", 1));
        appender.reopen().expect("there is nothing to open");
        assert!(Opened::open(directory.path()).is_err());
        rustix::fs::mknodat(
            rustix::fs::CWD,
            directory.path().join("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .expect("a pipe");
        assert!(Opened::open(&directory.path().join("pipe")).is_err());
    }

    #[tokio::test]
    async fn what_cannot_be_written_waits_and_is_written_once_it_can() {
        let directory = tempfile::tempdir().expect("a directory");
        let appender = Appender::start().expect("a thread");
        appender.set(Some(Opened::on_full_disk(&directory.path().join("audit.log"))));
        for _ in 0..3 {
            appender.target.send(Bytes::from_static(b"event\n"));
        }
        while appender.target.failed() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(appender.target.queued() > 0);
        appender.reopen().expect("there is room elsewhere");
        appender.target.flush().await;
        let written = std::fs::read_to_string(directory.path().join("audit.log")).expect("readable");
        assert_eq!((written.as_str(), appender.target.queued()), ("event\nevent\nevent\n", 0));
    }
}
