//! Writes: applies the commands of a request to a draft, before the change is on disk and visible to others.

use std::collections::BTreeMap;
use std::sync::Arc;

use time::OffsetDateTime;

use super::account::{Account, Privilege};
use super::command::{Change, Revocation};
use super::policy::{self, Policy};
use super::record::{Place, Record};
use super::ring::{Ring, Version};
use super::seal::{ENVIRONMENT, Providers};
use super::snapshot::{Enclave, Snapshot, Standing};
use super::store::Seals;
use super::transit::{self, What};
use super::wire::{
    AssignPolicyRequest, CreateIdentityRequest, CreateKeyRequest, CreatePolicyRequest, DeleteKeyRequest, HsmRequest,
    ImportKeyRequest, TransitKey,
};
use super::{Action, Error, secret};
use crate::auth::enclave::Identity;
use crate::crypto::transit::Kind;
use crate::crypto::{Algorithm, Key, SecretKey, random};
use crate::name::{EnclaveName, KeyName, PolicyName, TransitName};

/// How much work one request may cause in the writer thread, in steps of about a microsecond. A request that needs more
/// is refused, unless it is a single command.
const STEPS: usize = 100_000;

/// The number of entries that one step looks through.
const LOOKED_THROUGH: usize = 32;

/// The most patterns in a policy. Every decision may compare all of them.
const PATTERNS: usize = 4_000;

/// What whoever destroys something in a cluster has to know.
const ALONE: &str = "in a cluster a deletion is the only command of its request: send it alone";

/// The total length of an identity's tags, at most, in bytes.
const TAGS: usize = 8_192;

/// The most revoked sessions of an enclave that have not ended. One identity alone may have half of them.
const REVOKED: usize = 10_000;

/// Who changes something, when, and by which right.
#[derive(Debug, Clone, Copy)]
pub struct Author {
    /// The identity that changes it.
    pub caller: Identity,
    /// The time of the change.
    pub now: OffsetDateTime,
    /// What allows it.
    pub right: Right,
}

/// What allows a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// The account of the caller in the enclave.
    Account,
    /// The rules of another listener of this process, which the caller has passed. They are about one enclave, so nothing
    /// else can be changed by them.
    Listener,
}

impl Author {
    /// The enclave with this name, and what the author may do in it.
    ///
    /// # Errors
    /// When there is no such enclave, or the caller must not learn whether there is.
    pub(super) fn enter<'s>(&self, snapshot: &'s Snapshot, name: &str) -> Result<(&'s Arc<Enclave>, Standing), Error> {
        match self.right {
            Right::Account => snapshot.enter(name, &self.caller),
            Right::Listener => Ok((snapshot.enclave(name).ok_or(Error::NoEnclave)?, Standing::Admin)),
        }
    }

    /// Whether the author may change what is about the whole server.
    pub(super) fn is_sysadmin(&self, snapshot: &Snapshot) -> bool {
        self.right == Right::Account && snapshot.is_sysadmin(&self.caller)
    }
}

/// What is needed to make seals.
#[derive(Debug)]
pub struct Unsealed {
    pub(super) root: SecretKey,
    pub(super) providers: Arc<Providers>,
    /// Whether the administrator is derived from the HSM key in the environment.
    pub(super) admin_is_derived: bool,
}

/// A changed copy of the state that is not visible yet.
pub struct Draft<'a> {
    /// The state with the changes applied.
    pub snapshot: Snapshot,
    /// The changed records; `None`: removed.
    pub changed: BTreeMap<Place, Option<Record>>,
    /// The seals, and whether they differ.
    pub seals: Seals,
    pub(super) seals_changed: bool,
    unsealed: &'a Unsealed,
    pub(super) author: Author,
    /// The work of its commands so far, in steps.
    pub(super) steps: usize,
}

impl<'a> Draft<'a> {
    /// A draft without changes.
    pub fn new(snapshot: Snapshot, seals: Seals, unsealed: &'a Unsealed, author: Author) -> Self {
        Self { snapshot, changed: BTreeMap::new(), seals, seals_changed: false, unsealed, author, steps: 0 }
    }

