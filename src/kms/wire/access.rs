//! Messages about policies and identities.

use std::collections::BTreeMap;

use prost::Message;
use serde::Serialize;

use super::{Timestamp, json};

/// A policy to set, by names of commands.
#[derive(Clone, PartialEq, Message)]
pub struct CreatePolicyRequest {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What is allowed, by command.
    #[prost(btree_map = "string, message", tag = "2")]
    pub allow: BTreeMap<String, RuleSet>,
    /// What is denied; it takes precedence over `allow`.
    #[prost(btree_map = "string, message", tag = "3")]
    pub deny: BTreeMap<String, RuleSet>,
}

/// Assigns a policy to an identity.
#[derive(Clone, PartialEq, Message)]
pub struct AssignPolicyRequest {
    /// The identity.
    #[prost(string, tag = "1")]
    pub identity: String,
    /// The name of its policy; empty: none.
    #[prost(string, tag = "2")]
    pub policy: String,
}

/// A policy.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct PolicyResponse {
    /// The name.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub name: String,
    /// What is allowed, by command.
    #[prost(btree_map = "string, message", tag = "2")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub allow: BTreeMap<String, RuleSet>,
    /// What is denied; it takes precedence over `allow`.
    #[prost(btree_map = "string, message", tag = "3")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub deny: BTreeMap<String, RuleSet>,
    /// When it was made.
    #[prost(message, optional, tag = "4")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub created_at: Option<Timestamp>,
    /// The identity that made it; empty: none.
    #[prost(string, tag = "5")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub created_by: String,
}

/// A policy without its rules.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct PolicyStatus {
    /// The name.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub name: String,
    /// When it was made.
    #[prost(message, optional, tag = "4")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub created_at: Option<Timestamp>,
    /// The identity that made it; empty: none.
    #[prost(string, tag = "5")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub created_by: String,
}

/// A page of policies.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct ListPoliciesResponse {
    /// Sorted.
    #[prost(message, repeated, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub policies: Vec<PolicyStatus>,
    /// The name of the first element of the next page; empty: this is the last page.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub continue_at: String,
}

/// Patterns of names.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct RuleSet {
    /// By pattern.
    #[prost(btree_map = "string, message", tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub rules: BTreeMap<String, Rule>,
}

/// The value of a pattern. It has no fields.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct Rule {}

/// An identity to set.
#[derive(Clone, PartialEq, Message)]
pub struct CreateIdentityRequest {
    /// The identity.
    #[prost(string, tag = "1")]
    pub identity: String,
    /// Its privilege.
    #[prost(string, tag = "2")]
    pub privilege: String,
    /// Whether it is a service account.
    #[prost(bool, tag = "3")]
    pub is_service_account: bool,
    /// Labels.
    #[prost(btree_map = "string, string", tag = "4")]
    pub tags: BTreeMap<String, String>,
}

/// The identity that a command is about.
#[derive(Clone, PartialEq, Message)]
pub struct IdentityRequest {
    /// The identity.
    #[prost(string, tag = "1")]
    pub identity: String,
}

/// An identity and its account.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct IdentityResponse {
    /// The identity.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub identity: String,
    /// Its privilege.
    #[prost(uint32, tag = "2")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub privilege: u32,
    /// The name of its policy; empty: none.
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub policy: String,
    /// When it was made.
    #[prost(message, optional, tag = "4")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub created_at: Option<Timestamp>,
    /// The identity that made it; empty: none.
    #[prost(string, tag = "5")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub created_by: String,
    /// Whether it is a service account.
    #[prost(bool, tag = "6")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub is_service_account: bool,
    /// Its service accounts.
    #[prost(string, repeated, tag = "7")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub service_accounts: Vec<String>,
    /// Labels.
    #[prost(btree_map = "string, string", tag = "8")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub tags: BTreeMap<String, String>,
}

/// A page of identities.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct ListIdentitiesResponse {
    /// Sorted.
    #[prost(message, repeated, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub identities: Vec<IdentityResponse>,
    /// The name of the first element of the next page; empty: this is the last page.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub continue_at: String,
}
