//! A key store whose values are sealed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};

use super::Seal;
use crate::crypto::Blob;
use crate::keystore::{About, Access, Error, KeyStore, Listing};
use crate::name::KeyName;

/// Wraps a store: seals values on their way in, and opens them on their way out.
pub struct Sealed {
    store: Arc<dyn KeyStore>,
    seal: Seal,
}

/// A stored value, and its content.
#[derive(Debug)]
pub struct Examined {
    stored: Blob,
    /// Its seal, see [`Seal::label`].
    pub label: String,
    /// The opened value.
    pub value: Blob,
    /// Whether only the old seal opens it.
    pub needs_old: bool,
}

/// A key, and its value under the newest seal.
#[derive(Debug)]
pub struct Resealed {
    stored: Blob,
    sealed: Blob,
    value: Blob,
}

impl Sealed {
    /// The seal.
    pub fn seal(&self) -> &Seal {
        &self.seal
    }

    /// Wraps `store`.
    pub fn new(store: Arc<dyn KeyStore>, seal: Seal) -> Self {
        Self { store, seal }
    }

    /// Opens a stored value with our own seal or with `old`, and says which seal it has.
    ///
    /// # Errors
    /// When neither opens it, or the store fails.
    pub async fn examine(&self, name: &KeyName, old: &Seal) -> Result<Examined, Error> {
        let stored = self.store.get(name).await?;
        let label = Seal::label(&stored)?;
        let (value, needs_old) = match self.seal.open(name, stored.copy()).await {
            Ok(value) => (value, false),
            Err(ours) => match old.open(name, stored.copy()).await {
                Ok(value) => (value, true),
                // `Unreachable` takes precedence: that provider may open it later.
                Err(Error::Failed(_)) if matches!(ours, Error::Unreachable(_)) => return Err(ours),
                Err(theirs) => return Err(theirs),
            },
        };
        Ok(Examined { stored, label, value, needs_old })
    }

    /// Prepares the value that gives a key the newest seal; `None` when the key has it.
    ///
    /// # Errors
    /// When it cannot be opened or sealed, or when the new seal does not open again.
    pub async fn prepare(&self, name: &KeyName, old: &Seal, newest: &str) -> Result<Option<Resealed>, Error> {
        let Examined { stored, label, value, .. } = self.examine(name, old).await?;
        if label == newest {
            return Ok(None);
        }
        let sealed = self.seal_and_prove(name, &value).await?;
        Ok(Some(Resealed { stored, sealed, value }))
    }

    /// Gives a key the newest seal, in one `replace`. It may be repeated when the outcome is unknown, because it writes
    /// the same value again.
    ///
    /// # Errors
    /// When the store fails, or another process has replaced the key. The key is then complete, with its old or its new
    /// value.
    pub async fn reseal(&self, name: &KeyName, new: &Resealed) -> Result<(), Error> {
        let replaced = self.store.replace(name, &new.stored, &new.sealed).await;
        let there = self.store.get(name).await?;
        if !there.is_same(&new.sealed) {
            return replaced.and(Err(Error::Failed("the key was replaced by somebody else meanwhile".into())));
        }
        if self.seal.open(name, there).await?.is_same(&new.value) {
            return Ok(());
        }
        Err(Error::Failed("the new seal opens to another value".into()))
    }

    /// The number of keys of each seal, by [`Seal::label`]. Reads all keys, `at_once` at a time, and opens none.
    ///
    /// # Errors
    /// When the store fails, or a value is damaged.
    pub async fn labels(&self, at_once: usize) -> Result<BTreeMap<String, usize>, Error> {
        let names = self.store.list("").await?.names;
        let look = |name| async move { (name, self.store.get(name).await.and_then(|value| Seal::label(&value))) };
        let mut looked = stream::iter(&names).map(look).buffer_unordered(at_once);
        let mut labels = BTreeMap::new();
        while let Some((name, label)) = looked.next().await {
            match label {
                Ok(label) => *labels.entry(label).or_default() += 1,
                // Deleted meanwhile.
                Err(Error::NotFound) => {}
                Err(Error::Failed(cause)) => return Err(Error::Failed(format!("'{name}': {cause}").into())),
                Err(error) => return Err(error),
            }
        }
        Ok(labels)
    }

