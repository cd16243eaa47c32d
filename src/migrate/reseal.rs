//! Changes the seal of the keys in a store, in place: one `replace` for each key, each proven before and after.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt as _, future, stream};
use tokio_util::sync::CancellationToken;

use super::progress::{Progress, Step};
use crate::crypto::{Blob, Key};
use crate::keystore::seal::Examined;
use crate::keystore::{self, Access, KeyStore, Listing, Seal, Sealed, Waits, patiently};
use crate::name::{self, KeyName};
use crate::telemetry::log::causes;
use crate::text::{counted, first};

/// Why a run cannot start. Nothing has been changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store or a seal failed.
    #[error("the {0} cannot be used")]
    Store(&'static str, #[source] keystore::Error),
    /// The key store does not exist.
    #[error("the key store does not exist; nothing was created")]
    Missing,
    /// The two configs name different stores.
    #[error(
        "the two configs name different key stores ({0} and {1}): 'reseal' changes keys where they are; to copy them use \
         'claviger migrate'"
    )]
    OtherStore(String, String),
    /// Entries that neither seal can open.
    #[error("{} cannot be resealed:{}", counted(.0.len(), "key"), lines(.0))]
    Unusable(Vec<(String, String)>),
    /// During the run, servers with one of the configs could not read every key.
    #[error(
        "while it runs, neither config would read all keys: the new one does not open {0}, and the old one does not open \
         what the new one seals. Write who sealed them into the new config's keystore.encrypt.also (or \
         allow_plaintext: true, when they are not sealed), give that config to all servers, and run again"
    )]
    Unreadable(String),
}

fn lines(problems: &[(String, String)]) -> String {
    let lines = first(problems.iter().map(|(name, reason)| format!("'{name}': {reason}")));
    lines.iter().map(|line| format!("\n  {line}")).collect()
}

/// A store, and the old and the new seal of its keys.
pub struct Reseal {
    store: Sealed,
    old: Seal,
    /// Keys in flight at once.
    concurrency: usize,
    waits: Waits,
    identity: String,
}

/// The plan of a run.
#[derive(Debug)]
pub struct Todo {
    /// The names of the keys that do not have the new seal.
    pub names: Vec<KeyName>,
    /// The number of keys of each seal, by the seal's label.
    pub sealed_by: BTreeMap<String, usize>,
    /// The label of the new seal.
    pub newest: String,
    /// The config that servers must have during the run.
    pub readers: Readers,
    /// The number of interrupted replacements whose copies still exist.
    pub cut_off: usize,
}

/// The config that can read every key at every moment of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// The old one: it can open the new seal.
    Old,
    /// The new one: it can open the old seals.
    New,
    /// Either.
    Both,
}

/// The result of a run.
#[derive(Debug, Default)]
pub struct Done {
    /// The number of keys that got the new seal.
    pub resealed: usize,
    /// The keys that did not get it, and why.
    pub failed: Vec<(KeyName, String)>,
    /// The number of keys that were not started.
    pub not_reached: usize,
    /// After the run, the number of keys with another seal, by its label.
    pub others: BTreeMap<String, usize>,
    /// Of how many keys there was a copy of the old value still.
    pub copies: usize,
}

impl Reseal {
    /// Connects to the store, and to the seals of both configs.
    ///
    /// # Errors
    /// When the store or a seal cannot be used, or the configs name different stores.
    pub async fn open(
        old: &keystore::Section,
        new: &keystore::Section,
        concurrency: usize,
        waits: &Waits,
    ) -> Result<Self, Error> {
        let open = async |section: &keystore::Section| {
            let store = section.store.open().await.map_err(|error| Error::Store("key store", error))?;
            let store = store.ok_or(Error::Missing)?;
            let identity = store.about().identity.await.map_err(|error| Error::Store("key store", error))?;
            Ok((store, identity))
        };
        let ((_, before), (store, after)) = (open(old).await?, open(new).await?);
        if before != after {
            return Err(Error::OtherStore(before, after));
        }
        let seal = async |section: &keystore::Section| {
            Seal::connect(section.encrypt.as_ref()).await.map_err(|error| Error::Store("seal", error))
        };
        let store = Sealed::new(store, seal(new).await?);
        patiently(waits, || store.check(Access::Replace)).await.map_err(|error| Error::Store("key store", error))?;
        Ok(Self { store, old: seal(old).await?, concurrency, waits: waits.clone(), identity: after })
    }

