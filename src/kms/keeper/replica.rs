//! The state as one of several nodes has it: its own store holds a copy, and the journal decides what is written.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use time::OffsetDateTime;
use tokio::runtime::Handle;

use super::rewrite::Rewrite;
use super::{Admin, Error, Keeper, Pending};
use crate::clock;
use crate::crypto::{SecretKey, random};
use crate::kms::draft::Unsealed;
use crate::kms::journal::etcd::Etcd;
use crate::kms::journal::{self, Appended, Changes, Commit, Head, Journal};
use crate::kms::loading;
use crate::kms::record::{Cipher, Damaged, Id, Member, Place, Record, State};
use crate::kms::seal::{self, NotSealed, Provider, Providers};
use crate::kms::snapshot::{Enclave, Retired, Snapshot};
use crate::kms::store::{Batch, Seals, Store};
use crate::telemetry::log::causes;

/// The revision of records whose place in the journal is not known.
pub(in crate::kms) const UNKNOWN: i64 = 0;

/// How long a start waits for the cluster to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is noted when everything was known.
const NOTED: Duration = Duration::from_secs(5);

/// What a node has beside its records.
pub trait Notes: Send {
    /// What was written last; none: nothing was.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&self) -> std::io::Result<Option<Vec<u8>>>;

    /// Writes it, durably.
    ///
    /// # Errors
    /// When that is not certain.
    fn write(&mut self, note: &[u8]) -> std::io::Result<()>;
}

/// How a node takes part in a cluster.
pub struct Joining {
    /// The journal.
    pub(in crate::kms) journal: Arc<dyn Journal>,
    /// What the node notes beside its records.
    pub notes: Box<dyn Notes>,
    /// Where clients reach it, as `host:port`.
    pub host: String,
    /// How long reads go on without an answer of the cluster; none: for ever.
    pub stale_reads: Option<Duration>,
    /// For calls to the journal from threads.
    pub runtime: Handle,
}

/// What is different where there are several nodes.
pub(in crate::kms) struct Replica {
    pub(in crate::kms) journal: Arc<dyn Journal>,
    pub(in crate::kms) runtime: Handle,
    /// The head that the state is of.
    pub(in crate::kms) head: Head,
    /// This member.
    pub(in crate::kms) number: u32,
    /// How long reads go on without an answer; none: for ever.
    pub(in crate::kms) stale_reads: Option<Duration>,
    /// When the journal was asked whether this is the newest state; none: it has not answered since the start.
    pub(in crate::kms) confirmed_at: Option<u64>,
    /// When everything was known here for the last time, by [`clock::since_boot`]; none: that is not known.
    pub(in crate::kms) known_at: Option<u64>,
    pub(super) id: [u8; 16],
    pub(super) notes: Box<dyn Notes>,
    /// What was noted last, and when.
    pub(super) noted: Option<(i64, OffsetDateTime)>,
}

/// What a node notes beside its records, sealed.
#[derive(Clone, PartialEq, Message)]
struct Note {
    /// The random id of the data directory.
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(uint32, tag = "2")]
    number: u32,
    /// The head that the records are of.
    #[prost(int64, tag = "3")]
    revision: i64,
    #[prost(uint64, tag = "4")]
    epoch: u64,
    #[prost(bytes = "vec", tag = "5")]
    state: Vec<u8>,
    /// What keeps the journal.
    #[prost(uint64, tag = "6")]
    cluster: u64,
    /// When everything was known here for the last time, in seconds since 1970.
    #[prost(int64, tag = "7")]
    confirmed_at: i64,
}

/// Changes that are ready to be written: nothing of them can fail any more.
pub(in crate::kms) struct Sealed {
    snapshot: Snapshot,
    seals: Seals,
    state: State,
    /// The record of the state, sealed.
    pub(in crate::kms) value: Vec<u8>,
    pub(in crate::kms) changes: Changes,
}

/// What came of a commit of somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kms) enum Followed {
    /// It was known.
    Known,
    /// It was taken over; whether it can take a right from somebody.
    Applied { changes_rights: bool },
    /// It does not follow, or what it makes is not what its head says: everything has to be loaded.
    Gap,
}

