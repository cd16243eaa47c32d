//! The plan: what both sides hold, complete before the first write.

use std::collections::HashSet;
use std::fmt;

use futures_util::{StreamExt as _, stream};

use super::glob::Choice;
use super::progress::{Progress, Step};
use super::{Error, Migration, Selection, Side, batches, failed};
use crate::crypto::key::Fingerprint;
use crate::crypto::{Blob, Key};
use crate::keystore::{self, Listing};
use crate::name::{self, KeyName};
use crate::telemetry::log::causes;

/// All that is known before the first write.
#[derive(Debug)]
pub struct Plan {
    /// The selected keys of the source, sorted by name.
    pub entries: Vec<Entry>,
    /// What the pattern would have taken and an exclusion left out, on either side; sorted.
    pub excluded: Vec<String>,
    /// Selected keys that only the target has; sorted. They stay as they are.
    pub only_on_target: Vec<KeyName>,
    /// Reserved names found on a side: what a replacement that was cut off has left.
    pub leftovers: Vec<(Side, String)>,
    /// All keys of the source.
    pub source_keys: usize,
    /// All keys of the target.
    pub target_keys: usize,
}

/// A selected key of the source.
#[derive(Debug)]
pub struct Entry {
    /// Its name.
    pub name: KeyName,
    /// Tells the source's key from others.
    pub fingerprint: Fingerprint,
    /// What the target holds under the name.
    pub class: Class,
    /// As the source stores it.
    pub(super) value: Blob,
}

/// What the target holds under a key's name.
#[derive(Debug)]
pub enum Class {
    /// Nothing.
    Missing,
    /// The same key: type, bytes and HMAC key. Its owner, age and format may be others.
    Identical,
    /// Another key.
    Different(Stored),
}

/// A key of the target that is not the source's.
#[derive(Debug)]
pub struct Stored {
    /// Tells it from others.
    pub fingerprint: Fingerprint,
    pub(super) value: Blob,
}

/// How many keys there are of each class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Keys that the target lacks.
    pub missing: usize,
    /// Keys that are the same on both sides.
    pub identical: usize,
    /// Names under which the target has another key.
    pub different: usize,
}

impl Plan {
    /// Counts the classes.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for entry in &self.entries {
            match entry.class {
                Class::Missing => counts.missing += 1,
                Class::Identical => counts.identical += 1,
                Class::Different(_) => counts.different += 1,
            }
        }
        counts
    }
}

/// An entry of a store that is selected and of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it is.
    pub side: Side,
    /// What the store calls it.
    pub name: String,
    /// Why it is no key. Quotes nothing of its value.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' on the {}: {}", self.name, self.side, self.reason)
    }
}

/// How the source's list of selected keys has changed during a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Drift {
    /// Keys that are new there, and not copied.
    pub appeared: Vec<KeyName>,
    /// Keys that are gone there; the run used their values.
    pub vanished: Vec<KeyName>,
}

impl Migration {
    /// Lists both sides, reads and parses every selected key, and sorts them by what the target holds.
    pub async fn plan(&self, progress: &Progress) -> Result<Plan, Error> {
        progress.begin(Step::Listing, 0);
        let source = self.source.list("").await.map_err(failed(Side::Source, "listed"))?;
        let target = self.target.list().await.map_err(failed(Side::Target, "listed"))?;
        let mut plan = Plan {
            entries: Vec::new(),
            excluded: Vec::new(),
            only_on_target: Vec::new(),
            leftovers: Vec::new(),
            source_keys: source.names.len(),
            target_keys: target.names.len(),
        };
        let mut problems = Vec::new();
        let names = plan.choose(&self.selection, Side::Source, source, &mut problems);
        let mut on_target: HashSet<_> =
            plan.choose(&self.selection, Side::Target, target, &mut problems).into_iter().collect();
        self.expect_keys(&plan, &names, &problems)?;

        progress.begin(Step::Reading, names.len());
        let pairs: Vec<_> = names.into_iter().map(|name| (on_target.remove(&name), name)).collect();
        let mut compared = stream::iter(batches(&pairs, self.source.batch(), self.concurrency))
            .map(|batch| self.compare(batch))
            .buffered(self.concurrency);
        while let Some(entries) = compared.next().await {
            progress.advance(entries.len());
            for entry in entries {
                match entry {
                    Ok(entry) => plan.entries.push(entry),
                    Err(Unusable::Entry(problem)) => problems.push(problem),
                    Err(Unusable::Store(error)) => return Err(error),
                }
            }
        }
        drop(compared);
        if !problems.is_empty() {
            return Err(Error::Unusable(problems));
        }
        plan.only_on_target = on_target.into_iter().collect();
        plan.only_on_target.sort();
        plan.excluded.sort();
        plan.excluded.dedup();
        Ok(plan)
    }

