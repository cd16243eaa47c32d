//! `claviger kms policies`: translates the policies of a KES into policies of an enclave.

mod translation;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use self::translation::{Rules, Translation};
use super::connection::InEnclave;
use crate::cli::out::{self, Out};
use crate::client::Client;
use crate::client::kms::Commands;
use crate::config::Config;
use crate::kms::Action;
use crate::kms::wire::{AssignPolicyRequest, CreateIdentityRequest, CreatePolicyRequest, Rule, RuleSet};

/// The most commands that are sent together. Policies may be large, and a request has a limit.
const TOGETHER: usize = 100;

/// Show what the policies of a KES config are in an enclave
///
/// The clients of the KES can then do the same over the key manager's own protocol. Prints the commands that set
/// policies, identities and assignments; what cannot be said in an enclave is named on standard error.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The config file of the KES
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// Set them, instead of printing the commands
    #[arg(long)]
    apply: bool,
    #[command(flatten)]
    connection: InEnclave,
}

pub(super) async fn run(args: Args, out: &mut Out) -> anyhow::Result<()> {
    let (config, warnings) = Config::load(&args.from)?;
    for warning in warnings {
        out::note(format_args!("Warning: {warning}"));
    }
    let translation = Translation::of(&config);
    for loss in &translation.losses {
        out::note(format_args!("Not in the enclave: {loss}"));
    }
    if args.apply {
        let (client, enclave) = args.connection.client()?;
        apply(&client, &enclave, &translation).await?;
        return Ok(out.done("Set the policies, identities and assignments.")?);
    }
    Ok(print(&translation, args.connection.parts().0.as_deref().unwrap_or("ENCLAVE"), out)?)
}

fn print(translation: &Translation, enclave: &str, out: &mut Out) -> std::io::Result<()> {
    let json = |rules: &Rules| -> Value {
        rules.iter().map(|(action, names)| (action.to_string(), json!(names))).collect::<Map<_, _>>().into()
    };
    for (name, policy) in &translation.policies {
        let rules = json!({ "allow": json(&policy.allow), "deny": json(&policy.deny) });
        writeln!(out, "claviger kms add-policy --enclave {enclave} {name} - <<'END'\n{rules}\nEND")?;
    }
    for identity in &translation.admins {
        writeln!(out, "claviger kms add-identity --enclave {enclave} --admin {identity}")?;
    }
    for (identity, _) in &translation.members {
        writeln!(out, "claviger kms add-identity --enclave {enclave} {identity}")?;
    }
    for (identity, policy) in &translation.members {
        writeln!(out, "claviger kms assign-policy --enclave {enclave} {policy} {identity}")?;
    }
    Ok(())
}

/// Sets policies, then identities, then who has which policy. When one is refused, those before it stay.
async fn apply(client: &Client, enclave: &str, translation: &Translation) -> anyhow::Result<()> {
    let policies = translation.policies.iter().map(|(name, policy)| CreatePolicyRequest {
        name: name.clone(),
        allow: wire(&policy.allow),
        deny: wire(&policy.deny),
    });
    send(client, enclave, Action::PolicyCreate, policies.collect()).await.context("failed to set the policies")?;
    let identity = |identity: &String, privilege: &str| CreateIdentityRequest {
        identity: identity.clone(),
        privilege: privilege.to_owned(),
        ..CreateIdentityRequest::default()
    };
    let admins = translation.admins.iter().map(|admin| identity(admin, "Admin"));
    let members = translation.members.iter().map(|(member, _)| identity(member, "User"));
    let identities = admins.chain(members).collect();
    send(client, enclave, Action::IdentityCreate, identities).await.context("failed to add the identities")?;
    let assigned = translation
        .members
        .iter()
        .map(|(identity, policy)| AssignPolicyRequest { identity: identity.clone(), policy: policy.clone() });
    send(client, enclave, Action::PolicyAssign, assigned.collect()).await.context("failed to assign the policies")
}

async fn send<M: prost::Message>(
    client: &Client,
    enclave: &str,
    action: Action,
    messages: Vec<M>,
) -> Result<(), crate::client::Error> {
    for batch in messages.chunks(TOGETHER) {
        client.change(enclave, Commands::default().and_all(action, batch)).await?;
    }
    Ok(())
}

fn wire(rules: &Rules) -> BTreeMap<String, RuleSet> {
    let set = |names: &Vec<String>| RuleSet { rules: names.iter().map(|name| (name.clone(), Rule {})).collect() };
    rules.iter().map(|(action, names)| (action.to_string(), set(names))).collect()
}
