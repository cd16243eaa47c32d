//! Records: the parts of the state as they are written, each encrypted and bound to its place.
//!
//! `docs/formats.md` states the format; `testdata/kms/` holds records that another program made.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::account::{Account, Privilege};
use super::command::Revocation;
use super::policy::{self, Policy};
use super::ring::Ring;
use super::secret::Secret;
use super::snapshot::{Enclave, Retired};
use super::transit;
use super::wire::{RuleSet, SecretEntry, StoredVersion, Timestamp, TransitKey};
use crate::auth::enclave::Identity;
use crate::crypto::{NoRandom, Sealer, SecretKey};
use crate::hex;
use crate::name::{EnclaveName, KeyName, PolicyName, SecretPath, TransitName};

/// The place of a record: its kind, its enclave and its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    table: Table,
    enclave: [u8; 16],
    name: String,
}

/// The kind of a record. The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Table {
    State = 0,
    Enclave = 1,
    Key = 2,
    Policy = 3,
    Identity = 4,
    Transit = 5,
    Secret = 6,
    Revoked = 7,
    Member = 8,
}

/// A place as it is written. Without the root key it reveals nothing.
pub(super) type Id = [u8; 32];

/// Stands for the enclave in records that belong to none.
const NO_ENCLAVE: [u8; 16] = [0; 16];

impl Place {
    /// The place of the record that counts all others.
    pub(super) fn state() -> Self {
        Self { table: Table::State, enclave: NO_ENCLAVE, name: String::new() }
    }

    /// The place of an enclave.
    pub(super) fn enclave(name: &EnclaveName) -> Self {
        Self { table: Table::Enclave, enclave: NO_ENCLAVE, name: name.to_string() }
    }

    /// The place of a key.
    pub(super) fn key(enclave: &Enclave, name: &KeyName) -> Self {
        Self { table: Table::Key, enclave: enclave.id, name: name.to_string() }
    }

    /// The place of a transit key.
    pub(super) fn transit(enclave: &Enclave, name: &TransitName) -> Self {
        Self { table: Table::Transit, enclave: enclave.id, name: name.to_string() }
    }

    /// The place of an entry of the key/value engine.
    pub(super) fn secret(enclave: &Enclave, path: &SecretPath) -> Self {
        Self { table: Table::Secret, enclave: enclave.id, name: path.to_string() }
    }

    /// The place of a revoked session.
    pub(super) fn revoked(enclave: &Enclave, hash: &[u8; 32]) -> Self {
        Self { table: Table::Revoked, enclave: enclave.id, name: hex::encode(hash) }
    }

    /// The place of a member of the cluster.
    pub(super) fn member(number: u32) -> Self {
        Self { table: Table::Member, enclave: NO_ENCLAVE, name: number.to_string() }
    }

    /// The place of a policy.
    pub(super) fn policy(enclave: &Enclave, name: &PolicyName) -> Self {
        Self { table: Table::Policy, enclave: enclave.id, name: name.to_string() }
    }

    /// The place of an identity.
    pub(super) fn identity(enclave: &Enclave, identity: &Identity) -> Self {
        Self { table: Table::Identity, enclave: enclave.id, name: identity.to_string() }
    }
}

/// A record.
#[derive(Debug, Clone)]
pub enum Record {
    /// The number of records, and their checksum.
    State(State),
    /// The data of a cluster was moved out, to this host. There are no other records.
    MovedOut(State, String),
    /// An enclave, without its content.
    Enclave(Arc<Enclave>),
    /// A key of the enclave with this id.
    Key([u8; 16], Arc<Ring>),
    /// A transit key of the enclave with this id.
    Transit([u8; 16], Arc<transit::Key>),
    /// An entry of the key/value engine of the enclave with this id.
    Secret([u8; 16], Arc<Secret>),
    /// A revoked session of the enclave with this id.
    Revoked([u8; 16], Revocation),
    /// A policy of the enclave with this id.
    Policy([u8; 16], Arc<Policy>),
    /// An identity of the enclave with this id.
    Identity([u8; 16], Arc<Account>),
    /// A member of the cluster.
    Member(Arc<Member>),
}

/// A member of a cluster: a node that must have heard of every deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its number, which no other one ever has.
    pub(super) number: u32,
    /// Where clients reach it, as `host:port`.
    pub(super) host: String,
    /// The random id of its data directory.
    pub(super) id: [u8; 16],
    /// When it became a member.
    pub(super) joined_at: OffsetDateTime,
    /// Whether it was removed. What is left of it keeps its number from being given again.
    pub(super) is_gone: bool,
}