    /// Seals, and opens again before anything is stored.
    async fn seal_and_prove(&self, name: &KeyName, value: &Blob) -> Result<Blob, Error> {
        let sealed = self.seal.seal(name, value).await?;
        if self.seal.open(name, sealed.copy()).await?.is_same(value) {
            return Ok(sealed);
        }
        Err(Error::Failed("what was sealed does not open to the same value".into()))
    }

    async fn open(&self, name: &KeyName, stored: Result<Blob, Error>) -> Result<Blob, Error> {
        self.seal.open(name, stored?).await
    }
}

impl fmt::Display for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.seal.provider {
            Some(_) => write!(f, "{}, {}", self.store, self.seal),
            None => self.store.fmt(f),
        }
    }
}

#[async_trait]
impl KeyStore for Sealed {
    async fn create(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        self.store.create(name, &self.seal.seal(name, value).await?).await
    }

    async fn get(&self, name: &KeyName) -> Result<Blob, Error> {
        self.open(name, self.store.get(name).await).await
    }

    async fn replace(&self, name: &KeyName, expected: &Blob, value: &Blob) -> Result<(), Error> {
        let stored = self.store.get(name).await?;
        if !self.seal.open(name, stored.copy()).await?.is_same(expected) {
            return Err(Error::Failed("the key has another value than expected".into()));
        }
        self.store.replace(name, &stored, &self.seal.seal(name, value).await?).await
    }

    async fn delete(&self, name: &KeyName) -> Result<(), Error> {
        self.store.delete(name).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        self.store.list(prefix).await
    }

    /// Without the provider no key can be read that is not cached, so its outage counts as one of the store.
    async fn status(&self) -> Result<Duration, Error> {
        let took = self.store.status().await?;
        self.seal.status().await?;
        Ok(took)
    }

    async fn check(&self, access: Access) -> Result<(), Error> {
        self.store.check(access).await?;
        self.seal.check(access).await
    }

    async fn rehearse(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        self.store.rehearse(name, &self.seal_and_prove(name, value).await?).await
    }

    fn batch(&self) -> usize {
        self.store.batch()
    }

    async fn get_batch(&self, names: &[KeyName]) -> Vec<Result<Blob, Error>> {
        let mut opened = Vec::with_capacity(names.len());
        for (name, stored) in names.iter().zip(self.store.get_batch(names).await) {
            // Opens one at a time: the caller's batches set the concurrency.
            opened.push(self.open(name, stored).await);
        }
        opened
    }

    async fn create_batch(&self, keys: &[(&KeyName, &Blob)]) -> Vec<Result<(), Error>> {
        let mut sealed = Vec::with_capacity(keys.len());
        for (name, value) in keys {
            sealed.push(self.seal.seal(name, value).await);
        }
        let names = keys.iter().map(|(name, _)| *name);
        let ready: Vec<_> =
            names.zip(&sealed).filter_map(|(name, sealed)| Some((name, sealed.as_ref().ok()?))).collect();
        let mut created = self.store.create_batch(&ready).await.into_iter();
        let answer = |sealed: Result<Blob, Error>| sealed.and_then(|_| created.next().expect("an answer for each"));
        sealed.into_iter().map(answer).collect()
    }

    fn behind(&self) -> Option<&dyn KeyStore> {
        Some(&*self.store)
    }

    fn about(&self) -> About<'_> {
        let mut about = self.store.about();
        about.charges.iter_mut().for_each(|charged| charged.replace += charged.get);
        about.charges.extend(self.seal.charges());
        about.token_age = about.token_age.max(self.seal.token_age());
        about
    }
}

#[cfg(test)]
mod tests {
    use super::super::local::Local;
    use super::*;
    use crate::crypto::SecretKey;
    use crate::keystore::{conformance, mem};

    fn local() -> Local {
        Local::new(&SecretKey::random().expect("random"))
    }

    fn name(text: &str) -> KeyName {
        KeyName::parse(text).expect("a name")
    }

    #[tokio::test]
    async fn a_sealed_store_is_a_key_store() {
        conformance::run(&Sealed::new(Arc::new(mem::Store::default()), Seal::with(local()))).await;
    }

