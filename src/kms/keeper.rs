//! Keeps the state: reads it from the store at the start, and writes every change to the store.

mod replace;
mod replica;
mod rewrite;

use std::collections::BTreeMap;
use std::sync::Arc;

use time::OffsetDateTime;

use self::replica::Replica;
pub(super) use self::replica::{Followed, Sealed, UNKNOWN};
pub use self::replica::{Joining, Notes};
use self::rewrite::Rewrite;
use super::backup;
use super::draft::{Author, Draft, Unsealed};
use super::journal;
use super::loading;
use super::record::{Cipher, Damaged, Id, Place, Record, State};
use super::seal::{self, NotSealed, Providers};
use super::snapshot::{Members, Snapshot};
use super::store::{self, Batch, Seals, Store, WAY_BACK};
use crate::auth::enclave::Identity;
use crate::crypto::{NoRandom, SecretKey};

/// Why the state cannot be read, or not be written anew.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// No provider opens the root key.
    #[error(transparent)]
    Sealed(#[from] seal::Sealed),
    /// The data is not what was written.
    #[error("the data is damaged: {0}. It was left as it is; {WAY_BACK}")]
    Damaged(Damaged),
    /// The bytes are not a backup.
    #[error(transparent)]
    Backup(#[from] backup::Malformed),
    /// It is a backup, and somebody has changed it.
    #[error("the backup is damaged: {0}. Nothing was changed")]
    BackupDamaged(Damaged),
    /// A root key could not be made.
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
    /// A root key could not be sealed.
    #[error(transparent)]
    NotSealed(#[from] NotSealed),
    /// A root key would lose a seal.
    #[error(
        "the HSM '{0}' has a seal of the root key, and this server does not have that HSM: add it to the config and start \
         the server again, or remove its seal with 'claviger kms rm-hsm {0}'"
    )]
    NoHsm(String),
    /// The journal of the cluster failed.
    #[error(transparent)]
    Journal(#[from] journal::Error),
    /// The cluster cannot be used as it is.
    #[error("{0}")]
    Cluster(String),
    /// Everything is to be replaced, and other members would go on with what was there.
    #[error(
        "'{0}' is a member of the cluster, too. This is possible only where one server is left: stop the others, and remove \
         them with 'claviger kms rm HOST'"
    )]
    OtherMembers(String),
    /// The data is that of a node, and the config names no cluster.
    #[error(
        "this directory is that of a node of a cluster, and the config has no 'cluster' section: add it. Only if the \
         cluster is lost for ever, start one server with '--alone'"
    )]
    Node,
    /// A first start, and nothing to seal the root key with.
    #[error("an HSM key is needed: set MINIO_KMS_HSM_KEY; 'claviger kms --soft-hsm' makes one")]
    NoProvider,
}

impl From<loading::Error> for Error {
    fn from(error: loading::Error) -> Self {
        match error {
            loading::Error::Store(error) => Self::Store(error),
            loading::Error::Damaged(damaged) => Self::Damaged(damaged),
        }
    }
}

impl From<Damaged> for Error {
    fn from(damaged: Damaged) -> Self {
        Self::Damaged(damaged)
    }
}

/// The administrator of the whole key manager.
#[derive(Debug, Clone, Copy)]
pub struct Admin {
    /// The identity.
    pub identity: Identity,
    /// Whether it is derived from the HSM key in the environment.
    pub is_derived: bool,
}

/// Holds the store, the root key, and the state as it was last written.
pub struct Keeper {
    store: Box<dyn Store>,
    admin: Admin,
    unsealed: Unsealed,
    cipher: Arc<Cipher>,
    seals: Seals,
    state: State,
    snapshot: Snapshot,
    /// None: this is the only server.
    replica: Option<Replica>,
}

/// Changes of several requests that are written together: records by their places, encrypted, or none where one goes.
pub struct Pending {
    snapshot: Snapshot,
    pub(super) changed: BTreeMap<Id, Option<Vec<u8>>>,
    seals: Seals,
    seals_changed: bool,
}