    /// A source without any key, or without the one that was asked for, is a mistake.
    fn expect_keys(&self, plan: &Plan, names: &[KeyName], problems: &[Problem]) -> Result<(), Error> {
        if plan.source_keys == 0 && problems.is_empty() {
            return Err(Error::Empty);
        }
        match self.selection.pattern.as_ref().and_then(|pattern| pattern.plain()) {
            Some(name) if names.is_empty() && problems.is_empty() && !plan.excluded.iter().any(|left| left == name) => {
                Err(Error::NoSuchKey(name.into()))
            }
            _ => Ok(()),
        }
    }

    /// Reads keys on the source and, where they are listed there, on the target.
    async fn compare(&self, batch: Vec<(bool, KeyName)>) -> Vec<Result<Entry, Unusable>> {
        let names: Vec<_> = batch.iter().map(|(_, name)| name.clone()).collect();
        let on_both: Vec<_> = batch.iter().filter(|(on_target, _)| *on_target).map(|(_, name)| name.clone()).collect();
        let values = self.source.get_batch(&names).await;
        let mut stored = self.target.get_batch(&on_both).await.into_iter();
        let compare_one = |((on_target, name), value): ((bool, KeyName), _)| {
            let stored = if on_target { stored.next() } else { None };
            compare(name, value, stored)
        };
        batch.into_iter().zip(values).map(compare_one).collect()
    }

    /// Lists the source again and compares with what was planned.
    pub async fn drift(&self, plan: &Plan) -> Result<Drift, Error> {
        let now = self.source.list("").await.map_err(failed(Side::Source, "listed again"))?;
        let before: HashSet<_> = plan.entries.iter().map(|entry| &entry.name).collect();
        let after: HashSet<_> = now.names.iter().filter(|name| self.selection.takes(name.as_str())).collect();
        let sorted = |names: &HashSet<&KeyName>, without: &HashSet<&KeyName>| {
            let mut names: Vec<_> = names.difference(without).map(|name| (*name).clone()).collect();
            names.sort();
            names
        };
        Ok(Drift { appeared: sorted(&after, &before), vanished: sorted(&before, &after) })
    }
}

impl Plan {
    /// The selected names of a side. Notes what is excluded, left over, or selected and no key.
    fn choose(
        &mut self,
        selection: &Selection,
        side: Side,
        listing: Listing,
        problems: &mut Vec<Problem>,
    ) -> Vec<KeyName> {
        for foreign in listing.foreign {
            match selection.choose(&foreign.name) {
                _ if name::is_reserved(&foreign.name) => self.leftovers.push((side, foreign.name)),
                Choice::Selected => {
                    problems.push(Problem { side, name: foreign.name, reason: foreign.reason.into() });
                }
                Choice::Excluded => self.excluded.push(foreign.name),
                Choice::Ignored => {}
            }
        }
        let mut names = listing.names;
        names.retain(|name| {
            let choice = selection.choose(name.as_str());
            if choice == Choice::Excluded {
                self.excluded.push(name.to_string());
            }
            choice == Choice::Selected
        });
        names
    }
}

/// What the two sides answered about a key; the target was asked if it has listed the name.
fn compare(
    name: KeyName,
    value: Result<Blob, keystore::Error>,
    stored: Option<Result<Blob, keystore::Error>>,
) -> Result<Entry, Unusable> {
    let (value, key) = usable(Side::Source, &name, value)?;
    let class = match stored {
        None => Class::Missing,
        Some(stored) => {
            let (stored, other) = usable(Side::Target, &name, stored)?;
            if key.is_same(&other) {
                Class::Identical
            } else {
                Class::Different(Stored { fingerprint: other.fingerprint(), value: stored })
            }
        }
    };
    Ok(Entry { name, fingerprint: key.fingerprint(), class, value })
}

/// Why a key cannot be planned.
enum Unusable {
    /// This entry: the others are still looked at.
    Entry(Problem),
    /// The store itself.
    Store(Error),
}

/// The value that a store answered, and the key it is.
fn usable(side: Side, name: &KeyName, answer: Result<Blob, keystore::Error>) -> Result<(Blob, Key), Unusable> {
    let problem = |reason| Unusable::Entry(Problem { side, name: name.to_string(), reason });
    let value = answer.map_err(|error| match error {
        keystore::Error::Unreachable(_) => Unusable::Store(failed(side, "read")(error)),
        keystore::Error::NotFound => problem("it vanished while it was going to be read".into()),
        error => problem(causes(&error)),
    })?;
    let key = Key::parse(&value).map_err(|error| problem(error.to_string()))?;
    Ok((value, key))
}
