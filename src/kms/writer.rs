//! The one thread that changes the state. It makes the changes of many requests durable together. Only then it
//! publishes the new state and answers the requests.

mod shared;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{oneshot, watch};

use self::shared::Side;
use super::command::Change;
use super::draft::Author;
use super::keeper::{self, Joining, Keeper, Pending, Prepared};
use super::lines::{Lines, Next, Room};
use super::node::Node;
use super::snapshot::Snapshot;
use super::{Action, Error};
use crate::clock;
use crate::telemetry::audit::Commands;
use crate::telemetry::log::KEPT;

/// The most requests that one transaction holds.
const TOGETHER: usize = 256;

/// How long requests for one transaction are collected.
const COLLECTING: Duration = Duration::from_millis(50);

/// The line of jobs about the whole server. No enclave has this name.
const SERVER: &str = "";

/// Sends changes to the writer thread.
pub(super) struct Writer {
    lines: Arc<Lines<Job>>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    works: Arc<AtomicBool>,
    life: watch::Receiver<Life>,
    on_new_rights: OnNewRights,
    providers: Vec<String>,
    node: Nodes,
}

/// This node of a cluster, once there is one.
type Nodes = Arc<OnceLock<Arc<Node>>>;

/// Called after a change that can take a right away, once the new snapshot is visible.
type OnNewRights = Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>;

/// Commands of one request.
pub(super) struct Order {
    /// Who changes something, when, and by which right.
    pub author: Author,
    /// The enclave that the path names; may be empty.
    pub enclave: String,
    /// The commands, in order.
    pub commands: Vec<(Action, Change)>,
    /// The size of the request, in bytes.
    pub size: usize,
}

impl Order {
    /// The line in which the order waits. An order that would be refused in any case does not wait.
    fn line(&self, snapshot: &Snapshot) -> Result<&str, Error> {
        if let Some((action, command)) = self.commands.iter().find(|(action, _)| action.is_about_server()) {
            let is_allowed = self.author.is_sysadmin(snapshot);
            return if is_allowed { Ok(SERVER) } else { Err(Error::Denied.of(*action, command.name())) };
        }
        let denied = |error: Error| match self.commands.first() {
            Some((action, command)) => error.of(*action, command.name()),
            None => error,
        };
        self.author.enter(snapshot, &self.enclave).map_err(denied)?;
        Ok(&self.enclave)
    }

    fn changes_rights(&self) -> bool {
        self.commands.iter().any(|(action, _)| action.changes_rights())
    }
}

type Done<T> = oneshot::Sender<Result<T, Error>>;

enum Job {
    Apply(Order, Done<()>),
    Whole(Whole),
}

/// Jobs about all data. Each is done alone.
enum Whole {
    Backup(Done<Vec<u8>>),
    Restore(Vec<u8>, Done<()>),
    RotateRoot(Done<()>),
    MoveIn(Box<Joining>, Done<()>),
    MoveOut(Done<()>),
}

/// An order, the caller that waits for it, and its share of the queue's size.
type Waiting = (Order, Done<()>, Room);

/// The state of the thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Works,
    /// It was told to end.
    Finished,
    /// It has ended because of a defect.
    Failed,
}