    /// Applies one command of a request for `enclave`.
    ///
    /// # Errors
    /// When the command is refused. The draft must not be used then.
    pub fn apply(&mut self, enclave: &str, action: Action, command: &Change) -> Result<(), Error> {
        if self.steps > STEPS {
            return Err(Error::invalid("the commands are too much work for one request: send them in several"));
        }
        match command {
            Change::ClusterAddNode(_) | Change::ClusterRemoveNode(_) | Change::ClusterEdit(_) => {
                self.as_sysadmin()?;
                Err(Error::Unsupported("this key manager is one server: there are no nodes to add, remove or edit"))
            }
            Change::ClusterAddHsm(request) => self.as_sysadmin()?.add_seal(request),
            Change::ClusterRemoveHsm(request) => self.as_sysadmin()?.remove_seal(&request.name),
            Change::EnclaveCreate(request) => self.as_sysadmin()?.create_enclave(&request.name),
            Change::EnclaveDelete(request) => self.as_sysadmin()?.delete_enclave(&request.name),
            Change::KeyCreate(request) => self.inside(enclave, action, |inside| inside.create_key(request)),
            Change::KeyImport(request) => self.inside(enclave, action, |inside| inside.import_key(request)),
            Change::KeyDelete(request) => self.inside(enclave, action, |inside| inside.delete_key(request)),
            Change::Transit(change) => self.inside(enclave, action, |inside| inside.change_transit(change)),
            Change::Join(member) => self.as_sysadmin()?.add_member(member),
            Change::Leave(leave) => self.as_sysadmin()?.remove_member(leave),
            Change::Destroy(step) => self.destroy(enclave, action, step),
            Change::Secret(change) => self.inside(enclave, action, |inside| inside.change_secret(change)),
            Change::RevokeSession(revocation) => {
                self.inside(enclave, action, |inside| inside.revoke_session(*revocation))
            }
            Change::PolicyCreate(request) => self.inside(enclave, action, |inside| inside.create_policy(request)),
            Change::PolicyDelete(request) => self.inside(enclave, action, |inside| inside.delete_policy(&request.name)),
            Change::PolicyAssign(request) => self.inside(enclave, action, |inside| inside.assign_policy(request)),
            Change::IdentityCreate(request) => self.inside(enclave, action, |inside| inside.create_identity(request)),
            Change::IdentityDelete(request) => {
                self.inside(enclave, action, |inside| inside.delete_identity(&request.identity))
            }
            #[cfg(test)]
            Change::Defect => panic!("as the test wants"),
        }
    }

    /// The whole draft, for those who may change everything.
    pub(super) fn as_sysadmin(&mut self) -> Result<&mut Self, Error> {
        if self.author.is_sysadmin(&self.snapshot) { Ok(self) } else { Err(Error::Denied) }
    }

    /// Checks that nobody else has to be asked before something is destroyed.
    pub(super) fn is_alone(&self) -> Result<(), Error> {
        if self.snapshot.members.is_empty() { Ok(()) } else { Err(Error::invalid(ALONE)) }
    }

