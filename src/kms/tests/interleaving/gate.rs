//! A journal behind gates: what a node sends, what it hears, and every commit that comes to it waits for its turn.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use tokio::sync::oneshot;

use crate::kms::journal::shared::{Cluster, Shared};
use crate::kms::journal::{Appended, Changes, Commit, Each, Error, Follow, Head, Journal, Said};
use crate::kms::store::Seals;

/// What waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// A call, before it takes effect.
    Send(Call),
    /// Its answer, before it is heard.
    Hear(Call),
    /// A transaction whose sender has given up.
    Late,
    /// A commit for a follower.
    Commit,
    /// A request that holds a state, before it uses it.
    Use,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Call {
    Append,
    Head,
    Load,
    Live,
    Say,
}

/// What happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Goes,
    /// It does not arrive. Of a follower: its connection ends.
    Lost,
    /// Of a transaction: the sender gives up, and it arrives later or never. Of a commit: it is left out.
    Late,
}

/// A turn. Whoever holds it is the only one who has one.
pub(super) struct Turn {
    pub(super) verdict: Verdict,
    _done: Option<oneshot::Sender<()>>,
}

struct Waiting {
    node: usize,
    what: What,
    go: oneshot::Sender<Turn>,
}

/// All gates of one cluster.
#[derive(Default)]
pub(super) struct Gates {
    waiting: Mutex<Vec<Waiting>>,
    are_closed: AtomicBool,
    /// Counts everything that happens.
    pub(super) events: AtomicU64,
}

impl Gates {
    pub(super) fn close(&self) {
        self.are_closed.store(true, Ordering::SeqCst);
    }

    /// Lets everything pass from now on.
    pub(super) fn open(&self) {
        let mut waiting = self.lock();
        self.are_closed.store(false, Ordering::SeqCst);
        for Waiting { go, .. } in waiting.drain(..) {
            let _ = go.send(Turn { verdict: Verdict::Goes, _done: None });
        }
    }

    pub(super) async fn pass(&self, node: usize, what: What) -> Turn {
        let turn = {
            let mut waiting = self.lock();
            if !self.are_closed.load(Ordering::SeqCst) {
                return Turn { verdict: Verdict::Goes, _done: None };
            }
            let (go, turn) = oneshot::channel();
            waiting.push(Waiting { node, what, go });
            self.events.fetch_add(1, Ordering::SeqCst);
            turn
        };
        turn.await.unwrap_or(Turn { verdict: Verdict::Lost, _done: None })
    }

    /// Who waits.
    pub(super) fn waiting(&self) -> Vec<(usize, What)> {
        let mut waiting = self.lock();
        waiting.retain(|waiting| !waiting.go.is_closed());
        waiting.iter().map(|waiting| (waiting.node, waiting.what)).collect()
    }

    /// Gives one a turn, and waits until that is over.
    pub(super) async fn release(&self, which: (usize, What), verdict: Verdict) {
        let found = {
            let mut waiting = self.lock();
            let at = waiting.iter().position(|waiting| (waiting.node, waiting.what) == which);
            at.map(|at| waiting.remove(at))
        };
        let Some(Waiting { go, .. }) = found else { return };
        let (done, over) = oneshot::channel();
        if go.send(Turn { verdict, _done: Some(done) }).is_ok() {
            let _ = over.await;
        }
        self.events.fetch_add(1, Ordering::SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().expect("no panic")
    }
}

/// The journal of one process.
#[derive(Clone)]
pub(super) struct Gated {
    inner: Arc<Shared>,
    gates: Arc<Gates>,
    node: usize,
    is_dead: Arc<AtomicBool>,
}

/// What a call says that was lost.
pub(super) const LOST: &str = "it was lost on the way";

fn lost<T>() -> Result<T, Error> {
    Err(Error::Unreachable(LOST.into()))
}

impl Gated {
    pub(super) fn new(cluster: &Arc<Cluster>, gates: &Arc<Gates>, node: usize) -> Self {
        Self { inner: Arc::new(cluster.node()), gates: gates.clone(), node, is_dead: Arc::default() }
    }

    /// Ends the process: nothing that it does from now on has any effect.
    pub(super) async fn kill(&self) {
        self.is_dead.store(true, Ordering::SeqCst);
        self.inner.leave().await;
    }

