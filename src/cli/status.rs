//! `claviger status`: whether a server answers, and its health.

use std::io::{self, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use super::KES;
use super::connection::Connection;
use super::out::{BAD, GOOD, HEADING, LABEL, Out, STRONG, printable};
use super::units::{bytes, span};
use crate::api::wire::{ApiRoute, StatusResponse};
use crate::client::{Error, Kind};

/// Show the state of a server
#[derive(Debug, clap::Args)]
#[command(mut_arg("server", |arg| arg.short(None)))]
pub(super) struct Args {
    /// Print only whether it answers
    #[arg(short, long)]
    short: bool,
    /// List the paths of its API
    #[arg(long)]
    api: bool,
    /// Print only whether it is ready, also of a key manager; needs no identity where all may ask; exit code 1: not ready
    #[arg(long, conflicts_with_all = ["short", "api", "json"])]
    ready: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
pub(super) async fn run(args: Args, out: &mut Out) -> anyhow::Result<()> {
    if args.ready {
        return ready(&args.connection, out).await;
    }
    let client = args.connection.client()?;
    if args.json && args.api {
        let api = client.api().await.context("failed to list the API")?;
        return Ok(out.json(&api.routes.iter().map(Listed::from).collect::<Vec<_>>())?);
    }
    let mut status = client.status().await.context("failed to get the status")?;
    if out.program() == KES {
        status.config_hash = None;
    }
    if args.json {
        return Ok(out.json(&status)?);
    }
    let routes = match args.api {
        true => Some(client.api().await.context("failed to list the API")?.routes),
        false => None,
    };
    let dot = out.paint(if status.keystore_unreachable { BAD } else { GOOD }, "●");
    let endpoint = out.paint(STRONG, client.endpoint().authority());
    writeln!(out, "{dot} {endpoint}")?;
    if !args.short {
        print_status(out, &status)?;
    }
    if let Some(routes) = routes {
        print_api(out, &routes)?;
    }
    Ok(())
}

/// The health check of containers: it needs no identity where everybody may ask.
async fn ready(connection: &Connection, out: &mut Out) -> anyhow::Result<()> {
    let client = connection.client_or_nobody()?;
    let ready = match client.ready().await {
        Err(Error::OtherKind { kind: Kind::KeyManager, .. }) => client.kms_ready().await,
        ready => ready,
    };
    ready.context("the server is not ready")?;
    Ok(writeln!(out, "{} is ready", client.endpoint().authority())?)
}

fn print_status(out: &mut Out, status: &StatusResponse) -> io::Result<()> {
    let latency = match status.keystore_latency {
        _ if status.keystore_unreachable => "the key store does not answer".to_owned(),
        Some(latency) => span(Duration::from_nanos(nanoseconds(latency))),
        None => "unknown".to_owned(),
    };
    let mut rows = vec![
        ("Version", printable(&status.version)),
        ("Uptime", span(Duration::from_secs(status.uptime))),
        ("Latency", latency),
        ("OS", printable(&status.os)),
        ("CPUs", format!("{} of {}", status.num_cpu_used, status.num_cpu)),
        ("Memory", String::new()),
        ("· Heap", bytes(status.mem_heap_used)),
        ("· Stack", bytes(status.mem_stack_used)),
    ];
    rows.extend(status.config_hash.iter().map(|hash| ("Config", printable(hash))));
    for (label, value) in rows {
        let label = out.paint(LABEL, format!("  {label:<8}"));
        let separator = if value.is_empty() { "" } else { " " };
        writeln!(out, "{label}{separator}{value}")?;
    }
    Ok(())
}

/// Archived servers send milliseconds instead of nanoseconds. No server sends less than a millisecond.
fn nanoseconds(latency: u64) -> u64 {
    if latency < 1_000_000 { latency.saturating_mul(1_000_000) } else { latency }
}

/// A route for scripts. A limit that does not exist is left out.
#[derive(Serialize)]
struct Listed<'a> {
    method: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    max_body: u64,
    #[serde(skip_serializing_if = "is_zero")]
    timeout: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl<'a> From<&'a ApiRoute> for Listed<'a> {
    fn from(ApiRoute { method, path, max_body, timeout }: &'a ApiRoute) -> Self {
        Self { method, path, max_body: *max_body, timeout: *timeout }
    }
}

fn print_api(out: &mut Out, routes: &[ApiRoute]) -> io::Result<()> {
    let width = routes.iter().map(|route| route.path.len()).max().unwrap_or(0).max(3) + 1;
    let heading = |text: &str, width| out.paint(HEADING, text.to_owned()).to_string() + &" ".repeat(width - text.len());
    let heading = format!("  {}  {}  {}", heading("Method", 6), heading("API", width), heading("Timeout", 7));
    writeln!(out, "\n{heading}")?;
    for route in routes {
        let timeout = if route.timeout == 0 { "Inf".to_owned() } else { format!("{}s", route.timeout) };
        writeln!(out, "  {:<6}  {:<width$}  {timeout}", printable(&route.method), printable(&route.path))?;
    }
    Ok(())
}