impl Joining {
    /// Takes part by a journal in etcd.
    pub fn by_etcd(
        journal: Etcd,
        notes: Box<dyn Notes>,
        host: String,
        stale_reads: Option<Duration>,
        runtime: Handle,
    ) -> Self {
        Self { journal: Arc::new(journal), notes, host, stale_reads, runtime }
    }
}

impl Keeper {
    /// Opens a store as that of a node, and brings it up to the newest state. It blocks, so async tasks must not call it.
    ///
    /// # Errors
    /// When the store or the journal cannot be used together.
    pub fn join(store: Box<dyn Store>, joining: Joining, providers: Providers, admin: Admin) -> Result<Self, Error> {
        let Joining { journal, notes, host, stale_reads, runtime } = joining;
        let (head, asked_at) = ask(&runtime, &*journal);
        let seals = store.seals()?;
        let mut keeper = match head {
            Ok(None) if seals.is_empty() => Self::first(store, &*journal, &runtime, providers, admin)?,
            Ok(None) => return Err(Error::Cluster(NO_HEAD.into())),
            Ok(Some(_)) if seals.is_empty() => Self::copy(store, &*journal, &runtime, providers, admin)?,
            Err(why) if seals.is_empty() => {
                return Err(Error::Cluster(format!(
                    "the cluster does not answer, and there is no copy of it here: {why}"
                )));
            }
            Ok(Some(_)) | Err(_) => (Self::open_any(store, providers, admin)?, None),
        };
        if keeper.0.state.epoch == 0 {
            return Err(Error::Cluster(EMBEDDED.into()));
        }
        let note = keeper.0.read_note(&*notes);
        let cluster = journal.cluster();
        if let Some(before) = note.as_ref().map(|note| note.cluster).filter(|id| *id != 0)
            && cluster.is_some_and(|cluster| cluster != before)
        {
            // One that was restored has another id and the same content, which is checked.
            tracing::warn!(
                before = format!("{before:x}"),
                "etcd is another cluster than before: it was restored from a snapshot, or the endpoints lead elsewhere"
            );
        }
        let known = keeper.1.take().or_else(|| note.as_ref().and_then(Note::head));
        let (id, number) = match &note {
            Some(Note { id, number, .. }) if id.len() == 16 => (id.as_slice().try_into().expect("16 bytes"), *number),
            _ => (fresh_id()?, 0),
        };
        let unknown = Head { revision: UNKNOWN, epoch: keeper.0.state.epoch, state: Vec::new() };
        let head_here = known.unwrap_or(unknown);
        let mut keeper = keeper.0;
        keeper.replica = Some(Replica {
            journal,
            runtime,
            head: head_here,
            number,
            stale_reads,
            confirmed_at: None,
            known_at: None,
            id,
            notes,
            noted: None,
        });
        match head {
            Ok(_) => {
                keeper.catch_up_at_start()?;
                // Whoever is killed right after it has become a member comes back as that member.
                keeper.write_note(Some(clock::now()));
                keeper.become_member(&host)?;
                keeper.replica_mut().confirmed_at = Some(asked_at);
                keeper.write_note(Some(clock::now()));
            }
            Err(why) => keeper.start_alone(&why, note.as_ref())?,
        }
        Ok(keeper)
    }

    /// The first node of a cluster makes the root key.
    fn first(
        store: Box<dyn Store>,
        journal: &dyn Journal,
        runtime: &Handle,
        providers: Providers,
        admin: Admin,
    ) -> Result<(Self, Option<Head>), Error> {
        if providers.values().all(|provider| matches!(provider, Provider::Lost(_))) {
            return Err(Error::NoProvider);
        }
        let root = SecretKey::random()?;
        let seal = |(name, provider): (&String, &Provider)| Ok((name.clone(), provider.seal(&root, name)?));
        let seals: Result<Seals, NotSealed> = providers.iter().map(seal).collect();
        let (seals, cipher) = (seals?, Cipher::new(&root));
        let state = State { epoch: fresh_epoch()?, ..State::default() };
        let (_, value) = cipher.seal(&Record::State(state))?;
        let changes =
            Changes { seals: seals.into_iter().map(|(name, seal)| (name, Some(seal))).collect(), ..Changes::default() };
        runtime.block_on(journal.fill(state.epoch, &changes))?;
        // Where another node was first, or this one has been and heard no answer, what is there counts.
        match runtime.block_on(journal.append(None, state.epoch, &value, &Changes::default())) {
            Ok(_) | Err(journal::Error::Unreachable(_)) => Self::copy(store, journal, runtime, providers, admin),
            Err(error) => Err(error.into()),
        }
    }