/// Proves that no record is missing, and that none is older than the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct State {
    /// The number of changes so far.
    pub(super) commit: u64,
    /// The number of other records.
    pub(super) records: u64,
    /// The XOR of their marks.
    pub(super) sum: Id,
    /// Counts how often everything was replaced in the cluster; 0: there is none.
    pub(super) epoch: u64,
}

impl State {
    /// Adds a record to the checksum, or removes it.
    pub(super) fn toggle(&mut self, mark: &Id) {
        self.sum.iter_mut().zip(mark).for_each(|(sum, mark)| *sum ^= mark);
    }
}

/// Why a record cannot be used. Nobody without the root key can forge a record that passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damaged {
    /// The record was changed or moved, or was written under another root key.
    #[error("a record is not authentic: it was changed, or belongs elsewhere")]
    NotAuthentic,
    /// The record is authentic, but cannot be parsed.
    #[error("a record cannot be read; it was written by a newer version, or by a defect")]
    Malformed,
    /// Records are missing, left over, or from different times.
    #[error("records are missing, or some are older than the others: parts of the file were put back or removed")]
    Incomplete,
}

/// Encrypts records, and names their places.
#[derive(Debug)]
pub(super) struct Cipher {
    names: Sealer,
    records: Sealer,
    marks: Sealer,
    sessions: Arc<Sealer>,
}

impl Cipher {
    /// The cipher of a root key.
    pub(super) fn new(root: &SecretKey) -> Self {
        let part = |info| Sealer::new(root.hkdf(info));
        Self {
            names: part("claviger kms name v1"),
            records: part("claviger kms record v1"),
            marks: part("claviger kms mark v1"),
            sessions: Arc::new(part("claviger kms vault session v1")),
        }
    }

    /// What signs the tokens of sessions.
    pub(super) fn sessions(&self) -> Arc<Sealer> {
        self.sessions.clone()
    }

    /// The id of a place in the store.
    pub(super) fn id(&self, place: &Place) -> Id {
        self.names.sign(&[&[place.table as u8], &place.enclave, place.name.as_bytes()])
    }

    /// The contribution of a record to the checksum.
    pub(super) fn mark(&self, id: &Id, value: &[u8]) -> Id {
        self.marks.sign(&[id, value])
    }

    /// Encrypts a record for its place.
    pub(super) fn seal(&self, record: &Record) -> Result<(Id, Vec<u8>), NoRandom> {
        let id = self.id(&record.place());
        let value = self.records.seal(&record.encode(), &id)?;
        Ok((id, value))
    }

    /// Encrypts the record that was found under `id` for another cipher, byte by byte as it is.
    pub(super) fn reseal(&self, id: &Id, value: &[u8], other: &Self) -> Result<(Id, Vec<u8>), super::keeper::Error> {
        let bytes = self.records.open(value, id).map_err(|_| Damaged::NotAuthentic)?;
        let place = Record::decode(&bytes).ok_or(Damaged::Malformed)?.place();
        let new = other.id(&place);
        let value = other.records.seal(&bytes, &new)?;
        Ok((new, value))
    }

    /// Encrypts what a live member says.
    pub(super) fn seal_live(&self, number: u32, message: &[u8]) -> Result<Vec<u8>, NoRandom> {
        self.records.seal(message, &live(number))
    }

    /// Decrypts what a live member says; none: it does not.
    pub(super) fn open_live(&self, number: u32, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        self.records.open(sealed, &live(number)).ok()
    }

    /// Encrypts what a node notes beside its records.
    pub(super) fn seal_note(&self, note: &[u8]) -> Result<Vec<u8>, NoRandom> {
        self.records.seal(note, NOTE)
    }

    /// Decrypts what a node noted; none: another one, or somebody else, did.
    pub(super) fn open_note(&self, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        self.records.open(sealed, NOTE).ok()
    }

    /// Decrypts the record that was found under `id`.
    pub(super) fn open(&self, id: &Id, value: &[u8]) -> Result<Record, Damaged> {
        let bytes = self.records.open(value, id).map_err(|_| Damaged::NotAuthentic)?;
        let record = Record::decode(&bytes).ok_or(Damaged::Malformed)?;
        if self.id(&record.place()) == *id { Ok(record) } else { Err(Damaged::NotAuthentic) }
    }
}

/// The associated data of what a node notes. No id is so short.
const NOTE: &[u8] = b"claviger kms note";

/// The associated data of what a live member says. No id is so short.
fn live(number: u32) -> Vec<u8> {
    [b"claviger kms live".as_slice(), &number.to_be_bytes()].concat()
}

