//! Commands about the policies of an enclave.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::connection::{InEnclave, prefix};
use super::json::Always;
use crate::cli::input;
use crate::cli::out::{Out, printable};
use crate::client::kms::Commands;
use crate::kms::Action;
use crate::kms::wire::{
    AssignPolicyRequest, CreatePolicyRequest, ListPoliciesResponse, ListRequest, NameRequest, PolicyResponse, Rule,
    RuleSet,
};

/// Create or replace a policy
#[derive(Debug, clap::Args)]
pub(super) struct Add {
    /// The name of the policy
    name: String,
    /// A JSON file: {"allow":{"KEY:CREATE":"my-key*"},"deny":{…}}; '-' for standard input
    file: PathBuf,
    #[command(flatten)]
    connection: InEnclave,
}

/// List policies
#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// List only names that begin with this text; a '*' at the end is optional
    #[arg(default_value = "", hide_default_value = true, value_parser = prefix)]
    prefix: String,
    /// Write one JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: InEnclave,
}

/// Print a policy, as a file for 'add-policy'
#[derive(Debug, clap::Args)]
pub(super) struct Get {
    /// The name of the policy
    name: String,
    #[command(flatten)]
    _json: Always,
    #[command(flatten)]
    connection: InEnclave,
}

/// Give a policy to identities
#[derive(Debug, clap::Args)]
pub(super) struct Assign {
    /// The name of the policy
    policy: String,
    /// The identities that get it
    #[arg(required = true, value_name = "IDENTITY")]
    identities: Vec<String>,
    #[command(flatten)]
    connection: InEnclave,
}

/// Delete policies; identities that had one are left without
#[derive(Debug, clap::Args)]
pub(super) struct Remove {
    /// The names of the policies
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    connection: InEnclave,
}

/// A policy file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    allow: BTreeMap<String, Patterns>,
    deny: BTreeMap<String, Patterns>,
}

/// Patterns: one, several, or an object whose fields they are.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Patterns {
    One(String),
    Several(Vec<String>),
    Object(BTreeMap<String, NoRule>),
}

/// The value of a pattern. It has no fields.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoRule {}

fn rules(rules: BTreeMap<String, Patterns>) -> BTreeMap<String, RuleSet> {
    let set = |patterns| {
        let patterns = match patterns {
            Patterns::One(pattern) => vec![pattern],
            Patterns::Several(patterns) => patterns,
            Patterns::Object(patterns) => patterns.into_keys().collect(),
        };
        RuleSet { rules: patterns.into_iter().map(|pattern| (pattern, Rule {})).collect() }
    };
    rules.into_iter().map(|(action, patterns)| (action, set(patterns))).collect()
}

pub(super) async fn add(args: Add) -> anyhow::Result<()> {
    let file: File = serde_json::from_slice(&input::read(&args.file)?)
        .with_context(|| format!("'{}' is not a policy", args.file.display()))?;
    let (client, enclave) = args.connection.client()?;
    let request = CreatePolicyRequest { name: args.name.clone(), allow: rules(file.allow), deny: rules(file.deny) };
    let done = client.change(&enclave, Commands::one(Action::PolicyCreate, &request)).await;
    done.with_context(|| format!("failed to set policy \"{}\"", printable(&args.name)))
}

pub(super) async fn list(args: List, out: &mut Out) -> anyhow::Result<()> {
    let (client, enclave) = args.connection.client()?;
    let mut names = Vec::new();
    let mut request = ListRequest { prefix: args.prefix, ..ListRequest::default() };
    loop {
        let page: ListPoliciesResponse =
            client.ask(&enclave, Action::PolicyList, &request).await.context("failed to list policies")?;
        names.extend(page.policies.into_iter().map(|policy| policy.name));
        if page.continue_at.is_empty() {
            return Ok(out.names("Policy", "policies", &names, args.json)?);
        }
        request.continue_at = page.continue_at;
    }
}

pub(super) async fn get(args: Get, out: &mut Out) -> anyhow::Result<()> {
    let (client, enclave) = args.connection.client()?;
    let policy = client.ask(&enclave, Action::PolicyGet, &NameRequest { name: args.name.clone() }).await;
    let policy: PolicyResponse =
        policy.with_context(|| format!("failed to read policy \"{}\"", printable(&args.name)))?;
    let show = |rules: &BTreeMap<String, RuleSet>| {
        let patterns = |set: &RuleSet| Value::from(set.rules.keys().map(|rule| printable(rule)).collect::<Vec<_>>());
        Value::from(rules.iter().map(|(action, set)| (printable(action), patterns(set))).collect::<Map<_, _>>())
    };
    Ok(out.json(&json!({ "allow": show(&policy.allow), "deny": show(&policy.deny) }))?)
}

pub(super) async fn assign(args: Assign) -> anyhow::Result<()> {
    let (client, enclave) = args.connection.client()?;
    let assign = |commands: Commands, identity: &String| {
        let (identity, policy) = (identity.clone(), args.policy.clone());
        commands.and(Action::PolicyAssign, &AssignPolicyRequest { identity, policy })
    };
    let commands = args.identities.iter().fold(Commands::default(), assign);
    let done = client.change(&enclave, commands).await;
    done.with_context(|| format!("failed to assign policy \"{}\"", printable(&args.policy)))
}

pub(super) async fn remove(args: Remove, out: &mut Out) -> anyhow::Result<()> {
    let (client, enclave) = args.connection.client()?;
    for name in args.names {
        let request = NameRequest { name: name.clone() };
        let done = client.change(&enclave, Commands::one(Action::PolicyDelete, &request)).await;
        done.with_context(|| format!("failed to remove policy \"{}\"", printable(&name)))?;
        out.done(format_args!("Deleted policy \"{}\".", printable(&name)))?;
    }
    Ok(())
}
