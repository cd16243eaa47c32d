//! The rights that the credentials need, and how they are checked.

use std::fmt::Write as _;

use super::api::{Api, Call, Nothing};
use super::store::{Payload, Replication, Version};
use crate::keystore::{Access, Error};

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
    fn name(self) -> &'static str {
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

    fn needed(access: Access) -> &'static [Self] {
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

    fn commands(&self, rights: &[Right]) -> String {
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

/// Checks by calls that change nothing whether the credentials allow `access`.
pub(super) async fn check(api: &Api, prefix: &str, access: Access) -> Result<(), Error> {
    let mut missing = Vec::new();
    for right in Right::needed(access) {
        if is_missing(api, prefix, *right).await? {
            missing.push(right.name());
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let commands = api.rights.commands(Right::needed(access));
    Err(Error::Failed(format!("missing rights: {}; {commands}", missing.join(", ")).into()))
}

/// Whether a right is missing: Secret Manager checks rights before it looks whether a secret is there, or whether what is
/// to be written is valid.
async fn is_missing(api: &Api, prefix: &str, right: Right) -> Result<bool, Error> {
    // Longer than the name of a key.
    let nowhere = format!("secrets/{prefix}{:-<81}", "claviger-check");
    let answer = match right {
        List => api.try_call(Nothing::new(right, "secrets?pageSize=1".into())).await?,
        Read => api.try_call(Nothing::new(right, format!("{nowhere}/versions/1:access"))).await?,
        Delete => api.try_call(Nothing::new(right, format!("{nowhere}?etag=%22none%22"))).await?,
        // A secret must say how it is replicated.
        Create => {
            let body = &Replication::default();
            let path = format!("secrets?secretId={}", nowhere.trim_start_matches("secrets/"));
            api.try_call(Call { right, path, body: Some(body) }).await?
        }
        // The checksum is that of another value.
        Add => {
            let body = &Version { payload: Payload { data: "bm9uZQ==", data_crc32c: "1".into() } };
            api.try_call(Call { right, path: format!("{nowhere}:addVersion"), body: Some(body) }).await?
        }
    };
    Ok(answer.is_err_and(|refusal| refusal.is_denial()))
}