impl Record {
    /// The id of the enclave that it is in; none: it is in none.
    pub(super) fn enclave(&self) -> Option<[u8; 16]> {
        match self {
            Self::Key(id, _)
            | Self::Transit(id, _)
            | Self::Secret(id, _)
            | Self::Revoked(id, _)
            | Self::Policy(id, _)
            | Self::Identity(id, _) => Some(*id),
            Self::State(_) | Self::MovedOut(..) | Self::Enclave(_) | Self::Member(_) => None,
        }
    }

    pub(super) fn place(&self) -> Place {
        let of = |table, enclave: &[u8; 16], name: String| Place { table, enclave: *enclave, name };
        match self {
            Self::State(_) | Self::MovedOut(..) => Place::state(),
            Self::Enclave(enclave) => Place::enclave(&enclave.name),
            Self::Key(enclave, ring) => of(Table::Key, enclave, ring.name.to_string()),
            Self::Transit(enclave, key) => of(Table::Transit, enclave, key.name().to_string()),
            Self::Secret(enclave, secret) => of(Table::Secret, enclave, secret.path().to_string()),
            Self::Revoked(enclave, revocation) => of(Table::Revoked, enclave, hex::encode(&revocation.hash)),
            Self::Policy(enclave, policy) => of(Table::Policy, enclave, policy.name.to_string()),
            Self::Identity(enclave, account) => of(Table::Identity, enclave, account.identity.to_string()),
            Self::Member(member) => Place::member(member.number),
        }
    }

    /// The number of its kind, then its message.
    fn encode(&self) -> Zeroizing<Vec<u8>> {
        fn write(table: Table, message: &impl Message) -> Zeroizing<Vec<u8>> {
            let mut bytes = Zeroizing::new(Vec::with_capacity(1 + message.encoded_len()));
            bytes.push(table as u8);
            message.encode(&mut *bytes).expect("there is room");
            bytes
        }
        match self {
            Self::State(state) => write(Table::State, &StateMessage::from(state)),
            Self::MovedOut(state, host) => {
                write(Table::State, &StateMessage { moved_to: host.clone(), ..StateMessage::from(state) })
            }
            Self::Enclave(enclave) => write(Table::Enclave, &EnclaveMessage::from(&**enclave)),
            Self::Key(enclave, ring) => write(Table::Key, &KeyMessage::new(enclave, ring)),
            Self::Transit(enclave, key) => write(Table::Transit, &TransitMessage::new(enclave, key)),
            Self::Secret(enclave, secret) => write(Table::Secret, &SecretMessage::new(enclave, secret)),
            Self::Revoked(enclave, revocation) => write(Table::Revoked, &RevokedMessage::new(enclave, *revocation)),
            Self::Policy(enclave, policy) => write(Table::Policy, &PolicyMessage::new(enclave, policy)),
            Self::Identity(enclave, account) => write(Table::Identity, &IdentityMessage::new(enclave, account)),
            Self::Member(member) => write(Table::Member, &MemberMessage::from(&**member)),
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (table, message) = bytes.split_first()?;
        match table {
            0 => StateMessage::decode(message).ok()?.read(),
            1 => EnclaveMessage::decode(message).ok()?.read().map(|enclave| Self::Enclave(Arc::new(enclave))),
            2 => KeyMessage::decode(message).ok()?.read(),
            3 => PolicyMessage::decode(message).ok()?.read(),
            4 => IdentityMessage::decode(message).ok()?.read(),
            5 => TransitMessage::decode(message).ok()?.read(),
            6 => SecretMessage::decode(message).ok()?.read(),
            7 => RevokedMessage::decode(message).ok()?.read(),
            8 => MemberMessage::decode(message).ok()?.read(),
            _ => None,
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct StateMessage {
    #[prost(uint64, tag = "1")]
    commit: u64,
    #[prost(uint64, tag = "2")]
    records: u64,
    #[prost(bytes = "vec", tag = "3")]
    sum: Vec<u8>,
    #[prost(uint64, tag = "4")]
    epoch: u64,
    /// The number of the format of all records; a greater one is of a newer version.
    #[prost(uint64, tag = "5")]
    format: u64,
    /// Where everything was moved to; empty: it is here.
    #[prost(string, tag = "6")]
    moved_to: String,
}

impl From<&State> for StateMessage {
    fn from(state: &State) -> Self {
        let State { commit, records, sum, epoch } = *state;
        Self { commit, records, sum: sum.to_vec(), epoch, format: 0, moved_to: String::new() }
    }
}

impl StateMessage {
    fn read(self) -> Option<Record> {
        let Self { commit, records, sum, epoch, format, moved_to } = self;
        let state = State { commit, records, sum: sum.try_into().ok()?, epoch };
        let record = if moved_to.is_empty() { Record::State(state) } else { Record::MovedOut(state, moved_to) };
        (format == 0).then_some(record)
    }
}

#[derive(Clone, PartialEq, Message)]
struct MemberMessage {
    #[prost(uint32, tag = "1")]
    number: u32,
    #[prost(string, tag = "2")]
    host: String,
    #[prost(bytes = "vec", tag = "3")]
    id: Vec<u8>,
    #[prost(message, optional, tag = "4")]
    joined_at: Option<Timestamp>,
    #[prost(bool, tag = "5")]
    is_gone: bool,
}

impl From<&Member> for MemberMessage {
    fn from(member: &Member) -> Self {
        let Member { number, host, id, joined_at, is_gone } = member;
        let joined_at = Some((*joined_at).into());
        Self { number: *number, host: host.clone(), id: id.to_vec(), joined_at, is_gone: *is_gone }
    }
}

impl MemberMessage {
    fn read(self) -> Option<Record> {
        let joined_at = self.joined_at.unwrap_or_default().to_time();
        let id = self.id.as_slice().try_into().ok()?;
        let Self { number, host, is_gone, .. } = self;
        Some(Record::Member(Arc::new(Member { number, host, id, joined_at, is_gone })))
    }
}

#[derive(Clone, PartialEq, Message)]
struct EnclaveMessage {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, optional, tag = "3")]
    created_at: Option<Timestamp>,
    #[prost(string, tag = "4")]
    created_by: String,
    #[prost(uint32, tag = "5")]
    retired: u32,
}

impl From<&Enclave> for EnclaveMessage {
    fn from(enclave: &Enclave) -> Self {
        Self {
            id: enclave.id.to_vec(),
            name: enclave.name.to_string(),
            created_at: Some(enclave.created_at.into()),
            created_by: enclave.created_by.clone(),
            retired: enclave.retired.number(),
        }
    }
}

impl EnclaveMessage {
    fn read(self) -> Option<Enclave> {
        let (id, name) = (self.id.try_into().ok()?, EnclaveName::parse(&self.name).ok()?);
        let mut enclave = Enclave::new(id, name, self.created_at.unwrap_or_default().to_time(), self.created_by);
        enclave.retired = Retired::of_number(self.retired)?;
        Some(enclave)
    }
}

#[derive(Clone, PartialEq, Message)]
struct KeyMessage {
    #[prost(bytes = "vec", tag = "1")]
    enclave: Vec<u8>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(uint32, tag = "3")]
    next: u32,
    #[prost(message, repeated, tag = "4")]
    versions: Vec<StoredVersion>,
    /// The numbers of the versions that are about to be deleted.
    #[prost(uint32, repeated, tag = "5")]
    retired: Vec<u32>,
}

impl KeyMessage {
    fn new(enclave: &[u8; 16], ring: &Ring) -> Self {
        let (name, versions, retired) = (ring.name.to_string(), ring.to_stored(), ring.retired().to_vec());
        Self { enclave: enclave.to_vec(), name, next: ring.next, versions, retired }
    }

