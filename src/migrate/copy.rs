//! The one loop that writes: creates never overwrite, replacements are atomic, and each key is read back.

use futures_util::{StreamExt as _, future, stream};
use tokio_util::sync::CancellationToken;

use super::plan::{Class, Entry, Plan};
use super::progress::{Progress, Step};
use super::target::{Other, There};
use super::{Migration, OnConflict, Problem, Side, batches};
use crate::keystore::Error;
use crate::telemetry::log::causes;

/// Whether every written key is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prove {
    /// Each key is proven as well as the target allows: [`super::Target::prove`].
    ReadBack,
    /// The target's answer to the write is trusted.
    Trust,
}

/// What became of a planned key.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was created on the target.
    Written,
    /// It replaced another key on the target.
    Replaced,
    /// The target had it already.
    Unchanged,
    /// The target has another key under this name, which stays.
    NotMigrated,
    /// It could not be written or proven.
    Failed(Failure),
    /// The run ended before its turn.
    NotReached,
}

/// Why a key was not copied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Another key of this name was created during the run. It stays as it is.
    #[error("another key appeared under this name on the target during the run; it was left as it is")]
    Appeared,
    /// The target failed, with this reason.
    #[error("{0}")]
    Target(String),
    /// The target gave back something other than what was written.
    #[error("the target does not give back what was written: {0}")]
    Unproven(String),
}

impl Failure {
    /// Whether the failure concerns this key alone, so that the run can go on.
    fn is_local(&self) -> bool {
        matches!(self, Self::Appeared)
    }
}

impl Migration {
    /// Writes what the plan and `on_conflict` ask for. Returns the outcome of each entry of the plan.
    ///
    /// When the target is lost, or `stop` is cancelled, it starts no further key and finishes those in flight.
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
        let mut copied = stream::iter(batches(&todo, self.target.batch(), self.concurrency))
            .take_while(|_| future::ready(!stop.is_cancelled()))
            .map(|batch| self.copy_batch(plan, batch, on_conflict, prove))
            .buffer_unordered(self.concurrency);
        while let Some(batch) = copied.next().await {
            progress.advance(batch.len());
            for (index, copied) in batch {
                outcomes[index] = copied.unwrap_or_else(|failure| {
                    if !failure.is_local() {
                        stop.cancel();
                    }
                    Outcome::Failed(failure)
                });
            }
        }
        drop(copied);
        outcomes
    }

    /// Does everything that [`Migration::copy`] would do with the plan's values, and writes nothing.
    ///
    /// # Errors
    /// The keys that could not be written, and why.
    pub async fn rehearse(
        &self,
        plan: &Plan,
        on_conflict: OnConflict,
        progress: &Progress,
    ) -> Result<(), super::Error> {
        let todo = plan.entries.iter().filter(|entry| before(entry, on_conflict) == Outcome::NotReached);
        let todo: Vec<_> = todo.collect();
        progress.begin(Step::Rehearsing, todo.len());
        let mut rehearsed = stream::iter(todo)
            .map(|entry| async move { (&entry.name, self.target.rehearse(&entry.name, &entry.key).await) })
            .buffered(self.concurrency);
        let mut problems = Vec::new();
        while let Some((name, answer)) = rehearsed.next().await {
            progress.advance(1);
            if let Err(error) = answer {
                problems.push(Problem { side: Side::Target, name: name.to_string(), reason: causes(&error) });
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(super::Error::Unusable(problems)) }
    }

    /// Writes these entries of the plan, then reads back what was written.
    async fn copy_batch(
        &self,
        plan: &Plan,
        batch: Vec<usize>,
        on_conflict: OnConflict,
        prove: Prove,
    ) -> Vec<(usize, Result<Outcome, Failure>)> {
        let entries: Vec<_> = batch.iter().map(|index| &plan.entries[*index]).collect();
        let mut copied = self.write(&entries, on_conflict).await;
        if prove == Prove::ReadBack {
            self.prove(&entries, &mut copied).await;
        }
        batch.into_iter().zip(copied).collect()
    }

    async fn write(&self, entries: &[&Entry], on_conflict: OnConflict) -> Vec<Result<Outcome, Failure>> {
        let missing = entries.iter().filter(|entry| matches!(entry.class, Class::Missing));
        let missing: Vec<_> = missing.map(|entry| entry.pair()).collect();
        let mut created = self.target.create(&missing).await.into_iter();
        let mut copied = Vec::with_capacity(entries.len());
        for entry in entries {
            copied.push(match &entry.class {
                Class::Different(found) => self.replace(entry, found).await,
                _ => match created.next().expect("an answer for each missing key") {
                    Ok(()) => Ok(Outcome::Written),
                    Err(Error::Exists) => self.appeared(entry, on_conflict).await,
                    Err(error) => Err(Failure::Target(causes(&error))),
                },
            });
        }
        copied
    }

    /// Handles a key that the target lacked when the plan was made, and has now.
    async fn appeared(&self, entry: &Entry, on_conflict: OnConflict) -> Result<Outcome, Failure> {
        // Another run may be copying the same keys, or our own write succeeded and its answer was lost.
        match self.found(entry).await {
            Ok(There::Same) => Ok(Outcome::Written),
            Ok(There::Other(found)) if on_conflict == OnConflict::Replace && found.keep.is_none() => {
                self.replace(entry, &found).await
            }
            Ok(_) | Err(Error::NotFound) => Err(Failure::Appeared),
            Err(error) => Err(Failure::Target(causes(&error))),
        }
    }

    /// Replaces the target's key by the source's.
    async fn replace(&self, entry: &Entry, expected: &Other) -> Result<Outcome, Failure> {
        let Err(error) = self.target.replace(&entry.name, expected, &entry.key).await else {
            return Ok(Outcome::Replaced);
        };
        // Another run that copies the same keys may have done it.
        match self.found(entry).await {
            Ok(There::Same) => Ok(Outcome::Replaced),
            Ok(There::Other(found)) if !found.is_same(expected) => Err(Failure::Appeared),
            _ => Err(Failure::Target(causes(&error))),
        }
    }

    /// What the target has under the name of this key now.
    async fn found(&self, entry: &Entry) -> Result<There, Error> {
        self.target.compare(&[entry.pair()]).await.pop().expect("an answer for each key")
    }

    /// Proves every written key. A key that is not there counts as failed.
    async fn prove(&self, entries: &[&Entry], copied: &mut [Result<Outcome, Failure>]) {
        let written: Vec<_> = (0..entries.len()).filter(|at| copied[*at].is_ok()).collect();
        let keys: Vec<_> = written.iter().map(|at| entries[*at].pair()).collect();
        for (at, answer) in written.into_iter().zip(self.target.prove(&keys).await) {
            let failure = match answer {
                Ok(true) => continue,
                Ok(false) => "it holds another value".to_owned(),
                Err(error) => causes(&error),
            };
            copied[at] = Err(Failure::Unproven(failure));
        }
    }
}

