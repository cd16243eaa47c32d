//! A door to an enclave: its keys for another listener of this process, which has decided who may use them.
//!
//! Reads come from the snapshot and writes go to the writer, as for the clients of the key manager's own protocol. Nothing
//! is kept in between, so that a deletion or a new version counts for all listeners at once.

use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::command::Change;
use super::draft::{Author, Right};
use super::ring::Ring;
use super::snapshot::{Enclave, Snapshot};
use super::turn::Turn;
use super::wire::{DeleteKeyRequest, ImportKeyRequest, StoredVersion};
use super::writer::Order;
use super::{Error, State};
use crate::auth::{Identity, enclave};
use crate::clock;
use crate::crypto::Key;
use crate::keys::{self, Action, Keys, MasterKey, New, NotDecrypted, Stats};
use crate::keystore;
use crate::name::{EnclaveName, KeyName, Page, Pattern};

/// The keys of an enclave.
#[derive(Clone)]
pub struct Door {
    state: Arc<State>,
    enclave: EnclaveName,
}

impl Door {
    /// A door to the enclave with this name. It need not exist yet. From now on the key manager knows that clients of the
    /// KES API use the enclave.
    pub fn new(state: Arc<State>, enclave: EnclaveName) -> Self {
        state.with_kes.write().unwrap_or_else(PoisonError::into_inner).insert(enclave.clone());
        Self { state, enclave }
    }

    /// Whether the enclave exists.
    pub fn leads_somewhere(&self) -> bool {
        self.state.writer.snapshot().enclave(self.enclave.as_str()).is_some()
    }

    /// The key with this name. In a cluster it may be one that this server has not heard of yet.
    async fn key(&self, name: &KeyName) -> Result<Held, Error> {
        match Held::of(&self.state, self.enclave.as_str(), name.as_str()) {
            Err(_) if self.state.writer.node().is_some() => {
                self.state.writer.confirm().await?;
                Held::of(&self.state, self.enclave.as_str(), name.as_str())
            }
            held => held,
        }
    }

    fn page(&self, snapshot: &Snapshot, pattern: &Pattern) -> Result<Page<KeyName>, Error> {
        let enclave = snapshot.enclave(self.enclave.as_str()).ok_or(Error::NoEnclave)?;
        let (prefix, last) = (pattern.prefix(), pattern.after());
        let first = last.map_or(prefix, |last| last.max(prefix));
        let rest = enclave.keys.range_from(first).map(|(name, _)| name);
        let rest = rest.skip_while(|name| Some(name.as_str()) == last);
        Ok(Page::of(pattern, rest.take_while(|name| name.as_str().starts_with(prefix))))
    }

    /// Has the writer make a change. Callers without an identity of the key manager change nothing, except the server
    /// itself, which acts as its administrator.
    async fn write(
        &self,
        action: super::Action,
        command: Change,
        by: Option<&Identity>,
        size: usize,
    ) -> Result<(), Error> {
        let caller = by.and_then(enclave::Identity::of).unwrap_or(self.state.writer.snapshot().admin);
        let author = Author { caller, now: clock::now(), right: Right::Listener };
        let commands = vec![(action, command)];
        self.state.writer.apply(Order { author, enclave: self.enclave.to_string(), commands, size }).await
    }

    /// The error as that of a key store.
    fn failed(&self, action: Action, error: Error) -> keys::Error {
        failed(action, self.as_store(error))
    }

    fn as_store(&self, error: Error) -> keystore::Error {
        match error {
            Error::KeyExists => keystore::Error::Exists,
            // Transit keys are no keys for these clients.
            Error::NoKey | Error::Transit => keystore::Error::NotFound,
            // It may come, or come back from a backup. Until then no client must believe that its key is missing.
            Error::NoEnclave => keystore::Error::Unreachable(self.to_missing().into()),
            // These may pass by themselves.
            error @ (Error::Unavailable(_)
            | Error::Conflict(_)
            | Error::KeyRetired
            | Error::EnclaveRetired
            | Error::Overtaken
            | Error::Uncertain(_)) => keystore::Error::Unreachable(error.into()),
            error => keystore::Error::Failed(error.into()),
        }
    }

    /// What to do where the enclave is missing.
    pub fn to_missing(&self) -> String {
        format!("the enclave '{0}' does not exist; create it with 'claviger kms add-enclave {0}'", self.enclave)
    }
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "enclave: {}", self.enclave)
    }
}