    fn read(self) -> Option<Record> {
        let ring = Ring::of_stored(KeyName::parse(&self.name).ok()?, self.next, self.versions).ok()?;
        Some(Record::Key(self.enclave.try_into().ok()?, Arc::new(ring.retiring(&self.retired))))
    }
}

#[derive(Clone, PartialEq, Message)]
struct TransitMessage {
    #[prost(bytes = "vec", tag = "1")]
    enclave: Vec<u8>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, optional, tag = "3")]
    key: Option<TransitKey>,
    #[prost(bool, tag = "4")]
    retired: bool,
}

impl TransitMessage {
    fn new(enclave: &[u8; 16], key: &transit::Key) -> Self {
        let (name, retired) = (key.name().to_string(), key.is_retired());
        Self { enclave: enclave.to_vec(), name, key: Some(key.to_message()), retired }
    }

    fn read(self) -> Option<Record> {
        let key = transit::Key::of_message(TransitName::parse(&self.name).ok()?, &self.key?).ok()?;
        let key = if self.retired { key.retiring() } else { key };
        Some(Record::Transit(self.enclave.try_into().ok()?, Arc::new(key)))
    }
}

#[derive(Clone, PartialEq, Message)]
struct SecretMessage {
    #[prost(bytes = "vec", tag = "1")]
    enclave: Vec<u8>,
    #[prost(string, tag = "2")]
    path: String,
    #[prost(message, optional, tag = "3")]
    entry: Option<SecretEntry>,
}

