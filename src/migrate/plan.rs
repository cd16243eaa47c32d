//! The plan: what both sides hold, complete before the first write.

use std::collections::{HashMap, HashSet};
use std::fmt;

use futures_util::{StreamExt as _, future, stream};

use super::glob::Choice;
use super::material::{Material, Numbers};
use super::progress::{Progress, Step};
use super::target::{Other, There};
use super::{Error, Migration, Selection, Side, batches, failed};
use crate::keystore::{self, Listing, Names};
use crate::name::{self, KeyName};
use crate::telemetry::log::causes;

/// Everything that is known before the first write.
#[derive(Debug)]
pub struct Plan {
    /// The selected keys of the source, sorted by name.
    pub entries: Vec<Entry>,
    /// Names that the pattern matches and an exclusion leaves out, on either side; sorted.
    pub excluded: Vec<String>,
    /// Selected keys that only the target has; sorted. They stay as they are.
    pub only_on_target: Vec<KeyName>,
    /// Reserved names found on a side: left by an interrupted replacement.
    pub leftovers: Vec<(Side, String)>,
    /// The number of keys in the source.
    pub source_keys: usize,
    /// The number of keys in the target.
    pub target_keys: usize,
}

/// A selected key of the source.
#[derive(Debug)]
pub struct Entry {
    /// Its name.
    pub name: KeyName,
    /// The fingerprint of the source's key.
    pub fingerprint: String,
    /// What the target holds under the name.
    pub class: Class,
    /// What is lost of the key, such as versions.
    pub lost: Vec<String>,
    /// The key as the source has it.
    pub(super) key: Material,
}

/// What the target holds under a key's name.
#[derive(Debug)]
pub enum Class {
    /// Nothing.
    Missing,
    /// The same key: type, bytes and HMAC key. Its owner, age and format may be others.
    Identical,
    /// Another key.
    Different(Other),
}

/// How many keys there are of each class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// The number of keys that the target lacks.
    pub missing: usize,
    /// The number of keys that are the same on both sides.
    pub identical: usize,
    /// The number of names under which the target has another key.
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

    /// Fails when keys of the target would be replaced that must not be.
    ///
    /// # Errors
    /// The keys of the target that must stay, and why.
    pub fn check_replaceable(&self) -> Result<(), Error> {
        let problem = |entry: &Entry| match &entry.class {
            Class::Different(Other { keep: Some(reason), .. }) => {
                Some(Problem { side: Side::Target, name: entry.name.to_string(), reason: reason.clone() })
            }
            _ => None,
        };
        let problems: Vec<_> = self.entries.iter().filter_map(problem).collect();
        if problems.is_empty() { Ok(()) } else { Err(Error::Unusable(problems)) }
    }
}

/// A selected entry of a store that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The side that has it.
    pub side: Side,
    /// Its name in the store.
    pub name: String,
    /// Why it is not a key. Contains nothing of its value.
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
    /// Keys that are new in the source. They were not copied.
    pub appeared: Vec<KeyName>,
    /// Keys that are gone from the source. The run copied the values it had read.
    pub vanished: Vec<KeyName>,
}

impl Migration {
    /// Lists both sides, reads and parses every selected key, and sorts them by what the target holds.
    pub async fn plan(&self, progress: &Progress) -> Result<Plan, Error> {
        progress.begin(Step::Listing, 0);
        let (source, target) = future::join(self.source.list(), self.target.list()).await;
        let source = source.map_err(failed(Side::Source, "listed"))?;
        let target = target.map_err(failed(Side::Target, "listed"))?;
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
        problems.extend(misfits(self.target.names(), &names, &on_target));

        self.read(&mut plan, &names, &mut problems, progress).await?;
        let listed = (0..plan.entries.len()).filter(|at| on_target.remove(&plan.entries[*at].name));
        let listed: Vec<_> = listed.collect();
        self.compare(&mut plan, &listed, &mut problems, progress).await?;
        if !problems.is_empty() {
            return Err(Error::Unusable(problems));
        }
        plan.only_on_target = on_target.into_iter().collect();
        plan.only_on_target.sort();
        plan.excluded.sort();
        plan.excluded.dedup();
        Ok(plan)
    }

