//! The writer of a node: the journal decides what is written, and in which order.
//!
//! Orders are kept until they are decided. They are judged on the newest state that this node knows. When another node was
//! first, all of them are judged again, also those that were going to be refused: rights, existence and effect are judged on
//! one state of the whole cluster.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::{COLLECTING, Job, Lines, TOGETHER, Thread, Waiting, log, prepare};
use crate::clock;
use crate::crypto::random;
use crate::kms::Error;
use crate::kms::command::Change;
use crate::kms::journal::{self, Appended, Head};
use crate::kms::keeper::{self, Followed, Joining, Keeper, Pending, Sealed, UNKNOWN};
use crate::kms::lines::Room;
#[cfg(test)]
use crate::kms::node::Fault;
use crate::kms::node::{Foreign, Node, Parts};
use crate::kms::record::Cipher;
use crate::kms::snapshot::Snapshot;
use crate::telemetry::log::{KEPT, causes};

/// How often the own store writes what was committed.
const FLUSH: Duration = Duration::from_secs(1);

/// How many commits of others may wait.
const INBOX: usize = 1_024;

/// How long one attempt to write may take.
const ATTEMPT: Duration = Duration::from_secs(2);

/// How long an unknown outcome is looked into.
const RESOLVE: Duration = Duration::from_secs(20);

/// How long a node waits for the commits of others that it was told of.
const CATCH_UP: Duration = Duration::from_secs(5);

/// For how long a commit of another node makes this one rest after its own.
const CONTENDED: Duration = Duration::from_secs(1);

/// The longest rest.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// The most bytes of one transaction. etcd takes 1.5 MiB unless it was told otherwise.
const MOST_BYTES: usize = 1 << 20;

/// What the writer of a node has beside its keeper.
pub(super) struct Side {
    pub(super) node: Arc<Node>,
    inbox: mpsc::Receiver<Foreign>,
    runtime: Handle,
    cipher: Arc<ArcSwap<Cipher>>,
    /// When a commit of another node was taken over last.
    contended: Option<Instant>,
    flushed: Instant,
    /// Why everything has to be loaded anew, where that has failed so far.
    due: Option<&'static str>,
}

/// What came of a group.
enum Outcome {
    /// It was written, or there was nothing to write and this is the newest state.
    Decided,
    /// Another node was first: this is its head.
    Overtaken(Option<Head>),
    /// It was not written, and the newest state is here: it can be judged again.
    Again,
    /// It was not written: it removes members, and one of them is live.
    Live,
    /// Nobody knows.
    Unknown(String),
}

/// Orders that were judged together.
struct Judged {
    pending: Pending,
    outcomes: Vec<Result<(), Error>>,
}

impl Side {
    /// Begins to follow the journal of a keeper; none: it has none.
    pub(super) fn of(keeper: &Keeper, snapshot: &Arc<ArcSwap<Snapshot>>, lines: &Arc<Lines<Job>>) -> Option<Self> {
        let replica = keeper.replica()?;
        let cipher = Arc::new(ArcSwap::new(keeper.cipher()));
        let node = Node::new(Parts {
            journal: replica.journal.clone(),
            number: replica.number,
            runtime: replica.runtime.clone(),
            head: replica.head.clone(),
            stale_reads: replica.stale_reads,
            cipher: cipher.clone(),
            snapshot: snapshot.clone(),
            confirmed_at: replica.confirmed_at,
            known_at: replica.known_at,
        });
        let (sender, inbox) = mpsc::channel(INBOX);
        let lines = lines.clone();
        node.start(sender, move || lines.wake());
        let runtime = replica.runtime.clone();
        Some(Self { node, inbox, runtime, cipher, contended: None, flushed: clock::instant(), due: None })
    }
}

/// Why everything was not moved. Nothing has changed then.
fn refused(error: keeper::Error) -> Error {
    match error {
        keeper::Error::Cluster(why) => Error::Conflict(why.into()),
        error @ keeper::Error::OtherMembers(_) => Error::Conflict(error.to_string().into()),
        error => Error::Unavailable(Arc::new(error)),
    }
}

