//! The state at one moment: every enclave and what is in it. It is immutable and shared. A copy with a small change
//! costs little.

use std::collections::BTreeMap;
use std::sync::Arc;

use time::OffsetDateTime;

use super::account::{Account, Privilege};
use super::command::Revocation;
use super::known::Known;
use super::map::Map;
use super::policy::Policy;
use super::record::Member;
use super::ring::Ring;
use super::secret::Secrets;
use super::transit;
use super::{Action, Error};
use crate::auth::enclave::Identity;
use crate::crypto::Sealer;
use crate::name::{EnclaveName, KeyName, PolicyName, TransitName};

/// Everything that the key manager knows.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The identity that may do everything.
    pub(super) admin: Identity,
    /// The number of changes so far.
    pub(super) commit: u64,
    pub(super) enclaves: Map<EnclaveName, Enclave>,
    /// The accounts of all enclaves, counted.
    pub(super) known: Known,
    /// Names of the providers that have sealed the root key.
    pub(super) seals: Vec<String>,
    /// Signs the tokens of sessions.
    pub(super) sessions: Arc<Sealer>,
    /// The members of the cluster; none: there is no cluster.
    pub(super) members: Members,
}

/// The members of a cluster, by number.
#[derive(Debug, Clone, Default)]
pub(super) struct Members {
    all: Arc<BTreeMap<u32, Arc<Member>>>,
}

impl Members {
    /// Those that are members now.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.all.values().filter(|member| !member.is_gone)
    }

    /// The member with this number.
    pub(super) fn get(&self, number: u32) -> Option<&Arc<Member>> {
        self.all.get(&number).filter(|member| !member.is_gone)
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// The number of the next one. None is given twice.
    pub(super) fn next(&self) -> u32 {
        self.all.keys().last().map_or(1, |last| last + 1)
    }

    /// The numbers of all records, also of members that were removed.
    pub(super) fn records(&self) -> impl Iterator<Item = u32> {
        self.all.keys().copied()
    }

    /// Adds a member, changes it, or notes that it is gone.
    pub(super) fn put(&mut self, member: Arc<Member>) {
        Arc::make_mut(&mut self.all).insert(member.number, member);
    }

    /// Forgets the record of a member.
    pub(super) fn forget(&mut self, number: u32) {
        Arc::make_mut(&mut self.all).remove(&number);
    }
}

/// How far the deletion of an enclave has come. Only in a cluster does it take steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Retired {
    /// It is not being deleted.
    #[default]
    No,
    /// Nothing is encrypted in it, and nothing changes.
    Idle,
    /// Nobody enters it.
    Gone,
}

impl Retired {
    /// The number in the record.
    pub(super) fn number(self) -> u32 {
        self as u32
    }

    /// What the number in a record says.
    pub(super) fn of_number(number: u32) -> Option<Self> {
        [Self::No, Self::Idle, Self::Gone].into_iter().find(|step| step.number() == number)
    }
}

/// A part of the key manager with keys, policies and identities of its own.
#[derive(Debug, Clone)]
pub struct Enclave {
    /// Random, and never used again. The name may be used again.
    pub(super) id: [u8; 16],
    pub(super) name: EnclaveName,
    pub(super) created_at: OffsetDateTime,
    pub(super) created_by: String,
    pub(super) keys: Map<KeyName, Ring>,
    /// No name is one of a key, too.
    pub(super) transit: Map<TransitName, transit::Key>,
    /// What the key/value engine holds.
    pub(super) secrets: Secrets,
    /// Revoked sessions that have not ended yet, by the hash of their tokens.
    pub(super) revoked: Map<[u8; 32], Revocation>,
    pub(super) policies: Map<PolicyName, Policy>,
    pub(super) identities: Map<Identity, Account>,
    pub(super) retired: Retired,
}

/// What a caller may do in an enclave, or in the whole key manager.
#[derive(Debug, Clone)]
pub enum Standing {
    /// Everything.
    SysAdmin,
    /// Everything in the enclave.
    Admin,
    /// What the policy allows.
    User(Option<Arc<Policy>>),
    /// No rights, and must not learn what exists.
    Stranger,
}

impl Standing {
    /// Checks that the caller may do this action on something with this name.
    ///
    /// # Errors
    /// [`Error::Denied`].
    pub fn authorize(&self, action: Action, name: &str) -> Result<(), Error> {
        if self.allows(action, name) { Ok(()) } else { Err(Error::Denied) }
    }

    /// Whether an action on something with this name is allowed.
    pub fn allows(&self, action: Action, name: &str) -> bool {
        match self {
            Self::SysAdmin => true,
            Self::Admin => !action.is_for_sysadmins(),
            Self::User(policy) => {
                !action.is_for_sysadmins() && policy.as_ref().is_some_and(|policy| policy.allows(action, name))
            }
            Self::Stranger => false,
        }
    }

    /// The highest privilege that the caller can give to others.
    pub(super) fn privilege(&self) -> Privilege {
        match self {
            Self::SysAdmin => Privilege::SysAdmin,
            Self::Admin => Privilege::Admin,
            Self::User(_) | Self::Stranger => Privilege::User,
        }
    }
}