/// The writer thread has ended because of a defect: nothing can be changed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the thread that writes has ended by a defect, which the log names; nothing can be changed until the server is \
     started again. What was acknowledged is on disk"
)]
pub struct Failed;

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system cannot start a thread.
    pub(super) fn start(keeper: Keeper) -> std::io::Result<Self> {
        let snapshot = Arc::new(ArcSwap::from_pointee(keeper.snapshot().clone()));
        let (works, providers) = (Arc::new(AtomicBool::new(true)), keeper.provider_names());
        let (lines, (sender, life)) = (Arc::new(Lines::new()), watch::channel(Life::Works));
        let on_new_rights = OnNewRights::default();
        let side = Side::of(&keeper, &snapshot, &lines);
        let node = Nodes::default();
        if let Some(side) = &side {
            let _ = node.set(side.node.clone());
        }
        let end = End { lines: lines.clone(), works: works.clone(), life: sender, is_orderly: false };
        let thread = Thread {
            keeper,
            snapshot: snapshot.clone(),
            works: works.clone(),
            on_new_rights: on_new_rights.clone(),
            lines: lines.clone(),
            side,
            node: node.clone(),
        };
        std::thread::Builder::new().name("kms".into()).spawn(move || end.after(thread))?;
        Ok(Self { lines, snapshot, works, life, on_new_rights, providers, node })
    }

    /// The current state. Never waits.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Sets the function to call after each change that can take a right away.
    pub(super) fn on_new_rights(&self, act: impl Fn() + Send + Sync + 'static) {
        let _ = self.on_new_rights.set(Box::new(act));
    }

    /// Whether the last change could be written, and the next one can be tried.
    pub(super) fn works(&self) -> bool {
        self.works.load(Ordering::Relaxed) && self.node().is_none_or(|node| node.can_write())
    }

    /// This node of a cluster; none: this is the only server.
    pub(super) fn node(&self) -> Option<&Arc<Node>> {
        self.node.get().filter(|node| !node.has_left())
    }

    /// Waits until everything is known here that was acknowledged anywhere before this call.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub(super) async fn confirm(&self) -> Result<(), Error> {
        match self.node() {
            Some(node) => node.confirm().await,
            None => Ok(()),
        }
    }

    /// Checks that this server may encrypt: it knows what was destroyed.
    ///
    /// # Errors
    /// When it has not heard of the cluster since its start.
    pub(super) async fn may_encrypt(&self) -> Result<(), Error> {
        match self.node() {
            Some(node) if !node.may_encrypt() => node.confirm().await,
            _ => Ok(()),
        }
    }

    /// Makes all changes of an order, or none. A client that leaves does not stop it.
    ///
    /// # Errors
    /// When a command is refused, or the change could not be written.
    pub(super) async fn apply(&self, order: Order) -> Result<(), Error> {
        let Some(node) = self.node() else { return self.write(order).await };
        let Some(order) = self.ask_members(node, order).await? else { return Ok(()) };
        let Some(order) = self.destroy(node, order).await? else { return Ok(()) };
        let changes_rights = order.changes_rights();
        self.write(order).await?;
        if changes_rights {
            node.live_members_are_at(self.snapshot().commit).await;
        }
        Ok(())
    }

    /// Makes all changes of an order, or none, in one commit.
    ///
    /// # Errors
    /// As [`Writer::apply`].
    pub(super) async fn write(&self, order: Order) -> Result<(), Error> {
        let mut line = order.line(&self.snapshot()).map(str::to_owned);
        if line.as_ref().is_err_and(Error::is_negative) && self.node().is_some() {
            self.confirm().await?;
            line = order.line(&self.snapshot()).map(str::to_owned);
        }
        let size = order.size;
        self.ask(&line?, size, |done| Job::Apply(order, done)).await
    }

    /// A backup.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) async fn backup(&self) -> Result<Vec<u8>, Error> {
        self.confirm().await?;
        self.ask(SERVER, 0, |done| Job::Whole(Whole::Backup(done))).await
    }

    /// Replaces all data by a backup.
    ///
    /// # Errors
    /// When the backup is invalid, or cannot be written.
    pub(super) async fn restore(&self, backup: Vec<u8>) -> Result<(), Error> {
        self.ask(SERVER, backup.len(), |done| Job::Whole(Whole::Restore(backup, done))).await
    }

    /// Encrypts all data under a new root key.
    ///
    /// # Errors
    /// When the key cannot be sealed, or the data cannot be written.
    pub(super) async fn rotate_root(&self) -> Result<(), Error> {
        self.ask(SERVER, 0, |done| Job::Whole(Whole::RotateRoot(done))).await
    }

    /// Moves everything into a cluster, of which this becomes the first member. Reads go on meanwhile.
    ///
    /// # Errors
    /// When there is one already, or it does not answer.
    pub(super) async fn move_in(&self, joining: Joining) -> Result<(), Error> {
        self.ask(SERVER, 0, |done| Job::Whole(Whole::MoveIn(Box::new(joining), done))).await
    }

    /// Leaves the cluster, of which this is the only member.
    ///
    /// # Errors
    /// When it is not, or the cluster does not answer.
    pub(super) async fn move_out(&self) -> Result<(), Error> {
        self.ask(SERVER, 0, |done| Job::Whole(Whole::MoveOut(done))).await
    }

    /// Names of the providers that this server can unseal with.
    pub(super) fn providers(&self) -> &[String] {
        &self.providers
    }

    /// Waits until everything in the queue is done, and ends the thread.
    pub(super) async fn finish(&self) {
        self.lines.close();
        self.has_become(|life| life != Life::Works).await;
        if let Some(node) = self.node() {
            node.leave().await;
        }
    }

    /// Waits until the thread has ended because of a defect. Otherwise it waits for ever.
    pub(super) async fn failed(&self) -> Failed {
        self.has_become(|life| life == Life::Failed).await;
        Failed
    }

    async fn has_become(&self, what: impl Fn(Life) -> bool) {
        if self.life.clone().wait_for(|life| what(*life)).await.is_err() {
            // The thread has ended, so its state does not change any more.
            std::future::pending().await
        }
    }

    async fn ask<T>(&self, line: &str, size: usize, job: impl FnOnce(Done<T>) -> Job) -> Result<T, Error> {
        let (done, answer) = oneshot::channel();
        if self.lines.join(line, size, job(done)).await.is_err() {
            return Err(self.gone().await);
        }
        match answer.await {
            Ok(answer) => answer,
            Err(_) => Err(self.gone().await),
        }
    }

    /// The error for a missing answer: the thread has ended, or is about to.
    async fn gone(&self) -> Error {
        self.has_become(|life| life != Life::Works).await;
        let why: Box<dyn std::error::Error + Send + Sync> =
            if *self.life.borrow() == Life::Failed { Failed.into() } else { "the server stops".into() };
        Error::Unavailable(why.into())
    }
}

