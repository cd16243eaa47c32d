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
    /// In how many enclaves it has one.
    all: u32,
    /// In how many it is a system administrator in its own right.
    sysadmin: u32,
    /// The owners of its service accounts, with the number of enclaves.
    owners: BTreeMap<Identity, u32>,
}

impl Known {
    /// Counts an account in.
    pub(super) fn add(&mut self, account: &Account) {
        let mut accounts = self.accounts(&account.identity);
        accounts.all += 1;
        match account.parent {
            Some(owner) => *accounts.owners.entry(owner).or_default() += 1,
            None => accounts.sysadmin += u32::from(account.privilege == Privilege::SysAdmin),
        }
        self.0.insert(account.identity, Arc::new(accounts));
    }

    /// Counts an account out again that was counted in.
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

    /// Whether an account makes the identity a system administrator: its own one, or that of the identity that owns it.
    pub(super) fn is_sysadmin(&self, identity: &Identity, admin: &Identity) -> bool {
        let has_account = |identity: &Identity| self.0.get(identity).is_some_and(|accounts| accounts.sysadmin > 0);
        let Some(accounts) = self.0.get(identity) else { return false };
        accounts.sysadmin > 0 || accounts.owners.keys().any(|owner| owner == admin || has_account(owner))
    }

    fn accounts(&self, identity: &Identity) -> Accounts {
        self.0.get(identity).map(|accounts| Accounts::clone(accounts)).unwrap_or_default()
    }
}
