//! A caller in an enclave, for a listener that speaks another protocol: what it may do there, and the transit keys.

use std::sync::{Arc, Mutex, PoisonError};

use time::OffsetDateTime;

use super::command;
use super::draft::{Author, Right};
use super::policy::Policy;
use super::secret::{self, Secret};
use super::snapshot::{Enclave, Snapshot, Standing};
use super::transit::{Change, Key};
use super::turn::Turn;
use super::writer::Order;
use super::{Action, Error, Revocation, State};
use crate::auth::enclave::Identity;
use crate::clock;
use crate::crypto::Sealer;
use crate::name::{PolicyName, SecretPath};

/// A user that was admitted to an enclave, and the enclave as it was then.
#[derive(Debug)]
pub struct Entry {
    enclave: Arc<Enclave>,
    caller: Identity,
    /// Always a user's.
    standing: Standing,
    /// While it is there, this state is in use.
    in_use: Mutex<Option<Arc<Snapshot>>>,
}

/// Why a caller is not admitted. Clients must not learn which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoEntry {
    /// The enclave does not know the caller, or there is no such enclave.
    Stranger,
    /// The caller may do more than a user.
    Privileged,
}

impl State {
    /// Admits a user to an enclave.
    ///
    /// # Errors
    /// When the caller is not a user there.
    pub fn enter(&self, enclave: &str, caller: &Identity) -> Result<Entry, NoEntry> {
        let snapshot = self.writer.snapshot();
        if snapshot.is_sysadmin(caller) {
            return Err(NoEntry::Privileged);
        }
        match snapshot.enter(enclave, caller) {
            // Of an enclave that is being deleted these clients see nothing more.
            Ok((enclave, standing @ Standing::User(_))) if enclave.is_kept().is_ok() => Ok(Entry {
                enclave: enclave.clone(),
                caller: *caller,
                standing,
                in_use: Mutex::new(Some(snapshot.clone())),
            }),
            Ok((_, Standing::SysAdmin | Standing::Admin)) => Err(NoEntry::Privileged),
            Ok((_, Standing::User(_) | Standing::Stranger)) | Err(_) => Err(NoEntry::Stranger),
        }
    }

    /// Has a transit key changed, by this right of the caller. Waits until the change is on disk.
    ///
    /// # Errors
    /// When the change is refused, or could not be written.
    pub async fn change_transit(&self, entry: &Entry, action: Action, change: Change) -> Result<(), Error> {
        let size = change.name.len();
        self.write(entry, action, command::Change::Transit(change), size).await
    }

    /// Has an entry of the key/value engine changed, by this right of the caller. Waits until the change is on disk.
    ///
    /// # Errors
    /// When the change is refused, or could not be written.
    pub async fn change_secret(
        &self,
        entry: &Entry,
        action: Action,
        change: secret::Change,
        now: OffsetDateTime,
    ) -> Result<(), Error> {
        let document =
            if let secret::What::Write { document, .. } = &change.what { document.expose().len() } else { 0 };
        let size = change.path.as_str().len() + document;
        self.write_at(now, entry, action, command::Change::Secret(change), size).await
    }

    /// Ends a session of the caller. Waits until that is on disk.
    ///
    /// # Errors
    /// When too many are revoked, or it could not be written.
    pub async fn revoke_session(&self, entry: &Entry, revocation: Revocation) -> Result<(), Error> {
        self.write(entry, Action::SessionRevoke, command::Change::RevokeSession(revocation), 64).await
    }

    async fn write(&self, entry: &Entry, action: Action, write: command::Change, size: usize) -> Result<(), Error> {
        self.write_at(clock::now(), entry, action, write, size).await
    }

    async fn write_at(
        &self,
        now: OffsetDateTime,
        entry: &Entry,
        action: Action,
        write: command::Change,
        size: usize,
    ) -> Result<(), Error> {
        // A deletion waits until nobody uses an older state. Whoever changes something encrypts nothing more.
        entry.in_use.lock().unwrap_or_else(PoisonError::into_inner).take();
        let author = Author { caller: entry.caller, now, right: Right::Account };
        let (enclave, commands) = (entry.enclave.name.to_string(), vec![(action, write)]);
        self.writer.apply(Order { author, enclave, commands, size }).await
    }