    /// Changes an enclave, as far as the caller may.
    pub(super) fn inside(
        &mut self,
        enclave: &str,
        action: Action,
        change: impl FnOnce(&mut Inside<'_, 'a>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (enclave, standing) = self.author.enter(&self.snapshot, enclave)?;
        enclave.is_kept()?;
        let enclave = Enclave::clone(enclave);
        let mut inside = Inside { draft: self, enclave, standing, action };
        change(&mut inside)?;
        let changed = inside.enclave;
        self.snapshot.enclaves.insert(changed.name.clone(), Arc::new(changed));
        Ok(())
    }

    fn create_enclave(&mut self, name: &str) -> Result<(), Error> {
        let name = EnclaveName::parse(name).map_err(|error| Error::invalid(error.to_string()))?;
        if self.snapshot.enclaves.contains_key(&name) {
            return Err(Error::EnclaveExists);
        }
        let mut id = [0; 16];
        random::fill(&mut id)?;
        let enclave = Arc::new(Enclave::new(id, name.clone(), self.author.now, self.author.caller.to_string()));
        self.changed.insert(Place::enclave(&name), Some(Record::Enclave(enclave.clone())));
        self.snapshot.enclaves.insert(name, enclave);
        Ok(())
    }

    fn delete_enclave(&mut self, name: &str) -> Result<(), Error> {
        self.is_alone()?;
        let enclave = self.snapshot.enclaves.get(name).ok_or(Error::NoEnclave)?.clone();
        let keys = enclave.keys.keys().map(|name| Place::key(&enclave, name));
        let transit = enclave.transit.keys().map(|name| Place::transit(&enclave, name));
        let revoked = enclave.revoked.keys().map(|hash| Place::revoked(&enclave, hash));
        let secrets = enclave.secrets.paths().map(|path| Place::secret(&enclave, path));
        let transit = transit.chain(secrets).chain(revoked);
        let policies = enclave.policies.keys().map(|name| Place::policy(&enclave, name));
        let identities = enclave.identities.keys().map(|identity| Place::identity(&enclave, identity));
        let places =
            [Place::enclave(&enclave.name)].into_iter().chain(keys).chain(transit).chain(policies).chain(identities);
        let places: Vec<_> = places.collect();
        self.steps += places.len();
        self.changed.extend(places.into_iter().map(|place| (place, None)));
        enclave.identities.values().for_each(|account| self.snapshot.known.remove(account));
        self.snapshot.enclaves.remove(name);
        Ok(())
    }

    fn add_seal(&mut self, request: &HsmRequest) -> Result<(), Error> {
        let provider = self.unsealed.providers.get(&request.name).ok_or_else(|| {
            Error::invalid(
                "the server's config has no HSM with this name; add it under 'hsm' and start the server again",
            )
        })?;
        if self.seals.contains_key(&request.name) && !request.overwrite {
            return Err(Error::Conflict("the HSM has a seal already".into()));
        }
        let sealed = provider.seal(&self.unsealed.root, &request.name)?;
        self.seals.insert(request.name.clone(), sealed);
        self.seals_changed = true;
        Ok(())
    }

    fn remove_seal(&mut self, name: &str) -> Result<(), Error> {
        if !self.seals.contains_key(name) {
            return Err(Error::invalid("there is no seal with this name"));
        }
        if name == ENVIRONMENT && self.unsealed.admin_is_derived {
            return Err(Error::Conflict(
                "the administrator is derived from this HSM key: configure 'admin.identity' first".into(),
            ));
        }
        let others: Seals = self
            .seals
            .iter()
            .filter(|(other, _)| *other != name)
            .map(|(name, seal)| (name.clone(), seal.clone()))
            .collect();
        if super::seal::unseal(&others, &self.unsealed.providers).is_err() {
            return Err(Error::Conflict("without it this server could not open its data at the next start".into()));
        }
        self.seals = others;
        self.seals_changed = true;
        Ok(())
    }
}

/// Applies a command within an enclave.
pub(super) struct Inside<'d, 'a> {
    pub(super) draft: &'d mut Draft<'a>,
    pub(super) enclave: Enclave,
    standing: Standing,
    action: Action,
}

impl Inside<'_, '_> {
    pub(super) fn authorize(&self, name: &str) -> Result<(), Error> {
        self.standing.authorize(self.action, name)
    }

