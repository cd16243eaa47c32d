//! `/v1/identity/…`: describes and lists identities.

use super::State;
use super::error::no_identity;
use super::policy;
use super::wire::{DescribeIdentityResponse, ListIdentitiesResponse, SelfResponse};
use crate::auth::Identity;
use crate::name::{Page, Pattern};
use crate::server::{Call, Error};

pub(super) async fn describe(call: Call<State, Identity>) -> Result<DescribeIdentityResponse, Error> {
    let access = &call.state().access;
    let (created_at, admin) = (access.since(), access.is_admin(call.name()));
    let policy = access.policy_of(call.name()).map(|policy| policy.name().to_string());
    if !admin && policy.is_none() {
        return Err(no_identity());
    }
    let created_by = (!admin).then(|| access.admin().to_string());
    Ok(DescribeIdentityResponse { admin, policy, created_at, created_by })
}

pub(super) async fn list(call: Call<State, Pattern>) -> Result<ListIdentitiesResponse, Error> {
    let known = call.state().access.identities();
    let matching: Vec<_> =
        known.into_iter().filter(|id| id.as_str().starts_with(call.name().prefix())).cloned().collect();
    let page = Page::after(call.name(), &matching);
    Ok(ListIdentitiesResponse {
        identities: page.names.iter().map(Identity::to_string).collect(),
        continue_at: page.continue_at.unwrap_or_default(),
    })
}

pub(super) async fn describe_self(call: Call<State>) -> Result<SelfResponse, Error> {
    let access = &call.state().access;
    let identity = call.caller().identity().ok_or_else(no_identity)?;
    let (created_at, admin) = (access.since(), access.is_admin(identity));
    let policy = access.policy_of(identity).map(|policy| policy::response(access, policy));
    if !admin && policy.is_none() {
        return Err(no_identity());
    }
    let created_by = (!admin).then(|| access.admin().to_string());
    Ok(SelfResponse { identity: identity.to_string(), admin, created_at, created_by, policy })
}