impl Snapshot {
    /// A state without any enclave.
    pub fn empty(admin: Identity, sessions: Arc<Sealer>) -> Self {
        let (enclaves, known, seals) = (Map::default(), Known::default(), Vec::new());
        Self { admin, commit: 0, enclaves, known, seals, sessions, members: Members::default() }
    }

    /// Whether the identity may do everything: it is the administrator, or an account in any enclave makes it one.
    pub fn is_sysadmin(&self, identity: &Identity) -> bool {
        *identity == self.admin || self.known.is_sysadmin(identity, &self.admin)
    }

    /// Whether the identity is known in any enclave.
    pub fn knows(&self, identity: &Identity) -> bool {
        *identity == self.admin || self.known.contains(identity)
    }

    /// The enclave with this name. One that nobody enters any more is not there.
    pub(super) fn enclave(&self, name: &str) -> Option<&Arc<Enclave>> {
        self.enclaves.get(name).filter(|enclave| enclave.retired < Retired::Gone)
    }

    /// The enclave with this name, and what the caller may do in it.
    ///
    /// A system administrator keeps all rights, whatever account it has in the enclave.
    ///
    /// # Errors
    /// When there is no such enclave. A caller that must not learn this gets [`Error::Denied`], as for an enclave that
    /// exists.
    pub fn enter(&self, name: &str, caller: &Identity) -> Result<(&Arc<Enclave>, Standing), Error> {
        let enclave = self.enclave(name);
        if self.is_sysadmin(caller) {
            return enclave.map(|enclave| (enclave, Standing::SysAdmin)).ok_or(Error::NoEnclave);
        }
        let enclave = enclave.ok_or(Error::Denied)?;
        match self.local_standing(enclave, caller) {
            Standing::Stranger => Err(Error::Denied),
            standing => Ok((enclave, standing)),
        }
    }

    /// What the accounts of one enclave allow an identity. A service account has the rights of its owner, which is
    /// never a service account itself.
    pub(super) fn local_standing(&self, enclave: &Enclave, identity: &Identity) -> Standing {
        if *identity == self.admin {
            return Standing::SysAdmin;
        }
        let account = match enclave.identities.get(identity) {
            Some(account) => match account.parent {
                Some(parent) if parent == self.admin => return Standing::SysAdmin,
                Some(parent) => enclave.identities.get(&parent),
                None => Some(account),
            },
            None => None,
        };
        let Some(account) = account else { return Standing::Stranger };
        match account.privilege {
            Privilege::SysAdmin => Standing::SysAdmin,
            Privilege::Admin => Standing::Admin,
            Privilege::User => {
                let policy = account.policy.as_ref().and_then(|policy| enclave.policies.get(policy));
                Standing::User(policy.cloned())
            }
        }
    }

    /// Adds an enclave that was read from the disk, with everything in it.
    pub(super) fn add_enclave(&mut self, enclave: Enclave) {
        // Nobody has rights by what is being emptied.
        if enclave.retired < Retired::Gone {
            enclave.identities.values().for_each(|account| self.known.add(account));
        }
        self.enclaves.insert(enclave.name.clone(), Arc::new(enclave));
    }
}

impl Enclave {
    /// An enclave with nothing in it.
    pub(super) fn new(id: [u8; 16], name: EnclaveName, created_at: OffsetDateTime, created_by: String) -> Self {
        let (keys, transit, revoked) = (Map::default(), Map::default(), Map::default());
        let secrets = Secrets::default();
        let (policies, identities) = (Map::default(), Map::default());
        let retired = Retired::No;
        Self { id, name, created_at, created_by, keys, transit, secrets, revoked, policies, identities, retired }
    }

    /// Checks that its deletion has not begun.
    ///
    /// # Errors
    /// When it has.
    pub(super) fn is_kept(&self) -> Result<(), Error> {
        if self.retired == Retired::No { Ok(()) } else { Err(Error::EnclaveRetired) }
    }

    /// The key with this name.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn key(&self, name: &str) -> Result<&Arc<Ring>, Error> {
        self.keys.get(name).ok_or_else(|| if self.transit.contains_key(name) { Error::Transit } else { Error::NoKey })
    }

    /// The transit key with this name.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn transit(&self, name: &str) -> Result<&Arc<transit::Key>, Error> {
        self.transit.get(name).ok_or(Error::NoKey)
    }

    /// Whether a key of any kind has this name.
    pub(super) fn has_key(&self, name: &str) -> bool {
        self.keys.contains_key(name) || self.transit.contains_key(name)
    }

    /// The policy with this name.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn policy(&self, name: &str) -> Result<&Arc<Policy>, Error> {
        self.policies.get(name).ok_or(Error::NoPolicy)
    }

    /// The account of an identity.
    ///
    /// # Errors
    /// When it has none in this enclave.
    pub(super) fn account(&self, identity: &Identity) -> Result<&Arc<Account>, Error> {
        self.identities.get(identity).ok_or(Error::NoIdentity)
    }
}
