//! All data of a key manager, and its log.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;

use super::connection::Connection;
use crate::cli::identity::files::{self, OnConflict};
use crate::cli::out::{Out, moment, printable};
use crate::kms::wire::LogRequest;
use crate::telemetry::log::Level;

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

/// Put a backup in the place of all data
#[derive(Debug, clap::Args)]
pub(super) struct Restore {
    /// The backup
    file: PathBuf,
    #[command(flatten)]
    connection: Connection,
}

/// Follow the log
#[derive(Debug, clap::Args)]
pub(super) struct Logs {
    /// From which level on
    #[arg(long, value_name = "LEVEL", default_value = "INFO", value_parser = level)]
    level: i32,
    /// Only records that contain this text
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    message: String,
    /// Write one JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

fn level(text: &str) -> Result<i32, String> {
    Level::parse(text).map(|level| level.0.into()).ok_or_else(|| "write DEBUG, INFO, WARN or ERROR".to_owned())
}

pub(super) async fn backup(args: Backup, out: &mut Out) -> anyhow::Result<()> {
    let backup = args.connection.client()?.backup().await.context("failed to make a backup")?;
    if args.file.as_os_str() == "-" {
        return Ok(out.write_all(&backup)?);
    }
    files::write(&args.file, 0o600, &backup, if args.force { OnConflict::Replace } else { OnConflict::Fail })
}

pub(super) async fn restore(args: Restore) -> anyhow::Result<()> {
    let backup = std::fs::read(&args.file).with_context(|| format!("failed to read '{}'", args.file.display()))?;
    args.connection.client()?.restore(backup).await.context("failed to restore the backup")
}

pub(super) async fn logs(args: Logs, out: &mut Out) -> anyhow::Result<()> {
    let request = LogRequest { level: args.level, message: args.message, ..LogRequest::default() };
    let mut records = args.connection.client()?.records(&request).await.context("failed to read the log")?;
    while let Some(record) = records.next().await? {
        if args.json {
            out.json(&record)?;
        } else {
            let level = Level(i8::try_from(record.level).unwrap_or_default());
            let time = moment(record.time.unwrap_or_default().to_time());
            writeln!(out, "{time} {level:<5} {}", printable(&record.message))?;
        }
        out.flush()?;
    }
    Ok(())
}
