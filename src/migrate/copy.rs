//! The one loop that writes: each key exclusively or atomically, each read back.

use futures_util::{StreamExt as _, future, stream};
use tokio_util::sync::CancellationToken;

use super::plan::{Class, Entry, Plan};
use super::progress::{Progress, Step};
use super::{Migration, OnConflict};
use crate::crypto::Blob;
use crate::keystore::Error;
use crate::name::KeyName;
use crate::telemetry::log::causes;

/// Whether every written key is read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prove {
    /// It is, and compared byte for byte.
    ReadBack,
    /// The target's word is taken.
    Trust,
}

/// What became of a planned key.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was created on the target.
    Written,
    /// It took the place of another key on the target.
    Replaced,
    /// The target had it already.
    Unchanged,
    /// The target has another key under this name, which stays.
    NotMigrated,
    /// It could not be written or proven.
    Failed(Failure),
    /// Its turn did not come.
    NotReached,
}

/// Why a key was not copied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Somebody created another key of this name during the run. It is left as it is.
    #[error("another key appeared under this name on the target during the run; it was left as it is")]
    Appeared,
    /// The target failed; with what.
    #[error("{0}")]
    Target(String),
    /// The target answered with something else than was written.
    #[error("the target does not give back what was written: {0}")]
    Unproven(String),
}

impl Failure {
    /// Whether it is about this key alone, so that the next one may do better.
    fn is_local(&self) -> bool {
        matches!(self, Self::Appeared)
    }
}

impl Migration {
    /// Writes what the plan and `on_conflict` ask for, and says for each entry of the plan what became of it.
    ///
    /// After a lost target, or when `stop` is cancelled, no further key is begun, and those in flight are finished.
    pub async fn copy(
        &self,
        plan: &Plan,
        on_conflict: OnConflict,
        prove: Prove,
        progress: &Progress,
        stop: &CancellationToken,
    ) -> Vec<Outcome> {
        let mut outcomes: Vec<_> = plan.entries.iter().map(|entry| before(entry, on_conflict)).collect();
        let todo = outcomes.iter().enumerate().filter(|(_, outcome)| **outcome == Outcome::NotReached);
        let todo: Vec<_> = todo.map(|(index, _)| index).collect();
        progress.begin(Step::Writing, todo.len());
        let stop = stop.child_token();
        let mut copied = stream::iter(todo)
            .take_while(|_| future::ready(!stop.is_cancelled()))
            .map(|index| async move { (index, self.copy_one(&plan.entries[index], on_conflict, prove).await) })
            .buffer_unordered(self.concurrency);
        while let Some((index, copied)) = copied.next().await {
            progress.advance();
            outcomes[index] = copied.unwrap_or_else(|failure| {
                if !failure.is_local() {
                    stop.cancel();
                }
                Outcome::Failed(failure)
            });
        }
        drop(copied);
        outcomes
    }

    async fn copy_one(&self, entry: &Entry, on_conflict: OnConflict, prove: Prove) -> Result<Outcome, Failure> {
        let outcome = match &entry.class {
            Class::Different(stored) => self.replace(entry, &stored.value).await?,
            _ => self.create(entry, on_conflict).await?,
        };
        if prove == Prove::ReadBack {
            self.prove(&entry.name, &entry.value).await?;
        }
        Ok(outcome)
    }

    /// Creates a key that the target lacked when the plan was made.
    async fn create(&self, entry: &Entry, on_conflict: OnConflict) -> Result<Outcome, Failure> {
        let Entry { name, value, .. } = entry;
        match self.target.create(name, value).await {
            Ok(()) => Ok(Outcome::Written),
            // Somebody who copies the same keys may be doing it now.
            Err(Error::Exists) => match self.target.get(name).await {
                Ok(there) if there.is_same(value) => Ok(Outcome::Written),
                Ok(there) if on_conflict == OnConflict::Replace => self.replace(entry, &there).await,
                Ok(_) | Err(Error::NotFound) => Err(Failure::Appeared),
                Err(error) => Err(Failure::Target(causes(&error))),
            },
            Err(error) => Err(Failure::Target(causes(&error))),
        }
    }

    /// Replaces the target's key by the source's.
    async fn replace(&self, entry: &Entry, expected: &Blob) -> Result<Outcome, Failure> {
        let Entry { name, value, .. } = entry;
        let Err(error) = self.target.replace(name, expected, value).await else {
            return Ok(Outcome::Replaced);
        };
        // Somebody who copies the same keys may have done it.
        match self.target.get(name).await {
            Ok(there) if there.is_same(value) => Ok(Outcome::Replaced),
            Ok(there) if !there.is_same(expected) => Err(Failure::Appeared),
            _ => Err(Failure::Target(causes(&error))),
        }
    }

    async fn prove(&self, name: &KeyName, value: &Blob) -> Result<(), Failure> {
        match self.target.get(name).await {
            Ok(there) if there.is_same(value) => Ok(()),
            Ok(_) => Err(Failure::Unproven("it holds another value".into())),
            Err(error) => Err(Failure::Unproven(causes(&error))),
        }
    }
}

/// What the plan alone decides; [`Outcome::NotReached`] where there is something to write.
fn before(entry: &Entry, on_conflict: OnConflict) -> Outcome {
    match (&entry.class, on_conflict) {
        (Class::Identical, _) => Outcome::Unchanged,
        (Class::Different(_), OnConflict::Fail | OnConflict::Skip) => Outcome::NotMigrated,
        (Class::Missing, _) | (Class::Different(_), OnConflict::Replace) => Outcome::NotReached,
    }
}
