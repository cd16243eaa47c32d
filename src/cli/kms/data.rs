//! Backup and restore of a key manager's data, and its log.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::connection::Connection;
use crate::cli::identity::files::{self, OnConflict};
use crate::cli::out::{Out, moment, printable};
use crate::cli::prompt::Consent;
use crate::kms::wire::{LogRequest, Timestamp};
use crate::telemetry::log::Level;
use crate::{clock, duration};

/// Write all data to a file, encrypted as on the server's disk
#[derive(Debug, clap::Args)]
pub(super) struct Backup {
    /// The file, '-' for standard output
    file: PathBuf,
    /// Replace the file if it exists
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Replace all data with a backup
#[derive(Debug, clap::Args)]
pub(super) struct Restore {
    /// The backup
    file: PathBuf,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    connection: Connection,
}

/// Follow the log
#[derive(Debug, clap::Args)]
pub(super) struct Logs {
    /// Begin with records since a time such as 2026-01-02T15:04:05Z, or since how long ago, such as 1h30m
    #[arg(long, value_name = "WHEN", value_parser = since)]
    since: Option<OffsetDateTime>,
    /// The lowest level of records to show
    #[arg(long, value_name = "LEVEL", default_value = "INFO", value_parser = level)]
    level: i32,
    /// The lowest level of records that are shown with their place in the source
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    trace: Option<i32>,
    /// Only records that contain this text
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    message: String,
    /// Write one JSON object on each line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

fn level(text: &str) -> Result<i32, String> {
    Level::parse(text).map(|level| level.0.into()).ok_or_else(|| "write DEBUG, INFO, WARN or ERROR".to_owned())
}

fn since(text: &str) -> Result<OffsetDateTime, String> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(time);
    }
    let ago = duration::parse(text).map_err(|_| "write a time like 2026-01-02T15:04:05Z, or a duration like 1h30m")?;
    Ok(clock::now().checked_sub(ago.try_into().unwrap_or(time::Duration::MAX)).unwrap_or(OffsetDateTime::UNIX_EPOCH))
}

pub(super) async fn backup(args: Backup, out: &mut Out) -> anyhow::Result<()> {
    let to_stdout = args.file.as_os_str() == "-";
    ensure!(
        !to_stdout || !out.is_terminal(),
        "a backup is no text for a terminal: name a file, or send it into a pipe"
    );
    let backup = args.connection.client()?.backup().await.context("failed to make a backup")?;
    if to_stdout {
        return Ok(out.write_all(&backup)?);
    }
    files::write(&args.file, 0o600, &backup, if args.force { OnConflict::Replace } else { OnConflict::Fail })?;
    Ok(out.done(format_args!("Wrote a backup of {} bytes to '{}'.", backup.len(), args.file.display()))?)
}

pub(super) async fn restore(args: Restore, out: &mut Out) -> anyhow::Result<()> {
    let backup = std::fs::read(&args.file).with_context(|| format!("failed to read '{}'", args.file.display()))?;
    let client = args.connection.client()?;
    let (file, server) = (args.file.display(), client.endpoint().clone());
    args.consent.ask(&format!(
        "Replace all data of {server} by '{file}'? Keys that are newer than the backup are lost, and what they have encrypted."
    ))?;
    client.restore(backup).await.context("failed to restore the backup")?;
    Ok(out.done(format_args!("Replaced all data of {server} by '{file}'."))?)
}

pub(super) async fn logs(args: Logs, out: &mut Out) -> anyhow::Result<()> {
    let (level, since, trace_level) = (args.level, args.since.map(Timestamp::from), args.trace);
    let request = LogRequest { level, message: args.message, since, trace_level, ..LogRequest::default() };
    let mut records = args.connection.client()?.records(&request).await.context("failed to read the log")?;
    while let Some(record) = records.next().await? {
        if args.json {
            // On one line, also on a terminal.
            writeln!(out, "{}", serde_json::to_string(&record)?)?;
        } else {
            let level = Level(i8::try_from(record.level).unwrap_or_default()).to_string();
            let time = moment(record.time.unwrap_or_default().to_time());
            writeln!(out, "{time} {level:<5} {}", printable(&record.message))?;
            for frame in &record.trace {
                writeln!(out, "    {} {}:{}", printable(&frame.function), printable(&frame.file), frame.line)?;
            }
        }
        out.flush()?;
    }
    Ok(())
}