impl Thread {
    /// How long to wait for a job before others are looked after.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.side.as_ref().map(|_| FLUSH)
    }

    /// Takes over what has come from other nodes.
    pub(super) fn follow(&mut self) {
        while let Some(Ok(foreign)) = self.side.as_mut().map(|side| side.inbox.try_recv()) {
            self.take_over(foreign);
        }
        if self.side.as_ref().is_none_or(|side| side.flushed.elapsed() < FLUSH) {
            return;
        }
        if let Some(why) = self.side.as_mut().and_then(|side| side.due.take()) {
            self.reload(why);
        }
        self.flush();
    }

    /// Has the own store write what was committed.
    pub(super) fn flush(&mut self) {
        let Some(side) = &mut self.side else { return };
        side.flushed = clock::instant();
        let known_at = side.node.age().map(|age| clock::now() - age);
        self.keeper.flush(known_at);
    }

    /// Takes over what has come. Returns whether every commit was seen; not, if everything was loaded instead.
    fn take_over(&mut self, foreign: Foreign) -> bool {
        match foreign {
            Foreign::Commit(commit) => match self.keeper.follow(&commit) {
                Ok(Followed::Known) => return true,
                Ok(Followed::Applied { changes_rights }) => {
                    if let Some(side) = &mut self.side {
                        side.contended = Some(clock::instant());
                    }
                    self.publish_shared(changes_rights);
                    if let Some(side) = &self.side {
                        // Somebody may wait for this node to leave older states.
                        side.node.hurry();
                    }
                    return true;
                }
                Ok(Followed::Gap) => self.reload("gap"),
                Err(error) => {
                    tracing::error!(cause = causes(&error), "a commit of another server cannot be taken over");
                    self.reload("store");
                }
            },
            Foreign::Reload(why, done) => {
                self.reload(why);
                let _ = done.send(());
            }
        }
        false
    }

    /// Loads everything anew.
    fn reload(&mut self, why: &'static str) {
        let reloaded = self.keeper.reload();
        let Some(side) = &mut self.side else { return };
        side.node.counts.reloads.fetch_add(1, Ordering::Relaxed);
        match reloaded {
            Ok(()) => {
                tracing::info!(why, "everything was loaded from the cluster");
                side.node.note_trouble(None);
                self.publish_shared(true);
            }
            Err(error) => {
                // What was loaded last is served on.
                side.due = Some(why);
                match error {
                    keeper::Error::Journal(journal::Error::Unreachable(error)) => {
                        tracing::warn!(
                            cause = causes(&*error),
                            why,
                            "everything has to be loaded, and etcd does not answer"
                        );
                    }
                    error => side.node.note_trouble(Some(causes(&error))),
                }
            }
        }
    }

    /// Moves everything into a cluster.
    pub(super) fn move_in(&mut self, joining: Joining) -> Result<(), Error> {
        // Requests would go by the node that it was before.
        if self.node.get().is_some_and(|node| node.has_left()) {
            return Err(Error::Conflict("this server has left a cluster: start it again before it joins one".into()));
        }
        self.keeper.move_in(joining).map_err(refused)?;
        self.side = Side::of(&self.keeper, &self.snapshot, &self.lines);
        if let Some(side) = &self.side {
            let _ = self.node.set(side.node.clone());
        }
        self.publish_shared(false);
        tracing::warn!(target: KEPT, "all data was moved into the cluster");
        Ok(())
    }

    /// Leaves the cluster.
    pub(super) fn move_out(&mut self) -> Result<(), Error> {
        self.keeper.move_out().map_err(refused)?;
        if let Some(side) = self.side.take() {
            side.runtime.block_on(side.node.move_out());
        }
        self.publish(false);
        tracing::warn!(target: KEPT, "all data was moved out of the cluster: this server alone has it now");
        Ok(())
    }

    pub(super) fn publish_shared(&self, changes_rights: bool) {
        let Some(side) = &self.side else { return };
        let Some(replica) = self.keeper.replica() else { return };
        side.cipher.store(self.keeper.cipher());
        side.node.publish(self.keeper.snapshot().clone(), replica.head.clone());
        if changes_rights && let Some(act) = self.on_new_rights.get() {
            act();
        }
    }

    /// Decides an order and those that wait. Returns a job that is not an order.
    pub(super) fn collect_shared(&mut self, first: Waiting) -> Option<(Job, Room)> {
        let (mut orders, mut other) = (VecDeque::from([first]), None);
        while orders.len() < TOGETHER && other.is_none() {
            match self.lines.try_take() {
                Some((Job::Apply(order, done), room)) => orders.push_back((order, done, room)),
                Some((job @ Job::Whole(_), room)) => other = Some((job, room)),
                None => break,
            }
        }
        self.decide(orders);
        other
    }

    fn decide(&mut self, mut orders: VecDeque<Waiting>) {
        while !orders.is_empty() {
            self.follow();
            let began = clock::instant();
            let outcome = match self.obstacle() {
                Some(obstacle) => (orders.len(), Outcome::Unknown(obstacle), Vec::new(), false),
                None => {
                    let Judged { pending, outcomes } = self.judge(&orders);
                    #[cfg(test)]
                    if self.refuses_at_once(&mut orders, &outcomes) {
                        continue;
                    }
                    let writes = !pending.is_empty();
                    let outcome = if writes { self.write(pending) } else { self.look() };
                    (outcomes.len(), outcome, outcomes, writes)
                }
            };
            match outcome {
                (count, Outcome::Decided, outcomes, writes) => {
                    self.answer_all(orders.drain(..count), outcomes);
                    if writes {
                        self.rest(began.elapsed());
                    }
                }
                (_, Outcome::Overtaken(head), ..) => {
                    self.count(|counts| &counts.overtaken);
                    self.reach(head);
                }
                (_, Outcome::Again, ..) => {}
                (count, Outcome::Live, ..) => {
                    for (_, done, _) in orders.drain(..count) {
                        let _ = done.send(Err(Error::Conflict("the server runs: stop it first".into())));
                    }
                }
                (count, Outcome::Unknown(why), outcomes, writes) => {
                    self.works.store(false, Ordering::Relaxed);
                    let mut outcomes = outcomes.into_iter();
                    for (_, done, _) in orders.drain(..count) {
                        let _ = done.send(Err(match outcomes.next() {
                            Some(Err(refused)) if !refused.is_negative() => refused,
                            Some(Ok(())) if writes => Error::Uncertain(
                                format!("the change may have been made: the cluster does not answer ({why})").into(),
                            ),
                            _ => Error::Uncertain(format!("nothing can be changed now: {why}").into()),
                        }));
                    }
                }
            }
        }
    }

    /// The fault of a node that refuses what it has judged before it knows the newest state.
    #[cfg(test)]
    fn refuses_at_once(&self, orders: &mut VecDeque<Waiting>, outcomes: &[Result<(), Error>]) -> bool {
        let has_fault = self.side.as_ref().is_some_and(|side| side.node.has(Fault::RefusesAtOnce));
        let Some(at) = outcomes.iter().position(Result::is_err).filter(|_| has_fault) else { return false };
        let Some((order, done, _)) = orders.remove(at) else { return false };
        let refused = prepare(&self.keeper, &self.keeper.pending(), &order).err();
        let _ = done.send(Err(refused.unwrap_or(Error::KeyExists)));
        true
    }

    /// Why nothing can be written at the moment.
    fn obstacle(&mut self) -> Option<String> {
        let side = self.side.as_ref()?;
        if let Some(trouble) = side.node.trouble() {
            return Some(trouble);
        }
        if side.node.has_ended() {
            return Some("this server is no member of the cluster any more".into());
        }
        if side.due.is_some() {
            return Some("this server has to load everything, and etcd does not answer".into());
        }
        // To a journal, nothing was ever written before this revision.
        if self.revision() == UNKNOWN {
            return Some("this server has not loaded yet what the others have written".into());
        }
        // After an unknown outcome nobody waits again before the cluster has answered.
        if self.works.load(Ordering::Relaxed) {
            return None;
        }
        match self.look() {
            Outcome::Unknown(why) => return Some(why),
            Outcome::Overtaken(head) => self.reach(head),
            Outcome::Decided | Outcome::Again | Outcome::Live => {}
        }
        let side = self.side.as_ref()?;
        let trouble = side.node.trouble();
        self.works.store(trouble.is_none(), Ordering::Relaxed);
        trouble
    }

    /// Judges as many orders as fit one transaction, on the state that this node has.
    fn judge(&self, orders: &VecDeque<Waiting>) -> Judged {
        let most = self.keeper.replica().map_or(usize::MAX, |replica| replica.journal.most_changes());
        let (mut pending, mut outcomes, since) = (self.keeper.pending(), Vec::new(), clock::instant());
        for (order, ..) in orders {
            // Whether it can be written is not for others to share.
            let is_alone = order.commands.iter().any(|(_, change)| matches!(change, Change::Leave(_)));
            if is_alone && !outcomes.is_empty() {
                break;
            }
            let outcome = match prepare(&self.keeper, &pending, order) {
                Ok(prepared) if pending.has_room_for(&prepared, most, MOST_BYTES) => {
                    pending.add(prepared);
                    Ok(())
                }
                // The next transaction has room for it.
                Ok(_) if !pending.is_empty() => break,
                Ok(prepared) => Err(Error::TooLarge(prepared.count(), most)),
                Err(refused) => Err(refused),
            };
            outcomes.push(outcome);
            if is_alone || since.elapsed() > COLLECTING {
                break;
            }
        }
        Judged { pending, outcomes }
    }

    /// Checks that the state on which orders were judged is the newest one.
    fn look(&mut self) -> Outcome {
        let (Some(side), Some(replica)) = (&self.side, self.keeper.replica()) else { return Outcome::Decided };
        let sent_at = clock::since_boot();
        let head = side.runtime.block_on(async { tokio::time::timeout(ATTEMPT, replica.journal.head()).await });
        match head {
            Ok(Ok(Some(head))) if head == replica.head => {
                side.node.note_confirmed(sent_at);
                Outcome::Decided
            }
            Ok(Ok(head)) => Outcome::Overtaken(head),
            Ok(Err(error)) => Outcome::Unknown(causes(&error)),
            Err(_) => Outcome::Unknown("no answer".into()),
        }
    }

    /// Writes what is pending, and looks into an unknown outcome until it is known.
    fn write(&mut self, pending: Pending) -> Outcome {
        let sealed = match self.keeper.seal(pending) {
            Ok(sealed) => sealed,
            Err(error) => return Outcome::Unknown(causes(&error)),
        };
        let (began, mut tries, mut why) = (clock::instant(), 0_u32, String::new());
        while tries == 0 || began.elapsed() < RESOLVE {
            tries += 1;
            match self.append(&sealed) {
                Ok((Appended::Done(head), sent_at)) => {
                    if tries > 1 {
                        self.count(|counts| &counts.unknown_not);
                    }
                    self.accept(sealed, head, sent_at);
                    return Outcome::Decided;
                }
                // It was sent before, and the answer was lost.
                Ok((Appended::Overtaken(Some(head)), sent_at)) if head.state == sealed.value => {
                    self.count(|counts| &counts.unknown_done);
                    self.accept(sealed, head, sent_at);
                    return Outcome::Decided;
                }
                Ok((Appended::Overtaken(head), _)) if tries == 1 => return Outcome::Overtaken(head),
                Ok((Appended::Overtaken(head), _)) => return self.find_between(&sealed, head),
                Ok((Appended::Live, _)) => return Outcome::Live,
                Err(error) => why = error,
            }
            #[cfg(test)]
            if self.side.as_ref().is_some_and(|side| side.node.has(Fault::UnknownIsNo)) {
                return Outcome::Again;
            }
            self.pause(Duration::from_millis(u64::from(tries.min(10)) * 20));
        }
        self.count(|counts| &counts.unknown);
        Outcome::Unknown(why)
    }

    fn append(&mut self, sealed: &Sealed) -> Result<(Appended, u64), String> {
        let (Some(side), Some(replica)) = (&mut self.side, self.keeper.replica()) else {
            return Err("no journal".into());
        };
        let sent_at = clock::since_boot();
        let (after, epoch) = (Some(replica.head.revision), replica.head.epoch);
        let appended = replica.journal.append(after, epoch, &sealed.value, &sealed.changes);
        let began = clock::instant();
        let answer = side.runtime.block_on(async { tokio::time::timeout(ATTEMPT, appended).await });
        side.node.counts.append.record(began.elapsed());
        match answer {
            Ok(Ok(appended)) => Ok((appended, sent_at)),
            Ok(Err(error)) => Err(causes(&error)),
            Err(_) => Err("no answer".into()),
        }
    }

    /// Other nodes have written since. One of the commits in between may be the one whose answer was lost.
    fn find_between(&mut self, sealed: &Sealed, head: Option<Head>) -> Outcome {
        let until = clock::instant() + CATCH_UP;
        let revision = head.map_or(0, |head| head.revision);
        if let Some(side) = &self.side {
            side.node.want(revision);
        }
        let mut is_ours = false;
        while self.revision() < revision {
            let Some(foreign) = self.wait_for(until) else {
                return Outcome::Unknown("the changes of the other servers do not arrive".into());
            };
            if let Foreign::Commit(commit) = &foreign {
                is_ours |= commit.head.state == sealed.value;
            }
            // Where a commit in between was not seen, it may have been this one: it must not be made again.
            if !self.take_over(foreign) && !is_ours {
                self.count(|counts| &counts.unknown);
                return Outcome::Unknown("the changes in between were not seen".into());
            }
        }
        if is_ours {
            self.count(|counts| &counts.unknown_done);
            return Outcome::Decided;
        }
        self.count(|counts| &counts.unknown_not);
        Outcome::Again
    }

    /// Takes over the commits up to a head.
    fn reach(&mut self, head: Option<Head>) {
        let Some(side) = &self.side else { return };
        let Some(head) = head.filter(|head| head.revision > self.revision()) else {
            let trouble = format!("etcd was set back: its head is not that of this server, {}", self.revision());
            return side.node.note_trouble(Some(trouble));
        };
        let until = clock::instant() + CATCH_UP;
        side.node.want(head.revision);
        while self.revision() < head.revision {
            let Some(foreign) = self.wait_for(until) else {
                let trouble = "the changes of the other servers do not arrive";
                tracing::warn!(wanted = head.revision, here = self.revision(), trouble);
                return self.reload("late");
            };
            self.take_over(foreign);
        }
    }

    fn revision(&self) -> i64 {
        self.keeper.replica().map_or(i64::MAX, |replica| replica.head.revision)
    }

    /// The next that comes from other nodes, if it comes in time.
    fn wait_for(&mut self, until: Instant) -> Option<Foreign> {
        let Side { inbox, runtime, .. } = self.side.as_mut()?;
        let patience = until.saturating_duration_since(clock::instant());
        runtime.block_on(async { tokio::time::timeout(patience, inbox.recv()).await }).ok().flatten()
    }

    fn accept(&mut self, sealed: Sealed, head: Head, sent_at: u64) {
        self.keeper.accept(sealed, head);
        self.works.store(true, Ordering::Relaxed);
        if let Some(side) = &self.side {
            side.node.note_confirmed(sent_at);
        }
    }

    fn answer_all(&mut self, orders: impl Iterator<Item = Waiting>, outcomes: Vec<Result<(), Error>>) {
        let decided: Vec<_> = orders.zip(outcomes).collect();
        let is_new = decided.iter().any(|(_, outcome)| outcome.is_ok());
        if is_new {
            let changes_rights = decided.iter().any(|((order, ..), outcome)| outcome.is_ok() && order.changes_rights());
            self.publish_shared(changes_rights);
        }
        for ((order, done, _room), outcome) in decided {
            if outcome.is_ok() {
                log(&order);
            }
            let _ = done.send(outcome);
        }
    }

    /// Leaves others their turn: without this, the node that is nearest to the leader of etcd nearly always wins.
    ///
    /// `took`: how long the group took, with judging and encrypting, which the others have to do again.
    fn rest(&mut self, took: Duration) {
        let Some(side) = &self.side else { return };
        if side.contended.is_none_or(|at| at.elapsed() > CONTENDED) {
            return;
        }
        let mut byte = [0];
        let share = if random::fill(&mut byte).is_ok() { u32::from(byte[0]) } else { 128 };
        // One to three times as long, which is a few milliseconds for small groups. What others write meanwhile is taken
        // over: reads wait for it.
        let until = clock::instant() + (took + took * share / 128).min(LONGEST_REST);
        while let Some(foreign) = self.wait_for(until) {
            self.take_over(foreign);
        }
    }

    /// Has this thread, on which nobody else waits, wait.
    fn pause(&self, pause: Duration) {
        if let Some(side) = &self.side {
            side.runtime.block_on(async { tokio::time::sleep(pause).await });
        }
    }

    fn count(&self, which: impl Fn(&crate::kms::node::Counts) -> &AtomicU64) {
        if let Some(side) = &self.side {
            which(&side.node.counts).fetch_add(1, Ordering::Relaxed);
        }
    }
}