impl SecretMessage {
    fn new(enclave: &[u8; 16], secret: &Secret) -> Self {
        Self { enclave: enclave.to_vec(), path: secret.path().to_string(), entry: Some(secret.to_message()) }
    }

    fn read(self) -> Option<Record> {
        let secret = Secret::of_message(SecretPath::parse(&self.path)?, self.entry?).ok()?;
        Some(Record::Secret(self.enclave.try_into().ok()?, Arc::new(secret)))
    }
}

#[derive(Clone, PartialEq, Message)]
struct RevokedMessage {
    #[prost(bytes = "vec", tag = "1")]
    enclave: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    hash: Vec<u8>,
    #[prost(int64, tag = "3")]
    end: i64,
    #[prost(string, tag = "4")]
    identity: String,
}

impl RevokedMessage {
    fn new(enclave: &[u8; 16], Revocation { hash, identity, end }: Revocation) -> Self {
        Self { enclave: enclave.to_vec(), hash: hash.to_vec(), end, identity: identity.to_string() }
    }

    fn read(self) -> Option<Record> {
        // Those of the first version did not say it.
        let identity =
            if self.identity.is_empty() { Identity::of_hash(&[0; 32]) } else { self.identity.parse().ok()? };
        let revocation = Revocation { hash: self.hash.try_into().ok()?, identity, end: self.end };
        Some(Record::Revoked(self.enclave.try_into().ok()?, revocation))
    }
}

#[derive(Clone, PartialEq, Message)]
struct PolicyMessage {
    #[prost(bytes = "vec", tag = "1")]
    enclave: Vec<u8>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(btree_map = "string, message", tag = "3")]
    allow: BTreeMap<String, RuleSet>,
    #[prost(btree_map = "string, message", tag = "4")]
    deny: BTreeMap<String, RuleSet>,
    #[prost(message, optional, tag = "5")]
    created_at: Option<Timestamp>,
    #[prost(string, tag = "6")]
    created_by: String,
}

impl PolicyMessage {
    fn new(enclave: &[u8; 16], policy: &Policy) -> Self {
        Self {
            enclave: enclave.to_vec(),
            name: policy.name.to_string(),
            allow: policy::show(&policy.allow),
            deny: policy::show(&policy.deny),
            created_at: Some(policy.created_at.into()),
            created_by: policy.created_by.clone(),
        }
    }

    fn read(self) -> Option<Record> {
        let policy = Policy {
            name: PolicyName::parse(&self.name).ok()?,
            allow: policy::parse(&self.allow).ok()?,
            deny: policy::parse(&self.deny).ok()?,
            created_at: self.created_at.unwrap_or_default().to_time(),
            created_by: self.created_by,
        };
        Some(Record::Policy(self.enclave.try_into().ok()?, Arc::new(policy)))
    }
}

#[derive(Clone, PartialEq, Message)]
struct IdentityMessage {
    #[prost(bytes = "vec", tag = "1")]
    enclave: Vec<u8>,
    #[prost(string, tag = "2")]
    identity: String,
    #[prost(uint32, tag = "3")]
    privilege: u32,
    #[prost(string, tag = "4")]
    policy: String,
    #[prost(string, tag = "5")]
    parent: String,
    #[prost(message, optional, tag = "6")]
    created_at: Option<Timestamp>,
    #[prost(string, tag = "7")]
    created_by: String,
    #[prost(btree_map = "string, string", tag = "8")]
    tags: BTreeMap<String, String>,
}

impl IdentityMessage {
    fn new(enclave: &[u8; 16], account: &Account) -> Self {
        Self {
            enclave: enclave.to_vec(),
            identity: account.identity.to_string(),
            privilege: account.privilege.number(),
            policy: account.policy.as_ref().map(PolicyName::to_string).unwrap_or_default(),
            parent: account.parent.as_ref().map(Identity::to_string).unwrap_or_default(),
            created_at: Some(account.created_at.into()),
            created_by: account.created_by.clone(),
            tags: account.tags.clone(),
        }
    }

    fn read(self) -> Option<Record> {
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        let account = Account {
            identity: self.identity.parse().ok()?,
            privilege: Privilege::of_number(self.privilege)?,
            policy: some(self.policy).map(|policy| PolicyName::parse(&policy)).transpose().ok()?,
            parent: some(self.parent).map(|parent| parent.parse()).transpose().ok()?,
            created_at: self.created_at.unwrap_or_default().to_time(),
            created_by: self.created_by,
            tags: self.tags,
        };
        Some(Record::Identity(self.enclave.try_into().ok()?, Arc::new(account)))
    }
}
