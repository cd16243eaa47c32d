//! A journal in memory that several nodes of one process share, for tests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;

use super::{Appended, Changes, Commit, Each, Error, Follow, Head, Journal, Said};
use crate::kms::record::Id;
use crate::kms::store::Seals;

/// The most keys that one commit may change.
const MOST: usize = 127;

/// What all nodes share.
pub(in crate::kms) struct Cluster {
    inner: Mutex<Inner>,
    changed: watch::Sender<i64>,
}

#[derive(Default)]
struct Inner {
    /// Everything at each head.
    log: Vec<(Commit, Everything)>,
    /// What was written under epochs that have no head.
    filled: BTreeMap<u64, Everything>,
    live: BTreeMap<u32, (u64, Vec<u8>)>,
    revision: i64,
    /// Commits up to this revision are no longer kept.
    compacted: i64,
    nodes: u64,
}

/// All records but that of the state, and the seals.
#[derive(Clone, Default)]
pub(in crate::kms) struct Everything {
    pub(in crate::kms) records: BTreeMap<Id, Vec<u8>>,
    pub(in crate::kms) seals: BTreeMap<String, Vec<u8>>,
}

impl Everything {
    fn apply(&mut self, changes: &Changes) {
        for (id, value) in &changes.records {
            match value {
                Some(value) => self.records.insert(*id, value.clone()),
                None => self.records.remove(id),
            };
        }
        for (name, seal) in &changes.seals {
            match seal {
                Some(seal) => self.seals.insert(name.clone(), seal.clone()),
                None => self.seals.remove(name),
            };
        }
    }
}

/// How a node reaches the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::kms) enum Link {
    /// Everything arrives.
    #[default]
    Up,
    /// Nothing arrives, in either direction.
    Cut,
    /// What is written arrives, and the answer is lost.
    Deaf,
}

/// The journal as one node has it.
pub(in crate::kms) struct Shared {
    cluster: Arc<Cluster>,
    node: u64,
    link: Arc<Mutex<Link>>,
    gate: Gate,
}

/// Holds answers back while it is closed.
#[derive(Clone)]
pub(in crate::kms) struct Gate(watch::Sender<bool>);

impl Gate {
    pub(in crate::kms) fn close(&self) {
        self.0.send_replace(false);
    }

    pub(in crate::kms) fn open(&self) {
        self.0.send_replace(true);
    }

    async fn pass(&self) {
        let _ = self.0.subscribe().wait_for(|is_open| *is_open).await;
    }
}

impl Cluster {
    pub(in crate::kms) fn new() -> Arc<Self> {
        Arc::new(Self { inner: Mutex::default(), changed: watch::channel(0).0 })
    }

    /// The journal for one more node.
    pub(in crate::kms) fn node(self: &Arc<Self>) -> Shared {
        let mut inner = self.lock();
        inner.nodes += 1;
        Shared { cluster: self.clone(), node: inner.nodes, link: Arc::default(), gate: Gate(watch::channel(true).0) }
    }

    /// Forgets the commits up to now, as a compaction does.
    pub(in crate::kms) fn compact(&self) {
        let mut inner = self.lock();
        inner.compacted = inner.revision;
    }

    /// Goes back to what was there `commits` commits ago.
    pub(in crate::kms) fn set_back(&self, commits: usize) {
        let mut inner = self.lock();
        let len = inner.log.len().saturating_sub(commits);
        inner.log.truncate(len);
        inner.revision = inner.log.last().map_or(0, |(commit, _)| commit.head.revision);
    }

    /// One that has this, and no past.
    pub(in crate::kms) fn of(head: Head, everything: Everything) -> Arc<Self> {
        let cluster = Self::new();
        cluster.forge(head, everything);
        cluster
    }

    /// Puts this in the place of everything, as somebody may who can write to the journal.
    pub(in crate::kms) fn forge(&self, head: Head, everything: Everything) {
        let mut inner = self.lock();
        inner.revision += 1;
        let head = Head { revision: inner.revision, ..head };
        inner.log.push((Commit { head, changes: Changes::default() }, everything));
    }

    /// Everything at each head.
    pub(in crate::kms) fn history(&self) -> Vec<(Head, Everything)> {
        self.lock().log.iter().map(|(commit, everything)| (commit.head.clone(), everything.clone())).collect()
    }

    /// All commits but the first so many.
    pub(in crate::kms) fn commits(&self, from: usize) -> Vec<Commit> {
        self.lock().log.iter().skip(from).map(|(commit, _)| commit.clone()).collect()
    }

    /// The seals of the root key.
    pub(in crate::kms) fn seals(&self) -> Seals {
        self.lock().log.last().map(|(_, everything)| everything.seals.clone()).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn head(&self) -> Option<&Head> {
        self.log.last().map(|(commit, _)| &commit.head)
    }
}

impl Shared {
    /// Cuts this node off, or lets it back.
    pub(in crate::kms) fn link(&self) -> Arc<Mutex<Link>> {
        self.link.clone()
    }

    /// Holds the answers of this node back.
    pub(in crate::kms) fn gate(&self) -> Gate {
        self.gate.clone()
    }

