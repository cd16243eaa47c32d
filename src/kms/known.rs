//! Identities over all enclaves: which ones have an account anywhere, and which ones are system administrators.
//!
//! This index is kept beside the enclaves, because every request needs it and there may be many enclaves.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::account::{Account, Privilege};
use super::map::Map;
use crate::auth::enclave::Identity;

/// The accounts of all enclaves, counted by identity.
#[derive(Debug, Clone, Default)]
pub(super) struct Known(Map<Identity, Accounts>);

/// The accounts of one identity.
#[derive(Debug, Clone, Default)]
struct Accounts {
    /// The number of enclaves in which the identity has an account.
    all: u32,
    /// The number of enclaves in which its own account makes it a system administrator.
    sysadmin: u32,
    /// The owners of its service accounts, each with the number of enclaves.
    owners: BTreeMap<Identity, u32>,
}

impl Known {
    /// Adds an account to the counts.
    pub(super) fn add(&mut self, account: &Account) {
        let mut accounts = self.accounts(&account.identity);
        accounts.all += 1;
        match account.parent {
            Some(owner) => *accounts.owners.entry(owner).or_default() += 1,
            None => accounts.sysadmin += u32::from(account.privilege == Privilege::SysAdmin),
        }
        self.0.insert(account.identity, Arc::new(accounts));
    }

    /// Removes an account from the counts. It must have been added before.
    pub(super) fn remove(&mut self, account: &Account) {
        let mut accounts = self.accounts(&account.identity);
        accounts.all = accounts.all.saturating_sub(1);
        match account.parent {
            Some(owner) => {
                accounts.owners.entry(owner).and_modify(|count| *count = count.saturating_sub(1));
                accounts.owners.retain(|_, count| *count > 0);
            }
            None => {
                let was_sysadmin = u32::from(account.privilege == Privilege::SysAdmin);
                accounts.sysadmin = accounts.sysadmin.saturating_sub(was_sysadmin);
            }
        }
        match accounts.all {
            0 => self.0.remove(&account.identity),
            _ => self.0.insert(account.identity, Arc::new(accounts)),
        }
    }

    /// Whether the identity has an account in any enclave.
    pub(super) fn contains(&self, identity: &Identity) -> bool {
        self.0.contains_key(identity)
    }

    /// Whether the identity is a system administrator: by its own account, or by that of its owner.
    pub(super) fn is_sysadmin(&self, identity: &Identity, admin: &Identity) -> bool {
        let has_account = |identity: &Identity| self.0.get(identity).is_some_and(|accounts| accounts.sysadmin > 0);
        let Some(accounts) = self.0.get(identity) else { return false };
        accounts.sysadmin > 0 || accounts.owners.keys().any(|owner| owner == admin || has_account(owner))
    }

    fn accounts(&self, identity: &Identity) -> Accounts {
        self.0.get(identity).map(|accounts| Accounts::clone(accounts)).unwrap_or_default()
    }
}
