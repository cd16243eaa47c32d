//! Replaces a key in stores whose readers see only a key's first version.
//!
//! The old value is first copied to a reserved name. Then the key is deleted and created anew. The copy is removed once
//! the new key is proven to be there. While the key is missing, readers get the copy.
//!
//! The copy also keeps two processes from replacing one key at the same time: it is created exclusively, and names its
//! owner. A copy older than two minutes has lost its owner; the next process completes or undoes the replacement.

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{Access, Charged, Error, KeyStore, Listing};
use crate::clock;
use crate::crypto::{Blob, random};
use crate::name::{KeyName, RESERVED_PREFIX};

/// How old a copy is, by the wall clock, when its owner is taken for dead. In seconds.
const ABANDONED: i64 = 120;

/// How long after the copy was written its owner still deletes the key: long before others take it for dead.
const LEASE: Duration = Duration::from_secs(60);

/// The pause before a copy is looked at again whose owner may live.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How often a read goes from the key to its copy and back: a replacement may pass it by.
const READS: usize = 4;

/// A store of which each name is written once.
pub struct Kept<S> {
    store: S,
    /// Tells our copies from those of other processes.
    owner: String,
    /// One replacement of a key at a time; several keys may share a lock.
    locks: [Mutex<()>; 64],
}

/// What lies under a reserved name: `{"claviger_old":{"name":"…","value":"…","owner":"…","at":…}}`.
#[derive(Serialize, Deserialize)]
struct Wrapper<T> {
    claviger_old: T,
}

#[derive(Deserialize)]
struct Copy {
    name: String,
    value: SecretString,
    owner: String,
    /// Seconds since 1970.
    at: i64,
}

#[derive(Serialize)]
struct NewCopy<'a> {
    name: &'a str,
    value: &'a str,
    owner: &'a str,
    at: i64,
}

impl Copy {
    fn value(&self) -> Blob {
        self.value.expose_secret().as_bytes().to_vec().into()
    }

    fn is_abandoned(&self) -> bool {
        clock::now().unix_timestamp().saturating_sub(self.at) > ABANDONED
    }
}

