//! Replaces a key in stores whose readers see only a key's first version, and which compare nothing before they delete.
//!
//! The old value is first copied to a reserved name. Then the key is deleted and created anew. The copy is removed once
//! the new key is proven to be there. While the copy is there, readers get the old value or the new one.
//!
//! The copy also keeps two processes from replacing one key at the same time: it is created exclusively. It notes a hash of
//! the new value, and is removed only while the old value or the new one is stored under the name. Any other value there
//! was created by a process that saw the name free for a moment. That process sees the copy and takes its value back.
//! A copy that has not changed for two minutes has lost its owner; the next process completes or undoes the replacement.
//! `model.rs` tries all orders of steps.

mod copy;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep};

use self::copy::{Copy, Standing};
use super::{About, Charged, Error, KeyStore, Listing, Waits};
use crate::crypto::Blob;
use crate::name::{KeyName, RESERVED_PREFIX};
use crate::text::{counted, first};

/// How long a copy must stay unchanged while it is watched, until its owner counts as dead. No wall clock is involved,
/// because it may be wrong.
const ABANDONED: Duration = Duration::from_secs(120);

/// How long after writing the copy its owner may still delete anything. It ends long before others count the owner as
/// dead.
const LEASE: Duration = Duration::from_secs(60);

/// The pause before checking a copy again whose owner may be alive.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long a replacement waits for another process that has created the key meanwhile to take its value back.
const TAKEN_BACK: Duration = Duration::from_secs(10);

/// The pause between checks for that.
const TAKING_BACK: Duration = Duration::from_millis(200);

/// How long a read waits for a key that cannot be read and has a copy.
const HALF_DELETED: Duration = Duration::from_secs(5);

/// How often a read tries the key and then its copy: during a replacement it may miss both.
const READS: usize = 4;

/// Wraps a store in which each name is written only once.
pub struct Kept<S> {
    store: S,
    /// One replacement of a key at a time; several keys may share a lock. Each holds the attempts that are not
    /// complete.
    attempts: [Mutex<Attempts>; 64],
}

type Attempts = HashMap<KeyName, Attempt>;

/// A replacement by this process.
struct Attempt {
    /// The copy, as it is stored.
    copy: Blob,
    /// The time just before the copy was written.
    since: Instant,
    /// Whether the delete of the key was sent. It is sent only once: a second delete could arrive after the new value.
    deletes: bool,
}

impl Attempt {
    fn new(name: &KeyName, old: &Blob, new: &Blob) -> Result<Self, Error> {
        Ok(Self { copy: Copy::encode(name, old, new)?, since: Instant::now(), deletes: false })
    }

    /// Whether the copy is of `old`, to be replaced by `new`.
    fn is_of(&self, name: &KeyName, old: &Blob, new: &Blob) -> bool {
        Copy::parse(&KeyName::kept(name), &self.copy).is_ok_and(|copy| {
            copy.value().is_same(old) && matches!(copy.standing(Some(new)), Standing::New | Standing::Old)
        })
    }

    /// Fails when another process may have taken over, so that nothing may be deleted any more.
    fn check_lease(&self) -> Result<(), Error> {
        if self.since.elapsed() < LEASE {
            return Ok(());
        }
        Err(failed("the key store is too slow to replace a key safely; its old value is kept: run again"))
    }
}

impl<S: KeyStore> Kept<S> {
    /// Wraps `store`.
    pub fn new(store: S) -> Self {
        Self { store, attempts: std::array::from_fn(|_| Mutex::default()) }
    }