/// Publishes the end of the thread, also after a panic.
struct End {
    lines: Arc<Lines<Job>>,
    works: Arc<AtomicBool>,
    life: watch::Sender<Life>,
    is_orderly: bool,
}

impl End {
    /// Runs the thread until it ends. Then the store is closed.
    fn after(mut self, thread: Thread) {
        thread.run();
        self.is_orderly = true;
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if !self.is_orderly {
            self.works.store(false, Ordering::Relaxed);
        }
        // Publish the state first: callers whose jobs are dropped read it to learn why.
        self.life.send_replace(if self.is_orderly { Life::Finished } else { Life::Failed });
        self.lines.abandon();
    }
}

struct Thread {
    keeper: Keeper,
    /// None: this is the only server.
    side: Option<Side>,
    node: Nodes,
    snapshot: Arc<ArcSwap<Snapshot>>,
    works: Arc<AtomicBool>,
    on_new_rights: OnNewRights,
    lines: Arc<Lines<Job>>,
}

impl Thread {
    fn run(mut self) {
        let lines = self.lines.clone();
        let mut left = None;
        loop {
            self.follow();
            let next = left.take().map(|(job, room)| Next::Job(job, room));
            match next.unwrap_or_else(|| lines.take(self.patience())) {
                Next::Job(Job::Apply(order, done), room) if self.side.is_some() => {
                    left = self.collect_shared((order, done, room));
                }
                Next::Job(Job::Apply(order, done), room) => left = self.collect((order, done, room)),
                Next::Job(Job::Whole(job), _) => self.answer(job),
                Next::Nothing => {}
                Next::End => break,
            }
        }
        self.flush();
    }

    /// Carries out an order and those that are waiting, and writes them together. Returns a job that is not an order.
    fn collect(&mut self, first: Waiting) -> Option<(Job, Room)> {
        let mut together = Together::new(&self.keeper);
        together.add(&self.keeper, first);
        let mut other = None;
        while together.has_room()
            && other.is_none()
            && let Some((job, room)) = self.lines.try_take()
        {
            match job {
                Job::Apply(order, done) => together.add(&self.keeper, (order, done, room)),
                job @ Job::Whole(_) => other = Some((job, room)),
            }
        }
        self.commit(together);
        other
    }

    fn commit(&mut self, together: Together) {
        let Together { pending, waiting, .. } = together;
        let written = if pending.is_empty() { Ok(()) } else { self.keeper.commit(pending) };
        let written = self.note(written);
        if written.is_ok() {
            self.publish(waiting.iter().any(|(order, ..)| order.changes_rights()));
        }
        for (order, done, _room) in waiting {
            if written.is_ok() {
                log(&order);
            }
            // From here on nobody waits for an answer.
            let _ = done.send(written.clone().map_err(Error::Unavailable));
        }
    }

    fn answer(&mut self, job: Whole) {
        match job {
            Whole::Backup(done) => {
                let backup = self.keeper.backup();
                let _ = done.send(backup.map_err(|error| Error::Unavailable(Arc::new(error))));
            }
            Whole::Restore(backup, done) => {
                let restored = self.restore(&backup);
                let _ = done.send(restored);
            }
            Whole::RotateRoot(done) => {
                let rotated = self.rotate_root();
                let _ = done.send(rotated);
            }
            Whole::MoveIn(joining, done) => {
                let moved = self.move_in(*joining);
                let _ = done.send(moved);
            }
            Whole::MoveOut(done) => {
                let moved = self.move_out();
                let _ = done.send(moved);
            }
        }
    }