/// The outcome that the plan alone decides; [`Outcome::NotReached`] for entries that must be written.
fn before(entry: &Entry, on_conflict: OnConflict) -> Outcome {
    match (&entry.class, on_conflict) {
        (Class::Identical, _) => Outcome::Unchanged,
        (Class::Different(_), OnConflict::Fail | OnConflict::Skip) => Outcome::NotMigrated,
        (Class::Missing, _) | (Class::Different(_), OnConflict::Replace) => Outcome::NotReached,
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::sync::Arc;
    use std::time::Duration;

    use async_trait::async_trait;

    use super::super::{Selection, source, target};
    use super::*;
    use crate::crypto::Blob;
    use crate::keystore::{KeyStore, Listing, Waits, mem};
    use crate::name::KeyName;

    /// A store that forgets what it is given and answers all the same.
    struct Liar(mem::Store);

    impl fmt::Display for Liar {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.fmt(f)
        }
    }

    #[async_trait]
    impl KeyStore for Liar {
        async fn create(&self, name: &KeyName, _: &Blob) -> Result<(), Error> {
            self.0.create(name, &value(0)).await
        }
        async fn get(&self, name: &KeyName) -> Result<Blob, Error> {
            self.0.get(name).await
        }
        async fn replace(&self, name: &KeyName, expected: &Blob, value: &Blob) -> Result<(), Error> {
            self.0.replace(name, expected, value).await
        }
        async fn delete(&self, name: &KeyName) -> Result<(), Error> {
            self.0.delete(name).await
        }
        async fn list(&self, prefix: &str) -> Result<Listing, Error> {
            self.0.list(prefix).await
        }
        async fn status(&self) -> Result<Duration, Error> {
            self.0.status().await
        }
        fn behind(&self) -> Option<&dyn KeyStore> {
            None
        }
    }

    fn name(n: u8) -> KeyName {
        KeyName::parse(&format!("key-{n}")).expect("valid")
    }

    /// A stored key; another one for each number.
    fn value(n: u8) -> Blob {
        let bytes = crate::crypto::base64::encode(&[n; 32]);
        format!(r#"{{"bytes":"{}"}}"#, *bytes).into_bytes().into()
    }

    /// Three keys to copy, one after the other.
    async fn migration(target: Arc<dyn KeyStore>) -> Migration {
        let source = mem::Store::default();
        for n in 1..=3 {
            source.create(&name(n), &value(n)).await.expect("created");
        }
        let (source, target) = (source::Store::new(Arc::new(source), &Waits::default()), target::Store::of(target));
        let (source, target, selection) = (Box::new(source), Box::new(target), Selection::default());
        Migration { source, target, selection, only_version: None, concurrency: 1 }
    }

    async fn copy(migration: &Migration, plan: &Plan, on_conflict: OnConflict, prove: Prove) -> Vec<Outcome> {
        migration.copy(plan, on_conflict, prove, &Progress::default(), &CancellationToken::new()).await
    }

    #[tokio::test]
    async fn a_target_that_gives_back_something_else_stops_the_run() {
        for (prove, written) in [(Prove::ReadBack, false), (Prove::Trust, true)] {
            let migration = migration(Arc::new(Liar(mem::Store::default()))).await;
            let plan = migration.plan(&Progress::default()).await.expect("a plan");
            let outcomes = copy(&migration, &plan, OnConflict::Fail, prove).await;
            if written {
                assert_eq!(outcomes, [Outcome::Written, Outcome::Written, Outcome::Written]);
            } else {
                assert!(matches!(outcomes[0], Outcome::Failed(Failure::Unproven(_))), "{outcomes:?}");
                assert_eq!(outcomes[1..], [Outcome::NotReached, Outcome::NotReached]);
            }
        }
    }

    #[tokio::test]
    async fn what_appears_after_the_plan_is_overwritten_by_force_alone() {
        let wanted = [
            (OnConflict::Fail, Outcome::Failed(Failure::Appeared)),
            (OnConflict::Skip, Outcome::Failed(Failure::Appeared)),
            (OnConflict::Replace, Outcome::Replaced),
        ];
        for (on_conflict, outcome) in wanted {
            let target = Arc::new(mem::Store::default());
            let migration = migration(target.clone()).await;
            let plan = migration.plan(&Progress::default()).await.expect("a plan");
            target.create(&name(1), &value(9)).await.expect("created");
            target.create(&name(2), &value(2)).await.expect("created");
            let outcomes = copy(&migration, &plan, on_conflict, Prove::ReadBack).await;
            assert_eq!(outcomes, [outcome, Outcome::Written, Outcome::Written]);
            let kept = if on_conflict == OnConflict::Replace { value(1) } else { value(9) };
            assert!(target.get(&name(1)).await.expect("there").is_same(&kept));
        }
    }

    #[tokio::test]
    async fn a_key_that_was_changed_after_the_plan_is_not_overwritten_even_by_force() {
        let target = Arc::new(mem::Store::default());
        target.create(&name(2), &value(8)).await.expect("created");
        let migration = migration(target.clone()).await;
        let plan = migration.plan(&Progress::default()).await.expect("a plan");
        target.replace(&name(2), &value(8), &value(9)).await.expect("replaced");
        let outcomes = copy(&migration, &plan, OnConflict::Replace, Prove::ReadBack).await;
        assert_eq!(outcomes, [Outcome::Written, Outcome::Failed(Failure::Appeared), Outcome::Written]);
        assert!(target.get(&name(2)).await.expect("there").is_same(&value(9)));
    }

    #[tokio::test]
    async fn nothing_is_begun_once_stopped() {
        let migration = migration(Arc::new(mem::Store::default())).await;
        let plan = migration.plan(&Progress::default()).await.expect("a plan");
        let stop = CancellationToken::new();
        stop.cancel();
        let outcomes = migration.copy(&plan, OnConflict::Fail, Prove::ReadBack, &Progress::default(), &stop).await;
        assert_eq!(outcomes, [Outcome::NotReached, Outcome::NotReached, Outcome::NotReached]);
    }
}