    async fn lock(&self, name: &KeyName) -> MutexGuard<'_, Attempts> {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let index = hasher.finish() % self.attempts.len() as u64;
        self.attempts[usize::try_from(index).expect("less than the locks there are")].lock().await
    }

    /// The value under a name, if there is one.
    async fn stored(&self, name: &KeyName) -> Result<Option<Blob>, Error> {
        match self.store.get(name).await {
            Ok(stored) => Ok(Some(stored)),
            Err(Error::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The copy of the key's old value, if there is one.
    async fn copy_of(&self, name: &KeyName) -> Result<Option<Copy>, Error> {
        let kept = KeyName::kept(name);
        let Some(stored) = self.stored(&kept).await? else { return Ok(None) };
        // The first 64 bits of two hashes may be the same: then the copy belongs to the other key.
        Ok(Some(Copy::parse(&kept, &stored)?).filter(|copy| copy.name == name.as_str()))
    }

    /// Removes a value that this process has just created under a name that has a copy. No other process removes it, so
    /// it is still this value when the delete arrives.
    async fn take_back(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        match self.stored(name).await? {
            Some(stored) if stored.is_same(value) => done(self.store.delete(name).await),
            _ => Ok(()),
        }
    }

    /// Writes the copy of an attempt, which at most one process can do at a time, and checks that it is there.
    async fn keep(&self, name: &KeyName, attempt: &Attempt) -> Result<(), Error> {
        let kept = KeyName::kept(name);
        match self.store.create(&kept, &attempt.copy).await {
            // The copy may be ours.
            Ok(()) | Err(Error::Exists | Error::Unreachable(_)) => {}
            Err(error) => return Err(error),
        }
        match self.stored(&kept).await? {
            Some(stored) if stored.is_same(&attempt.copy) => Ok(()),
            Some(stored) if Copy::parse(&kept, &stored)?.name != name.as_str() => {
                Err(failed("another key is kept under the same reserved name"))
            }
            Some(_) => Err(failed(
                "another process is replacing this key, or was stopped while it did: run again when no other runs",
            )),
            None => Err(Error::Unreachable("the copy of the old value was not stored; the key is as it was".into())),
        }
    }

    /// Replaces the key after the attempt's copy was written.
    async fn renew(&self, name: &KeyName, value: &Blob, attempt: &mut Attempt) -> Result<(), Error> {
        let kept = KeyName::kept(name);
        let copy = Copy::parse(&kept, &attempt.copy)?;
        let (mut created, mut disturbed) = (false, None);
        loop {
            match copy.standing(self.stored(name).await?.as_ref()) {
                Standing::New => break,
                Standing::Old if !attempt.deletes => {
                    attempt.check_lease()?;
                    attempt.deletes = true;
                    done(self.store.delete(name).await)?;
                }
                Standing::Old => {
                    return Err(Error::Unreachable(
                        "the old value has not been deleted yet; a copy of it is kept".into(),
                    ));
                }
                Standing::Nothing | Standing::Another if !attempt.deletes => {
                    // Another process has deleted or replaced the key since the check.
                    self.remove(&kept, attempt).await?;
                    return Err(failed("the key has another value than expected"));
                }
                Standing::Nothing if created => {
                    return Err(Error::Unreachable("the new value was not stored; the old one is kept".into()));
                }
                Standing::Nothing => match self.store.create(name, value).await {
                    Ok(()) => created = true,
                    Err(Error::Exists) => {}
                    Err(error) => return Err(error),
                },
                Standing::Another if disturbed.get_or_insert_with(Instant::now).elapsed() > TAKEN_BACK => {
                    return Err(copy.conflict(&kept));
                }
                Standing::Another => sleep(TAKING_BACK).await,
            }
        }
        self.remove(&kept, attempt).await
    }

    /// Removes our copy, which is no longer needed.
    async fn remove(&self, kept: &KeyName, attempt: &Attempt) -> Result<(), Error> {
        attempt.check_lease()?;
        match self.store.delete(kept).await {
            // The key is complete anyway. The next run removes a copy that is left.
            Err(Error::Unreachable(_)) => Ok(()),
            removed => done(removed),
        }
    }

    /// Completes or undoes a replacement whose owner is dead. Then the key has its old or its new value, and the copy
    /// is gone.
    async fn end(&self, kept: &KeyName, stored_copy: &Blob) -> Result<(), Error> {
        let copy = Copy::parse(kept, stored_copy)?;
        let name = KeyName::parse(&copy.name).map_err(|_| failed("a copy is of something that is no key"))?;
        let mut attempts = self.lock(&name).await;
        let mut standing = copy.standing(self.stored(&name).await?.as_ref());
        if standing == Standing::Nothing {
            match self.store.create(&name, &copy.value()).await {
                Ok(()) | Err(Error::Exists) => {}
                Err(error) => return Err(error),
            }
            standing = copy.standing(self.stored(&name).await?.as_ref());
        }
        match standing {
            Standing::Old | Standing::New => {}
            Standing::Nothing => return Err(Error::Unreachable("the old value was not stored; it is kept".into())),
            Standing::Another => return Err(copy.conflict(kept)),
        }
        // Another process may have ended it meanwhile, and begun a new one.
        if self.stored(kept).await?.is_some_and(|there| there.is_same(stored_copy)) {
            done(self.store.delete(kept).await)?;
        }
        attempts.remove(&name);
        Ok(())
    }

    /// The reserved names of all copies.
    async fn copies(&self) -> Result<Vec<KeyName>, Error> {
        let listing = self.store.list(RESERVED_PREFIX).await?;
        Ok(listing.foreign.iter().filter_map(|foreign| KeyName::parse_kept(&foreign.name)).collect())
    }
}

/// A copy that is watched.
struct Watched {
    kept: KeyName,
    copy: Blob,
    since: Instant,
}

/// Deleting a value that is not there counts as done.
fn done(deleted: Result<(), Error>) -> Result<(), Error> {
    match deleted {
        Err(Error::NotFound) => Ok(()),
        deleted => deleted,
    }
}

fn failed(why: &'static str) -> Error {
    Error::Failed(why.into())
}

impl<S: KeyStore> fmt::Display for Kept<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

#[async_trait]
impl<S: KeyStore> KeyStore for Kept<S> {
    /// Checks the name first and then the copy: at every moment of a replacement one of them exists. If the key appears
    /// after these checks and is being replaced when the write arrives, the check for a copy after the write shows it.
    async fn create(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        match self.store.get(name).await {
            Ok(_) => return Err(Error::Exists),
            Err(Error::Unreachable(cause)) => return Err(Error::Unreachable(cause)),
            // The key is missing or invalid. The store decides whether the name is free.
            Err(_) => {}
        }
        if self.copy_of(name).await?.is_some() {
            return Err(Error::Exists);
        }
        let created = self.store.create(name, value).await;
        if !matches!(created, Ok(()) | Err(Error::Unreachable(_))) {
            return created;
        }
        match self.copy_of(name).await? {
            None => created,
            Some(copy) => {
                if copy.standing(Some(value)) == Standing::Another {
                    self.take_back(name, value).await?;
                }
                Err(Error::Exists)
            }
        }
    }

    /// Reads the key and looks for a copy. When there is a copy, the value under the name may be one that its creator
    /// will take back.
    async fn get(&self, name: &KeyName) -> Result<Blob, Error> {
        let (mut reads, began) = (0, Instant::now());
        while reads < READS {
            match (self.stored(name).await, self.copy_of(name).await) {
                // Some stores have a state between there and deleted. It passes while the key is being replaced.
                (Err(Error::Failed(_)), Ok(Some(_))) if began.elapsed() < HALF_DELETED => {
                    sleep(TAKING_BACK).await;
                    continue;
                }
                (Err(error), _) => return Err(error),
                (Ok(stored), Ok(Some(copy))) => return Ok(copy.read(stored)),
                // Without the right to read copies, or with an invalid copy, the key is read anyway.
                (Ok(Some(stored)), Ok(None) | Err(Error::Failed(_))) => return Ok(stored),
                (_, Err(error)) => return Err(error),
                // The key may have been created anew between the two reads.
                (Ok(None), Ok(None)) => {
                    if self.stored(name).await?.is_none() {
                        return Err(Error::NotFound);
                    }
                }
            }
            reads += 1;
        }
        Err(Error::Unreachable("the key is being replaced again and again".into()))
    }

    /// It may be repeated when the outcome is unknown: then it goes on where it stopped.
    async fn replace(&self, name: &KeyName, expected: &Blob, value: &Blob) -> Result<(), Error> {
        let mut attempts = self.lock(name).await;
        if !self.get(name).await?.is_same(expected) {
            return Err(failed("the key has another value than expected"));
        }
        if !attempts.get(name).is_some_and(|attempt| attempt.is_of(name, expected, value)) {
            attempts.insert(name.clone(), Attempt::new(name, expected, value)?);
        }
        let attempt = attempts.get_mut(name).expect("just looked for, or inserted");
        let mut replaced = self.keep(name, attempt).await;
        if replaced.is_ok() {
            replaced = self.renew(name, value, attempt).await;
        }
        if !matches!(replaced, Err(Error::Unreachable(_))) {
            attempts.remove(name);
        }
        replaced
    }

    async fn settle(&self, waits: &Waits) -> Result<(), Error> {
        self.store.settle(waits).await?;
        let mut watched = Vec::new();
        for kept in self.copies().await? {
            if let Some(copy) = self.stored(&kept).await? {
                watched.push(Watched { kept, copy, since: Instant::now() });
            }
        }
        let mut conflicts = Vec::new();
        while let Some(last) = watched.iter().map(|watched| watched.since).max() {
            let copies = counted(watched.len(), "replacement");
            let why = format!("{copies} that another process began: it may still be at work, or have been cut off");
            let _waiting = waits.begin(why, last + ABANDONED);
            sleep(LOOK_AGAIN).await;
            let mut left = Vec::with_capacity(watched.len());
            for Watched { kept, copy, since } in watched {
                match self.stored(&kept).await? {
                    // Its owner is alive, and has completed it.
                    None => {}
                    Some(now) if !now.is_same(&copy) => left.push(Watched { kept, copy: now, since: Instant::now() }),
                    Some(_) if since.elapsed() < ABANDONED => left.push(Watched { kept, copy, since }),
                    Some(_) => match self.end(&kept, &copy).await {
                        Err(Error::Failed(cause)) => conflicts.push(cause.to_string()),
                        ended => ended?,
                    },
                }
            }
            watched = left;
        }
        if conflicts.is_empty() { Ok(()) } else { Err(Error::Failed(first(conflicts).join("\n").into())) }
    }

    /// Refused while there are two values: a caller that wants to delete the one would also lose the copy.
    async fn delete(&self, name: &KeyName) -> Result<(), Error> {
        if let Some(copy) = self.copy_of(name).await? {
            let kept = KeyName::kept(name);
            if copy.is_in_conflict(self.stored(name).await?.as_ref()) {
                return Err(copy.conflict(&kept));
            }
            // Delete the copy first: readers would get it in place of the deleted key.
            self.store.delete(&kept).await?;
        }
        self.store.delete(name).await
    }

    /// Also lists keys of which only the copy exists.
    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        let (listing, copies) = future::try_join(self.store.list(prefix), self.copies()).await?;
        let mut listing = listing;
        for kept in copies {
            let Some(stored) = self.stored(&kept).await? else { continue };
            let copy = Copy::parse(&kept, &stored)?;
            if copy.name.starts_with(prefix) {
                listing.insert(&copy.name);
            }
        }
        Ok(listing.sorted())
    }

    async fn status(&self) -> Result<Duration, Error> {
        self.store.status().await
    }

    fn behind(&self) -> Option<&dyn KeyStore> {
        Some(&self.store)
    }

    fn batch(&self) -> usize {
        self.store.batch()
    }

    async fn get_batch(&self, names: &[KeyName]) -> Vec<Result<Blob, Error>> {
        future::join_all(names.iter().map(|name| self.get(name))).await
    }

    /// Side by side: where a create has to wait, a batch takes no longer than one.
    async fn create_batch(&self, keys: &[(&KeyName, &Blob)]) -> Vec<Result<(), Error>> {
        future::join_all(keys.iter().map(|(name, value)| self.create(name, value))).await
    }

    /// Copies are looked for at every read and around every create; they are written, read and removed around a
    /// replacement.
    fn about(&self) -> About<'_> {
        let mut about = self.store.about();
        for Charged { create, get, replace, .. } in &mut about.charges {
            (*replace, *create, *get) = (2 * *create + 6 * *get + 2, *create + 3 * *get, 2 * *get);
        }
        about
    }
}
