//! Replacing everything, in a cluster: under a new epoch, which nobody sees before all of it is there.

use std::sync::Arc;
use std::time::Duration;

use super::replica::{EMBEDDED, Loaded, NO_HEAD, Replica, fresh_epoch, fresh_id, head_of};
use super::rewrite::Rewrite;
use super::{Admin, Error, Joining, Keeper, backup};
use crate::clock;
use crate::crypto::SecretKey;
use crate::kms::journal::{self, Appended, Changes, Head, Journal};
use crate::kms::loading;
use crate::kms::record::{Cipher, Id, Member, Place, Record, State};
use crate::kms::seal::{self, Providers};
use crate::kms::snapshot::Members;
use crate::kms::store::{Lazy, Mem, Seals, Store};

/// How many records are written at once, and how many bytes of them.
const TOGETHER: usize = 64;
const BYTES: usize = 512 * 1024;

/// How often an outcome that is unknown is asked for again.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(500);

/// What takes the place of everything.
pub(super) struct Everything {
    pub(super) seals: Seals,
    /// Without the record of the state, and without members.
    pub(super) records: Vec<(Id, Vec<u8>)>,
    pub(super) root: SecretKey,
    pub(super) commit: u64,
}

impl Keeper {
    /// Moves an embedded server into a cluster that is not there yet: from then on it is its first member.
    ///
    /// # Errors
    /// When there is a cluster already, or it cannot be written. Then this server goes on as it is.
    pub(in crate::kms) fn move_in(&mut self, joining: Joining) -> Result<(), Error> {
        if self.replica.is_some() {
            return Err(Error::Cluster("this server is a member of a cluster already".into()));
        }
        let Joining { journal, notes, host, stale_reads, runtime } = joining;
        if runtime.block_on(journal.head())?.is_some() {
            return Err(Error::Cluster(
                "the prefix holds a key manager; start an empty directory with the 'cluster' section to become a member of \
                 it"
                .into(),
            ));
        }
        let everything = self.everything(&|_| true)?;
        let member = Member { number: 1, host, id: fresh_id()?, joined_at: clock::now(), is_gone: false };
        let (id, number) = (member.id, member.number);
        let head = Head { revision: 0, epoch: fresh_epoch()?, state: Vec::new() };
        let confirmed_at = Some(clock::since_boot());
        let mut replica = Replica {
            journal,
            runtime,
            head,
            number,
            stale_reads,
            confirmed_at,
            known_at: None,
            id,
            notes,
            noted: None,
        };
        let epoch = replica.head.epoch;
        self.install(everything, &mut replica, None, (epoch, member))?;
        // From now on a disk that fails must not make this node take an old record for the newest: the sum of its next
        // commit would be wrong for all.
        let store = std::mem::replace(&mut self.store, Box::new(Mem::default()));
        self.store = Box::new(Lazy::new(store));
        self.replica = Some(replica);
        self.write_note(Some(clock::now()));
        Ok(())
    }

    /// Leaves the cluster, of which this is the only member: from then on the own store alone is the truth.
    ///
    /// # Errors
    /// When there are other members, or the cluster does not answer. Then this server goes on as it is.
    pub(in crate::kms) fn move_out(&mut self) -> Result<(), Error> {
        self.is_only_member()?;
        let Some(replica) = &self.replica else { return Err(Error::Cluster("this server is in no cluster".into())) };
        let host = self.snapshot.members.get(replica.number).map(|member| member.host.clone()).unwrap_or_default();
        let state = State { epoch: replica.head.epoch + 1, commit: self.state.commit + 1, ..State::default() };
        let (_, value) = self.cipher.seal(&Record::MovedOut(state, host))?;
        // Whoever comes later has to open what it is told.
        fill(&*replica.journal, replica, state.epoch, &self.seals, &[])?;
        let after = Some(replica.head.revision);
        append(&*replica.journal, replica, after, (state.epoch, &value))?;
        self.become_alone()
    }

    /// Opens the store of a node as that of a single server. What the others have written since is not in it.
    ///
    /// # Errors
    /// When the store cannot be opened, or written anew.
    pub fn open_alone(store: Box<dyn Store>, providers: Providers, admin: Admin) -> Result<Self, Error> {
        let mut keeper = Self::open_any(store, providers, admin)?;
        keeper.become_alone()?;
        Ok(keeper)
    }

