//! Retries requests to a key store while a failure may pass by itself.

mod later;
mod patience;
#[cfg(test)]
mod tests;
mod waits;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, timeout_at};

pub(super) use self::later::later;
use self::patience::{Patience, Purpose, no_answer};
pub use self::waits::{Wait, Waits};
use super::{About, Access, Error, KeyStore, Listing};
use crate::crypto::Blob;
use crate::name::KeyName;

/// Sends requests to a store again after [`Error::Unreachable`], for a limited time.
///
/// Reads are also abandoned when they take too long. Writes never are, because it would be unknown whether they happen.
/// A write is sent again only after a read has shown that it did not happen.
pub struct Retry {
    store: Arc<dyn KeyStore>,
    purpose: Purpose,
}

impl Retry {
    /// For requests, whose clients wait: reads take 10 s at most, and nothing is sent again after that.
    pub fn new(store: Arc<dyn KeyStore>) -> Self {
        Self { store, purpose: Purpose::Request }
    }

    /// For a run over many keys, which should survive an outage: a store may fail for 60 s. It registers its pauses in
    /// `waits`.
    pub fn for_a_run(store: Arc<dyn KeyStore>, waits: Waits) -> Self {
        Self { store, purpose: Purpose::Run(waits) }
    }

    fn patience(&self) -> Patience {
        Patience::new(&self.purpose)
    }

    async fn get_within(&self, patience: &mut Patience, name: &KeyName) -> Result<Blob, Error> {
        patience.ask(|| self.store.get(name)).await
    }

    /// Finds out whether a create with this answer was done.
    async fn settle(
        &self,
        patience: &mut Patience,
        name: &KeyName,
        value: &Blob,
        mut answer: Result<(), Error>,
    ) -> Result<(), Error> {
        let mut outcome_unknown = false;
        loop {
            match answer {
                Err(Error::Unreachable(cause)) => patience.pause(cause).await?,
                // The existing key may be ours: an earlier attempt may have arrived late.
                Err(Error::Exists) if outcome_unknown => {}
                answer => return answer,
            }
            outcome_unknown = true;
            match self.get_within(patience, name).await {
                Ok(stored) if stored.is_same(value) => return Ok(()),
                Ok(_) => return Err(Error::Exists),
                Err(Error::NotFound) => {}
                Err(error) => return Err(error),
            }
            answer = self.store.create(name, value).await;
        }
    }

    /// The value that deleting `name` would destroy; `None` when the store shows none.
    async fn before_delete(&self, patience: &mut Patience, name: &KeyName) -> Result<Option<Blob>, Error> {
        match self.get_within(patience, name).await {
            Ok(value) => Ok(Some(value)),
            Err(Error::Unreachable(cause)) => Err(Error::Unreachable(cause)),
            // It may be a broken key. The store decides whether to delete it.
            Err(_) => Ok(None),
        }
    }
}

impl fmt::Display for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

#[async_trait]
impl KeyStore for Retry {
    /// Sends the create once. When its outcome is unknown, the name is read: our bytes are success,
    /// others mean that it exists, and with none it is sent again.
    async fn create(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        let mut patience = self.patience();
        let answer = self.store.create(name, value).await;
        self.settle(&mut patience, name, value, answer).await
    }

    async fn get(&self, name: &KeyName) -> Result<Blob, Error> {
        self.get_within(&mut self.patience(), name).await
    }

    /// Sends it again only while `expected` is what is stored.
    async fn replace(&self, name: &KeyName, expected: &Blob, value: &Blob) -> Result<(), Error> {
        let mut patience = self.patience();
        let mut outcome_unknown = false;
        loop {
            let refused = match self.store.replace(name, expected, value).await {
                Err(Error::Unreachable(cause)) => {
                    patience.pause(cause).await?;
                    None
                }
                // The unexpected value may be ours: an earlier attempt may have arrived late.
                Err(error) if outcome_unknown => Some(error),
                answer => return answer,
            };
            outcome_unknown = true;
            if self.get_within(&mut patience, name).await?.is_same(value) {
                return Ok(());
            }
            if let Some(error) = refused {
                return Err(error);
            }
        }
    }

    /// Reads the key first. If the outcome is unknown and the key is then missing or different, it was deleted. A key
    /// that somebody created since then must not be deleted.
    async fn delete(&self, name: &KeyName) -> Result<(), Error> {
        let mut patience = self.patience();
        let before = self.before_delete(&mut patience, name).await?;
        loop {
            let cause = match self.store.delete(name).await {
                Err(Error::Unreachable(cause)) => cause,
                answer => return answer,
            };
            let Some(before) = &before else { return Err(Error::Unreachable(cause)) };
            patience.pause(cause).await?;
            match self.get_within(&mut patience, name).await {
                Ok(stored) if stored.is_same(before) => {}
                Ok(_) | Err(Error::NotFound) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        self.patience().ask(|| self.store.list(prefix)).await
    }

    /// Sent once: it asks about this very moment.
    async fn status(&self) -> Result<Duration, Error> {
        self.store.status().await
    }

    fn behind(&self) -> Option<&dyn KeyStore> {
        Some(&*self.store)
    }

    /// Questions that are sent are sent again.
    fn about(&self) -> About<'_> {
        About {
            identity: Box::pin(async { self.patience().ask(|| self.store.about().identity).await }),
            clock: Box::pin(async { self.patience().ask(|| self.store.about().clock).await }),
            ..self.store.about()
        }
    }

    async fn check(&self, access: Access) -> Result<(), Error> {
        self.patience().ask(|| self.store.check(access)).await
    }

    async fn rehearse(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        self.patience().ask(|| self.store.rehearse(name, value)).await
    }

    fn batch(&self) -> usize {
        self.store.batch()
    }

    /// Asks again only for the keys that the store did not answer.
    async fn get_batch(&self, names: &[KeyName]) -> Vec<Result<Blob, Error>> {
        let (asked, mut patience) = (Instant::now(), self.patience());
        let Ok(mut answers) = timeout_at(patience.deadline, self.store.get_batch(names)).await else {
            return names.iter().map(|_| Err(no_answer(asked))).collect();
        };
        for (name, answer) in names.iter().zip(&mut answers) {
            if matches!(answer, Err(Error::Unreachable(_))) {
                *answer = self.get_within(&mut patience, name).await;
            }
        }
        answers
    }

    async fn create_batch(&self, keys: &[(&KeyName, &Blob)]) -> Vec<Result<(), Error>> {
        let mut patience = self.patience();
        let mut settled = Vec::with_capacity(keys.len());
        for ((name, value), answer) in keys.iter().zip(self.store.create_batch(keys).await) {
            settled.push(self.settle(&mut patience, name, value, answer).await);
        }
        settled
    }
}

/// Repeats an attempt while the store does not answer, for 60 s from the first failure. Never abandons an attempt. It
/// registers its pauses in `waits`.
///
/// # Errors
/// The error of the last attempt.
pub async fn patiently<T, F>(waits: &Waits, mut attempt: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut patience = Patience::new(&Purpose::Run(waits.clone()));
    loop {
        match attempt().await {
            Err(Error::Unreachable(cause)) => patience.pause(cause).await?,
            answer => return answer,
        }
    }
}