    /// Fills an empty store with what the journal has.
    fn copy(
        store: Box<dyn Store>,
        journal: &dyn Journal,
        runtime: &Handle,
        providers: Providers,
        admin: Admin,
    ) -> Result<(Self, Option<Head>), Error> {
        let loaded = Loaded::new(journal, runtime)?;
        let root = seal::unseal(&loaded.seals, &providers)?;
        let (keeper, head) = loaded.into_keeper(&*store, root, Arc::new(providers), admin)?;
        Ok((keeper, Some(head)))
    }

    pub(in crate::kms) fn replica_mut(&mut self) -> &mut Replica {
        self.replica.as_mut().expect("only a node of a cluster is asked")
    }

    /// Brings a copy from the disk up to the newest state.
    fn catch_up_at_start(&mut self) -> Result<(), Error> {
        let replica = self.replica_mut();
        let (journal, runtime) = (replica.journal.clone(), replica.runtime.clone());
        let head = runtime.block_on(journal.head())?.ok_or_else(|| Error::Cluster(NO_HEAD.into()))?;
        if head == replica.head {
            return Ok(());
        }
        if replica.head.revision == UNKNOWN || head.epoch != replica.head.epoch {
            return self.reload();
        }
        let follow = runtime.block_on(journal.follow(&self.replica_mut().head));
        let mut follow = match follow {
            Ok(follow) => follow,
            Err(journal::Error::Compacted) => return self.reload(),
            Err(error) => return Err(error.into()),
        };
        while self.replica_mut().head.revision < head.revision {
            let next = runtime.block_on(async { tokio::time::timeout(PATIENCE, follow.next()).await });
            let commit = next.map_err(|_| Error::Cluster("the cluster does not answer".into()))??;
            if self.follow(&commit)? == Followed::Gap {
                return self.reload();
            }
        }
        Ok(())
    }

