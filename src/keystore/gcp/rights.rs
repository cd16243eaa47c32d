//! Whether the credentials have the rights that they need.

use super::api::{Api, Call, Nothing};
use super::message::{Payload, Replication, Version};
use super::policy::Right;
use crate::keystore::{Access, Error};

use Right::{Access as Read, Add, Create, Delete, List};

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