    fn restore(&mut self, backup: &[u8]) -> Result<(), Error> {
        match self.keeper.restore(backup) {
            Ok(()) => {}
            // The caller's mistake.
            Err(error @ (keeper::Error::Backup(_) | keeper::Error::BackupDamaged(_) | keeper::Error::Sealed(_))) => {
                return Err(Error::invalid(crate::telemetry::log::causes(&error)));
            }
            Err(error @ keeper::Error::OtherMembers(_)) => return Err(Error::Conflict(error.to_string().into())),
            Err(error) => return self.note(Err(error)).map_err(Error::Unavailable),
        }
        self.replaced(true);
        tracing::warn!(target: KEPT, "all data was replaced by a backup");
        Ok(())
    }

    fn rotate_root(&mut self) -> Result<(), Error> {
        match self.keeper.rotate_root() {
            Err(keeper::Error::NotSealed(error)) => return Err(error.into()),
            Err(keeper::Error::NoRandom(error)) => return Err(error.into()),
            Err(error @ (keeper::Error::NoHsm(_) | keeper::Error::OtherMembers(_))) => {
                return Err(Error::Conflict(error.to_string().into()));
            }
            Err(error) => return self.note(Err(error)).map_err(Error::Unavailable),
            Ok(()) => {}
        }
        self.replaced(false);
        tracing::warn!(target: KEPT, "the root key was replaced, and all data encrypted again");
        Ok(())
    }

    /// Everything was written, and could be.
    fn replaced(&self, changes_rights: bool) {
        self.works.store(true, Ordering::Relaxed);
        self.publish(changes_rights);
    }

    fn publish(&self, changes_rights: bool) {
        if self.side.is_some() {
            return self.publish_shared(changes_rights);
        }
        self.snapshot.store(Arc::new(self.keeper.snapshot().clone()));
        if changes_rights && let Some(act) = self.on_new_rights.get() {
            act();
        }
    }

    fn note(&self, written: Result<(), keeper::Error>) -> Result<(), Arc<dyn std::error::Error + Send + Sync>> {
        self.works.store(written.is_ok(), Ordering::Relaxed);
        written.map_err(|error| Arc::new(error) as _)
    }
}

/// Requests whose changes are written together.
struct Together {
    pending: Pending,
    waiting: Vec<Waiting>,
    since: Instant,
}

impl Together {
    fn new(keeper: &Keeper) -> Self {
        Self { pending: keeper.pending(), waiting: Vec::new(), since: clock::instant() }
    }

    fn has_room(&self) -> bool {
        self.waiting.len() < TOGETHER && clock::instant().saturating_duration_since(self.since) < COLLECTING
    }

    /// Adds an order. When it is refused, the caller is told at once.
    fn add(&mut self, keeper: &Keeper, (order, done, room): Waiting) {
        match prepare(keeper, &self.pending, &order) {
            Ok(prepared) => {
                self.pending.add(prepared);
                self.waiting.push((order, done, room));
            }
            Err(refused) => {
                let _ = done.send(Err(refused));
            }
        }
    }
}

/// A draft of an order on top of what is pending, encrypted. A panic is a defect; it ends this order only.
fn prepare(keeper: &Keeper, pending: &Pending, order: &Order) -> Result<Prepared, Error> {
    let prepared = catch_unwind(AssertUnwindSafe(|| draft(keeper, pending, order)));
    prepared.unwrap_or(Err(Error::Defect))
}

fn draft(keeper: &Keeper, pending: &Pending, order: &Order) -> Result<Prepared, Error> {
    let mut draft = keeper.draft(pending, order.author);
    for (action, command) in &order.commands {
        let applied = draft.apply(&order.enclave, *action, command);
        applied.map_err(|refused| refused.of(*action, command.name()))?;
    }
    keeper.prepare(draft)
}

/// Logs every change. These lines are never dropped: the thread waits when the log is full.
fn log(order: &Order) {
    let mut commands = Commands::of(&order.enclave);
    order.commands.iter().for_each(|(action, command)| command.tell(*action, &mut commands));
    let (enclave, identity) = (commands.enclave(), order.author.caller);
    for changes in commands.lines() {
        tracing::info!(target: KEPT, enclave, %identity, changes, "changed");
    }
}