    /// Makes this node a member, if it is none.
    fn become_member(&mut self, host: &str) -> Result<(), Error> {
        let end = clock::instant() + PATIENCE;
        loop {
            let replica = self.replica_mut();
            let (id, number) = (replica.id, replica.number);
            let known = self.snapshot.members.iter().find(|member| member.id == id).cloned();
            match known {
                Some(member) if member.host == host => {
                    self.replica_mut().number = member.number;
                    return Ok(());
                }
                None if number != 0 => return Err(Error::Cluster(REMOVED.into())),
                _ => {}
            }
            let number = known.map_or_else(|| self.snapshot.members.next(), |member| member.number);
            let member = Member { number, host: host.to_owned(), id, joined_at: clock::now(), is_gone: false };
            let member = Arc::new(member);
            let mut pending = self.pending();
            pending.put_member(&self.cipher, member)?;
            let sealed = self.seal(pending)?;
            let replica = self.replica_mut();
            let appended =
                replica.journal.append(Some(replica.head.revision), replica.head.epoch, &sealed.value, &sealed.changes);
            match replica.runtime.clone().block_on(appended) {
                Ok(Appended::Done(head)) => self.accept(sealed, head),
                Ok(Appended::Overtaken(_)) | Err(_) if clock::instant() < end => self.catch_up_at_start()?,
                Ok(Appended::Overtaken(_) | Appended::Live) => {
                    return Err(Error::Cluster("the others write all the time".into()));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Starts without an answer of the cluster, from the copy on the disk.
    fn start_alone(&mut self, why: &str, note: Option<&Note>) -> Result<(), Error> {
        let Some(note) = note else {
            return Err(Error::Cluster(format!("the cluster does not answer: {why}")));
        };
        let number = note.number;
        if self.snapshot.members.get(number).is_none() {
            return Err(Error::Cluster(REMOVED.into()));
        }
        tracing::warn!(cause = why, "the cluster does not answer: this server decrypts only, until it does");
        // A clock that was set back makes nothing older.
        let seconds = (clock::now().unix_timestamp() - note.confirmed_at).max(0).unsigned_abs();
        let known_at = clock::since_boot().saturating_sub(seconds.saturating_mul(1_000)).max(1);
        self.replica_mut().known_at = Some(known_at);
        Ok(())
    }

    /// When the copy that was opened was known to be the newest; none: the note does not say.
    fn read_note(&self, notes: &dyn Notes) -> Option<Note> {
        let sealed = notes.read().ok().flatten()?;
        let note = Note::decode(&**self.cipher.open_note(&sealed)?).ok()?;
        // A note of other records says nothing about these. A kill between the file and the note leaves one.
        let State { epoch, .. } = self.state;
        let is_of_these = match self.cipher.open(&self.cipher.id(&Place::state()), &note.state) {
            Ok(Record::State(state)) => state == self.state,
            _ => false,
        };
        let revision = if is_of_these && note.epoch == epoch { note.revision } else { UNKNOWN };
        Some(Note { revision, ..note })
    }

    /// Writes what a later start needs. Its absence costs time, never data.
    pub(in crate::kms) fn write_note(&mut self, known_at: Option<OffsetDateTime>) {
        let cipher = self.cipher.clone();
        let Some(replica) = &mut self.replica else { return };
        let Some(known_at) = known_at else { return };
        let is_new = |(revision, at): (i64, OffsetDateTime)| revision != replica.head.revision || known_at - at > NOTED;
        if !replica.noted.is_none_or(is_new) {
            return;
        }
        replica.noted = Some((replica.head.revision, known_at));
        let note = Note {
            id: replica.id.to_vec(),
            number: replica.number,
            revision: replica.head.revision,
            epoch: replica.head.epoch,
            state: replica.head.state.clone(),
            cluster: replica.journal.cluster().unwrap_or_default(),
            confirmed_at: known_at.unix_timestamp(),
        };
        let written = cipher.seal_note(&note.encode_to_vec()).map_err(std::io::Error::other);
        if let Err(error) = written.and_then(|sealed| replica.notes.write(&sealed)) {
            tracing::warn!(%error, "the place in the cluster is not written to the disk; the next start loads everything");
        }
    }

    /// Makes of what is pending what the journal gets.
    ///
    /// # Errors
    /// When the own store cannot be read.
    pub(in crate::kms) fn seal(&self, mut pending: Pending) -> Result<Sealed, Error> {
        let changed = std::mem::take(&mut pending.changed);
        let (state, (_, value)) = self.next_state(&changed)?;
        let mut changes = Changes { records: changed, ..Changes::default() };
        for (name, seal) in &pending.seals {
            if self.seals.get(name) != Some(seal) {
                changes.seals.insert(name.clone(), Some(seal.clone()));
            }
        }
        let gone = self.seals.keys().filter(|name| !pending.seals.contains_key(*name));
        changes.seals.extend(gone.map(|name| (name.clone(), None)));
        let members = &pending.snapshot.members;
        let leaving = self.snapshot.members.iter().filter(|member| members.get(member.number).is_none());
        changes.silent = leaving.map(|member| member.number).collect();
        Ok(Sealed { snapshot: pending.snapshot, seals: pending.seals, state, value, changes })
    }

    /// Takes over what was sealed here, and is written now.
    pub(in crate::kms) fn accept(&mut self, sealed: Sealed, head: Head) {
        let Sealed { mut snapshot, seals, state, value, changes } = sealed;
        snapshot.commit = state.commit;
        snapshot.seals = seals.keys().cloned().collect();
        self.keep(&changes, &seals, state, value);
        (self.seals, self.snapshot) = (seals, snapshot);
        self.replica_mut().head = head;
    }

    /// Writes changes to the own store. Safety does not rest on it: when it fails, the next start loads everything.
    fn keep(&mut self, changes: &Changes, seals: &Seals, state: State, value: Vec<u8>) {
        let state_id = self.cipher.id(&Place::state());
        let is_gone = changes
            .seals
            .iter()
            .any(|(name, seal)| seal.as_ref() != self.seals.get(name) && self.seals.contains_key(name));
        let mut batch = Batch::default();
        for (id, changed) in &changes.records {
            match changed {
                Some(changed) => batch.puts.push((*id, changed.clone())),
                None => batch.removals.push(*id),
            }
        }
        batch.puts.push((state_id, value));
        batch.seals = seals.clone();
        let kept = self.store.commit(&batch).map_err(Error::from);
        self.state = state;
        // A seal that is not wanted any more must not be left in the file.
        let kept = kept.and_then(|()| if is_gone { self.rewrite_as_it_is(seals) } else { Ok(()) });
        if let Err(error) = kept {
            tracing::error!(
                cause = causes(&error),
                "a change of the cluster is not written to the disk of this server"
            );
        }
    }

    fn rewrite_as_it_is(&mut self, seals: &Seals) -> Result<(), Error> {
        let mut rewrite = Rewrite::begin(&*self.store, seals, &self.cipher)?;
        rewrite.copy(&*self.store, &self.cipher, &self.state, |id, value| Ok(Some((*id, value.to_vec()))))?;
        let written = rewrite.finish(self.state.commit, self.state.epoch)?;
        self.store = written.store;
        Ok(self.store.settle()?)
    }

    /// Takes over a commit of another node.
    ///
    /// # Errors
    /// When the own store cannot be read.
    pub(in crate::kms) fn follow(&mut self, commit: &Commit) -> Result<Followed, Error> {
        let head = self.replica_mut().head.clone();
        if commit.head.revision <= head.revision {
            return Ok(Followed::Known);
        }
        let Ok(Record::State(state)) = self.cipher.open(&self.cipher.id(&Place::state()), &commit.head.state) else {
            return Ok(Followed::Gap);
        };
        let follows =
            commit.head.epoch == head.epoch && state.epoch == head.epoch && state.commit == self.state.commit + 1;
        if !follows {
            return Ok(Followed::Gap);
        }
        let Some(change) = self.changed_by(commit, state)? else { return Ok(Followed::Gap) };
        let mut seals = self.seals.clone();
        for (name, seal) in &commit.changes.seals {
            match seal {
                Some(seal) => seals.insert(name.clone(), seal.clone()),
                None => seals.remove(name),
            };
        }
        let Change { mut snapshot, changes_rights } = change;
        snapshot.commit = state.commit;
        snapshot.seals = seals.keys().cloned().collect();
        self.keep(&commit.changes, &seals, state, commit.head.state.clone());
        (self.seals, self.snapshot) = (seals, snapshot);
        self.replica_mut().head = commit.head.clone();
        Ok(Followed::Applied { changes_rights })
    }

    /// The state after a commit; none: it is not what its head says.
    fn changed_by(&self, commit: &Commit, state: State) -> Result<Option<Change>, Error> {
        let mut seen = State { commit: state.commit, ..self.state };
        let (mut puts, mut removals) = (Vec::new(), Vec::new());
        for (id, value) in &commit.changes.records {
            if let Some(old) = self.store.get(id)? {
                seen.toggle(&self.cipher.mark(id, &old));
                seen.records = seen.records.wrapping_sub(1);
                if value.is_none() {
                    removals.push(self.cipher.open(id, &old)?);
                }
            }
            if let Some(value) = value {
                seen.toggle(&self.cipher.mark(id, value));
                seen.records += 1;
                match self.cipher.open(id, value) {
                    Ok(record) => puts.push(record),
                    Err(_) => return Ok(None),
                }
            }
        }
        if seen != state {
            return Ok(None);
        }
        Ok(Change::apply(&self.snapshot, puts, removals))
    }

    /// Loads everything anew. Until it is whole, the state stays as it is.
    ///
    /// # Errors
    /// When that is not possible, or what is there is damaged.
    pub(in crate::kms) fn reload(&mut self) -> Result<(), Error> {
        let Some(replica) = self.replica.take() else { return Ok(()) };
        let reloaded = self.reload_from(&replica);
        let reloaded = reloaded.map(|(keeper, head)| {
            *self = keeper;
            head
        });
        let head = reloaded.as_ref().map_or_else(|_| replica.head.clone(), Clone::clone);
        self.replica = Some(Replica { head, ..replica });
        reloaded.map(drop)
    }

    fn reload_from(&self, replica: &Replica) -> Result<(Self, Head), Error> {
        let loaded = Loaded::new(&*replica.journal, &replica.runtime)?;
        let is_older = loaded.head.epoch == replica.head.epoch && loaded.head.revision < replica.head.revision;
        if is_older {
            return Err(Error::Cluster("etcd was set back".into()));
        }
        let providers = self.unsealed.providers.clone();
        let root = if loaded.seals == self.seals {
            SecretKey::from_slice(self.unsealed.root.expose()).expect("as long as it is")
        } else {
            seal::unseal(&loaded.seals, &providers)?
        };
        let admin = Admin { identity: self.admin.identity, is_derived: self.unsealed.admin_is_derived };
        // This must be known before the own file is replaced: nobody else may have what etcd has lost.
        let cipher = Cipher::new(&root);
        if let Ok(Record::State(state)) = cipher.open(&cipher.id(&Place::state()), &loaded.head.state)
            && state.epoch == self.state.epoch
            && state.commit < self.state.commit
        {
            return Err(Error::Cluster("etcd was set back".into()));
        }
        loaded.into_keeper(&*self.store, root, providers, admin)
    }
}

pub(super) const EMBEDDED: &str = "this directory holds the data of a key manager that is one server. To move it into the cluster, \
     start it without the 'cluster' section and run 'claviger kms join'; to become a member of the cluster, give this \
     server an empty directory";

pub(super) const NO_HEAD: &str = "the cluster's prefix in etcd is empty, and this directory has data. Correct 'cluster.etcd.prefix', or \
     the endpoints; if etcd is lost for ever, start one server with '--alone'";

const REMOVED: &str =
    "this server was removed from the cluster. To become a member again, start it with an empty directory";

pub(super) fn fresh_id() -> Result<[u8; 16], Error> {
    let mut id = [0; 16];
    random::fill(&mut id)?;
    Ok(id)
}

/// The number of the first epoch. It is random, so that two clusters that were begun under one prefix are told apart.
pub(super) fn fresh_epoch() -> Result<u64, Error> {
    let mut bytes = [0; 4];
    random::fill(&mut bytes)?;
    // The first of a cluster has room for many that follow.
    Ok((u64::from(u32::from_be_bytes(bytes)) << 16) + 1)
}

/// Asks for the head, for as long as a start waits.
fn ask(runtime: &Handle, journal: &dyn Journal) -> (Result<Option<Head>, String>, u64) {
    let end = clock::instant() + PATIENCE;
    let mut said = false;
    loop {
        let asked_at = clock::since_boot();
        let answer = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(3), journal.head()).await });
        let why = match answer {
            Ok(Ok(head)) => return (Ok(head), asked_at),
            Ok(Err(error)) => causes(&error),
            Err(_) => "no answer within 3 s".into(),
        };
        if clock::instant() > end {
            return (Err(why), asked_at);
        }
        if !std::mem::replace(&mut said, true) {
            tracing::info!(cause = why, "waiting up to 30 s for the cluster to answer");
        }
        runtime.block_on(async { tokio::time::sleep(Duration::from_millis(500)).await });
    }
}

impl Note {
    /// The head that the records are of; none: the note is of others. It is written after the records, so a node that was
    /// killed in between finds such a note.
    fn head(&self) -> Option<Head> {
        let head = Head { revision: self.revision, epoch: self.epoch, state: self.state.clone() };
        (head.revision != UNKNOWN).then_some(head)
    }
}

/// Whether a head is the one with this record of the state.
pub(super) fn head_of(head: &Head, value: &[u8]) -> bool {
    head.state == value
}

/// Everything that the journal has, not yet verified.
pub(super) struct Loaded {
    pub(super) head: Head,
    pub(super) seals: Seals,
    pub(super) records: Vec<(Id, Vec<u8>)>,
}

impl Loaded {
    fn new(journal: &dyn Journal, runtime: &Handle) -> Result<Self, Error> {
        let mut records = Vec::new();
        let mut each = |id: &Id, value: &[u8]| {
            records.push((*id, value.to_vec()));
            true
        };
        let loaded = runtime.block_on(journal.load(&mut each))?;
        let (head, seals) = loaded.ok_or_else(|| Error::Cluster(NO_HEAD.into()))?;
        Ok(Self { head, seals, records })
    }

