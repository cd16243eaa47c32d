//! This node of a cluster: what it has heard of the others, and what it tells them.
//!
//! The writer thread owns the state. A node has the tasks beside it: one follows the journal, one says every few seconds how
//! far this node is, and asks for the head when nobody else does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use prost::Message as _;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Error;
use super::confirm::{Answer, Question};
use super::journal::{self, Commit, Head, Journal, Said};
use super::keeper::UNKNOWN;
use super::members::Live;
use super::record::{Cipher, Member};
use super::snapshot::Snapshot;
use super::wire::ServerStatus;
use crate::clock;
use crate::telemetry::histogram::Histogram;
use crate::telemetry::log::causes;
use crate::telemetry::metrics::Text;

/// How long a question for the head may take in all.
const CONFIRM: Duration = Duration::from_secs(3);

/// How long the members have to confirm a deletion.
const MEMBERS: Duration = Duration::from_secs(5);

/// How long the answer to a change of rights waits for the live members.
const RIGHTS: Duration = Duration::from_secs(2);

/// How often a node says how far it is, unless something hurries.
const SAY: Duration = Duration::from_secs(3);

/// How often a node looks whether there is an enclave to empty.
const EMPTY: Duration = Duration::from_secs(60);

/// How often the head is asked for when nobody else asks.
const LOOK: Duration = Duration::from_secs(1);

/// How long the follower may be behind the head before it is connected anew.
const BEHIND: Duration = Duration::from_millis(500);

/// After so long without an answer the log says so, and from then on once a minute.
const SILENT: Duration = Duration::from_secs(10);

/// After so long without an answer this server says that it cannot write.
const WRITABLE: Duration = Duration::from_secs(10);

/// The number of the format of records that this program writes.
const FORMAT: u64 = 0;

/// What comes from the journal.
pub(super) enum Foreign {
    /// The next commit.
    Commit(Commit),
    /// Commits are missing: everything is to be loaded. Tells when that is done.
    Reload(&'static str, oneshot::Sender<()>),
}

/// Says what a server tells of itself.
type Describe = Box<dyn Fn(&Snapshot) -> Option<ServerStatus> + Send + Sync>;

/// Why this process can be a node no more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// The others have removed it.
    #[error("removed from the cluster")]
    Removed,
    /// Two processes claim to be one member.
    #[error("another process is member {0} of the cluster; was its data directory copied?")]
    Taken(u32),
    /// A live member has another administrator.
    #[error(
        "the administrator of this server is not that of '{0}': name 'admin.identity' in the configs of all servers. Where none \
         is named, it is worked out from the HSM key"
    )]
    OtherAdmin(String),
}

/// This node.
pub(super) struct Node {
    pub(super) journal: Arc<dyn Journal>,
    /// The number of this member.
    pub(super) number: u32,
    pub(super) runtime: Handle,
    stale_reads: Option<Duration>,
    cipher: Arc<ArcSwap<Cipher>>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    confirm: Question<Answered<Option<Head>>>,
    who_is_live: Question<Answered<Arc<BTreeMap<u32, Live>>>>,
    /// The head of the state that is published.
    applied: watch::Sender<Head>,
    /// The newest head that was heard of.
    wanted: watch::Sender<i64>,
    /// The states that were replaced, while requests use them.
    replaced: Mutex<VecDeque<(u64, Weak<Snapshot>)>>,
    hurry: Notify,
    empty: Notify,
    /// When the last question was sent whose answer has been applied, by [`clock::since_boot`]; 0: none yet.
    confirmed_at: AtomicU64,
    /// Whether this process has confirmed the head once. Before that it must not encrypt.
    has_confirmed: AtomicBool,
    /// When it was live for the first time, by [`clock::since_boot`]; 0: not yet.
    live_at: AtomicU64,
    /// Why the journal is not the one that it was, or cannot be used.
    trouble: ArcSwapOption<String>,
    describe: OnceLock<Describe>,
    ended: watch::Sender<Option<Ended>>,
    /// Cancelled: the tasks are to end, and have ended.
    stop: CancellationToken,
    stopped: CancellationToken,
    left: AtomicBool,
    pub(super) counts: Counts,
    #[cfg(test)]
    fault: OnceLock<Fault>,
}