    fn create_key(&mut self, request: &CreateKeyRequest) -> Result<(), Error> {
        self.authorize(&request.name)?;
        let name = key_name(&request.name)?;
        let existing = self.enclave.keys.get(&name).cloned();
        let algorithm = match request.kind.as_str() {
            "" => existing.as_ref().map_or_else(Algorithm::preferred, |ring| ring.latest().1.algorithm()),
            kind => algorithm(kind)?,
        };
        let Author { caller, now, .. } = self.draft.author;
        let version = || -> Result<Version, Error> {
            Ok(Version { key: Key::generate(algorithm, now, &caller.to_hex())?, imported: false })
        };
        let ring = match (existing, request.add_version) {
            (None, _) if self.enclave.transit.contains_key(name.as_str()) => {
                return Err(if request.add_version { Error::Transit } else { Error::KeyExists });
            }
            (None, false) => Ring::new(name, version()?),
            (Some(ring), true) => ring.with(version()?)?,
            (Some(_), false) => return Err(Error::KeyExists),
            (None, true) => return Err(Error::NoKey),
        };
        self.put_key(ring);
        Ok(())
    }

    fn import_key(&mut self, request: &ImportKeyRequest) -> Result<(), Error> {
        self.authorize(&request.name)?;
        if let Some(key) = &request.transit {
            return self.import_transit(request, key);
        }
        let name = key_name(&request.name)?;
        if self.enclave.has_key(name.as_str()) {
            return Err(Error::KeyExists);
        }
        let ring = match request.versions.is_empty() {
            true => Ring::new(name, Version { key: self.imported(request)?, imported: true }),
            false if !request.key.is_empty() || !request.kind.is_empty() => {
                return Err(Error::invalid("a whole key comes without another key or type beside it"));
            }
            false => Ring::of_request(name, request.next, request.versions.clone())
                .map_err(|malformed| Error::invalid(malformed.to_string()))?,
        };
        self.put_key(ring);
        Ok(())
    }

    /// A key of which only the bytes are known, and maybe the type.
    fn imported(&self, request: &ImportKeyRequest) -> Result<Key, Error> {
        let Author { caller, now, .. } = self.draft.author;
        let secret = SecretKey::from_slice(&request.key).ok_or_else(|| Error::invalid("a key has 32 bytes"))?;
        let algorithm = if request.kind.is_empty() { Algorithm::preferred() } else { algorithm(&request.kind)? };
        // Without an HMAC key: the key's own one is not imported, and a new one would make different HMACs.
        Ok(Key::import(secret, algorithm, now, &caller.to_hex())?.without_hmac())
    }

    fn import_transit(&mut self, request: &ImportKeyRequest, key: &TransitKey) -> Result<(), Error> {
        let name = transit_name(&request.name)?;
        if self.enclave.has_key(name.as_str()) {
            return Err(Error::KeyExists);
        }
        let is_alone = request.key.is_empty() && request.kind.is_empty() && request.versions.is_empty();
        if !is_alone || request.next != 0 {
            return Err(Error::invalid("a transit key comes without another key or type beside it"));
        }
        let key = transit::Key::of_message(name, key).map_err(|malformed| Error::invalid(malformed.to_string()))?;
        self.put_transit(key);
        Ok(())
    }

    fn change_transit(&mut self, change: &transit::Change) -> Result<(), Error> {
        self.authorize(&change.name)?;
        let existing = self.enclave.transit(&change.name).cloned();
        let changed = match &change.what {
            What::Create { .. } if existing.is_ok() => return Ok(()),
            What::Create { kind, derived } => self.new_transit(&change.name, *kind, *derived)?,
            What::Rotate => existing?.rotated(self.draft.author)?,
            What::Configure(config) => existing?.configured(*config)?,
            What::Trim(first) => existing?.trimmed(*first)?,
            What::Delete if !existing?.settings().deletion_allowed => {
                return Err(Error::invalid("deletion is not allowed for this key"));
            }
            What::Delete => {
                self.draft.is_alone()?;
                self.remove_transit(&change.name);
                return Ok(());
            }
        };
        self.put_transit(changed);
        Ok(())
    }

    fn new_transit(&self, name: &str, kind: Kind, derived: bool) -> Result<transit::Key, Error> {
        let name = transit_name(name)?;
        if self.enclave.keys.contains_key(name.as_str()) {
            return Err(Error::KeyExists);
        }
        let Author { caller, now, .. } = self.draft.author;
        Ok(transit::Key::new(name, derived, transit::Version::generate(kind, now, caller.to_string())?))
    }

