//! `claviger bench`: measures the throughput and latency of a key server from a client.

mod compare;
mod load;
mod mix;
mod report;

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::signal::unix::{SignalKind, signal};

use self::load::{Load, Plan};
use self::mix::Mix;
use self::report::Report;
use super::connection::Connection;
use super::out::Out;
use crate::client::{Client, link::Protocol};
use crate::crypto::random;
use crate::duration;

/// Measure how many requests a server can answer
///
/// Creates keys of its own, sends requests for them as fast as they are answered, and deletes the keys again.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Compare two measurements, such as from before and after a migration
    Compare(compare::Args),
}

#[derive(Debug, clap::Args)]
struct Run {
    /// Which requests to send, and in which proportion: generate, encrypt, decrypt
    #[arg(long, value_name = "OP[=WEIGHT],…", default_value = "generate,encrypt,decrypt", value_parser = Mix::parse)]
    mix: Mix,
    /// How many connections
    #[arg(short = 'n', long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// How many requests at a time on each connection; more than one needs HTTP/2
    #[arg(short = 'm', long, value_name = "M", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=250))]
    streams: u16,
    /// The version of HTTP: 1 or 2
    #[arg(long, value_name = "VERSION", default_value = "2", value_parser = clap::value_parser!(u8).range(1..=2))]
    http: u8,
    /// How long to measure
    #[arg(short, long, value_name = "TIME", default_value = "10s", value_parser = duration::parse)]
    duration: Duration,
    /// Stop after this many requests, if that is sooner
    #[arg(short = 'c', long, value_name = "N")]
    count: Option<u64>,
    /// How long to send requests before the measurement begins
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration::parse)]
    warmup: Duration,
    /// How many keys to spread the requests over
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1000))]
    keys: u16,
    /// How many bytes to encrypt
    #[arg(long, value_name = "BYTES", default_value = "32", value_parser = clap::value_parser!(u32).range(1..=700_000))]
    size: u32,
    /// Write JSON, for 'bench compare'
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
pub(super) async fn run(args: Args, out: &mut Out) -> anyhow::Result<()> {
    match args.command {
        Some(Command::Compare(args)) => compare::run(&args, out),
        None => measure(args.run, out).await,
    }
}

async fn measure(args: Run, out: &mut Out) -> anyhow::Result<()> {
    ensure!(args.http == 2 || args.streams == 1, "HTTP/1.1 carries one request at a time: use '--connections'");
    let client = args.connection.client()?;
    let version = client.version().await.context("failed to reach the server")?.version.into_owned();
    let plan = Plan {
        mix: args.mix,
        connections: args.connections.into(),
        streams: args.streams.into(),
        protocol: if args.http == 1 { Protocol::H1 } else { Protocol::H2 },
        duration: args.duration,
        count: args.count.unwrap_or(u64::MAX),
        warmup: args.warmup,
        size: args.size as usize,
    };
    // From here on an interruption deletes the keys.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let keys = Keys::create(&client, args.keys).await?;
    let measured = tokio::select! {
        measured = Load::run(&client, &plan, &keys.names) => measured,
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
    };
    let removed = keys.delete().await;
    let report = Report::new(client.endpoint().authority(), version, &plan, measured?);
    if args.json {
        out.json(&report)?;
    } else {
        report.print(out)?;
    }
    out.flush()?;
    removed
}

/// Keys that exist for a measurement only.
struct Keys<'a> {
    client: &'a Client,
    names: Vec<String>,
}

impl<'a> Keys<'a> {
    async fn create(client: &'a Client, count: u16) -> anyhow::Result<Self> {
        let mut mark = [0; 4];
        random::fill(&mut mark)?;
        let mark = u32::from_le_bytes(mark);
        let mut keys = Self { client, names: Vec::new() };
        for nth in 0..count {
            let name = format!("claviger-bench-{mark:08x}-{nth}");
            if let Err(error) = client.create_key(&name).await {
                // The first error is the one to report.
                let _ = keys.delete().await;
                return Err(anyhow::Error::from(error).context(format!("failed to create the key '{name}'")));
            }
            keys.names.push(name);
        }
        Ok(keys)
    }

    /// Deletes the keys. The error names those that are left.
    async fn delete(&self) -> anyhow::Result<()> {
        for (nth, name) in self.names.iter().enumerate() {
            let deleted = self.client.delete_key(name).await;
            deleted.with_context(|| {
                format!("failed to delete keys of the measurement; {} are left", self.names[nth..].join(", "))
            })?;
        }
        Ok(())
    }
}
