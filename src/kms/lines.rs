//! The queues of jobs for the writer thread. Each enclave has a line of its own, and the lines take turns. So the other
//! enclaves wait for at most one order of a busy enclave.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How much may wait in one line, in bytes of requests. When a line is full, further requests wait outside of it, each
/// held by its own task.
const ROOM: usize = 16 * 1024 * 1024;

/// At least this many lines are kept, even unused ones.
const FEW: usize = 64;

/// The queues are closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Closed;

/// A place in a line. It takes room until it is dropped.
#[derive(Debug)]
pub(super) struct Room {
    _permit: OwnedSemaphorePermit,
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Next<J> {
    /// A job, and its place.
    Job(J, Room),
    /// No job within the time, or somebody wants to be looked after.
    Nothing,
    /// The queues are closed and empty.
    End,
}

/// The waiting jobs.
pub(super) struct Lines<J> {
    inner: Mutex<Inner<J>>,
    /// Notified when a job has come, or when the queues are closed.
    changed: Condvar,
}

struct Inner<J> {
    lines: BTreeMap<String, Line<J>>,
    /// The lines with waiting jobs, in the order of their turns.
    turns: VecDeque<String>,
    /// With this many lines, unused ones are removed: their enclaves may be gone, too.
    most: usize,
    is_open: bool,
    is_woken: bool,
}

struct Line<J> {
    jobs: VecDeque<(J, Room)>,
    room: Arc<Semaphore>,
}

impl<J> Lines<J> {
    /// Empty queues.
    pub(super) fn new() -> Self {
        let inner = Inner { lines: BTreeMap::new(), turns: VecDeque::new(), most: FEW, is_open: true, is_woken: false };
        Self { inner: Mutex::new(inner), changed: Condvar::new() }
    }

    /// Adds a job of this many bytes to a line. Waits while the line is full.
    ///
    /// # Errors
    /// When the queues are closed.
    pub(super) async fn join(&self, line: &str, bytes: usize, job: J) -> Result<(), Closed> {
        let room = self.room_of(line)?;
        let bytes = u32::try_from(bytes.min(ROOM)).unwrap_or(u32::MAX);
        let permit = room.acquire_many_owned(bytes).await.map_err(|_| Closed)?;
        let mut inner = self.lock();
        if !inner.is_open {
            return Err(Closed);
        }
        inner.push(line, job, Room { _permit: permit });
        self.changed.notify_one();
        Ok(())
    }