    fn change_secret(&mut self, change: &secret::Change) -> Result<(), Error> {
        self.authorize(change.path.as_str())?;
        let existing = self.enclave.secrets.get(&change.path).cloned();
        let changed = change.apply(existing.as_deref(), self.draft.author)?.map(Arc::new);
        let Some(secret) = &changed else {
            if existing.is_some() {
                self.draft.changed.insert(Place::secret(&self.enclave, &change.path), None);
                self.enclave.secrets.remove(&change.path);
            }
            return Ok(());
        };
        if changed == existing {
            return Ok(());
        }
        self.enclave.secrets.insert(secret.clone());
        self.enclave.secrets.check()?;
        // All its versions are encrypted.
        self.draft.steps += 1 + secret.versions().count();
        let record = Record::Secret(self.enclave.id, secret.clone());
        self.draft.changed.insert(Place::secret(&self.enclave, &change.path), Some(record));
        Ok(())
    }

    /// Whoever has the token may end its session. Revocations of sessions that have ended by themselves are dropped.
    fn revoke_session(&mut self, revocation: Revocation) -> Result<(), Error> {
        if matches!(self.standing, Standing::Stranger) {
            return Err(Error::Denied);
        }
        let now = self.draft.author.now.unix_timestamp();
        let (mut count, mut own, mut ended) = (0, 0, Vec::new());
        for (hash, other) in self.enclave.revoked.iter() {
            count += 1;
            if other.end <= now {
                ended.push(*hash);
            } else if other.identity == revocation.identity {
                own += 1;
            }
        }
        self.draft.steps += count / LOOKED_THROUGH + ended.len();
        // None may have more than it leaves to all others.
        if own >= REVOKED.saturating_sub(count - ended.len()) {
            return Err(Error::Conflict(
                "too many sessions of this identity are revoked that have not ended yet; try again later".into(),
            ));
        }
        for hash in ended {
            self.draft.changed.insert(Place::revoked(&self.enclave, &hash), None);
            self.enclave.revoked.remove(&hash);
        }
        let record = Record::Revoked(self.enclave.id, revocation);
        self.draft.changed.insert(Place::revoked(&self.enclave, &revocation.hash), Some(record));
        self.enclave.revoked.insert(revocation.hash, Arc::new(revocation));
        Ok(())
    }

    pub(super) fn put_transit(&mut self, key: transit::Key) {
        let (name, key) = (key.name().clone(), Arc::new(key));
        let record = Record::Transit(self.enclave.id, key.clone());
        let before = self.draft.changed.insert(Place::transit(&self.enclave, &name), Some(record));
        self.draft.steps += if before.is_none() { 1 + key.versions_from(0).count() } else { 1 };
        self.enclave.transit.insert(name, key);
    }

    pub(super) fn remove_transit(&mut self, name: &str) {
        if let Some(key) = self.enclave.transit.get(name) {
            self.draft.changed.insert(Place::transit(&self.enclave, key.name()), None);
            self.enclave.transit.remove(name);
        }
    }

    fn delete_key(&mut self, request: &DeleteKeyRequest) -> Result<(), Error> {
        self.authorize(&request.name)?;
        self.draft.is_alone()?;
        if self.enclave.transit.contains_key(request.name.as_str()) {
            // The rules of another listener are not about keys of this kind.
            if self.draft.author.right == Right::Listener {
                return Err(Error::NoKey);
            }
            if request.version != 0 || !request.all_versions {
                return Err(Error::invalid(
                    "a transit key is deleted with all its versions; trim it to remove old ones",
                ));
            }
            self.remove_transit(&request.name);
            return Ok(());
        }
        let ring = self.enclave.key(&request.name)?;
        if request.all_versions && request.version != 0 {
            return Err(Error::invalid("either all versions are deleted, or one"));
        }
        match if request.all_versions { None } else { ring.without(request.version)? } {
            Some(ring) => self.put_key(ring),
            None => {
                let name = ring.name.clone();
                self.remove_whole_key(&name);
            }
        }
        Ok(())
    }

