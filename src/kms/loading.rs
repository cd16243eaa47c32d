//! Reads the whole state from a store: decrypts on all processors, then puts the records in order.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, ScopedJoinHandle};

use super::account::Account;
use super::map::Map;
use super::record::{Cipher, Damaged, Id, Member, Record, State};
use super::ring::Ring;
use super::snapshot::{Enclave, Snapshot};
use super::store;
use crate::auth::enclave::Identity;
use crate::memory;

/// How many records one message between threads holds. With this many the cost of the message does not count.
const TOGETHER: usize = 512;

/// Why the state cannot be read.
#[derive(Debug)]
pub(super) enum Error {
    /// The store failed.
    Store(store::Error),
    /// The data is not what was written.
    Damaged(Damaged),
}

/// Reads the records that `show` passes to its callback, in any order, until the callback stops it.
///
/// # Errors
/// When records cannot be read or verified.
pub(super) fn load(
    cipher: &Cipher,
    admin: Identity,
    show: impl FnOnce(&mut dyn FnMut(&Id, &[u8]) -> bool) -> Result<(), store::Error>,
) -> Result<(Snapshot, State), Error> {
    let is_damaged = AtomicBool::new(false);
    let mut parts = thread::scope(|scope| {
        let threads = memory::usable_cpus();
        let (sender, receiver) = sync_channel(2 * threads);
        let receiver = Arc::new(Mutex::new(receiver));
        let threads: Vec<_> = (0..threads)
            .map(|_| {
                let (receiver, is_damaged) = (receiver.clone(), &is_damaged);
                scope.spawn(move || Part::decrypt(cipher, &receiver, is_damaged))
            })
            .collect();
        // If all threads panic, sending must fail rather than wait.
        drop(receiver);
        let mut chunk = Chunk::default();
        let shown = show(&mut |id, value| {
            chunk.add(id, value);
            // Sending fails only after all threads have failed.
            let goes_on = chunk.records.len() < TOGETHER || sender.send(std::mem::take(&mut chunk)).is_ok();
            goes_on && !is_damaged.load(Relaxed)
        });
        let _ = sender.send(chunk);
        drop(sender);
        let part = |thread: ScopedJoinHandle<'_, Part>| thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        let parts: Vec<_> = threads.into_iter().map(part).collect();
        shown.map(|()| parts).map_err(Error::Store)
    })?;
    let mut whole = parts.pop().unwrap_or_default();
    parts.into_iter().for_each(|part| whole.join(part));
    whole.finish(Snapshot::empty(admin, cipher.sessions())).map_err(Error::Damaged)
}

/// Records, still encrypted.
#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    /// Each with the offset at which its value ends.
    records: Vec<(Id, usize)>,
}

impl Chunk {
    fn add(&mut self, id: &Id, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.records.push((*id, self.bytes.len()));
    }

    fn iter(&self) -> impl Iterator<Item = (&Id, &[u8])> {
        let mut begin = 0;
        self.records.iter().map(move |(id, end)| (id, &self.bytes[std::mem::replace(&mut begin, *end)..*end]))
    }
}

/// What has been read, by one thread or by all.
#[derive(Default)]
struct Part {
    seen: State,
    written: Option<State>,
    enclaves: HashMap<[u8; 16], Enclave>,
    keys: Vec<Sortable>,
    rest: Vec<Record>,
    members: Vec<Arc<Member>>,
    damage: Option<Damaged>,
}

impl Part {
    fn decrypt(cipher: &Cipher, chunks: &Mutex<Receiver<Chunk>>, is_damaged: &AtomicBool) -> Self {
        let mut part = Self::default();
        loop {
            let next = chunks.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(chunk) = next else { break };
            let read = chunk.iter().try_for_each(|(id, value)| part.add(cipher, id, value));
            if let Err(damage) = read {
                part.damage = Some(damage);
                is_damaged.store(true, Relaxed);
            }
        }
        part.sort();
        part
    }