    /// Verifies everything, and puts it in the place of what a store has.
    pub(super) fn into_keeper(
        self,
        store: &dyn Store,
        root: SecretKey,
        providers: Arc<Providers>,
        admin: Admin,
    ) -> Result<(Keeper, Head), Error> {
        let Self { head, seals, records } = self;
        let cipher = Cipher::new(&root);
        let state_id = cipher.id(&Place::state());
        if let Ok(Record::MovedOut(_, host)) = cipher.open(&state_id, &head.state) {
            return Err(Error::Cluster(format!(
                "this cluster is no more: its data was moved out to {host}. Nothing was changed here"
            )));
        }
        let (mut snapshot, state) = loading::load(&cipher, admin.identity, |each| {
            let all =
                records.iter().map(|(id, value)| (id, value.as_slice())).chain([(&state_id, head.state.as_slice())]);
            let mut all = all.filter(|(id, value)| **id != state_id || *value == head.state.as_slice());
            all.all(|(id, value)| each(id, value));
            Ok(())
        })?;
        if state.epoch != head.epoch {
            return Err(Damaged::Incomplete.into());
        }
        snapshot.seals = seals.keys().cloned().collect();
        let mut rewrite = Rewrite::begin(store, &seals, &cipher)?;
        records.iter().try_for_each(|(id, value)| rewrite.put(id, value))?;
        let mut store = rewrite.finish(state.commit, state.epoch)?.store;
        store.settle()?;
        let unsealed = Unsealed { root, providers, admin_is_derived: admin.is_derived };
        let cipher = Arc::new(cipher);
        Ok((Keeper { store, admin, unsealed, cipher, seals, state, snapshot, replica: None }, head))
    }
}

/// The state after a commit of another node.
struct Change {
    snapshot: Snapshot,
    changes_rights: bool,
}

impl Change {
    /// Applies records that were put and removed; none: they make no sense.
    fn apply(before: &Snapshot, puts: Vec<Record>, removals: Vec<Record>) -> Option<Self> {
        let mut work = Work::new(before);
        let mut changes_rights = false;
        let (enclaves, puts): (Vec<_>, Vec<_>) =
            puts.into_iter().partition(|record| matches!(record, Record::Enclave(_)));
        for record in enclaves {
            if let Record::Enclave(enclave) = record {
                changes_rights = true;
                work.put_enclave(Enclave::clone(&enclave));
            }
        }
        let (enclaves, removals): (Vec<_>, Vec<_>) =
            removals.into_iter().partition(|record| matches!(record, Record::Enclave(_)));
        for record in removals {
            changes_rights |= is_about_rights(&record);
            work.remove(record);
        }
        for record in puts {
            changes_rights |= is_about_rights(&record);
            work.put(record)?;
        }
        for record in enclaves {
            changes_rights = true;
            if let Record::Enclave(enclave) = record {
                work.remove_enclave(&enclave);
            }
        }
        Some(Self { snapshot: work.finish(), changes_rights })
    }
}

fn is_about_rights(record: &Record) -> bool {
    matches!(record, Record::Policy(..) | Record::Identity(..))
}

/// A snapshot that is being changed: its enclaves by their ids.
struct Work {
    snapshot: Snapshot,
    changed: HashMap<[u8; 16], Enclave>,
}

impl Work {
    fn new(before: &Snapshot) -> Self {
        Self { snapshot: before.clone(), changed: HashMap::new() }
    }