    pub(super) fn remove_whole_key(&mut self, name: &KeyName) {
        self.draft.changed.insert(Place::key(&self.enclave, name), None);
        self.enclave.keys.remove(name);
    }

    fn create_policy(&mut self, request: &CreatePolicyRequest) -> Result<(), Error> {
        self.authorize(&request.name)?;
        let name = PolicyName::parse(&request.name).map_err(|error| Error::invalid(error.to_string()))?;
        let patterns: usize = request.allow.values().chain(request.deny.values()).map(|set| set.rules.len()).sum();
        if patterns > PATTERNS {
            return Err(Error::invalid(format!("a policy has at most {PATTERNS} patterns")));
        }
        let Author { caller, now, .. } = self.draft.author;
        let policy = Arc::new(Policy {
            name: name.clone(),
            allow: policy::parse(&request.allow)?,
            deny: policy::parse(&request.deny)?,
            created_at: now,
            created_by: caller.to_string(),
        });
        let record = Record::Policy(self.enclave.id, policy.clone());
        self.draft.changed.insert(Place::policy(&self.enclave, &name), Some(record));
        self.enclave.policies.insert(name, policy);
        Ok(())
    }

    /// Also takes the policy away from everybody who has it, so that a later policy of this name gives them no rights.
    fn delete_policy(&mut self, name: &str) -> Result<(), Error> {
        self.authorize(name)?;
        let name = self.enclave.policy(name)?.name.clone();
        self.draft.changed.insert(Place::policy(&self.enclave, &name), None);
        self.enclave.policies.remove(&name);
        for account in self.look_through(|account| account.policy.as_ref() == Some(&name)) {
            self.put_account(Account { policy: None, ..Account::clone(&account) });
        }
        Ok(())
    }

    fn assign_policy(&mut self, request: &AssignPolicyRequest) -> Result<(), Error> {
        self.authorize(&request.policy)?;
        let policy = self.enclave.policy(&request.policy)?.name.clone();
        let identity = identity(&request.identity)?;
        let account = self.enclave.account(&identity)?;
        self.may_touch(&identity)?;
        if account.parent.is_some() {
            return Err(Error::invalid("a service account has the policy of the identity that owns it"));
        }
        let account = Account { policy: Some(policy), ..Account::clone(account) };
        self.put_account(account);
        Ok(())
    }

    /// Makes an account, and never changes one. Where the identity has an account, the request must equal the one that
    /// made it, from the same caller. Then everything stays as it is, also the policy.
    fn create_identity(&mut self, request: &CreateIdentityRequest) -> Result<(), Error> {
        self.authorize(&request.identity)?;
        let Author { caller, now, .. } = self.draft.author;
        let identity = identity(&request.identity)?;
        if request.tags.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > TAGS {
            return Err(Error::invalid(format!("the tags of an identity have at most {TAGS} bytes together")));
        }
        if identity == self.draft.snapshot.admin {
            return Err(Error::Conflict("the identity is the administrator's".into()));
        }
        self.may_touch(&identity)?;
        let (privilege, parent) = match request.is_service_account {
            false => (Privilege::parse(&request.privilege)?, None),
            true => (Privilege::User, Some(self.parent_of(&identity)?)),
        };
        // A caller cannot give more privilege than it has.
        if !self.standing.privilege().covers(privilege) {
            return Err(Error::Denied);
        }
        let (tags, created_by) = (request.tags.clone(), caller.to_string());
        let account = Account { identity, privilege, policy: None, parent, created_at: now, created_by, tags };
        match self.enclave.identities.get(&identity) {
            None => self.put_account(account),
            Some(known) if known.was_made_as(&account) => {}
            Some(_) => return Err(Error::IdentityExists),
        }
        Ok(())
    }