/// Changes of one request, encrypted. Nothing that is in it can fail any more.
pub struct Prepared {
    snapshot: Snapshot,
    changed: Vec<(Id, Option<Vec<u8>>)>,
    seals: Seals,
    seals_changed: bool,
}

impl Keeper {
    /// Reads everything from a store. For a new store, makes a root key and seals it with each provider. It blocks
    /// while providers answer, so async tasks must not call it.
    ///
    /// # Errors
    /// When the data cannot be read, decrypted, or verified. Then nothing has been written.
    pub fn open(store: Box<dyn Store>, providers: Providers, admin: Admin) -> Result<Self, Error> {
        let keeper = Self::open_any(store, providers, admin)?;
        if keeper.state.epoch == 0 { Ok(keeper) } else { Err(Error::Node) }
    }

    /// The same of a store that may be that of a node.
    fn open_any(store: Box<dyn Store>, providers: Providers, admin: Admin) -> Result<Self, Error> {
        let mut seals = store.seals()?;
        let (mut store, root) = if seals.is_empty() {
            Self::begin(&*store, &providers)?
        } else {
            let root = seal::unseal(&seals, &providers)?;
            (store, root)
        };
        if seals.is_empty() {
            seals = store.seals()?;
        }
        let cipher = Arc::new(Cipher::new(&root));
        let (mut snapshot, state) = loading::load(&cipher, admin.identity, |each| store.for_each(each))?;
        snapshot.seals = seals.keys().cloned().collect();
        store.settle()?;
        let unsealed = Unsealed { root, providers: Arc::new(providers), admin_is_derived: admin.is_derived };
        Ok(Self { store, admin, unsealed, cipher, seals, state, snapshot, replica: None })
    }

    fn begin(store: &dyn Store, providers: &Providers) -> Result<(Box<dyn Store>, SecretKey), Error> {
        let mut records = 0;
        store.for_each(&mut |_, _| {
            records += 1;
            false
        })?;
        if records > 0 {
            return Err(Damaged::Incomplete.into());
        }
        if providers.is_empty() {
            return Err(Error::NoProvider);
        }
        let root = SecretKey::random()?;
        let seal = |(name, provider): (&String, &seal::Provider)| Ok((name.clone(), provider.seal(&root, name)?));
        let seals: Result<Seals, NotSealed> = providers.iter().map(seal).collect();
        let cipher = Cipher::new(&root);
        let written = Rewrite::begin(store, &seals?, &cipher)?.finish(0, 0)?;
        Ok((written.store, root))
    }

    /// The state as it was last written.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// What makes this one of several; none: it is the only one.
    pub(super) fn replica(&self) -> Option<&Replica> {
        self.replica.as_ref()
    }

    /// The cipher of the root key.
    pub(super) fn cipher(&self) -> Arc<Cipher> {
        self.cipher.clone()
    }

    /// Has the store write what was committed. Nothing is lost when that fails.
    ///
    /// `known_at`: when everything was known here for the last time.
    pub(super) fn flush(&mut self, known_at: Option<OffsetDateTime>) {
        match self.store.flush() {
            Ok(()) => self.write_note(known_at),
            Err(error) => {
                let cause = crate::telemetry::log::causes(&error);
                tracing::error!(cause, "changes of the cluster are not written to the disk of this server");
            }
        }
    }

    /// Names of the providers that this server can unseal with.
    pub(super) fn provider_names(&self) -> Vec<String> {
        self.unsealed.providers.keys().cloned().collect()
    }

    /// An empty set of changes.
    pub fn pending(&self) -> Pending {
        Pending {
            snapshot: self.snapshot.clone(),
            changed: BTreeMap::new(),
            seals: self.seals.clone(),
            seals_changed: false,
        }
    }