    fn enclave(&mut self, id: [u8; 16]) -> Option<&mut Enclave> {
        if !self.changed.contains_key(&id) {
            let found = self.snapshot.enclaves.values().find(|enclave| enclave.id == id)?;
            self.changed.insert(id, Enclave::clone(found));
        }
        self.changed.get_mut(&id)
    }

    /// An enclave whose record has changed keeps what is in it; another one with its name takes its place, empty.
    fn put_enclave(&mut self, new: Enclave) {
        let old = self.snapshot.enclaves.get(new.name.as_str()).cloned();
        let was_in_use = old.as_ref().is_some_and(|old| old.retired < Retired::Gone);
        match old {
            Some(old) if old.id == new.id => {
                if was_in_use && new.retired == Retired::Gone {
                    old.identities.values().for_each(|account| self.snapshot.known.remove(account));
                }
                let kept = Enclave::clone(&old);
                self.changed.insert(new.id, Enclave { retired: new.retired, ..kept });
            }
            other => {
                if let Some(old) = other.filter(|_| was_in_use) {
                    old.identities.values().for_each(|account| self.snapshot.known.remove(account));
                }
                self.snapshot.enclaves.remove(new.name.as_str());
                self.changed.insert(new.id, new);
            }
        }
    }

    fn remove_enclave(&mut self, enclave: &Enclave) {
        let found = self.enclave(enclave.id).map(|enclave| enclave.clone());
        self.changed.remove(&enclave.id);
        let Some(found) = found else { return };
        if found.retired < Retired::Gone {
            found.identities.values().for_each(|account| self.snapshot.known.remove(account));
        }
        if self.snapshot.enclaves.get(found.name.as_str()).is_some_and(|other| other.id == found.id) {
            self.snapshot.enclaves.remove(found.name.as_str());
        }
    }