    /// What tells the key store from others.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The providers that charge for the requests of a run.
    pub fn charged_by(&self) -> BTreeSet<&'static str> {
        self.store.about().charges.into_iter().chain(self.old.charges()).map(|charged| charged.by).collect()
    }

    /// Opens every key, and finds those that do not have the new seal.
    ///
    /// # Errors
    /// When an entry cannot be opened or is not a key, or servers could not read all keys during the run.
    pub async fn plan(&self, progress: &Progress) -> Result<Todo, Error> {
        progress.begin(Step::Listing, 0);
        let listing = self.list().await?;
        let newest = patiently(&self.waits, || self.store.seal().newest()).await;
        let newest = newest.map_err(|error| Error::Store("seal", error))?;
        let (copies, foreign): (Vec<_>, Vec<_>) =
            listing.foreign.into_iter().partition(|foreign| name::is_reserved(&foreign.name));
        let mut todo = Todo {
            names: Vec::new(),
            sealed_by: BTreeMap::new(),
            newest,
            readers: Readers::New,
            cut_off: copies.len(),
        };
        let mut problems: Vec<_> =
            foreign.into_iter().map(|foreign| (foreign.name, foreign.reason.to_owned())).collect();

        progress.begin(Step::Reading, listing.names.len());
        let mut examined = stream::iter(listing.names)
            .map(|name| async move { (self.examine(&name).await, name) })
            .buffered(self.concurrency);
        let mut only_old = BTreeMap::<String, usize>::new();
        while let Some((examined, name)) = examined.next().await {
            progress.advance(1);
            match examined {
                Ok(Examined { label, needs_old, .. }) => {
                    *todo.sealed_by.entry(label.clone()).or_default() += 1;
                    if label != todo.newest {
                        todo.names.push(name);
                    }
                    if needs_old {
                        *only_old.entry(label).or_default() += 1;
                    }
                }
                Err(error) => problems.push((name.to_string(), error)),
            }
        }
        drop(examined);
        if !problems.is_empty() {
            return Err(Error::Unusable(problems));
        }
        todo.readers = match (self.old_opens_new().await?, only_old.is_empty()) {
            (true, true) => Readers::Both,
            (true, false) => Readers::Old,
            (false, true) => Readers::New,
            (false, false) => {
                let which = only_old.iter().map(|(label, keys)| format!("{} ({label})", counted(*keys, "key")));
                return Err(Error::Unreadable(which.collect::<Vec<_>>().join(", ")));
            }
        };
        Ok(todo)
    }

    async fn list(&self) -> Result<Listing, Error> {
        patiently(&self.waits, || self.store.list("")).await.map_err(|error| Error::Store("key store", error))
    }

    async fn examine(&self, name: &KeyName) -> Result<Examined, String> {
        let examined =
            patiently(&self.waits, || self.store.examine(name, &self.old)).await.map_err(|error| causes(&error))?;
        Key::parse(&examined.value).map_err(|error| causes(&error))?;
        Ok(examined)
    }

    async fn old_opens_new(&self) -> Result<bool, Error> {
        let name = KeyName::parse("claviger").expect("a name");
        let sealed = patiently(&self.waits, || async { self.store.seal().seal(&name, &Blob::from(Vec::new())).await });
        let sealed = sealed.await;
        let sealed = sealed.map_err(|error| Error::Store("seal", error))?;
        match self.old.open(&name, sealed).await {
            Ok(_) => Ok(true),
            Err(keystore::Error::Unreachable(cause)) => Err(Error::Store("seal", keystore::Error::Unreachable(cause))),
            Err(_) => Ok(false),
        }
    }

    /// Seals and opens every key of the plan in memory, and stores nothing.
    ///
    /// # Errors
    /// The keys that could not be sealed, and why.
    pub async fn rehearse(&self, todo: &Todo, progress: &Progress) -> Result<(), Error> {
        progress.begin(Step::Rehearsing, todo.names.len());
        let rehearse = |name| async move {
            let examined = self.examine(name).await.map_err(|error| (name.to_string(), error))?;
            let rehearsed = patiently(&self.waits, || self.store.rehearse(name, &examined.value)).await;
            rehearsed.map_err(|error| (name.to_string(), causes(&error)))
        };
        let mut rehearsed = stream::iter(&todo.names).map(rehearse).buffered(self.concurrency);
        let mut problems = Vec::new();
        while let Some(answer) = rehearsed.next().await {
            progress.advance(1);
            problems.extend(answer.err());
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::Unusable(problems)) }
    }

    /// Completes or undoes replacements that an earlier run left interrupted. Waits up to two minutes, in case their
    /// owner is still running.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn settle(&self) -> Result<(), Error> {
        self.store.settle(&self.waits).await.map_err(|error| Error::Store("key store", error))
    }

    /// Gives every key of the plan the new seal. After the first failure, or when `stop` is cancelled, it starts no
    /// further key and finishes those in flight.
    pub async fn run(&self, todo: &Todo, progress: &Progress, stop: &CancellationToken) -> Done {
        progress.begin(Step::Writing, todo.names.len());
        let stop = stop.child_token();
        let mut resealed = stream::iter(&todo.names)
            .take_while(|_| future::ready(!stop.is_cancelled()))
            .map(|name| async move { (self.reseal(name, todo).await, name) })
            .buffer_unordered(self.concurrency);
        let mut done = Done::default();
        while let Some((resealed, name)) = resealed.next().await {
            progress.advance(1);
            match resealed {
                Ok(()) => done.resealed += 1,
                Err(error) => {
                    stop.cancel();
                    done.failed.push((name.clone(), causes(&error)));
                }
            }
        }
        done.not_reached = todo.names.len() - done.resealed - done.failed.len();
        done
    }

    /// Gives a key the new seal. What takes its place is sealed once, so that asking again is asking for the same.
    async fn reseal(&self, name: &KeyName, todo: &Todo) -> Result<(), keystore::Error> {
        let prepared = patiently(&self.waits, || self.store.prepare(name, &self.old, &todo.newest)).await?;
        let Some(resealed) = prepared else { return Ok(()) };
        patiently(&self.waits, || self.store.reseal(name, &resealed)).await
    }

    /// The number of keys without the new seal, by label: servers may have created some during the run.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn others(&self, todo: &Todo, progress: &Progress) -> Result<BTreeMap<String, usize>, Error> {
        progress.begin(Step::Listing, 0);
        let labels = patiently(&self.waits, || self.store.labels(self.concurrency)).await;
        let mut labels = labels.map_err(|error| Error::Store("key store", error))?;
        labels.remove(&todo.newest);
        Ok(labels)
    }

    /// Of how many keys there is a copy of the old value still, which the old seal has.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn copies(&self) -> Result<usize, Error> {
        let listing = self.list().await?;
        Ok(listing.foreign.iter().filter(|foreign| name::is_reserved(&foreign.name)).count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_every_key() {
        let error = Error::Unusable(vec![("a".into(), "no key".into()), ("b".into(), "sealed".into())]);
        assert_eq!(error.to_string(), "2 keys cannot be resealed:\n  'a': no key\n  'b': sealed");
    }
}