impl<S: KeyStore> Kept<S> {
    /// Wraps `store`.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn new(store: S) -> Result<Self, Error> {
        let mut owner = [0; 8];
        random::fill(&mut owner).map_err(|error| Error::Failed(error.into()))?;
        let owner = format!("{:016x}", u64::from_be_bytes(owner));
        Ok(Self { store, owner, locks: std::array::from_fn(|_| Mutex::new(())) })
    }

    async fn lock(&self, name: &KeyName) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let index = hasher.finish() % self.locks.len() as u64;
        self.locks[usize::try_from(index).expect("less than the locks there are")].lock().await
    }

    /// The copy of the key's old value, if there is one.
    async fn copy_of(&self, name: &KeyName) -> Result<Option<Copy>, Error> {
        match self.read_copy(&KeyName::kept(name)).await {
            Ok(copy) if copy.name == name.as_str() => Ok(Some(copy)),
            // The first 64 bits of two hashes are the same: nobody's copy but the other's.
            Ok(_) | Err(Error::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn read_copy(&self, kept: &KeyName) -> Result<Copy, Error> {
        let blob = self.store.get(kept).await?;
        let wrapper: Wrapper<Copy> = serde_json::from_slice(blob.expose())
            .map_err(|_| Error::Failed(format!("'{kept}' is no copy of a key that is being replaced").into()))?;
        Ok(wrapper.claviger_old)
    }

    /// Keeps `value` under the reserved name, as nobody else does at the time.
    async fn keep(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        let kept = KeyName::kept(name);
        match self.store.create(&kept, &self.encode(name, value)?).await {
            Err(Error::Exists) => {}
            created => return created,
        }
        match self.read_copy(&kept).await? {
            copy if copy.name != name.as_str() => Err(failed("another key is kept under the same reserved name")),
            // An earlier attempt of ours.
            copy if copy.owner == self.owner && copy.value().is_same(value) => Ok(()),
            copy if copy.is_abandoned() => {
                self.restore(name, &copy).await?;
                match self.store.create(&kept, &self.encode(name, value)?).await {
                    Err(Error::Exists) => Err(failed("another process is replacing this key")),
                    created => created,
                }
            }
            _ => Err(failed(
                "another process is replacing this key, or was stopped while it did: try again in two minutes",
            )),
        }
    }

    /// Ends a replacement that was interrupted: the key then has its old or its new value, and the copy is gone.
    async fn restore(&self, name: &KeyName, copy: &Copy) -> Result<(), Error> {
        match self.store.get(name).await {
            // Old or new, it is whole: the copy has served.
            Ok(_) => self.store.delete(&KeyName::kept(name)).await,
            Err(Error::NotFound) => self.renew(name, &copy.value()).await,
            Err(error) => Err(error),
        }
    }

    /// Creates the key anew, and makes sure that it is there; then the copy may go.
    async fn renew(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        match self.store.create(name, value).await {
            Ok(()) | Err(Error::Exists | Error::Unreachable(_)) => {}
            Err(error) => return Err(error),
        }
        match self.store.get(name).await {
            Ok(stored) if stored.is_same(value) => self.store.delete(&KeyName::kept(name)).await,
            Ok(_) => Err(failed("somebody else created the key; its old value is kept under the reserved name")),
            Err(Error::NotFound) => Err(Error::Unreachable("the new value was not stored; the old one is kept".into())),
            Err(error) => Err(error),
        }
    }

    fn encode(&self, name: &KeyName, value: &Blob) -> Result<Blob, Error> {
        let value = std::str::from_utf8(value.expose()).map_err(|_| failed("the old value is no text"))?;
        let at = clock::now().unix_timestamp();
        let copy = Wrapper { claviger_old: NewCopy { name: name.as_str(), value, owner: &self.owner, at } };
        // Room for every character escaped: a buffer that grows leaves copies behind.
        let mut json = Zeroizing::new(Vec::with_capacity(256 + 6 * value.len()));
        serde_json::to_writer(&mut *json, &copy).expect("writing texts to memory does not fail");
        Ok(json.into())
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
#[deny(clippy::missing_trait_methods)]
impl<S: KeyStore> KeyStore for Kept<S> {
    async fn create(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        match self.copy_of(name).await? {
            Some(_) => Err(Error::Exists),
            None => self.store.create(name, value).await,
        }
    }

    async fn get(&self, name: &KeyName) -> Result<Blob, Error> {
        for _ in 0..READS {
            match self.store.get(name).await {
                Err(Error::NotFound) => {}
                found => return found,
            }
            match self.copy_of(name).await? {
                Some(copy) => return Ok(copy.value()),
                // It may have been renewed between the two questions.
                None if self.store.get(name).await.is_err_and(|error| matches!(error, Error::NotFound)) => {
                    return Err(Error::NotFound);
                }
                None => {}
            }
        }
        Err(Error::Unreachable("the key is being replaced again and again".into()))
    }

    async fn replace(&self, name: &KeyName, expected: &Blob, value: &Blob) -> Result<(), Error> {
        let _one = self.lock(name).await;
        if !self.get(name).await?.is_same(expected) {
            return Err(failed("the key has another value than expected"));
        }
        let begun = Instant::now();
        self.keep(name, expected).await?;
        if begun.elapsed() > LEASE {
            return Err(failed("the key store is too slow to replace a key safely; the key is as it was"));
        }
        match self.store.delete(name).await {
            // It was, when an earlier attempt was interrupted.
            Ok(()) | Err(Error::NotFound) => self.renew(name, value).await,
            Err(error) => Err(error),
        }
    }

    async fn settle(&self) -> Result<(), Error> {
        let listing = self.store.list(RESERVED_PREFIX).await?;
        for kept in listing.foreign.iter().filter_map(|foreign| KeyName::parse_kept(&foreign.name)) {
            loop {
                let copy = match self.read_copy(&kept).await {
                    Ok(copy) => copy,
                    // Its owner lives, and has ended it.
                    Err(Error::NotFound) => break,
                    Err(error) => return Err(error),
                };
                if copy.is_abandoned() {
                    let name =
                        KeyName::parse(&copy.name).map_err(|_| failed("a copy is of something that is no key"))?;
                    let _one = self.lock(&name).await;
                    self.restore(&name, &copy).await?;
                    break;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
        Ok(())
    }

    async fn delete(&self, name: &KeyName) -> Result<(), Error> {
        // The copy first: it would stand for the name.
        if self.copy_of(name).await?.is_some() {
            self.store.delete(&KeyName::kept(name)).await?;
        }
        self.store.delete(name).await
    }

    /// Keys of which there is only the copy are listed as well.
    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        let copies = self.store.list(RESERVED_PREFIX);
        let (listing, copies) = future::try_join(self.store.list(prefix), copies).await?;
        let mut listing = listing;
        for kept in copies.foreign.iter().filter_map(|foreign| KeyName::parse_kept(&foreign.name)) {
            match self.read_copy(&kept).await {
                Ok(copy) if copy.name.starts_with(prefix) => listing.insert(&copy.name),
                Ok(_) | Err(Error::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(listing.sorted())
    }

    async fn status(&self) -> Result<Duration, Error> {
        self.store.status().await
    }

    async fn check(&self, access: Access) -> Result<(), Error> {
        self.store.check(access).await
    }

    async fn rehearse(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        self.store.rehearse(name, value).await
    }

    fn batch(&self) -> usize {
        1
    }

    /// One at a time: how many are asked for at once is for whoever makes the batches.
    async fn get_batch(&self, names: &[KeyName]) -> Vec<Result<Blob, Error>> {
        let mut answers = Vec::with_capacity(names.len());
        for name in names {
            answers.push(self.get(name).await);
        }
        answers
    }

    async fn create_batch(&self, keys: &[(&KeyName, &Blob)]) -> Vec<Result<(), Error>> {
        let mut answers = Vec::with_capacity(keys.len());
        for (name, value) in keys {
            answers.push(self.create(name, value).await);
        }
        answers
    }

    /// Copies are looked for before a create, and kept, read, and removed around a replacement.
    fn charges(&self) -> Vec<Charged> {
        let mut charges = self.store.charges();
        for Charged { create, get, replace, .. } in &mut charges {
            (*replace, *create) = (2 * *create + 2 * *get + 2, *create + *get);
        }
        charges
    }

    async fn identity(&self) -> Result<String, Error> {
        self.store.identity().await
    }

    fn token_age(&self) -> Option<Duration> {
        self.store.token_age()
    }

    async fn clock(&self) -> Result<Option<OffsetDateTime>, Error> {
        self.store.clock().await
    }

    fn warnings(&self) -> &[String] {
        self.store.warnings()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keystore::{conformance, mem};

    fn name() -> KeyName {
        KeyName::parse("my-key").expect("valid")
    }

    fn blob(text: &str) -> Blob {
        text.as_bytes().to_vec().into()
    }

    async fn store() -> Kept<mem::Store> {
        let store = Kept::new(mem::Store::default()).expect("random bytes");
        store.create(&name(), &blob("old")).await.expect("created");
        store
    }

    async fn assert_holds(store: &Kept<mem::Store>, value: &str) {
        assert!(store.get(&name()).await.expect("never missing").is_same(&blob(value)));
        let listing = store.list("my").await.expect("listed");
        assert_eq!(listing.names, [name()]);
        assert!(matches!(store.create(&name(), &blob("other")).await, Err(Error::Exists)));
    }

    async fn has_copy(store: &Kept<mem::Store>) -> bool {
        store.store.get(&KeyName::kept(&name())).await.is_ok()
    }

    /// Lets another process, of `age` seconds ago, stop after so many steps of replacing "old" by "new".
    async fn interrupt(store: &Kept<mem::Store>, steps: usize, age: i64) {
        let at = clock::now().unix_timestamp() - age;
        let copy = Wrapper { claviger_old: NewCopy { name: "my-key", value: "old", owner: "another", at } };
        let copy = serde_json::to_vec(&copy).expect("texts");
        store.store.create(&KeyName::kept(&name()), &copy.into()).await.expect("kept");
        if steps > 0 {
            store.store.delete(&name()).await.expect("deleted");
        }
        if steps > 1 {
            store.store.create(&name(), &blob("new")).await.expect("created");
        }
    }

    #[tokio::test]
    async fn passes_the_suite() {
        conformance::run(&Kept::new(mem::Store::default()).expect("random bytes")).await;
    }

    #[tokio::test]
    async fn a_key_is_replaced_and_its_copy_goes() {
        let store = store().await;
        store.replace(&name(), &blob("old"), &blob("new")).await.expect("replaced");
        assert_holds(&store, "new").await;
        assert!(!has_copy(&store).await);
        assert!(store.replace(&name(), &blob("old"), &blob("newer")).await.is_err());
        assert_holds(&store, "new").await;
    }

    /// Whatever step a kill follows, the key is there, and who replaces it next ends what was begun.
    #[tokio::test]
    async fn an_interrupted_replacement_loses_nothing() {
        for steps in 0..3 {
            let store = store().await;
            interrupt(&store, steps, ABANDONED + 10).await;
            let expected = if steps > 1 { "new" } else { "old" };
            assert_holds(&store, expected).await;
            let leftovers = store.list("").await.expect("listed").foreign;
            assert_eq!(leftovers.len(), 1, "and it is shown: {leftovers:?}");
            store.replace(&name(), &blob(expected), &blob("newer")).await.expect("replaced after all");
            assert_holds(&store, "newer").await;
            assert!(!has_copy(&store).await, "after {steps} steps");
        }
    }

    #[tokio::test]
    async fn what_was_cut_off_is_ended_when_nobody_can_be_at_work_any_more() {
        for steps in 0..3 {
            let store = store().await;
            interrupt(&store, steps, ABANDONED - 1).await;
            let began = Instant::now();
            store.settle().await.expect("settled");
            assert!(began.elapsed() >= LOOK_AGAIN, "its owner may live");
            assert_holds(&store, if steps > 1 { "new" } else { "old" }).await;
            assert!(!has_copy(&store).await, "after {steps} steps");
        }
    }

    #[tokio::test]
    async fn a_replacement_of_another_process_is_left_alone() {
        for steps in 0..2 {
            let store = store().await;
            interrupt(&store, steps, ABANDONED - 60).await;
            let replaced = store.replace(&name(), &blob("old"), &blob("newer")).await;
            assert!(matches!(replaced, Err(Error::Failed(_))), "{replaced:?}");
            assert_holds(&store, "old").await;
            assert!(has_copy(&store).await, "after {steps} steps");
        }
    }

    #[tokio::test]
    async fn a_replacement_of_ours_can_be_begun_again() {
        let store = store().await;
        store.keep(&name(), &blob("old")).await.expect("kept");
        store.store.delete(&name()).await.expect("deleted");
        store.replace(&name(), &blob("old"), &blob("new")).await.expect("replaced");
        assert_holds(&store, "new").await;
    }

    #[tokio::test]
    async fn a_deleted_key_does_not_come_back() {
        let store = store().await;
        store.keep(&name(), &blob("old")).await.expect("kept");
        store.delete(&name()).await.expect("deleted");
        assert!(matches!(store.get(&name()).await, Err(Error::NotFound)));
        assert!(store.list("").await.expect("listed").names.is_empty());
    }
}
