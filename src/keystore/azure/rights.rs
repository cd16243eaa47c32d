//! The rights that the credentials need, and how they are checked.

use hyper::Method;
use zeroize::Zeroizing;

use super::api::{Api, Refusal};
use crate::keystore::{Access, Error};

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
    fn name(self) -> &'static str {
        match self {
            Get => "get",
            List => "list",
            Set => "set",
            Delete => "delete",
            Purge => "purge",
        }
    }

    fn needed(access: Access) -> &'static [Self] {
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

    fn commands(&self, rights: &[Right], inner: &str) -> String {
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

/// Checks by calls that change nothing whether the credentials allow `access`.
pub(super) async fn check(api: &Api, prefix: &str, access: Access) -> Result<(), Error> {
    let (mut missing, mut inner) = (Vec::new(), String::new());
    for right in Right::needed(access) {
        if let Some(refusal) = denial(api, prefix, *right).await? {
            missing.push(right.name());
            inner = refusal.inner;
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let commands = api.rights.commands(Right::needed(access), &inner);
    Err(Error::Failed(format!("missing rights: {}; {commands}", missing.join(", ")).into()))
}

/// The refusal of a call because of a missing right: the vault checks rights before it looks whether a secret is there,
/// or whether what is to be written is valid.
async fn denial(api: &Api, prefix: &str, right: Right) -> Result<Option<Refusal>, Error> {
    // Longer than the name of a key.
    let nowhere = format!("{prefix}{:-<81}", "claviger-check");
    // A secret must have a value.
    let body = Zeroizing::new(b"{}".to_vec());
    let call = match right {
        Get => api.at(right, Method::GET, &format!("secrets/{nowhere}")),
        List => api.at(right, Method::GET, "secrets?maxresults=1"),
        Set => api.at(right, Method::PUT, &format!("secrets/{nowhere}")).with_body(&body),
        Delete => api.at(right, Method::DELETE, &format!("secrets/{nowhere}")),
        Purge => api.at(right, Method::DELETE, &format!("deletedsecrets/{nowhere}")),
    };
    Ok(api.try_call(call).await?.err().filter(Refusal::is_denial))
}