    fn add(&mut self, cipher: &Cipher, id: &Id, value: &[u8]) -> Result<(), Damaged> {
        match cipher.open(id, value)? {
            Record::State(state) => {
                self.written = Some(state);
                return Ok(());
            }
            Record::Enclave(enclave) => {
                self.enclaves.insert(enclave.id, Enclave::clone(&enclave));
            }
            Record::Key(enclave, ring) => self.keys.push(Sortable::new(enclave, ring)),
            Record::Member(member) => self.members.push(member),
            record => self.rest.push(record),
        }
        self.seen.records += 1;
        self.seen.toggle(&cipher.mark(id, value));
        Ok(())
    }

    /// Sorts the keys. It is fast on a list of sorted runs.
    fn sort(&mut self) {
        self.keys.sort();
    }

    fn join(&mut self, other: Self) {
        self.seen.records += other.seen.records;
        self.seen.toggle(&other.seen.sum);
        self.written = self.written.or(other.written);
        self.enclaves.extend(other.enclaves);
        self.keys.extend(other.keys);
        self.rest.extend(other.rest);
        self.members.extend(other.members);
        self.damage = self.damage.or(other.damage);
    }

    fn finish(mut self, mut snapshot: Snapshot) -> Result<(Snapshot, State), Damaged> {
        if let Some(damage) = self.damage {
            return Err(damage);
        }
        let written = self.written.ok_or(Damaged::Incomplete)?;
        if written != (State { commit: written.commit, epoch: written.epoch, ..self.seen }) {
            return Err(Damaged::Incomplete);
        }
        self.sort();
        for keys in self.keys.chunk_by(|one, other| one.enclave == other.enclave) {
            let enclave = self.enclaves.get_mut(&keys[0].enclave).ok_or(Damaged::Malformed)?;
            enclave.keys = Map::of_sorted(keys.iter().map(|key| (key.ring.name.clone(), key.ring.clone())));
        }
        for record in self.rest {
            put(&mut self.enclaves, record).ok_or(Damaged::Malformed)?;
        }
        snapshot.commit = written.commit;
        self.members.into_iter().for_each(|member| snapshot.members.put(member));
        self.enclaves.into_values().for_each(|enclave| snapshot.add_enclave(enclave));
        Ok((snapshot, written))
    }
}

/// A key with the first bytes of its name beside it. Following a pointer to the name in every comparison would take
/// seconds for a million keys.
struct Sortable {
    enclave: [u8; 16],
    begins: [u64; 3],
    ring: Arc<Ring>,
}

impl Sortable {
    fn new(enclave: [u8; 16], ring: Arc<Ring>) -> Self {
        let name = ring.name.as_str().as_bytes();
        let mut begins = [0; 24];
        let len = name.len().min(begins.len());
        begins[..len].copy_from_slice(&name[..len]);
        let (parts, _) = begins.as_chunks();
        let begins = std::array::from_fn(|at| u64::from_be_bytes(parts[at]));
        Self { enclave, begins, ring }
    }
}

impl Ord for Sortable {
    fn cmp(&self, other: &Self) -> Ordering {
        let quick = (self.enclave, self.begins).cmp(&(other.enclave, other.begins));
        quick.then_with(|| self.ring.name.cmp(&other.ring.name))
    }
}

impl PartialOrd for Sortable {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Sortable {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Sortable {}

fn put(enclaves: &mut HashMap<[u8; 16], Enclave>, record: Record) -> Option<()> {
    match record {
        Record::Transit(id, key) => {
            let enclave = enclaves.get_mut(&id)?;
            // Both kinds share the names.
            if enclave.keys.contains_key(key.name().as_str()) {
                return None;
            }
            enclave.transit.insert(key.name().clone(), key);
        }
        Record::Secret(id, secret) => enclaves.get_mut(&id)?.secrets.insert(secret),
        Record::Revoked(id, revocation) => {
            enclaves.get_mut(&id)?.revoked.insert(revocation.hash, Arc::new(revocation));
        }
        Record::Policy(id, policy) => enclaves.get_mut(&id)?.policies.insert(policy.name.clone(), policy),
        Record::Identity(id, account) => {
            let Account { identity, .. } = *account;
            enclaves.get_mut(&id)?.identities.insert(identity, account);
        }
        Record::State(_) | Record::MovedOut(..) | Record::Enclave(_) | Record::Key(..) | Record::Member(_) => {
            return None;
        }
    }
    Some(())
}