    /// A draft on top of what is pending.
    pub fn draft(&self, pending: &Pending, author: Author) -> Draft<'_> {
        Draft::new(pending.snapshot.clone(), pending.seals.clone(), &self.unsealed, author)
    }

    /// Encrypts what a draft changes.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn prepare(&self, draft: Draft<'_>) -> Result<Prepared, super::Error> {
        let encrypt = |(place, record): (&Place, &Option<Record>)| match record {
            None => Ok((self.cipher.id(place), None)),
            Some(record) => self.cipher.seal(record).map(|(id, value)| (id, Some(value))),
        };
        let changed = draft.changed.iter().map(encrypt).collect::<Result<_, NoRandom>>()?;
        let Draft { snapshot, seals, seals_changed, .. } = draft;
        Ok(Prepared { snapshot, changed, seals, seals_changed })
    }

    /// Writes the pending changes. When this succeeds, they are durable.
    ///
    /// # Errors
    /// When it is not certain that they were written. The visible state stays as it was.
    pub fn commit(&mut self, mut pending: Pending) -> Result<(), Error> {
        let changed = std::mem::take(&mut pending.changed);
        // A seal that is not wanted any more must not be left in the file.
        if self.seals.iter().all(|(name, seal)| pending.seals.get(name) == Some(seal)) {
            self.add(changed, &pending.seals)?;
        } else {
            self.rewrite(changed, &pending.seals)?;
        }
        pending.snapshot.commit = self.state.commit;
        pending.snapshot.seals = pending.seals.keys().cloned().collect();
        self.seals = pending.seals;
        self.snapshot = pending.snapshot;
        Ok(self.store.settle()?)
    }

    fn add(&mut self, changed: BTreeMap<Id, Option<Vec<u8>>>, seals: &Seals) -> Result<(), Error> {
        let (state, record) = self.next_state(&changed)?;
        let new = seals.iter().filter(|(name, _)| !self.seals.contains_key(*name));
        let mut batch =
            Batch { seals: new.map(|(name, seal)| (name.clone(), seal.clone())).collect(), ..Batch::default() };
        for (id, value) in changed {
            match value {
                None => batch.removals.push(id),
                Some(value) => batch.puts.push((id, value)),
            }
        }
        batch.puts.push(record);
        self.store.commit(&batch)?;
        // A store of a node that is alone now keeps nothing in memory only.
        self.store.flush()?;
        self.state = state;
        Ok(())
    }

    /// The state after these changes, and its record.
    fn next_state(&self, changed: &BTreeMap<Id, Option<Vec<u8>>>) -> Result<(State, (Id, Vec<u8>)), Error> {
        let mut state = self.state;
        for (id, value) in changed {
            if let Some(old) = self.store.get(id)? {
                state.toggle(&self.cipher.mark(id, &old));
                state.records -= 1;
            }
            if let Some(value) = value {
                state.toggle(&self.cipher.mark(id, value));
                state.records += 1;
            }
        }
        state.commit += 1;
        Ok((state, self.cipher.seal(&Record::State(state))?))
    }

    /// Writes all data again, with these changes and these seals.
    fn rewrite(&mut self, changed: BTreeMap<Id, Option<Vec<u8>>>, seals: &Seals) -> Result<(), Error> {
        let mut rewrite = Rewrite::begin(&*self.store, seals, &self.cipher)?;
        rewrite.copy(&*self.store, &self.cipher, &self.state, |id, value| {
            Ok((!changed.contains_key(id)).then(|| (*id, value.to_vec())))
        })?;
        for (id, value) in &changed {
            value.iter().try_for_each(|value| rewrite.put(id, value))?;
        }
        let written = rewrite.finish(self.state.commit + 1, self.state.epoch)?;
        (self.store, self.state) = (written.store, written.state);
        Ok(())
    }

    /// Makes a new root key, seals it with every provider that has a seal, and encrypts all data under it. Whatever
    /// opens the old root key, such as an old HSM key with an old backup, cannot open what is written from then on. It
    /// blocks while providers answer, so async tasks must not call it.
    ///
    /// # Errors
    /// When a provider is missing or does not seal, or the data cannot be written. The visible state stays as it was.
    pub fn rotate_root(&mut self) -> Result<(), Error> {
        let root = SecretKey::random()?;
        let mut seals = Seals::new();
        for name in self.seals.keys() {
            let provider = self.unsealed.providers.get(name).ok_or_else(|| Error::NoHsm(name.clone()))?;
            seals.insert(name.clone(), provider.seal(&root, name)?);
        }
        if self.replica.is_some() {
            return self.rotate_root_of_all(root, seals);
        }
        let cipher = Arc::new(Cipher::new(&root));
        let mut rewrite = Rewrite::begin(&*self.store, &seals, &cipher)?;
        rewrite.copy(&*self.store, &self.cipher, &self.state, |id, value| {
            self.cipher.reseal(id, value, &cipher).map(Some)
        })?;
        let written = rewrite.finish(self.state.commit + 1, self.state.epoch)?;
        (self.store, self.state) = (written.store, written.state);
        self.unsealed.root = root;
        (self.cipher, self.seals) = (cipher, seals);
        self.snapshot.sessions = self.cipher.sessions();
        self.snapshot.commit = self.state.commit;
        Ok(self.store.settle()?)
    }

    /// All data, encrypted as it is in the store.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn backup(&self) -> Result<Vec<u8>, Error> {
        let mut writer = backup::Writer::new(&self.seals);
        self.store.for_each(&mut |id, value| {
            writer.add(id, value);
            true
        })?;
        Ok(writer.finish())
    }

    /// Replaces all data by a backup.
    ///
    /// # Errors
    /// When the backup cannot be decrypted, verified or written. The visible state stays as it was.
    pub fn restore(&mut self, backup: &[u8]) -> Result<(), Error> {
        let ((seals, records), root) = replace::parts(backup, &self.unsealed.providers)?;
        if self.replica.is_some() {
            return self.restore_all(seals, records, root);
        }
        let cipher = Arc::new(Cipher::new(&root));
        let show = |each: &mut dyn FnMut(&Id, &[u8]) -> bool| {
            records.iter().all(|(id, value)| each(id, value));
            Ok(())
        };
        let loaded = loading::load(&cipher, self.admin.identity, show);
        let (mut snapshot, state) = loaded.map_err(replace::backup_damaged)?;
        snapshot.seals = seals.keys().cloned().collect();
        // The backup may be of a cluster; this is one server.
        let members: Vec<_> = snapshot.members.records().map(|number| cipher.id(&Place::member(number))).collect();
        snapshot.members = Members::default();
        let mut rewrite = Rewrite::begin(&*self.store, &seals, &cipher)?;
        let kept = records.iter().filter(|(id, _)| !members.contains(id));
        kept.into_iter().try_for_each(|(id, value)| rewrite.put(id, value))?;
        let written = rewrite.finish(state.commit, 0)?;
        (self.store, self.state) = (written.store, written.state);
        self.unsealed.root = root;
        (self.cipher, self.seals, self.snapshot) = (cipher, seals, snapshot);
        Ok(self.store.settle()?)
    }
}

impl Prepared {
    /// How many records and seals it may change.
    pub(super) fn count(&self) -> usize {
        self.changed.len() + if self.seals_changed { 1 } else { 0 }
    }
}

impl Pending {
    /// Adds the changes of a draft that was made on top of this.
    pub fn add(&mut self, prepared: Prepared) {
        self.snapshot = prepared.snapshot;
        self.changed.extend(prepared.changed);
        self.seals = prepared.seals;
        self.seals_changed |= prepared.seals_changed;
    }

    /// Whether the changes of one more request fit.
    pub(super) fn has_room_for(&self, prepared: &Prepared, most: usize, most_bytes: usize) -> bool {
        let bytes = |value: Option<&Vec<u8>>| value.map_or(0, Vec::len) + 100;
        let size = self.changed.values().map(|value| bytes(value.as_ref())).sum::<usize>();
        let more = prepared.changed.iter().map(|(_, value)| bytes(value.as_ref())).sum::<usize>();
        self.changed.len() + usize::from(self.seals_changed) + prepared.count() <= most && size + more <= most_bytes
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && !self.seals_changed
    }
}
