//! Keeps the state: reads it from the store at the start, and writes every change to the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::backup;
use super::draft::{Author, Draft, Unsealed};
use super::loading;
use super::record::{Cipher, Damaged, Id, Place, Record, State};
use super::seal::{self, NotSealed, Providers};
use super::snapshot::Snapshot;
use super::store::{self, Batch, Seals, Store};
use crate::auth::enclave::Identity;
use crate::crypto::{NoRandom, SecretKey};

/// Why the state cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// No provider opens the root key.
    #[error(transparent)]
    Sealed(#[from] seal::Sealed),
    /// The data is not what was written.
    #[error("the data is damaged")]
    Damaged(#[from] Damaged),
    /// The bytes are not a backup.
    #[error(transparent)]
    Backup(#[from] backup::Malformed),
    /// A root key could not be made.
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
    /// A root key could not be sealed.
    #[error(transparent)]
    NotSealed(#[from] NotSealed),
    /// A first start, and nothing to seal the root key with.
    #[error("an HSM key is needed: set MINIO_KMS_HSM_KEY; 'claviger kms --soft-hsm' makes one")]
    NoProvider,
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
    cipher: Cipher,
    seals: Seals,
    state: State,
    snapshot: Snapshot,
}

/// Changes of several requests that are written together: records by their places, encrypted, or none where one goes.
pub struct Pending {
    snapshot: Snapshot,
    changed: BTreeMap<Id, Option<Vec<u8>>>,
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
    /// When the data cannot be read, decrypted, or verified. Then nothing has been changed.
    pub fn open(mut store: Box<dyn Store>, providers: Providers, admin: Admin) -> Result<Self, Error> {
        let mut seals = store.seals()?;
        let root =
            if seals.is_empty() { Self::begin(&mut *store, &providers)? } else { seal::unseal(&seals, &providers)? };
        if seals.is_empty() {
            seals = store.seals()?;
        }
        let cipher = Cipher::new(&root);
        let (mut snapshot, state) = loading::load(&cipher, admin.identity, |each| store.for_each(each))?;
        snapshot.seals = seals.keys().cloned().collect();
        let unsealed = Unsealed { root, providers: Arc::new(providers), admin_is_derived: admin.is_derived };
        Ok(Self { store, admin, unsealed, cipher, seals, state, snapshot })
    }

    fn begin(store: &mut dyn Store, providers: &Providers) -> Result<SecretKey, Error> {
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
        let state = Cipher::new(&root).seal(&Record::State(State::default()))?;
        store.commit(&Batch { puts: vec![state], seals: Some(seals?), ..Batch::default() })?;
        Ok(root)
    }

    /// The state as it was last written.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
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
        let mut state = self.state;
        let mut batch = Batch { seals: pending.seals_changed.then(|| pending.seals.clone()), ..Batch::default() };
        for (id, value) in std::mem::take(&mut pending.changed) {
            if let Some(old) = self.store.get(&id)? {
                state.toggle(&self.cipher.mark(&id, &old));
                state.records -= 1;
            }
            match value {
                None => batch.removals.push(id),
                Some(value) => {
                    state.toggle(&self.cipher.mark(&id, &value));
                    state.records += 1;
                    batch.puts.push((id, value));
                }
            }
        }
        state.commit += 1;
        batch.puts.push(self.cipher.seal(&Record::State(state))?);
        self.store.commit(&batch)?;
        pending.snapshot.commit = state.commit;
        pending.snapshot.seals = pending.seals.keys().cloned().collect();
        self.state = state;
        self.seals = pending.seals;
        self.snapshot = pending.snapshot;
        Ok(())
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
        let (seals, records) = backup::parse(backup)?;
        let root = seal::unseal(&seals, &self.unsealed.providers)?;
        let cipher = Cipher::new(&root);
        let show = |each: &mut dyn FnMut(&Id, &[u8]) -> bool| {
            records.iter().all(|(id, value)| each(id, value));
            Ok(())
        };
        let (mut snapshot, state) = loading::load(&cipher, self.admin.identity, show)?;
        snapshot.seals = seals.keys().cloned().collect();
        self.store.commit(&Batch { clears: true, puts: records, seals: Some(seals.clone()), ..Batch::default() })?;
        self.unsealed.root = root;
        (self.cipher, self.seals, self.state, self.snapshot) = (cipher, seals, state, snapshot);
        Ok(())
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

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && !self.seals_changed
    }
}
