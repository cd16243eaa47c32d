//! The rights that the credentials need, and the commands that give them.

use crate::keystore::Access;

/// A permission on secrets; each kind of call needs one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    Get,
    List,
    Set,
    Delete,
    Purge,
}

use Right::{Delete, Get, List, Purge, Set};

impl Right {
    pub(super) fn name(self) -> &'static str {
        match self {
            Get => "get",
            List => "list",
            Set => "set",
            Delete => "delete",
            Purge => "purge",
        }
    }

    pub(super) fn needed(access: Access) -> &'static [Self] {
        match access {
            Access::Read => &[Get, List],
            Access::Create => &[Get, List, Set],
            // A key is replaced by deleting it and creating it anew.
            Access::Serve | Access::Replace => &[Get, List, Set, Delete, Purge],
        }
    }
}

/// Who needs rights to what.
pub(super) struct Rights {
    /// The name of the vault.
    pub(super) vault: String,
    /// The application, where it is known.
    pub(super) application: Option<String>,
}

impl Rights {
    /// What to do when the right to a call is missing. `inner` is the vault's own word for why.
    pub(super) fn missing(&self, right: Right, inner: &str) -> String {
        format!("; the right '{}' is missing; {}", right.name(), self.commands(Right::needed(Access::Serve), inner))
    }

    pub(super) fn commands(&self, rights: &[Right], inner: &str) -> String {
        let Self { vault, application } = self;
        let application = application.as_deref().unwrap_or("APPLICATION");
        if inner == "ForbiddenByRbac" {
            let role = if rights.contains(&Set) { "Key Vault Secrets Officer" } else { "Key Vault Secrets User" };
            let scope = format!("$(az keyvault show --name {vault} --query id --output tsv)");
            return format!(
                "this gives all that are needed:\n\
                 az role assignment create --role '{role}' --assignee {application} --scope \"{scope}\""
            );
        }
        let names: Vec<_> = rights.iter().map(|right| right.name()).collect();
        format!(
            "this gives all that are needed:\n\
             az keyvault set-policy --name {vault} --spn {application} --secret-permissions {}",
            names.join(" ")
        )
    }
}
