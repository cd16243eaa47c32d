//! `claviger log`: follows the error log or the audit log of a server.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;

use super::connection::Connection;
use super::out::{BAD, GOOD, Out, WARNING, printable};
use super::units::span;

/// Follow a log of a server
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Follow the audit log: who asked for what (the default)
    #[arg(long, conflicts_with = "error")]
    audit: bool,
    /// Follow the error log: the server's own messages
    #[arg(long)]
    error: bool,
    /// Write the events as they come, one JSON object on each line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command, until somebody ends it.
pub(super) async fn run(args: Args, out: &mut Out) -> anyhow::Result<()> {
    let client = args.connection.client()?;
    let (name, lines) = match args.error {
        true => ("error log", client.error_log().await),
        false => ("audit log", client.audit_log().await),
    };
    let mut lines = lines.with_context(|| format!("failed to follow the {name}"))?;
    while let Some(line) = lines.next().await.with_context(|| format!("the {name} ended"))? {
        match (args.json, args.error) {
            (true, _) => {
                out.write_all(&line)?;
                writeln!(out)?;
            }
            (false, true) => print_error(out, &line)?,
            (false, false) => print_audit(out, &line)?,
        }
        // Flush after every event, so that it shows at once.
        out.flush()?;
    }
    anyhow::bail!("the server ended the {name}: it stops, or we were too slow")
}

/// An audit event.
#[derive(Deserialize)]
struct Audit {
    time: String,
    request: Request,
    response: Response,
    /// How many equal requests it stands for, where it is more than one.
    count: Option<u64>,
}

#[derive(Deserialize)]
struct Request {
    #[serde(default)]
    ip: String,
    path: String,
    #[serde(default)]
    identity: String,
}

#[derive(Deserialize)]
struct Response {
    code: u16,
    /// Nanoseconds.
    time: u64,
}

/// Prints time, status, duration, caller, address and path, with the columns of varying width last.
fn print_audit(out: &mut Out, line: &[u8]) -> anyhow::Result<()> {
    let Ok(Audit { time, request, response, count }) = serde_json::from_slice(line) else {
        return print_raw(out, line);
    };
    let style = match response.code {
        ..400 => GOOD,
        400..500 => WARNING,
        500.. => BAD,
    };
    let code = out.paint(style, response.code);
    let identity: String = request.identity.chars().take(12).collect();
    let time = printable(time.split(['.', 'Z']).next().unwrap_or_default()).replace('T', " ");
    writeln!(
        out,
        "{time:<19}  {code}  {:>8}  {:<15}  {:<12}  {}{}",
        span(Duration::from_nanos(response.time)),
        printable(&request.ip),
        printable(if identity.is_empty() { "-" } else { &identity }),
        printable(&request.path),
        count.map_or_else(String::new, |count| format!("  ({count} times)")),
    )?;
    Ok(())
}

fn print_error(out: &mut Out, line: &[u8]) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct Event {
        message: String,
    }
    match serde_json::from_slice::<Event>(line) {
        Ok(event) => Ok(writeln!(out, "{}", printable(event.message.trim_end()))?),
        Err(_) => print_raw(out, line),
    }
}

/// Prints an event of an unknown kind as it is.
fn print_raw(out: &mut Out, line: &[u8]) -> anyhow::Result<()> {
    Ok(writeln!(out, "{}", printable(&String::from_utf8_lossy(line)))?)
}
