//! `claviger policy`: what the policies of a server allow.

use std::io::Write as _;

use anyhow::Context as _;
use serde::Serialize;

use super::connection::Connection;
use super::list;
use super::out::{BAD, GOOD, LABEL, Out, moment, printable};
use crate::api::wire::{Patterns, ReadPolicyResponse};

/// Inspect policies
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show when and by whom a policy was made
    Info(Name),
    /// List policies
    Ls(list::Args),
    /// Show what a policy allows and denies
    #[command(alias = "get", alias = "read")]
    Show(Name),
}

#[derive(Debug, clap::Args)]
struct Name {
    /// The name of the policy
    name: String,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
pub(super) async fn run(args: Args, out: &mut Out) -> anyhow::Result<()> {
    match args.command {
        Command::Info(args) => info(args, out).await,
        Command::Ls(args) => list::run(args, list::Kind::Policy, out).await,
        Command::Show(args) => show(args, out).await,
    }
}

async fn info(args: Name, out: &mut Out) -> anyhow::Result<()> {
    let client = args.connection.client()?;
    let described = client.describe_policy(&args.name).await;
    let policy = described.with_context(|| format!("failed to describe policy '{}'", printable(&args.name)))?;
    if args.json {
        return Ok(out.json(&policy)?);
    }
    let fields: [(&str, &dyn std::fmt::Display); 3] = [
        ("Name", &printable(&policy.name)),
        ("Date", &moment(policy.created_at)),
        ("Created by", &printable(&policy.created_by)),
    ];
    Ok(out.fields(11, &fields)?)
}

async fn show(args: Name, out: &mut Out) -> anyhow::Result<()> {
    let client = args.connection.client()?;
    let read = client.read_policy(&args.name).await;
    let policy = read.with_context(|| format!("failed to show policy '{}'", printable(&args.name)))?;
    if args.json || !out.is_terminal() {
        return Ok(out.json(&Nameless::from(&policy))?);
    }
    patterns(out, GOOD, "Allow:", &policy.allow)?;
    patterns(out, BAD, "Deny:", &policy.deny)?;
    writeln!(out)?;
    let (at, by) = (out.paint(LABEL, "Created at:"), out.paint(LABEL, "Created by:"));
    writeln!(out, "{at} {}\n{by} {}", moment(policy.created_at), printable(&policy.created_by))?;
    Ok(())
}

fn patterns(out: &mut Out, style: anstyle::Style, heading: &str, patterns: &Patterns) -> std::io::Result<()> {
    if patterns.is_empty() {
        return Ok(());
    }
    let heading = out.paint(style, heading);
    writeln!(out, "{heading}")?;
    patterns.keys().try_for_each(|pattern| writeln!(out, "  · {}", printable(pattern)))?;
    writeln!(out)
}

/// A policy as the archived command wrote it: who asks for one knows its name.
#[derive(Serialize)]
struct Nameless<'a> {
    #[serde(skip_serializing_if = "Patterns::is_empty")]
    allow: &'a Patterns,
    #[serde(skip_serializing_if = "Patterns::is_empty")]
    deny: &'a Patterns,
    #[serde(with = "crate::api::wire::rfc3339")]
    created_at: time::OffsetDateTime,
    created_by: &'a str,
}

impl<'a> From<&'a ReadPolicyResponse> for Nameless<'a> {
    fn from(policy: &'a ReadPolicyResponse) -> Self {
        let ReadPolicyResponse { allow, deny, created_at, created_by, .. } = policy;
        Self { allow, deny, created_at: *created_at, created_by }
    }
}
