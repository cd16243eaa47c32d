//! The state at one moment: every enclave and what is in it. Immutable and shared; a copy that differs in a little
//! costs little.

use std::sync::Arc;

use time::OffsetDateTime;

use super::account::{Account, Privilege};
use super::map::Map;
use super::policy::Policy;
use super::ring::Ring;
use super::{Action, Error};
use crate::auth::enclave::Identity;
use crate::name::{EnclaveName, KeyName, PolicyName};

/// Everything that the key manager knows.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The identity that may do everything.
    pub(super) admin: Identity,
    /// How many changes led here.
    pub(super) commit: u64,
    pub(super) enclaves: Map<EnclaveName, Enclave>,
    /// What the root key is sealed with.
    pub(super) seals: Vec<String>,
}

/// A separate world of keys, policies and identities.
#[derive(Debug, Clone)]
pub struct Enclave {
    /// Never used twice, unlike the name.
    pub(super) id: [u8; 16],
    pub(super) name: EnclaveName,
    pub(super) created_at: OffsetDateTime,
    pub(super) created_by: String,
    pub(super) keys: Map<KeyName, Ring>,
    pub(super) policies: Map<PolicyName, Policy>,
    pub(super) identities: Map<Identity, Account>,
}

/// What a caller may do, in an enclave or at all.
#[derive(Debug, Clone)]
pub enum Standing {
    /// Everything.
    SysAdmin,
    /// Everything in the enclave.
    Admin,
    /// What the policy allows.
    User(Option<Arc<Policy>>),
    /// Nothing, and to know nothing.
    Stranger,
}

impl Standing {
    /// Lets an action on something with this name pass.
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

    /// The most that the caller can hand on.
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
    pub fn empty(admin: Identity) -> Self {
        Self { admin, commit: 0, enclaves: Map::default(), seals: Vec::new() }
    }

    /// Whether the identity may do everything.
    pub fn is_sysadmin(&self, identity: &Identity) -> bool {
        *identity == self.admin || self.enclaves.values().any(|enclave| self.is_sysadmin_of(enclave, identity))
    }

    fn is_sysadmin_of(&self, enclave: &Enclave, identity: &Identity) -> bool {
        matches!(self.standing_in(enclave, identity), Standing::SysAdmin)
    }

    /// Whether the identity is known in any enclave.
    pub fn knows(&self, identity: &Identity) -> bool {
        *identity == self.admin || self.enclaves.values().any(|enclave| enclave.identities.contains_key(identity))
    }

    /// The enclave with this name, and what the caller may do in it.
    ///
    /// # Errors
    /// When there is no such enclave. A caller who may not know that is [`Error::Denied`], as if there were.
    pub fn enter(&self, name: &str, caller: &Identity) -> Result<(&Arc<Enclave>, Standing), Error> {
        let Some(enclave) = self.enclaves.get(name) else {
            return Err(if self.is_sysadmin(caller) { Error::NoEnclave } else { Error::Denied });
        };
        match self.standing_in(enclave, caller) {
            Standing::Stranger if self.is_sysadmin(caller) => Ok((enclave, Standing::SysAdmin)),
            Standing::Stranger => Err(Error::Denied),
            standing => Ok((enclave, standing)),
        }
    }

    /// What an identity of the enclave may do there. A service account stands where the identity stands that it is
    /// there for, which is no service account itself.
    pub(super) fn standing_in(&self, enclave: &Enclave, identity: &Identity) -> Standing {
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
}

impl Enclave {
    /// An enclave with nothing in it.
    pub(super) fn new(id: [u8; 16], name: EnclaveName, created_at: OffsetDateTime, created_by: String) -> Self {
        let (keys, policies, identities) = (Map::default(), Map::default(), Map::default());
        Self { id, name, created_at, created_by, keys, policies, identities }
    }

    /// The key with this name.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn key(&self, name: &str) -> Result<&Arc<Ring>, Error> {
        self.keys.get(name).ok_or(Error::NoKey)
    }

    /// The policy with this name.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn policy(&self, name: &str) -> Result<&Arc<Policy>, Error> {
        self.policies.get(name).ok_or(Error::NoPolicy)
    }

    /// What is known of an identity.
    ///
    /// # Errors
    /// When nothing is.
    pub(super) fn account(&self, identity: &Identity) -> Result<&Arc<Account>, Error> {
        self.identities.get(identity).ok_or(Error::NoIdentity)
    }
}