    /// The identity that will own a service account made by the caller.
    fn parent_of(&mut self, identity: &Identity) -> Result<Identity, Error> {
        let caller = self.draft.author.caller;
        if caller == *identity || !self.service_accounts_of(identity).is_empty() {
            return Err(Error::Conflict("an identity with service accounts cannot be one".into()));
        }
        if caller == self.draft.snapshot.admin {
            return Ok(caller);
        }
        match self.enclave.identities.get(&caller) {
            Some(account) if account.parent.is_none() => Ok(caller),
            Some(_) => Err(Error::invalid("a service account cannot have service accounts")),
            None => Err(Error::invalid("a service account is made by an identity of its enclave")),
        }
    }

    fn delete_identity(&mut self, text: &str) -> Result<(), Error> {
        self.authorize(text)?;
        let identity = identity(text)?;
        self.enclave.account(&identity)?;
        self.may_touch(&identity)?;
        let accounts = self.service_accounts_of(&identity);
        for identity in accounts.iter().map(|account| account.identity).chain([identity]) {
            self.draft.steps += 1;
            self.draft.changed.insert(Place::identity(&self.enclave, &identity), None);
            self.forget_account(&identity);
        }
        Ok(())
    }

    fn service_accounts_of(&mut self, identity: &Identity) -> Vec<Arc<Account>> {
        self.look_through(|account| account.parent == Some(*identity))
    }

    /// The accounts for which `is_wanted` is true.
    fn look_through(&mut self, is_wanted: impl Fn(&Account) -> bool) -> Vec<Arc<Account>> {
        let mut count = 0;
        let all = self.enclave.identities.values().inspect(|_| count += 1);
        let wanted = all.filter(|account| is_wanted(account)).cloned().collect();
        self.draft.steps += count / LOOKED_THROUGH;
        wanted
    }

    /// Refuses to change or remove an account with more privilege than the caller's. Only this enclave counts: the
    /// answer must not reveal what the identity may do in others.
    fn may_touch(&self, identity: &Identity) -> Result<(), Error> {
        let theirs = self.draft.snapshot.local_standing(&self.enclave, identity).privilege();
        if self.standing.privilege().covers(theirs) { Ok(()) } else { Err(Error::Denied) }
    }

    pub(super) fn put_key(&mut self, ring: Ring) {
        let (name, ring) = (ring.name.clone(), Arc::new(ring));
        let record = Record::Key(self.enclave.id, ring.clone());
        let before = self.draft.changed.insert(Place::key(&self.enclave, &name), Some(record));
        // All its versions are encrypted, once for all commands about it.
        self.draft.steps += if before.is_none() { 1 + ring.count() } else { 1 };
        self.enclave.keys.insert(name, ring);
    }

    fn put_account(&mut self, account: Account) {
        let (identity, account) = (account.identity, Arc::new(account));
        let record = Record::Identity(self.enclave.id, account.clone());
        self.draft.steps += 1;
        self.draft.changed.insert(Place::identity(&self.enclave, &identity), Some(record));
        self.forget_account(&identity);
        self.draft.snapshot.known.add(&account);
        self.enclave.identities.insert(identity, account);
    }

    fn forget_account(&mut self, identity: &Identity) {
        if let Some(account) = self.enclave.identities.get(identity) {
            self.draft.snapshot.known.remove(account);
            self.enclave.identities.remove(identity);
        }
    }
}

fn key_name(name: &str) -> Result<KeyName, Error> {
    KeyName::parse(name).map_err(|error| Error::invalid(error.to_string()))
}

fn transit_name(name: &str) -> Result<TransitName, Error> {
    TransitName::parse(name).map_err(|error| Error::invalid(error.to_string()))
}

fn identity(text: &str) -> Result<Identity, Error> {
    text.parse().map_err(|error: crate::auth::enclave::NoIdentity| Error::invalid(error.to_string()))
}

fn algorithm(kind: &str) -> Result<Algorithm, Error> {
    Algorithm::parse(kind).ok_or_else(|| Error::invalid("invalid key type: it must be 'AES256' or 'ChaCha20'"))
}
