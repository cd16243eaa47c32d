//! `/v1/policy/…`: the policies of the config file.

use super::State;
use super::error::no_policy;
use super::wire::{DescribePolicyResponse, Empty, ListPoliciesResponse, Patterns, ReadPolicyResponse};
use crate::auth::{Access, Policy};
use crate::name::{Page, Pattern, PolicyName};
use crate::server::{Call, Error};

pub(super) async fn describe(call: Call<State, PolicyName>) -> Result<DescribePolicyResponse, Error> {
    let access = &call.state().access;
    let policy = access.policy(call.name()).ok_or_else(no_policy)?;
    Ok(DescribePolicyResponse {
        name: policy.name().to_string(),
        created_at: access.since(),
        created_by: access.admin().to_string(),
    })
}

pub(super) async fn read(call: Call<State, PolicyName>) -> Result<ReadPolicyResponse, Error> {
    let access = &call.state().access;
    Ok(response(access, access.policy(call.name()).ok_or_else(no_policy)?))
}

pub(super) async fn list(call: Call<State, Pattern>) -> Result<ListPoliciesResponse, Error> {
    let prefix = call.name().prefix();
    let names = call.state().access.policies().filter(|name| name.as_str().starts_with(prefix));
    let page = Page::after(call.name(), &names.cloned().collect::<Vec<_>>());
    Ok(ListPoliciesResponse {
        names: page.names.iter().map(PolicyName::to_string).collect(),
        continue_at: page.continue_at.unwrap_or_default(),
    })
}

/// A policy as clients see it.
pub(super) fn response(access: &Access, policy: &Policy) -> ReadPolicyResponse {
    let patterns = |patterns: &mut dyn Iterator<Item = &str>| -> Patterns {
        patterns.map(|pattern| (pattern.to_owned(), Empty {})).collect()
    };
    ReadPolicyResponse {
        name: policy.name().to_string(),
        allow: patterns(&mut policy.allow()),
        deny: patterns(&mut policy.deny()),
        created_at: access.since(),
        created_by: access.admin().to_string(),
    }
}