    fn reach(&self) -> Result<MutexGuard<'_, Inner>, Error> {
        match *self.link.lock().unwrap_or_else(PoisonError::into_inner) {
            Link::Cut => Err(Error::Unreachable("cut off".into())),
            Link::Up | Link::Deaf => Ok(self.cluster.lock()),
        }
    }

    async fn heard<T>(&self, answer: T) -> Result<T, Error> {
        self.gate.pass().await;
        match *self.link.lock().unwrap_or_else(PoisonError::into_inner) {
            Link::Deaf | Link::Cut => Err(Error::Unreachable("no answer".into())),
            Link::Up => Ok(answer),
        }
    }
}

#[async_trait]
impl Journal for Shared {
    fn cluster(&self) -> Option<u64> {
        Some(1)
    }

    async fn head(&self) -> Result<Option<Head>, Error> {
        let head = self.reach()?.head().cloned();
        self.heard(head).await
    }

    async fn append(&self, after: Option<i64>, epoch: u64, state: &[u8], changes: &Changes) -> Result<Appended, Error> {
        let appended = {
            let mut inner = self.reach()?;
            let head = inner.head().cloned();
            if head.as_ref().map(|head| head.revision) != after {
                Appended::Overtaken(head)
            } else if changes.silent.iter().any(|number| inner.live.contains_key(number)) {
                Appended::Live
            } else {
                inner.revision += 1;
                let new = Head { revision: inner.revision, epoch, state: state.to_vec() };
                let is_same_epoch = head.is_some_and(|head| head.epoch == epoch);
                let mut everything = match inner.log.last() {
                    Some((_, everything)) if is_same_epoch => everything.clone(),
                    _ => inner.filled.remove(&epoch).unwrap_or_default(),
                };
                everything.apply(changes);
                let mut changes = if is_same_epoch { changes.clone() } else { Changes::default() };
                changes.silent.clear();
                inner.log.push((Commit { head: new.clone(), changes }, everything));
                self.cluster.changed.send_replace(new.revision);
                Appended::Done(new)
            }
        };
        self.heard(appended).await
    }

    async fn load(&self, each: &mut Each<'_>) -> Result<Option<(Head, Seals)>, Error> {
        let last = self.reach()?.log.last().cloned();
        let Some((commit, everything)) = last else { return Ok(None) };
        for (id, value) in &everything.records {
            if !each(id, value) {
                return Err(Error::Malformed("the reader has stopped".into()));
            }
        }
        Ok(Some((commit.head, everything.seals)))
    }

    async fn follow(&self, after: &Head) -> Result<Box<dyn Follow>, Error> {
        let inner = self.reach()?;
        if after.revision == 0 || after.revision < inner.compacted {
            return Err(Error::Compacted);
        }
        let at = inner.log.iter().rev().find(|(commit, _)| commit.head.revision <= after.revision);
        if inner.revision < after.revision || at.is_none_or(|(commit, _)| commit.head != *after) {
            return Err(Error::SetBack("the head was another one".into()));
        }
        let changed = self.cluster.changed.subscribe();
        let (cluster, link) = (self.cluster.clone(), self.link.clone());
        Ok(Box::new(Following { cluster, link, changed, after: after.revision }))
    }

    async fn fill(&self, epoch: u64, changes: &Changes) -> Result<(), Error> {
        self.reach()?.filled.entry(epoch).or_default().apply(changes);
        self.heard(()).await
    }

    async fn clear_but(&self, epoch: u64) -> Result<(), Error> {
        self.reach()?.filled.retain(|filled, _| *filled == epoch);
        self.heard(()).await
    }

    async fn live(&self) -> Result<BTreeMap<u32, Vec<u8>>, Error> {
        let live = self.reach()?.live.iter().map(|(number, (_, what))| (*number, what.clone())).collect();
        self.heard(live).await
    }

    async fn say(&self, number: u32, what: Vec<u8>) -> Result<Said, Error> {
        let said = {
            let mut inner = self.reach()?;
            match inner.live.get(&number) {
                Some((node, _)) if *node != self.node => Said::Taken,
                _ => {
                    inner.live.insert(number, (self.node, what));
                    Said::Done
                }
            }
        };
        self.heard(said).await
    }

    async fn leave(&self) {
        self.cluster.lock().live.retain(|_, (node, _)| *node != self.node);
    }

    fn most_changes(&self) -> usize {
        MOST
    }
}

struct Following {
    cluster: Arc<Cluster>,
    link: Arc<Mutex<Link>>,
    changed: watch::Receiver<i64>,
    after: i64,
}

#[async_trait]
impl Follow for Following {
    async fn next(&mut self) -> Result<Commit, Error> {
        loop {
            self.changed.mark_unchanged();
            let next = {
                let inner = self.cluster.lock();
                inner.log.iter().map(|(commit, _)| commit).find(|commit| commit.head.revision > self.after).cloned()
            };
            if *self.link.lock().unwrap_or_else(PoisonError::into_inner) != Link::Up {
                return Err(Error::Unreachable("cut off".into()));
            }
            if let Some(commit) = next {
                self.after = commit.head.revision;
                return Ok(commit);
            }
            if self.changed.changed().await.is_err() {
                return Err(Error::Unreachable("it is gone".into()));
            }
        }
    }
}
