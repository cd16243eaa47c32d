//! `claviger server`: the KES API over a key store. Read [`start`] first.

mod dev;
mod old;
mod program;
mod served;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

pub(super) use self::program::Kes;
use self::program::Source;
use self::served::Served;
use super::daemon::{self, Daemon, Listener, Message, message};
use crate::auth::{Access, Policy};
use crate::config::{self, Config};
use crate::{clock, keys, keystore, kms};

/// The longest pause between two attempts to reach the key store at start.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// The name of the listener.
const KES_API: &str = "the KES API";

/// Start a key server.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The config file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The address to listen on, instead of the config file's.
    #[arg(long, value_name = "IP:PORT", value_parser = config::address)]
    addr: Option<SocketAddr>,
    /// Start for development: keys in memory, with a new certificate and admin API key.
    #[arg(long, conflicts_with = "config")]
    dev: bool,
    /// Wait for a key store that does not answer, instead of giving up at the start.
    #[arg(long, conflicts_with = "dev")]
    wait: bool,
    #[command(flatten)]
    old: old::Flags,
}

/// Runs the server until it is told to stop.
pub(super) fn run(args: Args) -> anyhow::Result<()> {
    daemon::run(args.dev, async |daemon| {
        args.old.warn();
        if args.dev {
            return dev::run(daemon, args.addr).await;
        }
        let path = args.config.context("no config file given; use '--config FILE', or '--dev' to try things out")?;
        start(daemon, Source { path, addr: args.addr }, args.wait, args.old.quiet).await
    })
}

/// Loads the config, connects the key store, listens, and serves.
async fn start(daemon: Daemon, source: Source, wait: bool, is_quiet: bool) -> anyhow::Result<()> {
    let config = source.load()?;
    let tls = config.load_tls()?;
    let logging = daemon.open_log(&config.log)?;
    let served = if wait {
        tokio::select! {
            () = daemon.stop_requested() => return Ok(()),
            served = wait_for_keystore(&config) => served?,
        }
    } else {
        Served::connect(&config, None).await?
    };
    logging.apply(&daemon.telemetry);
    let (address, limits, log) = (config.address, config.limits, config.log.clone());
    let admin = message::admin(&config.admin).to_owned();
    let program = Kes::new(&daemon, source, config, served.clone(), None);
    let state = program.state();
    let listener = daemon.listen(KES_API, address, limits, program, (state, tls)).await?;
    let mut message = Message::new();
    message.line("Key store", &served);
    message.endpoints("API", listener.address());
    message.line("Admin", &admin);
    message.process(&log, &daemon.lock);
    if !is_quiet {
        message.print(&[])?;
    }
    daemon.serve(vec![Box::new(listener)]).await
}

/// Listens for clients of the KES API, who use the keys of an enclave of this key manager.
pub(super) async fn listen(daemon: &Daemon, kms: &Arc<kms::State>, path: PathBuf) -> anyhow::Result<Listener<Kes>> {
    let name = format!("{KES_API}, as '{}' says", path.display());
    let source = Source { path, addr: None };
    let config = source.load()?;
    let tls = config.load_tls()?;
    let served = Served::connect(&config, Some(kms)).await?;
    let (address, limits) = (config.address, config.limits);
    let program = Kes::new(daemon, source, config, served, Some(kms.clone()));
    let state = program.state();
    daemon.listen(name, address, limits, program, (state, tls)).await
}

/// Connects to the key store. Waits until it answers.
async fn wait_for_keystore(config: &Config) -> anyhow::Result<Served> {
    let mut pause = Duration::from_secs(1);
    loop {
        match Served::connect(config, None).await {
            Err(error) if is_unreachable(&error) => {
                let cause = format!("{error:#}");
                tracing::warn!(cause, "waiting for the key store; it is asked again in {} s", pause.as_secs());
            }
            connected => return connected,
        }
        tokio::time::sleep(pause).await;
        pause = LONGEST_PAUSE.min(2 * pause);
    }
}

/// Whether the error is a failure of the key store that may pass.
fn is_unreachable(error: &anyhow::Error) -> bool {
    let created = error.downcast_ref::<keys::Error>().map(|error| &*error.source);
    matches!(error.downcast_ref().or(created), Some(keystore::Error::Unreachable(_)))
}

/// The access rules of the config.
pub(super) fn access(config: &Config) -> Access {
    let policies = config.policy.iter().map(|(name, policy)| {
        let rules = Policy::new(name.clone(), policy.allow.clone(), policy.deny.clone());
        (rules, policy.identities.clone())
    });
    Access::new(config.admin.clone(), policies.collect(), clock::now())
}
