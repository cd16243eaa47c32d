//! The one thread that changes the state: it makes the changes of many requests durable together, and only then shows
//! and answers them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};

use super::command::Write;
use super::draft::Author;
use super::keeper::{self, Keeper, Pending};
use super::snapshot::Snapshot;
use super::{Action, Error};
use crate::telemetry::audit::Commands;
use crate::telemetry::log::KEPT;

/// How many requests may wait.
const QUEUE: usize = 1_024;

/// How many are written together at most.
const TOGETHER: usize = 256;

/// Hands changes to the thread.
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    works: Arc<AtomicBool>,
    on_new_rights: OnNewRights,
    providers: Vec<String>,
}

/// What is done after a change that can take a right away, as soon as all see it.
type OnNewRights = Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>;

/// Commands of one request.
pub(super) struct Order {
    /// Who, and when.
    pub author: Author,
    /// The enclave that the path names; may be empty.
    pub enclave: String,
    /// What to do.
    pub commands: Vec<(Action, Write)>,
}

impl Order {
    fn changes_rights(&self) -> bool {
        self.commands.iter().any(|(action, _)| action.changes_rights())
    }
}

type Done<T> = oneshot::Sender<Result<T, Error>>;

enum Job {
    Apply(Order, Done<()>),
    Backup(Done<Vec<u8>>),
    Restore(Vec<u8>, Done<()>),
    Stop(oneshot::Sender<()>),
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(super) fn start(keeper: Keeper) -> std::io::Result<Self> {
        let snapshot = Arc::new(ArcSwap::from_pointee(keeper.snapshot().clone()));
        let (works, providers) = (Arc::new(AtomicBool::new(true)), keeper.provider_names());
        let (jobs, queue) = mpsc::channel(QUEUE);
        let on_new_rights = OnNewRights::default();
        let thread =
            Thread { keeper, snapshot: snapshot.clone(), works: works.clone(), on_new_rights: on_new_rights.clone() };
        std::thread::Builder::new().name("kms".into()).spawn(move || thread.run(queue))?;
        Ok(Self { jobs, snapshot, works, on_new_rights, providers })
    }

    /// The state as it is now. Waits for nobody.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Says what is to be done after each change that can take a right away.
    pub(super) fn on_new_rights(&self, act: impl Fn() + Send + Sync + 'static) {
        let _ = self.on_new_rights.set(Box::new(act));
    }

    /// Whether the last change could be written.
    pub(super) fn works(&self) -> bool {
        self.works.load(Ordering::Relaxed)
    }

    /// Makes all changes of an order, or none; also when nobody waits for the answer any more.
    ///
    /// # Errors
    /// When a command is refused, or the change could not be written.
    pub(super) async fn apply(&self, order: Order) -> Result<(), Error> {
        self.ask(|done| Job::Apply(order, done)).await
    }

    /// A backup.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) async fn backup(&self) -> Result<Vec<u8>, Error> {
        self.ask(Job::Backup).await
    }

    /// Puts a backup in the place of everything.
    ///
    /// # Errors
    /// When it cannot be used, or not be written.
    pub(super) async fn restore(&self, backup: Vec<u8>) -> Result<(), Error> {
        self.ask(|done| Job::Restore(backup, done)).await
    }

    /// Names of what this server can unseal with.
    pub(super) fn providers(&self) -> &[String] {
        &self.providers
    }

    /// Waits until everything handed over so far is done, and ends the thread.
    pub(super) async fn finish(&self) {
        let (done, ended) = oneshot::channel();
        if self.jobs.send(Job::Stop(done)).await.is_ok() {
            let _ = ended.await;
        }
    }

    async fn ask<T>(&self, job: impl FnOnce(Done<T>) -> Job) -> Result<T, Error> {
        let (done, answer) = oneshot::channel();
        let gone =
            || Error::Unavailable(Arc::from(Box::<dyn std::error::Error + Send + Sync>::from("the server stops")));
        self.jobs.send(job(done)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

struct Thread {
    keeper: Keeper,
    snapshot: Arc<ArcSwap<Snapshot>>,
    works: Arc<AtomicBool>,
    on_new_rights: OnNewRights,
}

impl Thread {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut jobs = Vec::new();
        while queue.blocking_recv_many(&mut jobs, TOGETHER) > 0 {
            let mut together = Together::new(&self.keeper);
            for job in jobs.drain(..) {
                // Nobody waits any more for answers that nobody reads.
                match job {
                    Job::Apply(order, done) => together.add(&self.keeper, order, done),
                    Job::Stop(done) => {
                        self.commit(together);
                        // The store is closed before anybody thinks that it is.
                        drop(self);
                        let _ = done.send(());
                        return;
                    }
                    other => {
                        self.commit(together);
                        self.answer(other);
                        together = Together::new(&self.keeper);
                    }
                }
            }
            self.commit(together);
        }
    }

    fn commit(&mut self, together: Together) {
        let Together { pending, waiting } = together;
        let written = if pending.is_empty() { Ok(()) } else { self.keeper.commit(pending) };
        let written = self.note(written);
        if written.is_ok() {
            self.publish(waiting.iter().any(|(_, order)| order.changes_rights()));
        }
        for (done, order) in waiting {
            if written.is_ok() {
                log(&order);
            }
            let _ = done.send(written.clone().map_err(Error::Unavailable));
        }
    }

    /// Answers what is no change of the state's parts.
    fn answer(&mut self, job: Job) {
        match job {
            Job::Apply(..) | Job::Stop(_) => unreachable!("`run` has done it"),
            Job::Backup(done) => {
                let backup = self.keeper.backup();
                let _ = done.send(backup.map_err(|error| Error::Unavailable(Arc::new(error))));
            }
            Job::Restore(backup, done) => {
                let restored = self.restore(&backup);
                let _ = done.send(restored);
            }
        }
    }

    fn restore(&mut self, backup: &[u8]) -> Result<(), Error> {
        match self.keeper.restore(backup) {
            Err(keeper::Error::Store(error)) => {
                let failed = self.note(Err(error.into()));
                return failed.map_err(Error::Unavailable);
            }
            // Of the caller's making.
            Err(error) => return Err(Error::invalid(crate::telemetry::log::causes(&error))),
            Ok(()) => {}
        }
        self.publish(true);
        tracing::warn!("all data was replaced by a backup");
        Ok(())
    }

    fn publish(&self, changes_rights: bool) {
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
    waiting: Vec<(Done<()>, Order)>,
}

impl Together {
    fn new(keeper: &Keeper) -> Self {
        Self { pending: keeper.pending(), waiting: Vec::new() }
    }

    /// Adds an order, unless it is refused: then that is the answer, at once.
    fn add(&mut self, keeper: &Keeper, order: Order, done: Done<()>) {
        let mut draft = keeper.draft(&self.pending, order.author);
        for (action, command) in &order.commands {
            if let Err(refused) = draft.apply(&order.enclave, *action, command) {
                let _ = done.send(Err(refused.of(*action, command.name())));
                return;
            }
        }
        self.pending.add(draft);
        self.waiting.push((done, order));
    }
}

/// Logs what was changed, all of it: the log takes these lines even when it has to be waited for.
fn log(order: &Order) {
    let mut commands = Commands::of(&order.enclave);
    order.commands.iter().for_each(|(action, command)| command.tell(*action, &mut commands));
    let (enclave, identity) = (commands.enclave(), order.author.caller);
    for changes in commands.lines() {
        tracing::info!(target: KEPT, enclave, %identity, changes, "changed");
    }
}
