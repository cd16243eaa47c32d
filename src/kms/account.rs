//! Accounts: the identities of an enclave, their privilege, and the owner of each service account.

use std::collections::BTreeMap;
use std::fmt;

use time::OffsetDateTime;

use super::Error;
use crate::auth::enclave::Identity;
use crate::name::PolicyName;

/// The privilege of an identity. The numbers are those of the wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Privilege {
    /// What its policy allows.
    User = 3,
    /// Everything in its enclave.
    Admin = 2,
    /// Everything.
    SysAdmin = 1,
}

impl Privilege {
    /// Parses the name of a privilege. An empty text means [`Privilege::User`].
    ///
    /// # Errors
    /// When there is no such privilege.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        match text {
            "SysAdmin" => Ok(Self::SysAdmin),
            "Admin" => Ok(Self::Admin),
            "User" | "" => Ok(Self::User),
            _ => Err(Error::invalid("invalid privilege: it must be 'SysAdmin', 'Admin' or 'User'")),
        }
    }

    /// The privilege with this number.
    pub(super) fn of_number(number: u32) -> Option<Self> {
        [Self::SysAdmin, Self::Admin, Self::User].into_iter().find(|privilege| privilege.number() == number)
    }

    /// The number in the wire format.
    pub(super) fn number(self) -> u32 {
        self as u32
    }

    /// Whether it includes all that `other` does.
    pub(super) fn covers(self, other: Self) -> bool {
        self.number() <= other.number()
    }
}

impl fmt::Display for Privilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// An identity in an enclave.
#[derive(Debug, Clone)]
pub struct Account {
    pub(super) identity: Identity,
    pub(super) privilege: Privilege,
    pub(super) policy: Option<PolicyName>,
    /// The owner of a service account. The account has the rights of its owner and is removed with it.
    pub(super) parent: Option<Identity>,
    pub(super) created_at: OffsetDateTime,
    pub(super) created_by: String,
    pub(super) tags: BTreeMap<String, String>,
}

impl Account {
    /// Whether `other` results from the same request, from the same caller, as this account.
    pub(super) fn was_made_as(&self, other: &Self) -> bool {
        let made = |account: &Self| (account.identity, account.privilege, account.parent);
        made(self) == made(other) && (&self.created_by, &self.tags) == (&other.created_by, &other.tags)
    }
}
