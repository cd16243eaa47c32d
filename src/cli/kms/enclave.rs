//! Commands about enclaves.

use anyhow::Context as _;

use super::connection::{Connection, prefix};
use crate::cli::out::{Out, moment, printable};
use crate::cli::prompt::Consent;
use crate::client::kms::Commands;
use crate::kms::Action;
use crate::kms::wire::{EnclaveStatus, ListEnclavesResponse, ListRequest, NameRequest};

/// Create enclaves
#[derive(Debug, clap::Args)]
pub(super) struct Add {
    /// The names of the enclaves
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    connection: Connection,
}

/// List enclaves
#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// List only names that begin with this text; a '*' at the end is optional
    #[arg(default_value = "", hide_default_value = true, value_parser = prefix)]
    prefix: String,
    /// Write one JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Show the details of an enclave
#[derive(Debug, clap::Args)]
pub(super) struct Stat {
    /// The name of the enclave
    name: String,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Delete enclaves, and with them every key, policy and identity in them
#[derive(Debug, clap::Args)]
pub(super) struct Remove {
    /// The names of the enclaves
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn add(args: Add) -> anyhow::Result<()> {
    let client = args.connection.client()?;
    for name in args.names {
        let done = client.change("", Commands::one(Action::EnclaveCreate, &NameRequest { name: name.clone() })).await;
        done.with_context(|| format!("failed to create enclave \"{}\"", printable(&name)))?;
    }
    Ok(())
}

pub(super) async fn list(args: List, out: &mut Out) -> anyhow::Result<()> {
    let client = args.connection.client()?;
    let mut names = Vec::new();
    let mut request = ListRequest { prefix: args.prefix, ..ListRequest::default() };
    loop {
        let page: ListEnclavesResponse =
            client.ask("", Action::EnclaveList, &request).await.context("failed to list enclaves")?;
        names.extend(page.enclaves.into_iter().map(|enclave| enclave.name));
        if page.continue_at.is_empty() {
            return Ok(out.names("Enclave", "enclaves", &names, args.json)?);
        }
        request.continue_at = page.continue_at;
    }
}

pub(super) async fn stat(args: Stat, out: &mut Out) -> anyhow::Result<()> {
    let client = args.connection.client()?;
    let status = client.ask("", Action::EnclaveStatus, &NameRequest { name: args.name.clone() }).await;
    let status: EnclaveStatus =
        status.with_context(|| format!("failed to get enclave \"{}\"", printable(&args.name)))?;
    if args.json {
        return Ok(out.json(&status)?);
    }
    let created_at = moment(status.created_at.unwrap_or_default().to_time());
    Ok(out.fields(
        10,
        &[
            ("Name", &printable(&status.name)),
            ("Created At", &created_at),
            ("Created By", &printable(&status.created_by)),
        ],
    )?)
}

pub(super) async fn remove(args: Remove, out: &mut Out) -> anyhow::Result<()> {
    let client = args.connection.client()?;
    let all = args.names.iter().map(|name| format!("\"{}\"", printable(name))).collect::<Vec<_>>().join(", ");
    args.consent.ask(&format!(
        "Delete enclave {all} with every key in it? What was encrypted with them can never be decrypted again."
    ))?;
    for name in args.names {
        let done = client.change("", Commands::one(Action::EnclaveDelete, &NameRequest { name: name.clone() })).await;
        done.with_context(|| format!("failed to remove enclave \"{}\"", printable(&name)))?;
        out.done(format_args!("Deleted enclave \"{}\" and everything in it.", printable(&name)))?;
    }
    Ok(())
}
