//! The journal of a cluster: it puts the commits of all nodes in one order.
//!
//! A node hands over each of its commits, and gets those of the others. Nothing that comes from a journal is trusted: the
//! records are authenticated, and the sum in the head is checked after every commit.

#[cfg(test)]
mod conformance;
pub mod etcd;
#[cfg(test)]
pub(super) mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use async_trait::async_trait;

use super::record::Id;
use super::store::Seals;

/// The newest commit, as all nodes see it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// Where it stands in the order of everything that was ever written. The one of a later commit is greater.
    pub revision: i64,
    /// Counts how often everything was replaced.
    pub epoch: u64,
    /// The record of the state after it, sealed. No two commits have the same one, because its nonce is random.
    pub state: Vec<u8>,
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { revision, epoch, .. } = self;
        write!(f, "Head {{ revision: {revision}, epoch: {epoch:x} }}")
    }
}

/// What one commit changes; a value of `None` is removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Records, without the one of the state.
    pub records: BTreeMap<Id, Option<Vec<u8>>>,
    /// Seals of the root key.
    pub seals: BTreeMap<String, Option<Vec<u8>>>,
    /// Members that must not be live when it is written. Only in an attempt to append.
    pub silent: BTreeSet<u32>,
}

impl Changes {
    /// How many keys of the journal it changes.
    pub(super) fn count(&self) -> usize {
        self.records.len() + self.seals.len()
    }
}

/// A commit of any node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Commit {
    /// The head that it made.
    pub head: Head,
    /// What it changed. Of a head with another epoch than before: nothing; everything is to be loaded.
    pub changes: Changes,
}

/// What came of an attempt to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Appended {
    /// It is written, and this is the head.
    Done(Head),
    /// Nothing was written: this is the head instead; none: there is none.
    Overtaken(Option<Head>),
    /// Nothing was written: one of [`Changes::silent`] is live.
    Live,
}

/// Takes a record, and says whether it wants more.
pub(super) type Each<'e> = dyn FnMut(&Id, &[u8]) -> bool + Send + 'e;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers, or not as one should. Whether a change was made is unknown.
    #[error("{0}")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What was asked for is no longer kept: everything is to be loaded.
    #[error("the journal no longer has the commits in between")]
    Compacted,
    /// The journal is not the one that it was.
    #[error("{0}")]
    SetBack(String),
    /// What is there was not written by any node.
    #[error("{0}")]
    Malformed(String),
}

/// Orders the commits of all nodes.
#[async_trait]
pub(super) trait Journal: Send + Sync + 'static {
    /// The id of what keeps the journal, once it has answered.
    fn cluster(&self) -> Option<u64>;

    /// The newest head, as the majority knows it; none: nothing was ever written. It is at least as new as every commit
    /// that was acknowledged before this was called.
    ///
    /// # Errors
    /// When nobody answers.
    async fn head(&self) -> Result<Option<Head>, Error>;

    /// Makes all of the changes and a new head of `epoch` and `state`, if the head is still the one of `after`; none: if
    /// there is no head yet; and if none of [`Changes::silent`] is live. Otherwise changes nothing. It may be asked for
    /// again, byte for byte.
    ///
    /// # Errors
    /// When it is unknown whether the changes were made.
    async fn append(&self, after: Option<i64>, epoch: u64, state: &[u8], changes: &Changes) -> Result<Appended, Error>;

    /// Everything, at one moment: passes each record but that of the state to `each`, and returns head and seals; none:
    /// nothing was ever written.
    ///
    /// # Errors
    /// When that is not possible, or `each` returns `false`.
    async fn load(&self, each: &mut Each<'_>) -> Result<Option<(Head, Seals)>, Error>;

    /// All commits after `after`, in order. First it checks that `after` was the head at its revision.
    ///
    /// # Errors
    /// [`Error::SetBack`] when it was not; [`Error::Compacted`] when some are no longer kept, or its revision is 0: nobody
    /// knows which commit it was.
    async fn follow(&self, after: &Head) -> Result<Box<dyn Follow>, Error>;

    /// Writes records and seals under an epoch that is not that of the head. It may be called again and again; readers
    /// see nothing of it before [`Journal::append`] makes a head of that epoch.
    ///
    /// # Errors
    /// When that is not certain.
    async fn fill(&self, epoch: u64, changes: &Changes) -> Result<(), Error>;

    /// Removes everything of all epochs but this one.
    ///
    /// # Errors
    /// When that is not certain.
    async fn clear_but(&self, epoch: u64) -> Result<(), Error>;

    /// What every live member says, by number.
    ///
    /// # Errors
    /// When nobody answers.
    async fn live(&self) -> Result<BTreeMap<u32, Vec<u8>>, Error>;

    /// Says something as a member, and goes on saying it until [`Journal::leave`], or until nothing was heard of this node
    /// for 10 seconds.
    ///
    /// # Errors
    /// When nobody answers. [`Said::Taken`] when another process is this member.
    async fn say(&self, number: u32, what: Vec<u8>) -> Result<Said, Error>;

    /// Stops saying anything.
    async fn leave(&self);

    /// The most keys that one commit may change.
    fn most_changes(&self) -> usize;
}

/// What came of saying something as a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// It is said.
    Done,
    /// Another process is this member.
    Taken,
}

/// The commits that follow a head.
#[async_trait]
pub(super) trait Follow: Send {
    /// The next commit. Waits for it. It may be dropped while it waits, and nothing is lost.
    ///
    /// # Errors
    /// When there will be no more.
    async fn next(&mut self) -> Result<Commit, Error>;
}