/// A key, and the state that it is of. While this exists, that state is in use.
struct Held {
    state: Arc<State>,
    _snapshot: Arc<Snapshot>,
    enclave: Arc<Enclave>,
    ring: Arc<Ring>,
}

impl Held {
    fn of(state: &Arc<State>, enclave: &str, name: &str) -> Result<Self, Error> {
        let snapshot = state.writer.snapshot();
        let enclave = snapshot.enclave(enclave).ok_or(Error::NoEnclave)?.clone();
        let ring = enclave.key(name)?.clone();
        Ok(Self { state: state.clone(), _snapshot: snapshot, enclave, ring })
    }

    /// The version that encrypts.
    fn version(&self) -> Result<&Key, Error> {
        if let Some(node) = self.state.writer.node()
            && !node.may_encrypt()
        {
            return Err(Error::Uncertain("this server has not heard of the cluster since its start".into()));
        }
        self.enclave.is_kept()?;
        Ok(&self.ring.encrypting(0)?.1.key)
    }
}

#[async_trait]
impl MasterKey for Held {
    fn latest(&self) -> &Key {
        &self.ring.latest().1.key
    }

    fn encrypting(&self) -> Result<&Key, keys::Error> {
        self.version().map_err(|error| failed(Action::Read, keystore::Error::Unreachable(error.into())))
    }

    async fn decrypt(&self, ciphertext: &[u8], context: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotDecrypted> {
        let opened = self.ring.decrypt_any(ciphertext, context, &mut Turn::new()).await;
        if opened.is_ok() || self.state.writer.node().is_none() {
            return Ok(opened?.1);
        }
        // Another server may have made the version that it was encrypted with.
        let uncertain = |error: Error| failed(Action::Read, keystore::Error::Unreachable(error.into()));
        self.state.writer.confirm().await.map_err(uncertain)?;
        let newest = Self::of(&self.state, self.enclave.name.as_str(), self.ring.name.as_str());
        let ring = newest.map_or_else(|_| self.ring.clone(), |newest| newest.ring.clone());
        Ok(ring.decrypt_any(ciphertext, context, &mut Turn::new()).await?.1)
    }
}

fn failed(action: Action, error: keystore::Error) -> keys::Error {
    keys::Error { action, source: Arc::new(error) }
}

#[async_trait]
impl Keys for Door {
    async fn get(&self, name: &KeyName) -> Result<Arc<dyn MasterKey>, keys::Error> {
        Ok(Arc::new(self.key(name).await.map_err(|error| self.failed(Action::Read, error))?))
    }

    async fn create(&self, new: New<'_>) -> Result<(), keys::Error> {
        let New { name, key, imported } = new;
        let value = key.encode().expose().to_vec();
        let (size, by) = (value.len(), key.created_by().and_then(|by| Identity::parse(by).ok()));
        // The whole key, so that nothing of it is lost: its HMAC key, its time, and whether it names an algorithm.
        let version = StoredVersion { number: 1, key: value, imported: false };
        let command = Change::KeyImport(ImportKeyRequest::whole(name.to_string(), vec![version], 2));
        let action = if imported { super::Action::KeyImport } else { super::Action::KeyCreate };
        let created = self.write(action, command, by.as_ref(), size).await;
        created.map_err(|error| self.failed(Action::Create, error))
    }

    async fn delete(&self, name: &KeyName, by: Option<&Identity>) -> Result<(), keys::Error> {
        let request = DeleteKeyRequest { name: name.to_string(), all_versions: true, ..DeleteKeyRequest::default() };
        let deleted = self.write(super::Action::KeyDelete, Change::KeyDelete(request), by, 0).await;
        deleted.map_err(|error| self.failed(Action::Delete, error))
    }

    async fn list(&self, pattern: &Pattern) -> Result<Page<KeyName>, keys::Error> {
        self.state.writer.confirm().await.map_err(|error| self.failed(Action::List, error))?;
        let page = self.page(&self.state.writer.snapshot(), pattern);
        page.map_err(|error| self.failed(Action::List, error))
    }

    async fn status(&self) -> Result<Duration, keystore::Error> {
        if self.leads_somewhere() { Ok(Duration::ZERO) } else { Err(self.as_store(Error::NoEnclave)) }
    }

    fn stats(&self) -> Stats {
        let last_answer = Duration::ZERO;
        Stats { entries: 0, hits: 0, misses: 0, reachable: self.leads_somewhere(), last_answer }
    }

    fn calls(&self) -> Option<&keystore::Calls> {
        None
    }

    fn token_age(&self) -> Option<Duration> {
        None
    }
}