    #[tokio::test]
    async fn one_that_is_not_sealed_is_what_it_was() {
        let seal = Seal::connect(None).await.expect("nobody to connect to");
        let store: Arc<dyn KeyStore> = Arc::new(mem::Store::default());
        let sealed = Sealed::new(store.clone(), seal);
        conformance::run(&sealed).await;
        sealed.create(&name("k"), &b"value".to_vec().into()).await.expect("created");
        assert_eq!(store.get(&name("k")).await.expect("there").expose(), b"value");
        assert_eq!(sealed.to_string(), "mem");
    }

    #[tokio::test]
    async fn entries_cannot_be_swapped_or_changed() {
        let raw: Arc<dyn KeyStore> = Arc::new(mem::Store::default());
        let sealed = Sealed::new(raw.clone(), Seal::with(local()));
        sealed.create(&name("one"), &b"value".to_vec().into()).await.expect("created");
        let stored = raw.get(&name("one")).await.expect("there");
        raw.create(&name("two"), &stored).await.expect("created");
        let error = sealed.get(&name("two")).await.expect_err("moved");
        assert!(crate::telemetry::log::causes(&error).contains("not authentic"), "{error:?}");

        // Whatever single character is changed, no other value comes out.
        let text = std::str::from_utf8(stored.expose()).expect("text").to_owned();
        for (at, was) in text.char_indices() {
            let other = if was == 'A' { 'B' } else { 'A' };
            let changed = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            raw.delete(&name("two")).await.expect("deleted");
            raw.create(&name("two"), &changed.clone().into_bytes().into()).await.expect("created");
            assert!(sealed.get(&name("two")).await.is_err(), "{changed}");
        }
    }

    #[tokio::test]
    async fn what_one_config_forbids_another_allows() {
        let raw: Arc<dyn KeyStore> = Arc::new(mem::Store::default());
        raw.create(&name("plain"), &b"value".to_vec().into()).await.expect("created");
        let strict = Sealed::new(raw.clone(), Seal::with(local()));
        let error = crate::telemetry::log::causes(&strict.get(&name("plain")).await.expect_err("refused"));
        assert!(error.contains("allow_plaintext"), "{error}");
        let lax = Sealed::new(raw.clone(), Seal { allow_plaintext: true, ..Seal::with(local()) });
        assert_eq!(lax.get(&name("plain")).await.expect("allowed").expose(), b"value");

        lax.create(&name("sealed"), &b"value".to_vec().into()).await.expect("created");
        let unsealed = Sealed::new(raw, Seal::connect(None).await.expect("nobody to connect to"));
        let error = crate::telemetry::log::causes(&unsealed.get(&name("sealed")).await.expect_err("sealed"));
        assert!(error.contains("add the section keystore.encrypt.local"), "{error}");
    }

    #[tokio::test]
    async fn resealing_goes_from_any_seal_to_any_other() {
        let raw: Arc<dyn KeyStore> = Arc::new(mem::Store::default());
        let key = name("k");
        raw.create(&key, &b"value".to_vec().into()).await.expect("created");
        let (one, two) = (SecretKey::random().expect("random"), SecretKey::random().expect("random"));
        let plain = async || Seal::connect(None).await.expect("nobody to connect to");
        let of = |key: &SecretKey| Seal::with(Local::new(key));
        let steps = [(plain().await, of(&one)), (of(&one), of(&two)), (of(&two), plain().await)];
        for (old, new) in steps {
            let newest = new.newest().await.expect("seals");
            let store = Sealed::new(raw.clone(), new);
            let resealed = store.prepare(&key, &old, &newest).await.expect("opens").expect("it has another one");
            store.reseal(&key, &resealed).await.expect("resealed");
            store.reseal(&key, &resealed).await.expect("an answer that was lost is asked for again");
            assert!(store.prepare(&key, &old, &newest).await.expect("opens").is_none(), "it is the newest");
            assert_eq!(store.get(&key).await.expect("there").expose(), b"value");
            assert_eq!(Seal::label(&raw.get(&key).await.expect("there")).expect("whole"), newest);
        }
    }
}