/// What the journal says, for all who have asked.
type Answered<T> = Result<T, Arc<journal::Error>>;

/// What a node does wrongly on purpose, so that tests can show that they would notice.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It does not ask whether its state is the newest.
    NoConfirm,
    /// It refuses by the state that it has.
    RefusesAtOnce,
    /// It takes a lost answer for a no.
    UnknownIsNo,
    /// It deletes without asking the members.
    OneStep,
}

/// What a node counts.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Commits that were drafted again because another node was first.
    pub(super) overtaken: AtomicU64,
    /// Commits of unknown outcome that had been written.
    pub(super) unknown_done: AtomicU64,
    /// Commits of unknown outcome that had not.
    pub(super) unknown_not: AtomicU64,
    /// Commits whose outcome stayed unknown.
    pub(super) unknown: AtomicU64,
    /// How often everything was loaded anew.
    pub(super) reloads: AtomicU64,
    /// Deletions that wait for members.
    pub(super) waiting: AtomicU64,
    /// Members that were live when that was looked at last.
    live: AtomicU64,
    /// How long transactions take.
    pub(super) append: Histogram,
    /// How long questions for the head take, with the wait until it is reached.
    confirm: Histogram,
}

/// What a node is made of.
pub(super) struct Parts {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) number: u32,
    pub(super) runtime: Handle,
    pub(super) head: Head,
    pub(super) stale_reads: Option<Duration>,
    pub(super) cipher: Arc<ArcSwap<Cipher>>,
    pub(super) snapshot: Arc<ArcSwap<Snapshot>>,
    /// When the head was asked for that this state is of; none: it was not.
    pub(super) confirmed_at: Option<u64>,
    /// When everything was known here for the last time before this process; none: that is not known.
    pub(super) known_at: Option<u64>,
}

impl Node {
    pub(super) fn new(parts: Parts) -> Arc<Self> {
        let Parts { journal, number, runtime, head, stale_reads, cipher, snapshot, confirmed_at, known_at } = parts;
        Arc::new(Self {
            journal,
            number,
            runtime,
            stale_reads,
            cipher,
            snapshot,
            confirm: Question::default(),
            who_is_live: Question::default(),
            wanted: watch::channel(head.revision).0,
            applied: watch::channel(head).0,
            replaced: Mutex::default(),
            hurry: Notify::new(),
            empty: Notify::new(),
            confirmed_at: AtomicU64::new(confirmed_at.or(known_at).unwrap_or_default()),
            has_confirmed: AtomicBool::new(confirmed_at.is_some()),
            live_at: AtomicU64::new(0),
            trouble: ArcSwapOption::empty(),
            describe: OnceLock::new(),
            ended: watch::channel(None).0,
            stop: CancellationToken::new(),
            stopped: CancellationToken::new(),
            left: AtomicBool::new(false),
            counts: Counts::default(),
            #[cfg(test)]
            fault: OnceLock::new(),
        })
    }

    /// Has this node do something wrongly from now on.
    #[cfg(test)]
    pub(super) fn do_wrongly(&self, fault: Fault) {
        self.fault.set(fault).expect("one at most");
    }

    /// Whether it does.
    #[cfg(test)]
    pub(super) fn has(&self, fault: Fault) -> bool {
        self.fault.get() == Some(&fault)
    }