    pub(super) fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::SeqCst)
    }

    async fn call<T>(&self, call: Call, effect: impl Future<Output = Result<T, Error>> + Send) -> Result<T, Error> {
        let answer = {
            let turn = self.gates.pass(self.node, What::Send(call)).await;
            if turn.verdict != Verdict::Goes || self.is_dead() {
                return lost();
            }
            effect.await?
        };
        let turn = self.gates.pass(self.node, What::Hear(call)).await;
        if turn.verdict != Verdict::Goes || self.is_dead() { lost() } else { Ok(answer) }
    }
}

#[async_trait]
impl Journal for Gated {
    fn cluster(&self) -> Option<u64> {
        self.inner.cluster()
    }

    async fn head(&self) -> Result<Option<Head>, Error> {
        if self.is_dead() { lost() } else { self.call(Call::Head, self.inner.head()).await }
    }

    async fn append(&self, after: Option<i64>, epoch: u64, state: &[u8], changes: &Changes) -> Result<Appended, Error> {
        // So that the thread of a process that is no more ends soon.
        let dead = Ok(Appended::Overtaken(None));
        if self.is_dead() {
            return dead;
        }
        let appended = {
            let turn = self.gates.pass(self.node, What::Send(Call::Append)).await;
            match turn.verdict {
                Verdict::Late => {
                    let (gated, state, changes) = (self.clone(), state.to_vec(), changes.clone());
                    tokio::spawn(async move {
                        let turn = gated.gates.pass(gated.node, What::Late).await;
                        if turn.verdict == Verdict::Goes {
                            let _ = gated.inner.append(after, epoch, &state, &changes).await;
                        }
                    });
                    return lost();
                }
                Verdict::Lost => return lost(),
                Verdict::Goes if self.is_dead() => return dead,
                Verdict::Goes => self.inner.append(after, epoch, state, changes).await?,
            }
        };
        let turn = self.gates.pass(self.node, What::Hear(Call::Append)).await;
        match turn.verdict {
            _ if self.is_dead() => dead,
            Verdict::Goes => Ok(appended),
            Verdict::Lost | Verdict::Late => lost(),
        }
    }

    async fn load(&self, each: &mut Each<'_>) -> Result<Option<(Head, Seals)>, Error> {
        if self.is_dead() { lost() } else { self.call(Call::Load, self.inner.load(each)).await }
    }

    async fn follow(&self, after: &Head) -> Result<Box<dyn Follow>, Error> {
        if self.is_dead() {
            return lost();
        }
        Ok(Box::new(Following { inner: self.inner.follow(after).await?, of: self.clone(), held: None }))
    }

    async fn fill(&self, epoch: u64, changes: &Changes) -> Result<(), Error> {
        self.inner.fill(epoch, changes).await
    }

    async fn clear_but(&self, epoch: u64) -> Result<(), Error> {
        self.inner.clear_but(epoch).await
    }

    async fn live(&self) -> Result<BTreeMap<u32, Vec<u8>>, Error> {
        if self.is_dead() { lost() } else { self.call(Call::Live, self.inner.live()).await }
    }

    async fn say(&self, number: u32, what: Vec<u8>) -> Result<Said, Error> {
        if self.is_dead() { lost() } else { self.call(Call::Say, self.inner.say(number, what)).await }
    }

    async fn leave(&self) {
        self.inner.leave().await;
    }

    fn most_changes(&self) -> usize {
        self.inner.most_changes()
    }
}

struct Following {
    inner: Box<dyn Follow>,
    of: Gated,
    /// The commit that waits, also when nobody waits for it any more.
    held: Option<Commit>,
}

#[async_trait]
impl Follow for Following {
    async fn next(&mut self) -> Result<Commit, Error> {
        loop {
            if self.held.is_none() {
                self.held = Some(self.inner.next().await?);
            }
            let turn = self.of.gates.pass(self.of.node, What::Commit).await;
            match turn.verdict {
                Verdict::Lost => return lost(),
                Verdict::Late => self.held = None,
                Verdict::Goes => {}
            }
            if let Some(commit) = self.held.take() {
                return Ok(commit);
            }
        }
    }
}
