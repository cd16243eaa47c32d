//! Commands about the server itself: status, nodes and seals.

use anyhow::Context as _;

use super::connection::Connection;
use crate::cli::out::{Out, printable};
use crate::cli::prompt::Consent;
use crate::client::Client;
use crate::client::kms::Commands;
use crate::kms::Action;
use crate::kms::wire::{ClusterStatusResponse, EditClusterRequest, HsmRequest, NameRequest};

/// List the servers
#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Write one JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Show the state of the servers
#[derive(Debug, clap::Args)]
pub(super) struct Stat {
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Check that a server has become a member of the cluster
///
/// A server becomes one by itself, when it is started with the same 'cluster' section.
#[derive(Debug, clap::Args)]
pub(super) struct Add {
    /// The address of the server
    host: String,
    #[command(flatten)]
    connection: Connection,
}

/// Remove a stopped server from the cluster
///
/// A server that runs, also one that is cut off from the others, must be stopped before: it would go on encrypting under
/// keys that are deleted meanwhile.
#[derive(Debug, clap::Args)]
pub(super) struct Remove {
    /// The address of the server
    host: String,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    connection: Connection,
}

/// Remove stopped servers from the cluster, by their numbers
#[derive(Debug, clap::Args)]
pub(super) struct Edit {
    /// The address of the server that is asked
    host: String,
    /// The number of a server to remove; may be given several times
    #[arg(long, value_name = "ID")]
    rm: Vec<u32>,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    connection: Connection,
}

/// Seal the root key with another HSM of the server's config
#[derive(Debug, clap::Args)]
pub(super) struct AddHsm {
    /// The name of the HSM in the config
    name: String,
    /// Replace its existing seal
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Remove the seal of an HSM: it can no longer open the data file
#[derive(Debug, clap::Args)]
pub(super) struct RemoveHsm {
    /// The name of the HSM
    name: String,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    connection: Connection,
}

/// Move all data into the cluster that the server's config names
///
/// Add the 'cluster' section to the config of the running server first. Reads go on, and changes wait. From then on the
/// server is the first member of the cluster; others are started with empty directories.
#[derive(Debug, clap::Args)]
pub(super) struct Join {
    #[command(flatten)]
    connection: Connection,
}

/// Move all data out of the cluster, to its last server
///
/// The other servers must be stopped and removed before. Afterwards remove the 'cluster' section from the config.
#[derive(Debug, clap::Args)]
pub(super) struct LeaveCluster {
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    connection: Connection,
}

/// Encrypt all data under a new root key
///
/// Data that is written later cannot be opened with old HSM keys, nor with the root key of old backups.
#[derive(Debug, clap::Args)]
pub(super) struct RotateRoot {
    #[command(flatten)]
    connection: Connection,
}

async fn status(client: &Client) -> anyhow::Result<ClusterStatusResponse> {
    let status = client.ask("", Action::ClusterStatus, &NameRequest::default()).await;
    status.context("failed to get the state of the servers")
}

pub(super) async fn list(args: List, out: &mut Out) -> anyhow::Result<()> {
    let status = status(&args.connection.client()?).await?;
    let up = status.nodes_up.into_values().map(|node| node.host);
    let hosts: Vec<_> = up.chain(status.nodes_down.into_values()).collect();
    Ok(out.names("Host", "servers", &hosts, args.json)?)
}

pub(super) async fn stat(args: Stat, out: &mut Out) -> anyhow::Result<()> {
    let status = status(&args.connection.client()?).await?;
    if args.json {
        return Ok(out.json(&status)?);
    }
    for node in status.nodes_up.values() {
        let up = node.up_time.map_or(0, |span| span.seconds);
        out.fields(
            10,
            &[
                ("Host", &printable(&node.host)),
                ("Version", &printable(&node.version)),
                ("Role", &printable(&node.role)),
                ("Up", &format_args!("{up} s")),
                ("Changes", &node.commit),
                ("Seals", &printable(&node.hsms.join(", "))),
                ("HSMs", &printable(&node.configured_hsms.join(", "))),
            ],
        )?;
    }
    for (number, host) in &status.nodes_down {
        let state = format_args!("does not run, or is cut off; member {number}").to_string();
        out.fields(10, &[("Host", &printable(host)), ("State", &state)])?;
    }
    Ok(())
}

pub(super) async fn add(args: Add) -> anyhow::Result<()> {
    change(&args.connection, Action::ClusterAddNode, &NameRequest { name: args.host }, "add the server").await
}

pub(super) async fn remove(args: Remove) -> anyhow::Result<()> {
    args.consent.ask(&format!(
        "Remove '{}' from the cluster? It must be stopped: if it runs and is cut off, it goes on encrypting under keys that \
         are deleted meanwhile.",
        printable(&args.host)
    ))?;
    change(&args.connection, Action::ClusterRemoveNode, &NameRequest { name: args.host }, "remove the server").await
}

pub(super) async fn edit(args: Edit) -> anyhow::Result<()> {
    let numbers = args.rm.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    args.consent.ask(&format!(
        "Remove the servers {numbers} from the cluster? They must be stopped: whichever runs and is cut off goes on \
         encrypting under keys that are deleted meanwhile."
    ))?;
    let request = EditClusterRequest { host: args.host, remove: args.rm };
    change(&args.connection, Action::ClusterEdit, &request, "edit the cluster").await
}

pub(super) async fn join(args: Join, out: &mut Out) -> anyhow::Result<()> {
    args.connection.client()?.move_in().await.context("failed to move the data into the cluster")?;
    Ok(out.done(format_args!(
        "All data is in the cluster. Keep the 'cluster' section in the config: without it the server does not start again."
    ))?)
}

pub(super) async fn leave(args: LeaveCluster, out: &mut Out) -> anyhow::Result<()> {
    let client = args.connection.client()?;
    let server = client.endpoint().clone();
    args.consent.ask(&format!("Move all data out of the cluster, to {server}? The cluster is no more then."))?;
    client.move_out().await.context("failed to move the data out of the cluster")?;
    Ok(out.done(format_args!("All data is on {server} alone. Remove the 'cluster' section from its config."))?)
}

pub(super) async fn add_hsm(args: AddHsm) -> anyhow::Result<()> {
    let request = HsmRequest { name: args.name, overwrite: args.overwrite };
    change(&args.connection, Action::ClusterAddHsm, &request, "add the seal").await
}

pub(super) async fn remove_hsm(args: RemoveHsm, out: &mut Out) -> anyhow::Result<()> {
    let name = printable(&args.name);
    args.consent.ask(&format!("Remove the seal of '{name}'? It can then no longer open the data of this server."))?;
    let request = HsmRequest { name: args.name, overwrite: false };
    change(&args.connection, Action::ClusterRemoveHsm, &request, "remove the seal").await?;
    Ok(out.done(format_args!("Removed the seal of '{name}'."))?)
}

pub(super) async fn rotate_root(args: RotateRoot, out: &mut Out) -> anyhow::Result<()> {
    args.connection.client()?.rotate_root().await.context("failed to replace the root key")?;
    Ok(out.done(format_args!(
        "All data is encrypted under a new root key. Make a backup now: older ones still open with the HSM keys that \
         sealed them, and bring the old root key back when they are restored."
    ))?)
}

async fn change(
    connection: &Connection,
    action: Action,
    message: &impl prost::Message,
    what: &str,
) -> anyhow::Result<()> {
    let done = connection.client()?.change("", Commands::one(action, message)).await;
    done.with_context(|| format!("failed to {what}"))
}
