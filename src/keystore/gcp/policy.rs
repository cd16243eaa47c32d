//! The rights that the credentials need, and the commands that give them.

use std::fmt::Write as _;

use crate::keystore::Access;

/// A permission of IAM; each kind of call needs one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    List,
    Access,
    Create,
    Add,
    Delete,
}

use Right::{Access as Read, Add, Create, Delete, List};

impl Right {
    pub(super) fn name(self) -> &'static str {
        match self {
            List => "secretmanager.secrets.list",
            Read => "secretmanager.versions.access",
            Create => "secretmanager.secrets.create",
            Add => "secretmanager.versions.add",
            Delete => "secretmanager.secrets.delete",
        }
    }

    /// Whether the call counts as a write in Google's quota.
    pub(super) fn writes(self) -> bool {
        matches!(self, Create | Add | Delete)
    }

    pub(super) fn needed(access: Access) -> &'static [Self] {
        match access {
            Access::Read => &[List, Read],
            Access::Create => &[List, Read, Create, Add],
            // A key is replaced by deleting it and creating it anew.
            Access::Serve | Access::Replace => &[List, Read, Create, Add, Delete],
        }
    }
}

/// Who needs rights to what.
pub(super) struct Rights {
    pub(super) project: String,
    /// The address of the service account, where it is known.
    pub(super) account: Option<String>,
}

impl Rights {
    /// What to do when the right to a call is missing.
    pub(super) fn missing(&self, right: Right) -> String {
        format!("; the right '{}' is missing; {}", right.name(), self.commands(Right::needed(Access::Serve)))
    }

    pub(super) fn commands(&self, rights: &[Right]) -> String {
        let Self { project, account } = self;
        let account = account.as_deref().unwrap_or("ACCOUNT");
        let names: Vec<_> = rights.iter().map(|right| right.name()).collect();
        let mut text = "a role with all rights that are needed, and who has it:\n".to_owned();
        let names = names.join(",");
        // A string takes everything.
        let _ = writeln!(text, "gcloud iam roles create claviger --project={project} --permissions={names}");
        let _ = write!(
            text,
            "gcloud projects add-iam-policy-binding {project} --member=serviceAccount:{account} \
             --role=projects/{project}/roles/claviger"
        );
        text
    }
}