    /// Makes of the own store that of a single server.
    fn become_alone(&mut self) -> Result<(), Error> {
        let members: Vec<_> =
            self.snapshot.members.records().map(|number| self.cipher.id(&Place::member(number))).collect();
        let mut rewrite = Rewrite::begin(&*self.store, &self.seals, &self.cipher)?;
        rewrite.copy(&*self.store, &self.cipher, &self.state, |id, value| {
            Ok((!members.contains(id)).then(|| (*id, value.to_vec())))
        })?;
        let written = rewrite.finish(self.state.commit + 1, 0)?;
        (self.store, self.state) = (written.store, written.state);
        self.snapshot.members = Members::default();
        self.snapshot.commit = self.state.commit;
        self.replica = None;
        Ok(self.store.settle()?)
    }

    fn is_only_member(&self) -> Result<(), Error> {
        let Some(replica) = &self.replica else { return Ok(()) };
        match self.snapshot.members.iter().find(|member| member.number != replica.number) {
            Some(other) => Err(Error::OtherMembers(other.host.clone())),
            None => Ok(()),
        }
    }

    /// Replaces all data of a cluster by a backup.
    ///
    /// # Errors
    /// When the backup cannot be used, or there are other members. Then nothing has changed.
    pub(super) fn restore_all(
        &mut self,
        seals: Seals,
        records: Vec<(Id, Vec<u8>)>,
        root: SecretKey,
    ) -> Result<(), Error> {
        self.is_only_member()?;
        let cipher = Cipher::new(&root);
        let state_id = cipher.id(&Place::state());
        let loaded = loading::load(&cipher, self.admin.identity, |each| {
            records.iter().all(|(id, value)| each(id, value));
            Ok(())
        });
        let (snapshot, _) = loaded.map_err(backup_damaged)?;
        let members: Vec<_> = snapshot.members.records().map(|number| cipher.id(&Place::member(number))).collect();
        let records = records.into_iter().filter(|(id, _)| *id != state_id && !members.contains(id)).collect();
        self.install_next(Everything { seals, records, root, commit: self.state.commit + 1 })
    }

    /// Encrypts all data of a cluster under a new root key.
    ///
    /// # Errors
    /// When there are other members, or it cannot be written. Then nothing has changed.
    pub(super) fn rotate_root_of_all(&mut self, root: SecretKey, seals: Seals) -> Result<(), Error> {
        self.is_only_member()?;
        let (cipher, members) = (Cipher::new(&root), self.member_ids());
        let old = self.everything(&|id| !members.contains(id))?;
        let records = old.records.iter().map(|(id, value)| self.cipher.reseal(id, value, &cipher));
        let records = records.collect::<Result<_, _>>()?;
        self.install_next(Everything { seals, records, root, commit: self.state.commit + 1 })
    }

    fn member_ids(&self) -> Vec<Id> {
        self.snapshot.members.records().map(|number| self.cipher.id(&Place::member(number))).collect()
    }

    /// The same everything that there is.
    fn everything(&self, is_wanted: &dyn Fn(&Id) -> bool) -> Result<Everything, Error> {
        let state_id = self.cipher.id(&Place::state());
        let mut records = Vec::new();
        self.store.for_each(&mut |id, value| {
            if *id != state_id && is_wanted(id) {
                records.push((*id, value.to_vec()));
            }
            true
        })?;
        let root = SecretKey::from_slice(self.unsealed.root.expose()).expect("as long as it is");
        Ok(Everything { seals: self.seals.clone(), records, root, commit: self.state.commit + 1 })
    }

    /// Puts everything in the place of what the cluster has, with this node as its only member.
    fn install_next(&mut self, everything: Everything) -> Result<(), Error> {
        let Some(mut replica) = self.replica.take() else { return Err(Error::Cluster(EMBEDDED.into())) };
        let member = self.snapshot.members.get(replica.number).map(|member| Member::clone(member));
        let installed = match member {
            Some(member) => {
                let (after, epoch) = (Some(replica.head.revision), replica.head.epoch + 1);
                self.install(everything, &mut replica, after, (epoch, member))
            }
            None => Err(Error::Cluster(NO_HEAD.into())),
        };
        replica.noted = None;
        self.replica = Some(replica);
        installed?;
        self.write_note(Some(clock::now()));
        Ok(())
    }

