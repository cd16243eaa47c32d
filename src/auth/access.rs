//! Access: which identity may send which request.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use time::OffsetDateTime;

use super::policy::Policy;
use super::{Identity, peer};
use crate::name::PolicyName;

/// Who may do what: the admin, the policies and their members.
#[derive(Debug)]
pub struct Access {
    admin: Identity,
    policies: BTreeMap<PolicyName, Arc<Policy>>,
    members: HashMap<Identity, Arc<Policy>>,
    since: OffsetDateTime,
}

/// The sender of an authorised request. Only this module can make one, so a handler that has one runs authorised.
#[derive(Debug, Clone)]
pub struct Caller {
    identity: Option<Identity>,
}

impl Caller {
    /// The caller's identity; none when the request needed none and had none.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }
}

/// Why a request is denied.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// It has no usable client certificate.
    #[error(transparent)]
    NoIdentity(#[from] peer::Error),
    /// The policy does not allow it, or there is none.
    #[error("not authorized: insufficient permissions")]
    NotAllowed {
        /// The policy that denied it; none when the identity has no policy.
        policy: Option<PolicyName>,
    },
    /// What it shows instead of a certificate proves no identity, or one that cannot be admitted. The text is for the log.
    #[error("permission denied")]
    Refused(&'static str),
}

/// Admits callers that meet the requirement. If the requirement is a policy, `check` decides.
///
/// # Errors
/// When a required identity is missing, or when `check` denies.
pub fn admit(
    peer: Result<Identity, peer::Error>,
    requirement: Requirement,
    check: impl FnOnce(&Identity) -> Result<(), Denied>,
) -> Result<Caller, Denied> {
    match requirement {
        Requirement::None => Ok(Caller { identity: peer.ok() }),
        Requirement::Certificate => Ok(Caller { identity: Some(peer?) }),
        Requirement::Policy => {
            let identity = peer?;
            check(&identity)?;
            Ok(Caller { identity: Some(identity) })
        }
    }
}

/// What a route requires of its callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// Nothing.
    None,
    /// A client certificate, whatever the policies say.
    Certificate,
    /// A client certificate whose identity is the admin, or has a policy that allows the path.
    Policy,
}

impl Access {
    /// Access for `admin` and the members of each policy, in force since `since`.
    pub fn new(admin: Identity, policies: Vec<(Policy, Vec<Identity>)>, since: OffsetDateTime) -> Self {
        let mut access = Self { admin, policies: BTreeMap::new(), members: HashMap::new(), since };
        for (policy, identities) in policies {
            let policy = Arc::new(policy);
            access.members.extend(identities.into_iter().map(|identity| (identity, policy.clone())));
            access.policies.insert(policy.name().clone(), policy);
        }
        access
    }

    /// Decides about a request for the decoded `path`.
    ///
    /// # Errors
    /// When the request is denied.
    pub fn authorize(
        &self,
        peer: Result<Identity, peer::Error>,
        requirement: Requirement,
        path: &str,
    ) -> Result<Caller, Denied> {
        admit(peer, requirement, |identity| self.check(identity, path))
    }

    /// Whether `identity` may send a request for `path`.
    pub fn check(&self, identity: &Identity, path: &str) -> Result<(), Denied> {
        if self.is_admin(identity) {
            return Ok(());
        }
        match self.members.get(identity) {
            Some(policy) if policy.allows(path) => Ok(()),
            policy => Err(Denied::NotAllowed { policy: policy.map(|policy| policy.name().clone()) }),
        }
    }

    /// The identity that no policy restricts.
    pub fn admin(&self) -> &Identity {
        &self.admin
    }

    /// Whether `identity` is the admin.
    pub fn is_admin(&self, identity: &Identity) -> bool {
        self.admin == *identity
    }

    /// When these rules came into force.
    pub fn since(&self) -> OffsetDateTime {
        self.since
    }

    /// The policy of an identity.
    pub fn policy_of(&self, identity: &Identity) -> Option<&Policy> {
        self.members.get(identity).map(AsRef::as_ref)
    }

    /// The policy with this name.
    pub fn policy(&self, name: &PolicyName) -> Option<&Policy> {
        self.policies.get(name).map(AsRef::as_ref)
    }

    /// The names of all policies, sorted.
    pub fn policies(&self) -> impl Iterator<Item = &PolicyName> {
        self.policies.keys()
    }

    /// All identities that are known, the admin included, sorted.
    pub fn identities(&self) -> BTreeSet<&Identity> {
        self.members.keys().chain([&self.admin]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        let policy =
            Policy::new(PolicyName::parse("p").expect("valid"), vec!["/v1/key/*".into()], vec!["/v1/key/x".into()]);
        let admin = Identity::parse("admin").expect("valid");
        Access::new(admin, vec![(policy, vec![Identity::parse("member").expect("valid")])], OffsetDateTime::UNIX_EPOCH)
    }

    fn allowed(identity: &str, path: &str) -> bool {
        access().check(&Identity::parse(identity).expect("valid"), path).is_ok()
    }

    #[test]
    fn the_admin_bypasses_policies() {
        assert!(allowed("admin", "/v1/anything"));
    }

    #[test]
    fn a_member_may_do_what_its_policy_allows() {
        assert!(allowed("member", "/v1/key/y"));
        assert!(!allowed("member", "/v1/key/x"));
        assert!(!allowed("member", "/v1/status"));
    }

    #[test]
    fn an_unknown_identity_may_do_nothing() {
        assert!(!allowed("stranger", "/v1/key/y"));
    }

    #[test]
    fn without_an_identity_only_open_routes_answer() {
        let none = || Err(peer::Error::Missing);
        assert!(access().authorize(none(), Requirement::None, "/version").is_ok());
        for requirement in [Requirement::Certificate, Requirement::Policy] {
            assert!(matches!(access().authorize(none(), requirement, "/v1/key/y"), Err(Denied::NoIdentity(_))));
        }
    }
}