    /// A source of which no key is selected is a mistake: that nothing was done is not what was wanted.
    fn expect_keys(&self, plan: &Plan, names: &[KeyName], problems: &[Problem]) -> Result<(), Error> {
        if !names.is_empty() || !problems.is_empty() {
            return Ok(());
        }
        if plan.source_keys == 0 {
            return Err(Error::Empty);
        }
        Err(match &self.selection.pattern {
            _ if !plan.excluded.is_empty() => Error::AllExcluded,
            Some(pattern) => match pattern.plain() {
                Some(name) => Error::NoSuchKey(name.into()),
                None => Error::NoMatch(pattern.as_str().into()),
            },
            None => Error::AllExcluded,
        })
    }

    /// Reads keys on the source.
    async fn read(
        &self,
        plan: &mut Plan,
        names: &[KeyName],
        problems: &mut Vec<Problem>,
        progress: &Progress,
    ) -> Result<(), Error> {
        progress.begin(Step::Reading, names.len());
        let mut batches = stream::iter(batches(names, self.source.batch(), self.concurrency))
            .map(|names| async move { (self.source.read(&names).await, names) })
            .buffered(self.concurrency);
        while let Some((answers, names)) = batches.next().await {
            progress.advance(names.len());
            for (name, answer) in names.into_iter().zip(answers) {
                match self.entry(name, answer) {
                    Ok(entry) => plan.entries.push(entry),
                    Err(Unusable::Entry(problem)) => problems.push(problem),
                    Err(Unusable::Store(error)) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Compares the plan's entries with the keys that the target has listed.
    async fn compare(
        &self,
        plan: &mut Plan,
        listed: &[usize],
        problems: &mut Vec<Problem>,
        progress: &Progress,
    ) -> Result<(), Error> {
        progress.begin(Step::Comparing, listed.len());
        let entries = &plan.entries;
        let mut batches = stream::iter(batches(listed, self.target.batch(), self.concurrency))
            .map(|batch| async move {
                let keys: Vec<_> = batch.iter().map(|at| entries[*at].pair()).collect();
                (self.target.compare(&keys).await, batch)
            })
            .buffered(self.concurrency);
        let mut classes = Vec::with_capacity(listed.len());
        while let Some((found, batch)) = batches.next().await {
            progress.advance(batch.len());
            for (at, found) in batch.into_iter().zip(found) {
                match class(&entries[at].name, found) {
                    Ok(class) => classes.push((at, class)),
                    Err(Unusable::Entry(problem)) => problems.push(problem),
                    Err(Unusable::Store(error)) => return Err(error),
                }
            }
        }
        drop(batches);
        for (at, class) in classes {
            plan.entries[at].class = class;
        }
        Ok(())
    }

    /// Makes the plan's entry for a key that was read, as if the target lacked it.
    fn entry(&self, name: KeyName, answer: Result<Material, keystore::Error>) -> Result<Entry, Unusable> {
        let mut key = answer.map_err(|error| unusable(Side::Source, &name, error))?;
        let problem = |reason| problem(Side::Source, &name, reason);
        let mut lost = Vec::new();
        if let Some(number) = self.only_version {
            let (only, left) =
                key.only(number).ok_or_else(|| problem(format!("it has no version {number} (--only-version)")))?;
            key = only;
            if !left.is_empty() {
                lost.push(Numbers(&left).to_string());
            }
        }
        let fingerprint = key.fingerprint().map_err(|error| problem(error.to_string()))?;
        lost.extend(self.target.losses(&key).map_err(problem)?);
        Ok(Entry { name, fingerprint, class: Class::Missing, lost, key })
    }

    /// Lists the source again and compares it with the plan.
    pub async fn drift(&self, plan: &Plan) -> Result<Drift, Error> {
        let now = self.source.list().await.map_err(failed(Side::Source, "listed again"))?;
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
    /// The selected names of a side. Records excluded names, leftovers, and selected entries that are not keys.
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

impl Entry {
    pub(super) fn pair(&self) -> (&KeyName, &Material) {
        (&self.name, &self.key)
    }
}

/// The names of the source's keys that the target cannot have.
fn misfits(rules: Names, names: &[KeyName], on_target: &HashSet<KeyName>) -> Vec<Problem> {
    let problem = |name: &KeyName, reason: String| Problem { side: Side::Source, name: name.to_string(), reason };
    let mut misfits: Vec<_> = names
        .iter()
        .filter_map(|name| (rules.refuse)(name).map(|why| problem(name, format!("the target cannot have it: {why}"))))
        .collect();
    if rules.fold_case {
        let mut spelled: HashMap<String, &KeyName> = HashMap::new();
        for name in on_target.iter().chain(names) {
            let known = *spelled.entry(name.as_str().to_ascii_lowercase()).or_insert(name);
            if known != name {
                misfits.push(problem(name, format!("to the target it is the same name as '{known}'")));
            }
        }
    }
    misfits
}

/// Why a key cannot be planned.
enum Unusable {
    /// A problem of this entry. The others are still checked.
    Entry(Problem),
    /// A failure of the store.
    Store(Error),
}

fn class(name: &KeyName, found: Result<There, keystore::Error>) -> Result<Class, Unusable> {
    match found {
        Ok(There::Same) => Ok(Class::Identical),
        Ok(There::Other(other)) => Ok(Class::Different(other)),
        Ok(There::NoKey(reason)) => Err(problem(Side::Target, name, reason)),
        // It was deleted meanwhile; or the store lists what was begun and never completed.
        Err(keystore::Error::NotFound) => Ok(Class::Missing),
        Err(error) => Err(unusable(Side::Target, name, error)),
    }
}

fn unusable(side: Side, name: &KeyName, error: keystore::Error) -> Unusable {
    match error {
        keystore::Error::Unreachable(_) => Unusable::Store(failed(side, "read")(error)),
        keystore::Error::NotFound => {
            problem(side, name, "it is listed, and not there: it was deleted just now, or never completed".into())
        }
        error => problem(side, name, causes(&error)),
    }
}

fn problem(side: Side, name: &KeyName, reason: String) -> Unusable {
    Unusable::Entry(Problem { side, name: name.to_string(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_target_cannot_have_are_named() {
        let parsed = |names: &[&str]| names.iter().map(|name| KeyName::parse(name).expect("valid")).collect::<Vec<_>>();
        let said = |rules, names: &[&str], on_target: &[&str]| {
            let misfits = misfits(rules, &parsed(names), &parsed(on_target).into_iter().collect());
            misfits.into_iter().map(|problem| problem.to_string()).collect::<Vec<_>>()
        };
        let refuse: fn(&KeyName) -> Option<&'static str> = |name| name.as_str().contains('_').then_some("no '_'");
        let names = ["a_b", "key", "Key"];
        assert_eq!(said(Names::ALL, &names, &["KEY"]), [""; 0]);
        assert_eq!(
            said(Names { refuse, ..Names::ALL }, &names, &[]),
            ["'a_b' on the source: the target cannot have it: no '_'"]
        );
        let folded = Names { fold_case: true, ..Names::ALL };
        assert_eq!(said(folded, &names, &[]), ["'Key' on the source: to the target it is the same name as 'key'"]);
        assert_eq!(said(folded, &["key"], &["key"]), [""; 0]);
        assert_eq!(
            said(folded, &["key"], &["KEY"]),
            ["'key' on the source: to the target it is the same name as 'KEY'"]
        );
    }
}