    /// What comes next. Waits for it, but no longer than `patience`.
    pub(super) fn take(&self, patience: Option<Duration>) -> Next<J> {
        let mut inner = self.lock();
        loop {
            if std::mem::take(&mut inner.is_woken) {
                return Next::Nothing;
            }
            if let Some((job, room)) = inner.pop() {
                return Next::Job(job, room);
            }
            if !inner.is_open {
                return Next::End;
            }
            let Some(patience) = patience else {
                inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let waited = self.changed.wait_timeout(inner, patience).unwrap_or_else(PoisonError::into_inner);
            if waited.1.timed_out() {
                return Next::Nothing;
            }
            inner = waited.0;
        }
    }

    /// Wakes whoever waits in [`Lines::take`], or the next one who would.
    pub(super) fn wake(&self) {
        self.lock().is_woken = true;
        self.changed.notify_one();
    }

    /// The next job, if one waits.
    pub(super) fn try_take(&self) -> Option<(J, Room)> {
        self.lock().pop()
    }

    /// Closes the queues for new jobs. Waiting jobs are still done.
    pub(super) fn close(&self) {
        self.lock().is_open = false;
        self.changed.notify_all();
    }

    /// Closes the queues, and drops all waiting jobs.
    pub(super) fn abandon(&self) {
        let mut inner = self.lock();
        inner.is_open = false;
        inner.turns.clear();
        let lines = std::mem::take(&mut inner.lines);
        drop(inner);
        lines.values().for_each(|line| line.room.close());
    }

    fn room_of(&self, line: &str) -> Result<Arc<Semaphore>, Closed> {
        let mut inner = self.lock();
        if inner.is_open { Ok(inner.line(line).room.clone()) } else { Err(Closed) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<J>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J> Inner<J> {
    fn line(&mut self, name: &str) -> &mut Line<J> {
        if self.lines.len() >= self.most && !self.lines.contains_key(name) {
            // A job that waits or runs holds its place, and a task that waits outside holds a reference to the room.
            self.lines.retain(|_, line| Arc::strong_count(&line.room) > 1);
            self.most = FEW.max(2 * self.lines.len());
        }
        self.lines.entry(name.to_owned()).or_insert_with(|| {
            let room = Arc::new(Semaphore::new(ROOM));
            Line { jobs: VecDeque::new(), room }
        })
    }

    fn push(&mut self, name: &str, job: J, room: Room) {
        let line = self.line(name);
        line.jobs.push_back((job, room));
        if line.jobs.len() == 1 {
            self.turns.push_back(name.to_owned());
        }
    }

    fn pop(&mut self) -> Option<(J, Room)> {
        let name = self.turns.pop_front()?;
        let line = self.lines.get_mut(&name)?;
        let job = line.jobs.pop_front();
        if !line.jobs.is_empty() {
            self.turns.push_back(name);
        }
        job
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn join(lines: &Lines<&'static str>, line: &str, bytes: usize, job: &'static str) -> Option<Result<(), Closed>> {
        lines.join(line, bytes, job).now_or_never()
    }

    fn taken(lines: &Lines<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| lines.try_take()).map(|(job, _)| job).collect()
    }

    fn next(lines: &Lines<&'static str>) -> Option<&'static str> {
        if let Next::Job(job, _) = lines.take(None) { Some(job) } else { None }
    }

    #[test]
    fn who_is_woken_comes_back_without_a_job() {
        let lines = Lines::<&str>::new();
        lines.wake();
        assert!(matches!(lines.take(None), Next::Nothing));
        assert!(matches!(lines.take(Some(Duration::from_millis(1))), Next::Nothing));
        assert_eq!(join(&lines, "a", 1, "job"), Some(Ok(())));
        assert_eq!(next(&lines), Some("job"));
    }

    #[test]
    fn lines_take_turns_and_each_is_served_in_its_order() {
        let lines = Lines::new();
        for (line, job) in [("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("c", "c1"), ("b", "b2")] {
            assert_eq!(join(&lines, line, 1, job), Some(Ok(())));
        }
        assert_eq!(next(&lines), Some("a1"));
        // Who comes now is behind those who have not had their turn.
        assert_eq!(join(&lines, "d", 1, "d1"), Some(Ok(())));
        assert_eq!(taken(&lines), ["b1", "c1", "a2", "d1", "b2", "a3"]);
    }

    #[test]
    fn lines_that_nobody_uses_go() {
        let lines = Lines::new();
        assert_eq!(join(&lines, "used", 1, "waits"), Some(Ok(())));
        for n in 0..10 * FEW {
            assert_eq!(join(&lines, &format!("e-{n}"), 1, "job"), Some(Ok(())));
            // "waits" first, and then each as it comes.
            lines.try_take().expect("a job");
        }
        assert!(lines.lock().lines.len() <= FEW + 1);
        assert_eq!(taken(&lines), ["job"]);
    }

    #[test]
    fn a_full_line_keeps_only_its_own_people_waiting() {
        let lines = Lines::new();
        assert_eq!(join(&lines, "a", ROOM - 1, "most"), Some(Ok(())));
        assert_eq!(join(&lines, "a", 2, "left"), None);
        assert_eq!(join(&lines, "b", 10 * ROOM, "all of it"), Some(Ok(())));
        let Next::Job(most, room) = lines.take(None) else { panic!("a job") };
        assert_eq!((most, join(&lines, "a", 2, "left")), ("most", None), "it is still being done");
        drop(room);
        assert_eq!(join(&lines, "a", 2, "came"), Some(Ok(())));
        assert_eq!(taken(&lines), ["all of it", "came"]);
    }

    #[test]
    fn who_waits_is_served_after_closing_and_nobody_else() {
        let lines = Lines::new();
        assert_eq!(join(&lines, "a", 1, "waits"), Some(Ok(())));
        lines.close();
        assert_eq!(join(&lines, "a", 1, "late"), Some(Err(Closed)));
        assert_eq!(next(&lines), Some("waits"));
        assert_eq!(next(&lines), None);
    }

    #[tokio::test]
    async fn nobody_waits_for_ever_when_all_are_sent_away() {
        let lines = Arc::new(Lines::new());
        assert_eq!(join(&lines, "a", ROOM, "waits"), Some(Ok(())));
        let outside = tokio::spawn({
            let lines = lines.clone();
            async move { lines.join("a", 1, "outside").await }
        });
        tokio::task::yield_now().await;
        lines.abandon();
        assert_eq!(outside.await.expect("no panic"), Err(Closed));
        assert_eq!(next(&lines), None);
    }
}