    /// Whether this server is one of several.
    pub fn is_one_of_several(&self) -> bool {
        self.writer.node().is_some()
    }

    /// Waits until everything is known here that was acknowledged anywhere before this call.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub async fn confirm(&self) -> Result<(), Error> {
        self.writer.confirm().await
    }

    /// Checks that this server may encrypt.
    ///
    /// # Errors
    /// When it has not heard of the cluster since its start.
    pub async fn may_encrypt(&self) -> Result<(), Error> {
        self.writer.may_encrypt().await
    }

    /// What signs the tokens of sessions, with a key that is derived from the root key.
    pub fn sessions(&self) -> Arc<Sealer> {
        self.writer.snapshot().sessions.clone()
    }

    /// Whether the last change could be written.
    pub fn writes(&self) -> bool {
        self.writer.works()
    }
}

impl Entry {
    /// The name of the enclave.
    pub fn enclave(&self) -> &str {
        self.enclave.name.as_str()
    }

    /// The id of the enclave, which no other one ever has.
    pub fn enclave_id(&self) -> &[u8; 16] {
        &self.enclave.id
    }

    /// Whether the session with the token of this hash was revoked.
    pub fn is_revoked(&self, hash: &[u8; 32]) -> bool {
        self.enclave.revoked.contains_key(hash)
    }

    /// Who was admitted.
    pub fn caller(&self) -> &Identity {
        &self.caller
    }

    /// Whether the caller may do this with something of this name.
    pub fn allows(&self, action: Action, name: &str) -> bool {
        self.standing.allows(action, name)
    }

    /// Whether the policy has any rule that allows this action.
    pub fn has_rule(&self, action: Action) -> bool {
        self.rules().is_some_and(|policy| policy.allow.get(&action).is_some_and(|rules| !rules.is_empty()))
    }

    /// The policy of the caller.
    pub fn policy(&self) -> Option<&PolicyName> {
        self.rules().map(|policy| &policy.name)
    }

    fn rules(&self) -> Option<&Policy> {
        if let Standing::User(policy) = &self.standing { policy.as_deref() } else { None }
    }

    /// The transit key with this name.
    pub fn key(&self, name: &str) -> Option<&Arc<Key>> {
        self.enclave.transit.get(name)
    }

    /// At most `limit` names of transit keys behind `after`, in order: those that the caller may list.
    pub async fn names(&self, after: &str, limit: usize) -> Vec<&str> {
        let (mut names, mut turn) = (Vec::new(), Turn::new());
        for (name, _) in self.enclave.transit.range_from(after) {
            if names.len() == limit {
                break;
            }
            turn.step().await;
            let name = name.as_str();
            if name != after && self.allows(Action::KeyList, name) {
                names.push(name);
            }
        }
        names
    }

    /// The entry of the key/value engine with this path.
    pub fn secret(&self, path: &SecretPath) -> Option<&Arc<Secret>> {
        self.enclave.secrets.get(path)
    }

    /// At most `limit` names right below a folder and behind `after`, in order: those of entries, and with a slash those
    /// of folders. The folder is empty, or ends with a slash.
    pub async fn below(&self, folder: &str, after: &str, limit: usize) -> Vec<&str> {
        let (mut names, mut turn): (Vec<&str>, _) = (Vec::new(), Turn::new());
        for (path, _) in self.enclave.secrets.range_from(folder) {
            let Some(rest) = path.as_str().strip_prefix(folder) else { break };
            turn.step().await;
            let name = rest.find('/').map_or(rest, |slash| &rest[..=slash]);
            if name <= after || names.last() == Some(&name) {
                continue;
            }
            if names.len() == limit {
                break;
            }
            names.push(name);
        }
        names
    }
}
