//! Checks the rights that a migration needs in an enclave, before anything is written.

use std::fmt::Write as _;

use hyper::StatusCode;

use super::{Enclave, explain};
use crate::keystore::{Access, Error};
use crate::kms::Action;
use crate::kms::wire::{IdentityRequest, IdentityResponse, ListKeysResponse, ListRequest, NameRequest, PolicyResponse};

/// The numbers of the protocol.
const SYSADMIN: u32 = 1;
const ADMIN: u32 = 2;

impl Enclave {
    /// Checks that our identity has an account in the enclave, and the rights that are needed.
    pub(super) async fn check_rights(&self, access: Access, exports: bool) -> Result<(), Error> {
        let limit = ListRequest { limit: 1, ..ListRequest::default() };
        let _: ListKeysResponse = self.ask_one(Action::KeyList, &limit).await?;
        let request = IdentityRequest { identity: self.identity.to_string() };
        let who = match self.ask::<IdentityResponse>(Action::IdentityStatus, &[request]).await? {
            Ok(mut replies) => replies.pop().expect("as many replies as commands"),
            // Without an account, only a system administrator gets this far.
            Err(refused) if refused.status() == Some(StatusCode::NOT_FOUND) => return Ok(()),
            Err(refused) if exports => return Err(explain(refused)),
            // A user that may not read its own identity. A missing right shows with the first command that needs it.
            Err(_) => return Ok(()),
        };
        match who.privilege {
            SYSADMIN => Ok(()),
            ADMIN if !exports => Ok(()),
            _ if exports => Err(Error::Failed(
                format!(
                    "{} may not take keys out of the key manager: only a system administrator may. Use the root API key, \
                     which 'claviger kms identity HSM-KEY' shows",
                    self.identity
                )
                .into(),
            )),
            _ => self.check_policy(&who.policy, access).await,
        }
    }

    async fn check_policy(&self, name: &str, access: Access) -> Result<(), Error> {
        let request = NameRequest { name: name.to_owned() };
        let policy = match self.ask::<PolicyResponse>(Action::PolicyGet, &[request]).await? {
            Ok(mut replies) => replies.pop().expect("as many replies as commands"),
            Err(_) if !name.is_empty() => return Ok(()),
            Err(_) => PolicyResponse::default(),
        };
        let needed = needed(access, self.takes_whole_keys());
        let is_missing = |action: &&Action| !policy.allow.contains_key(action.as_str());
        let missing: Vec<_> = needed.iter().filter(is_missing).map(ToString::to_string).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let mut text = String::new();
        for action in &needed {
            let _ = write!(text, "{}\"{action}\":\"*\"", if text.is_empty() { "" } else { "," });
        }
        let (identity, missing) = (&self.identity, missing.join(", "));
        let advice = format!(
            "the policy of {identity} in the enclave '{}' does not allow {missing}; make it an admin for the migration \
             (claviger kms add-identity {identity} --admin), or give it this policy: {{\"allow\":{{{text}}}}}",
            self.name
        );
        Err(Error::Failed(advice.into()))
    }
}

/// The actions that moving keys in, or comparing them, needs.
fn needed(access: Access, takes_whole_keys: bool) -> Vec<Action> {
    let mut needed = vec![Action::KeyList, Action::KeyGenerate, Action::KeyDecrypt];
    if takes_whole_keys {
        needed.push(Action::KeyMac);
    }
    if access >= Access::Create {
        needed.push(Action::KeyImport);
    }
    if access >= Access::Replace {
        needed.push(Action::KeyDelete);
    }
    needed
}
