//! `claviger server`: the KES API over a key store. Read [`start`] first.

mod dev;
mod old;
mod program;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use self::program::{Kes, Source};
use super::daemon::{self, Daemon, Message, message};
use crate::auth::{Access, Identity, Policy};
use crate::cache::{self, Keys};
use crate::config::{self, Config};
use crate::crypto::{Algorithm, Key};
use crate::name::KeyName;
use crate::{clock, keystore};

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
    /// Start for development: keys in memory, a certificate and an admin API key made on the spot.
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
    let keys = if wait {
        tokio::select! {
            () = daemon.stop_requested() => return Ok(()),
            keys = wait_for_keystore(&config) => keys?,
        }
    } else {
        connect(&config).await?
    };
    daemon.apply_log(config.log);
    let (address, limits, log) = (config.address, config.limits, config.log);
    let admin = message::admin(&config.admin).to_owned();
    let program = Kes::new(&daemon, source, config, keys.clone());
    let served = (program.state(), tls);
    let listener = daemon.listen(KES_API, address, limits, program, served).await?;
    let mut message = Message::new();
    message.line("Key store", &keys.store());
    message.endpoints(listener.address());
    message.line("Admin", &admin);
    message.process(log, &daemon.lock);
    if !is_quiet {
        message.print(&[])?;
    }
    daemon.serve(vec![Box::new(listener)]).await
}

/// Connects to the key store. Waits until it answers.
async fn wait_for_keystore(config: &Config) -> anyhow::Result<Arc<Keys>> {
    let mut pause = Duration::from_secs(1);
    loop {
        match connect(config).await {
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

async fn connect(config: &Config) -> anyhow::Result<Arc<Keys>> {
    let store = config.keystore.connect().await;
    let store = store.with_context(|| config.keystore_place("").to_string())?;
    for warning in store.warnings() {
        tracing::warn!(keystore = %store, "{warning}");
    }
    let keys = Keys::new(config.cache, store, tokio::runtime::Handle::current());
    create_keys(&keys, &config.keys, &config.admin).await?;
    Ok(keys)
}

/// Whether the error is a failure of the key store that may pass.
fn is_unreachable(error: &anyhow::Error) -> bool {
    let created = error.downcast_ref::<cache::Error>().map(|error| &*error.source);
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

/// Creates the keys that the config names, where they are missing.
async fn create_keys<'a>(
    keys: &Arc<Keys>,
    names: impl IntoIterator<Item = &'a KeyName>,
    admin: &Identity,
) -> anyhow::Result<()> {
    for name in names {
        create_key(keys, name, admin).await.with_context(|| format!("failed to create the key '{name}'"))?;
    }
    Ok(())
}

async fn create_key(keys: &Arc<Keys>, name: &KeyName, admin: &Identity) -> anyhow::Result<()> {
    let key = Key::generate(Algorithm::preferred(), clock::now(), admin.as_str())?;
    match keys.create(name, &key).await {
        Err(error) if !matches!(*error.source, keystore::Error::Exists) => Err(error.into()),
        created => {
            if created.is_ok() {
                tracing::info!(key = %name, "key created, as the config says");
            }
            Ok(())
        }
    }
}