    /// Starts the tasks. What comes from the journal goes to `inbox`, and `wake` is called after it.
    pub(super) fn start(self: &Arc<Self>, inbox: mpsc::Sender<Foreign>, wake: impl Fn() + Send + Sync + 'static) {
        let (node, follower) = (self.clone(), self.clone());
        self.runtime.spawn(async move {
            let mut tasks = JoinSet::new();
            tasks.spawn(async move { follower.follow(inbox, wake).await });
            let (saying, looking) = (node.clone(), node.clone());
            tasks.spawn(async move { saying.go_on_saying().await });
            tasks.spawn(async move { looking.go_on_looking().await });
            let mut ended = node.ended.subscribe();
            tokio::select! {
                _ = ended.wait_for(Option::is_some) => {}
                () = node.stop.cancelled() => {}
            }
            tasks.shutdown().await;
            node.stopped.cancel();
        });
    }

    /// What a server tells of itself. Only the first call counts.
    pub(super) fn describe(&self, describe: impl Fn(&Snapshot) -> Option<ServerStatus> + Send + Sync + 'static) {
        let _ = self.describe.set(Box::new(describe));
        self.hurry.notify_one();
    }

    /// Why this process is a node no more. Waits until it is none.
    pub(super) async fn ended(&self) -> Ended {
        let mut ended = self.ended.subscribe();
        let ended = ended.wait_for(Option::is_some).await.ok().and_then(|ended| ended.clone());
        ended.unwrap_or(Ended::Removed)
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// Stops saying that this node is there.
    pub(super) async fn leave(&self) {
        self.stop.cancel();
        self.stopped.cancelled().await;
        let _ = timeout(CONFIRM, self.journal.leave()).await;
    }

    /// Publishes a new state with its head.
    pub(super) fn publish(&self, snapshot: Snapshot, head: Head) {
        let is_member = snapshot.members.get(self.number).is_some();
        {
            // Nobody may say how far this node is between the two steps.
            let mut replaced = self.lock();
            let old = self.snapshot.swap(Arc::new(snapshot));
            replaced.retain(|(_, state)| state.strong_count() > 0);
            replaced.push_back((old.commit, Arc::downgrade(&old)));
        }
        self.applied.send_replace(head);
        if !is_member {
            self.ended.send_if_modified(|ended| ended.is_none() && ended.replace(Ended::Removed).is_none());
        }
    }

    /// Stops being a node: everything was moved out.
    pub(super) async fn move_out(&self) {
        self.left.store(true, Ordering::Release);
        self.leave().await;
    }

    /// Whether everything was moved out.
    pub(super) fn has_left(&self) -> bool {
        self.left.load(Ordering::Acquire)
    }

    /// The head that this node has applied.
    pub(super) fn head(&self) -> Head {
        self.applied.borrow().clone()
    }

    /// Has everybody know soon how far this node is.
    pub(super) fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// Has the enclaves emptied that nobody enters any more.
    pub(super) fn empty_enclaves(&self) {
        self.empty.notify_one();
    }

    /// Waits until enclaves may have to be emptied.
    pub(super) async fn has_to_empty(&self) {
        // Whoever has begun may not be there any more.
        let _ = timeout(EMPTY, self.empty.notified()).await;
    }

    /// The oldest commit whose state is in use.
    fn oldest(&self) -> u64 {
        let mut replaced = self.lock();
        let current = self.snapshot.load().commit;
        replaced.retain(|(_, state)| state.strong_count() > 0);
        replaced.iter().map(|(commit, _)| *commit).fold(current, u64::min)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<(u64, Weak<Snapshot>)>> {
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until this node knows everything that was acknowledged anywhere before this call.
    ///
    /// # Errors
    /// When it cannot know.
    pub(super) async fn confirm(&self) -> Result<(), Error> {
        let began = clock::instant();
        let confirmed = self.confirm_now().await;
        self.counts.confirm.record(began.elapsed());
        confirmed.map_err(|why| self.uncertain(&why))
    }

    /// The same. The error says why, for the log.
    async fn confirm_now(&self) -> Result<(), String> {
        #[cfg(test)]
        if self.has(Fault::NoConfirm) {
            return Ok(());
        }
        let before = self.head().revision;
        let confirmed = timeout(CONFIRM, async {
            let answer = self.confirm.ask(async { self.journal.head().await.map_err(Arc::new) }).await;
            let Answer { sent_at, said, .. } = answer;
            let head = said.map_err(|error| causes(&*error))?;
            let head = head.ok_or("etcd holds nothing of the cluster any more")?;
            if head.revision < before {
                return Err(format!("etcd was set back: its head is {}, and this server has {before}", head.revision));
            }
            self.reach(head.revision).await;
            Ok(sent_at)
        });
        match confirmed.await {
            Ok(Ok(sent_at)) => {
                if let Some(trouble) = self.trouble() {
                    return Err(trouble);
                }
                self.note_confirmed(sent_at);
                Ok(())
            }
            Ok(Err(why)) => Err(why),
            Err(_) => Err(format!("no answer, or no changes of the others, within {} s", CONFIRM.as_secs())),
        }
    }

    /// Waits until this revision is published here.
    async fn reach(&self, revision: i64) {
        self.want(revision);
        let _ = self.applied.subscribe().wait_for(|head| head.revision >= revision).await;
    }

    /// Has the follower know that there is this revision.
    pub(super) fn want(&self, revision: i64) {
        self.wanted.send_if_modified(|wanted| {
            let is_news = *wanted < revision;
            *wanted = revision.max(*wanted);
            is_news
        });
    }

    /// Notes that everything is known here that was acknowledged before this moment.
    pub(super) fn note_confirmed(&self, sent_at: u64) {
        self.confirmed_at.fetch_max(sent_at, Ordering::Relaxed);
        // A member that is not live can be removed. What it learns of afterwards says whether it was.
        let live_at = self.live_at.load(Ordering::Acquire);
        if live_at != 0 && sent_at > live_at {
            self.has_confirmed.store(true, Ordering::Release);
        }
    }

    fn uncertain(&self, why: &str) -> Error {
        tracing::debug!(why, "the head of the cluster is not confirmed");
        Error::Uncertain(match self.age() {
            Some(age) => format!("this server has not heard of the others for {} s", age.as_secs()).into(),
            None => "this server has not heard of the others since its start".into(),
        })
    }

    /// How long ago everything was known here; none: never since the start.
    pub(super) fn age(&self) -> Option<Duration> {
        match self.confirmed_at.load(Ordering::Relaxed) {
            0 => None,
            at => Some(Duration::from_millis(clock::since_boot().saturating_sub(at))),
        }
    }

    /// Whether this process may encrypt: it has confirmed the head once. A version that was destroyed while it did not run
    /// may still be in its file.
    pub(super) fn may_encrypt(&self) -> bool {
        self.has_confirmed.load(Ordering::Acquire)
    }

    /// Whether reads are too old to be answered.
    pub(super) fn is_stale(&self) -> bool {
        let limit = self.stale_reads.filter(|limit| !limit.is_zero());
        limit.is_some_and(|limit| self.age().is_some_and(|age| age > limit))
    }

    /// Whether it has heard of the others lately.
    pub(super) fn is_fresh(&self) -> bool {
        self.trouble.load().is_none() && self.age().is_some_and(|age| age < 3 * LOOK)
    }

    /// Whether the next change can be tried.
    pub(super) fn can_write(&self) -> bool {
        self.trouble.load().is_none() && self.age().is_some_and(|age| age < WRITABLE)
    }

    /// What is wrong with the journal.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.load().as_deref().cloned()
    }

    /// Notes what is wrong with the journal, once.
    pub(super) fn note_trouble(&self, trouble: Option<String>) {
        let old = self.trouble.swap(trouble.clone().map(Arc::new));
        match (trouble, old) {
            (Some(trouble), old) if old.as_deref() != Some(&trouble) => {
                tracing::error!(cause = trouble, "nothing can be changed; what this server knows is served on");
            }
            (None, Some(_)) => tracing::info!("the cluster can be used again"),
            _ => {}
        }
    }

    /// Waits until no member uses a state before this commit. Returns who was asked.
    ///
    /// # Errors
    /// Who has not confirmed that.
    pub(super) async fn everybody_is_at(&self, commit: u64) -> Result<Vec<u32>, Error> {
        let _waits = Waits::begin(&self.counts.waiting);
        let end = Instant::now() + MEMBERS;
        let mut pause = Duration::from_millis(2);
        self.hurry();
        loop {
            let snapshot = self.snapshot.load_full();
            #[cfg(test)]
            if self.has(Fault::OneStep) {
                return Ok(snapshot.members.iter().map(|member| member.number).collect());
            }
            let live = self.live().await;
            let is_there = |member: &Member| match &live {
                Ok(live) => live.get(&member.number).map(|live| live.commit >= commit),
                Err(_) => Some(false),
            };
            // A member that is not even live will not say anything.
            let silent = snapshot.members.iter().find(|member| is_there(member) != Some(true));
            let Some(silent) = silent else { return Ok(snapshot.members.iter().map(|member| member.number).collect()) };
            let (host, is_gone) = (silent.host.clone(), is_there(silent).is_none());
            drop(snapshot);
            if is_gone || Instant::now() > end {
                let how = if is_gone { "does not run, or is cut off" } else { "has not confirmed" };
                return Err(Error::Uncertain(format!("{host} {how}").into()));
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }

    /// Waits until all live members know of a change of rights, but not for long. Who does not is named in the log.
    pub(super) async fn live_members_are_at(&self, commit: u64) {
        let end = Instant::now() + RIGHTS;
        let mut pause = Duration::from_millis(2);
        self.hurry();
        loop {
            let snapshot = self.snapshot.load_full();
            let live = self.live().await.unwrap_or_default();
            let late = live.iter().find(|(_, live)| live.commit < commit).map(|(number, _)| *number);
            let Some(late) = late else { return };
            let host = snapshot.members.get(late).map(|member| member.host.clone()).unwrap_or_default();
            drop(snapshot);
            if Instant::now() > end {
                return tracing::warn!(
                    member = late,
                    host,
                    "a right was changed, and a server has not confirmed it yet"
                );
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }

    /// What the live members of this epoch say.
    pub(super) async fn live(&self) -> Answered<Arc<BTreeMap<u32, Live>>> {
        self.who_is_live.ask(async { self.ask_who_is_live().await.map(Arc::new).map_err(Arc::new) }).await.said
    }

    async fn ask_who_is_live(&self) -> Result<BTreeMap<u32, Live>, journal::Error> {
        let answer = timeout(CONFIRM, self.journal.live()).await;
        let live = answer.map_err(|_| journal::Error::Unreachable("no answer".into()))??;
        let (cipher, epoch) = (self.cipher.load_full(), self.head().epoch);
        let open = |(number, sealed): (u32, Vec<u8>)| {
            let live = Live::decode(&**cipher.open_live(number, &sealed)?).ok()?;
            (live.epoch == epoch).then_some((number, live))
        };
        Ok(live.into_iter().filter_map(open).collect())
    }

    /// Says how far this node is.
    async fn say(&self) -> Result<Said, journal::Error> {
        let epoch = self.head().epoch;
        let snapshot = self.snapshot.load_full();
        let status = self.describe.get().and_then(|describe| describe(&snapshot));
        let admin = snapshot.admin.to_string();
        // This must not count as use.
        drop(snapshot);
        let live = Live { epoch, commit: self.oldest(), format: FORMAT, admin, status };
        let sealed = self.cipher.load().seal_live(self.number, &live.encode_to_vec());
        let sealed = sealed.map_err(|error| journal::Error::Unreachable(error.into()))?;
        let said = timeout(CONFIRM, self.journal.say(self.number, sealed)).await;
        let said = said.map_err(|_| journal::Error::Unreachable("no answer".into()))??;
        if said == Said::Done {
            let now = clock::since_boot().max(1);
            let _ = self.live_at.compare_exchange(0, now, Ordering::Release, Ordering::Relaxed);
        }
        Ok(said)
    }

    /// Says it for the first time. A lease that a process before this one has left ends within 10 seconds.
    ///
    /// # Errors
    /// When another process is this member.
    pub(super) async fn begin_saying(&self) -> Result<(), Ended> {
        let admin = self.snapshot.load().admin.to_string();
        let others = self.live().await.unwrap_or_default();
        if let Some(other) = others.values().find(|live| live.admin != admin) {
            return Err(Ended::OtherAdmin(other.status.as_ref().map(|status| status.host.clone()).unwrap_or_default()));
        }
        let end = Instant::now() + Duration::from_secs(15);
        loop {
            match self.say().await {
                Ok(Said::Taken) if Instant::now() > end => return Err(Ended::Taken(self.number)),
                Ok(Said::Taken) => sleep(Duration::from_millis(500)).await,
                // Whoever cannot be reached now is told later.
                Ok(Said::Done) | Err(_) => return Ok(()),
            }
        }
    }

    async fn go_on_saying(&self) {
        let mut said = None;
        loop {
            let hurried = timeout(SAY, self.hurry.notified()).await.is_ok();
            // Requests that began on an old state end within milliseconds mostly.
            for _ in 0..40 {
                match self.say().await {
                    Ok(Said::Done) => {}
                    Ok(Said::Taken) => match self.begin_saying().await {
                        Ok(()) => {}
                        Err(ended) => {
                            self.ended.send_replace(Some(ended));
                            return;
                        }
                    },
                    Err(error) => {
                        tracing::debug!(
                            cause = causes(&error),
                            "the other servers were not told that this one is there"
                        );
                        sleep(Duration::from_millis(200)).await;
                    }
                }
                let oldest = self.oldest();
                let current = self.snapshot.load().commit;
                let is_told = oldest == current && said.replace(oldest) == Some(oldest);
                if !hurried || is_told {
                    break;
                }
                sleep(Duration::from_millis(5)).await;
            }
        }
    }

    /// Asks for the head when nobody else does, and says when there is no answer.
    async fn go_on_looking(&self) {
        let (mut silent, mut said) = (None, None);
        loop {
            sleep(LOOK).await;
            let is_known = self.age().is_some_and(|age| age < LOOK);
            let looked = if is_known { Ok(()) } else { self.confirm_now().await };
            let Err(cause) = looked else {
                if let Ok(live) = self.live().await {
                    self.counts.live.store(live.len() as u64, Ordering::Relaxed);
                }
                if let Some(since) = said.take().and(silent) {
                    tracing::info!(after = ?Instant::now().duration_since(since), "the cluster answers again");
                }
                silent = None;
                continue;
            };
            let since = *silent.get_or_insert_with(Instant::now);
            let now = Instant::now();
            let is_due =
                said.map_or(now.duration_since(since) >= SILENT, |said| now.duration_since(said) >= 6 * SILENT);
            if is_due {
                said = Some(now);
                let (silent, stale) = (now.duration_since(since).as_secs(), self.is_stale());
                tracing::warn!(seconds = silent, stale, cause, "the cluster does not answer: nothing can be changed");
            }
        }
    }

    /// Writes the metrics of a node. Those with labels are for who asks for the format by name.
    pub(super) fn write_metrics(&self, text: &mut Text, with_labels: bool) {
        let snapshot = self.snapshot.load_full();
        let members = snapshot.members.iter().count();
        drop(snapshot);
        let counts = &self.counts;
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let behind = (*self.wanted.borrow()).saturating_sub(self.head().revision).max(0);
        text.gauge("claviger_cluster_members", "Members of the cluster.", members);
        text.gauge("claviger_cluster_members_live", "Members that were heard of lately.", count(&counts.live));
        let help = "Revisions of etcd that this server has heard of and not taken over.";
        text.gauge("claviger_cluster_behind_commits", help, behind);
        let help = "Seconds since everything was known here that was acknowledged anywhere; -1: never since the start.";
        let age = self.age().map_or(-1.0, |age| age.as_secs_f64());
        text.gauge("claviger_cluster_confirmed_seconds_ago", help, age);
        let help = "Changes that were judged again because another server was first.";
        text.counter("claviger_cluster_overtaken_total", help, count(&counts.overtaken));
        text.counter("claviger_cluster_reloads_total", "How often everything was loaded anew.", count(&counts.reloads));
        let help = "Deletions that wait until all members have confirmed them.";
        text.gauge("claviger_cluster_deletes_waiting", help, count(&counts.waiting));
        let help = "Whether nothing can be changed because etcd was set back, or holds what no server has written.";
        text.gauge("claviger_cluster_set_back", help, u8::from(self.trouble.load().is_some()));
        if !with_labels {
            return;
        }
        let name = "claviger_cluster_unknown_total";
        text.family(name, "counter", "Changes without an answer of etcd, by what was found out later.");
        text.labelled(name, "outcome", &"written", count(&counts.unknown_done));
        text.labelled(name, "outcome", &"not_written", count(&counts.unknown_not));
        text.labelled(name, "outcome", &"unknown", count(&counts.unknown));
        let name = "claviger_cluster_seconds";
        text.family(name, "histogram", "How long etcd takes: for a change, and for confirming what is known here.");
        counts.append.write(text, name, "operation", "append");
        counts.confirm.write(text, name, "operation", "confirm");
    }

    /// Hands every commit over, in order, whatever happens to connections.
    async fn follow(&self, inbox: mpsc::Sender<Foreign>, wake: impl Fn()) {
        loop {
            let trouble = match self.follow_once(&inbox, &wake).await {
                journal::Error::Compacted => {
                    self.reload("compacted", &inbox, &wake).await;
                    None
                }
                journal::Error::SetBack(what) => Some(what),
                journal::Error::Malformed(what) => {
                    self.reload("malformed", &inbox, &wake).await;
                    Some(what)
                }
                journal::Error::Unreachable(error) => {
                    tracing::debug!(cause = causes(&*error), "the journal of the cluster is not followed");
                    None
                }
            };
            if trouble.is_some() {
                self.note_trouble(trouble);
            }
            if inbox.is_closed() {
                return;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    async fn reload(&self, why: &'static str, inbox: &mpsc::Sender<Foreign>, wake: &impl Fn()) {
        let (done, is_done) = oneshot::channel();
        let _ = inbox.send(Foreign::Reload(why, done)).await;
        wake();
        let _ = is_done.await;
    }

    /// Follows the journal until that fails.
    async fn follow_once(&self, inbox: &mpsc::Sender<Foreign>, wake: &impl Fn()) -> journal::Error {
        let head = self.head();
        if head.revision == UNKNOWN {
            // Everything is loaded once the journal answers.
            return match self.journal.head().await {
                Ok(_) => journal::Error::Compacted,
                Err(error) => error,
            };
        }
        let mut follow = match self.journal.follow(&head).await {
            Ok(follow) => follow,
            Err(error) => return error,
        };
        self.note_trouble(None);
        loop {
            let next = tokio::select! {
                next = follow.next() => next,
                () = self.is_behind() => return journal::Error::Unreachable("it is behind".into()),
            };
            match next {
                Ok(commit) => {
                    if inbox.send(Foreign::Commit(commit)).await.is_err() {
                        return journal::Error::Unreachable("the writer has ended".into());
                    }
                    wake();
                }
                Err(error) => return error,
            }
        }
    }

    /// Waits until the head has been ahead for longer than it takes to hear of it.
    async fn is_behind(&self) {
        let mut wanted = self.wanted.subscribe();
        loop {
            let wants = *wanted.borrow_and_update();
            let applied = self.head().revision;
            if wants <= applied {
                if wanted.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                continue;
            }
            let mut progress = self.applied.subscribe();
            if timeout(BEHIND, progress.wait_for(|head| head.revision > applied)).await.is_err() {
                return;
            }
        }
    }
}

/// Counts one who waits, while it exists.
struct Waits<'a>(&'a AtomicU64);

impl<'a> Waits<'a> {
    fn begin(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