    /// Writes everything under an epoch, makes it the head, and fills the own store with it.
    fn install(
        &mut self,
        everything: Everything,
        replica: &mut Replica,
        after: Option<i64>,
        (epoch, member): (u64, Member),
    ) -> Result<(), Error> {
        let Everything { seals, mut records, root, commit } = everything;
        let cipher = Cipher::new(&root);
        records.push(cipher.seal(&Record::Member(Arc::new(member)))?);
        let mut state = State { commit, epoch, ..State::default() };
        for (id, value) in &records {
            state.records += 1;
            state.toggle(&cipher.mark(id, value));
        }
        let (_, value) = cipher.seal(&Record::State(state))?;
        fill(&*replica.journal, replica, epoch, &seals, &records)?;
        let head = append(&*replica.journal, replica, after, (epoch, &value))?;
        let (providers, is_derived) = (self.unsealed.providers.clone(), self.unsealed.admin_is_derived);
        let admin = Admin { identity: self.admin.identity, is_derived };
        let loaded = Loaded { head, seals, records };
        let (keeper, head) = loaded.into_keeper(&*self.store, root, providers, admin)?;
        *self = keeper;
        replica.head = head;
        // Nobody reads what was there before.
        if let Err(error) = replica.runtime.block_on(replica.journal.clear_but(epoch)) {
            tracing::warn!(%error, "what was replaced is not removed from etcd");
        }
        Ok(())
    }
}

fn fill(
    journal: &dyn Journal,
    replica: &Replica,
    epoch: u64,
    seals: &Seals,
    records: &[(Id, Vec<u8>)],
) -> Result<(), Error> {
    let seals = seals.iter().map(|(name, seal)| (name.clone(), Some(seal.clone()))).collect();
    replica.runtime.block_on(journal.fill(epoch, &Changes { seals, ..Changes::default() }))?;
    let (mut part, mut bytes) = (Changes::default(), 0);
    for (id, value) in records {
        bytes += value.len() + 100;
        part.records.insert(*id, Some(value.clone()));
        if part.records.len() == TOGETHER || bytes >= BYTES {
            replica.runtime.block_on(journal.fill(epoch, &std::mem::take(&mut part)))?;
            bytes = 0;
        }
    }
    Ok(replica.runtime.block_on(journal.fill(epoch, &part))?)
}

/// Makes a head, and finds out whether it was made.
fn append(
    journal: &dyn Journal,
    replica: &Replica,
    after: Option<i64>,
    (epoch, value): (u64, &[u8]),
) -> Result<Head, Error> {
    let mut tries = 0;
    loop {
        tries += 1;
        match replica.runtime.block_on(journal.append(after, epoch, value, &Changes::default())) {
            Ok(Appended::Done(head)) => return Ok(head),
            Ok(Appended::Overtaken(Some(head))) if head_of(&head, value) => return Ok(head),
            // Nobody else makes a head of this epoch: what was filled in is ours.
            Ok(Appended::Overtaken(Some(head))) if head.epoch == epoch => {
                let done = "it was done, and another server has changed something since; start this server again";
                return Err(Error::Cluster(done.into()));
            }
            Ok(Appended::Overtaken(_) | Appended::Live) => {
                return Err(Error::Cluster("another server has changed something meanwhile; try again".into()));
            }
            Err(journal::Error::Unreachable(_)) if tries < TRIES => {
                replica.runtime.block_on(async { tokio::time::sleep(PAUSE).await });
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// What a load says of a backup.
pub(super) fn backup_damaged(error: loading::Error) -> Error {
    match error {
        loading::Error::Damaged(damaged) => Error::BackupDamaged(damaged),
        error => error.into(),
    }
}

/// The parts of a backup, and the root key that they are encrypted under.
pub(super) fn parts(bytes: &[u8], providers: &Providers) -> Result<(backup::Content, SecretKey), Error> {
    let (seals, records) = backup::parse(bytes)?;
    let root = seal::unseal(&seals, providers)?;
    Ok(((seals, records), root))
}