    fn put(&mut self, record: Record) -> Option<()> {
        match record {
            Record::Member(member) => self.snapshot.members.put(member),
            Record::Key(id, ring) => self.enclave(id)?.keys.insert(ring.name.clone(), ring),
            Record::Transit(id, key) => self.enclave(id)?.transit.insert(key.name().clone(), key),
            Record::Secret(id, secret) => self.enclave(id)?.secrets.insert(secret),
            Record::Revoked(id, revoked) => self.enclave(id)?.revoked.insert(revoked.hash, Arc::new(revoked)),
            Record::Policy(id, policy) => self.enclave(id)?.policies.insert(policy.name.clone(), policy),
            Record::Identity(id, account) => {
                self.forget(id, &account.identity);
                let enclave = self.enclave(id)?;
                let is_in_use = enclave.retired < Retired::Gone;
                enclave.identities.insert(account.identity, account.clone());
                if is_in_use {
                    self.snapshot.known.add(&account);
                }
            }
            Record::State(_) | Record::MovedOut(..) | Record::Enclave(_) => return None,
        }
        Some(())
    }

    fn remove(&mut self, record: Record) {
        if let Record::Identity(id, account) = &record {
            self.forget(*id, &account.identity);
        }
        if let Record::Member(member) = &record {
            self.snapshot.members.forget(member.number);
        }
        let Some(enclave) = record.enclave().and_then(|id| self.enclave(id)) else { return };
        match record {
            Record::Key(_, ring) => enclave.keys.remove(&ring.name),
            Record::Transit(_, key) => enclave.transit.remove(key.name().as_str()),
            Record::Secret(_, secret) => enclave.secrets.remove(secret.path()),
            Record::Revoked(_, revoked) => enclave.revoked.remove(&revoked.hash),
            Record::Policy(_, policy) => enclave.policies.remove(&policy.name),
            Record::Identity(_, account) => enclave.identities.remove(&account.identity),
            Record::Member(_) | Record::State(_) | Record::MovedOut(..) | Record::Enclave(_) => {}
        }
    }

    /// Takes an account out of the count of all accounts.
    fn forget(&mut self, id: [u8; 16], identity: &crate::auth::enclave::Identity) {
        let Some(enclave) = self.enclave(id) else { return };
        let account = enclave.identities.get(identity).filter(|_| enclave.retired < Retired::Gone).cloned();
        if let Some(account) = account {
            self.snapshot.known.remove(&account);
        }
    }

    fn finish(self) -> Snapshot {
        let Self { mut snapshot, changed } = self;
        for enclave in changed.into_values() {
            snapshot.enclaves.insert(enclave.name.clone(), Arc::new(enclave));
        }
        snapshot
    }
}

impl Pending {
    /// Adds a member.
    fn put_member(&mut self, cipher: &Cipher, member: Arc<Member>) -> Result<(), Error> {
        let (id, value) = cipher.seal(&Record::Member(member.clone()))?;
        self.changed.insert(id, Some(value));
        self.snapshot.members.put(member);
        Ok(())
    }
}
