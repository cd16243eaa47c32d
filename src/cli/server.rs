//! `claviger server`: joins everything. Read [`Setup::start`] first.

pub(super) mod dev;
pub(super) mod message;
mod reload;
pub(super) mod signals;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio_util::task::TaskTracker;

use self::reload::Running;
use self::signals::{Signals, Stop};
use crate::api::State;
use crate::auth::{Access, Identity, Policy};
use crate::cache::{self, Keys};
use crate::config::{self, Config};
use crate::crypto::{Algorithm, Key};
use crate::name::KeyName;
use crate::server::route::RouteConfig;
use crate::server::tls::{self, Tls};
use crate::server::{Limits, Server};
use crate::telemetry::{Telemetry, audit, log, metrics};
use crate::{clock, keystore, memory};

/// How often TLS files are looked at for changes.
pub(super) const WATCH: Duration = Duration::from_secs(1);

/// The longest pause between two attempts to reach the keystore at the start.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// How long begun writes to the keystore may take after the last request.
const WRITES: Duration = Duration::from_secs(10);

/// How long standard output may take to take the last audit events.
const LAST_EVENTS: Duration = Duration::from_secs(5);

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
}

/// Runs the server until it is told to stop.
pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let started = Instant::now();
    std::panic::set_hook(Box::new(log::panicked));
    memory::forbid_core_dumps().context("failed to forbid core dumps")?;
    let lock = memory::lock();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let telemetry = telemetry()?;
        let setup = Setup { started, telemetry, lock, retired: TaskTracker::new() };
        if args.dev {
            return dev::run(setup, args.addr).await;
        }
        let path = args.config.context("no config file given; use '--config FILE', or '--dev' to try things out")?;
        let source = Source { path, addr: args.addr };
        setup.start(source, args.wait).await
    })
}

/// Writes to standard output and error past the library's locks: a thread that cannot write holds up no other.
pub(super) fn telemetry() -> anyhow::Result<Arc<Telemetry>> {
    let file = |stream: BorrowedFd<'_>| stream.try_clone_to_owned().map(std::fs::File::from);
    let log = log::Log::start(file(std::io::stderr().as_fd())?)?;
    log::Layer::install(log.clone())?;
    let audit = audit::Audit::start(file(std::io::stdout().as_fd())?)?;
    Ok(Arc::new(Telemetry { log, audit, metrics: metrics::Metrics::default() }))
}

/// Where the config comes from.
struct Source {
    path: PathBuf,
    addr: Option<SocketAddr>,
}

impl Source {
    fn load(&self) -> anyhow::Result<Config> {
        let (mut config, warnings) = Config::load(&self.path)?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        config.address = self.addr.unwrap_or(config.address);
        Ok(config)
    }
}

/// What a server of this process starts from.
struct Setup {
    started: Instant,
    telemetry: Arc<Telemetry>,
    lock: memory::Lock,
    /// What is still under way to keystores that a reload replaced.
    retired: TaskTracker,
}

impl Setup {
    /// Loads the config, connects the keystore, builds the state, binds the server, and serves.
    async fn start(self, source: Source, wait: bool) -> anyhow::Result<()> {
        // From here on a signal waits until it can be obeyed.
        let signals = Signals::new()?;
        let config = source.load()?;
        let files = tls::fingerprint(&config.tls);
        let tls = config.load_tls()?;
        let keys = if wait {
            tokio::select! {
                () = signals.stop.requested() => return Ok(()),
                keys = self.wait_for_keystore(&config) => keys?,
            }
        } else {
            self.connect(&config).await?
        };
        let state = self.state(&config, &tls, &keys);
        self.apply_log(config.log);
        let server = self.bind(config.address, config.limits, state, tls.clone()).await?;
        let message = message::Message {
            keystore: keys.store(),
            address: server.address()?,
            admin: &config.admin,
            log: config.log,
            lock: &self.lock,
        };
        message.print()?;
        self.serve(server, source, Running::new(config, tls, files, keys), signals).await
    }

    async fn serve(
        self,
        server: Server<State>,
        source: Source,
        mut running: Running,
        mut signals: Signals,
    ) -> anyhow::Result<()> {
        let handle = server.handle();
        notify(&[NotifyState::Ready]);
        let supervise = async {
            let mut watch = tokio::time::interval(WATCH);
            loop {
                tokio::select! {
                    () = signals.stop.requested() => break,
                    _ = signals.hangup.recv() => tokio::select! {
                        // A keystore that does not answer keeps nobody from stopping.
                        () = signals.stop.requested() => break,
                        () = running.reload(&self, &source, &handle) => {}
                    },
                    _ = watch.tick() => running.watch(&self, &handle),
                }
            }
            notify(&[NotifyState::Stopping]);
            tracing::info!("stopping: no new connections, running requests are finished");
        };
        server.run(supervise, signals.stop.requested()).await?;
        self.finish(&running.keys).await
    }

    /// Connects the keystore, however long it takes until it answers.
    async fn wait_for_keystore(&self, config: &Config) -> anyhow::Result<Arc<Keys>> {
        let mut pause = Duration::from_secs(1);
        loop {
            match self.connect(config).await {
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

    async fn connect(&self, config: &Config) -> anyhow::Result<Arc<Keys>> {
        let store = config.keystore.connect().await;
        let store = store.with_context(|| config.keystore_place("").to_string())?;
        for warning in store.warnings() {
            tracing::warn!(keystore = %store, "{warning}");
        }
        let keys = Keys::new(config.cache, store, tokio::runtime::Handle::current());
        create_keys(&keys, &config.keys, &config.admin).await?;
        Ok(keys)
    }

    fn state(&self, config: &Config, tls: &Tls, keys: &Arc<Keys>) -> Arc<State> {
        self.state_of(&config.api, access(config), tls, keys)
    }

    fn state_of(&self, api: &BTreeMap<String, RouteConfig>, access: Access, tls: &Tls, keys: &Arc<Keys>) -> Arc<State> {
        State::new(api, access, keys.clone(), self.telemetry.clone(), self.started, tls.not_after)
    }

    async fn bind(
        &self,
        address: SocketAddr,
        limits: config::Limits,
        state: Arc<State>,
        tls: Tls,
    ) -> anyhow::Result<Server<State>> {
        let config::Limits { connections, shutdown } = limits;
        let limits = Limits { connections, shutdown, workers: memory::usable_cpus() };
        let server = Server::bind(address, limits, self.telemetry.clone(), state.clone(), tls).await;
        let server = server.with_context(|| format!("failed to listen on {address}"))?;
        state.set_server(server.handle());
        Ok(server)
    }

    fn apply_log(&self, log: config::Log) {
        self.telemetry.log.set_level(log.error);
        self.telemetry.audit.set_on(log.audit.is_some_and(|level| level <= audit::LEVEL));
    }

    /// Lets begun writes and recorded events reach their places.
    ///
    /// # Errors
    /// When standard output takes no more, and audit events are lost.
    async fn finish(&self, keys: &Keys) -> anyhow::Result<()> {
        let writes = async {
            keys.finish().await;
            self.retired.close();
            self.retired.wait().await;
        };
        if tokio::time::timeout(WRITES, writes).await.is_err() {
            tracing::warn!("the key store did not answer in time; what came of the last writes is unknown");
        }
        flush(&self.telemetry).await
    }
}

/// Lets recorded events reach their places.
///
/// # Errors
/// When standard output takes no more, and audit events are lost.
pub(super) async fn flush(telemetry: &Telemetry) -> anyhow::Result<()> {
    let Telemetry { audit, log, .. } = telemetry;
    let flushed = tokio::time::timeout(LAST_EVENTS, audit.flush()).await;
    // A log that cannot be written has no better place to say so.
    let _ = tokio::time::timeout(LAST_EVENTS, log.flush()).await;
    flushed.map_err(|_| anyhow::anyhow!("standard output takes no more; {} audit events are lost", audit.queued()))
}

/// Whether it is a failure of the keystore that may pass.
fn is_unreachable(error: &anyhow::Error) -> bool {
    let created = error.downcast_ref::<cache::Error>().map(|error| &*error.source);
    matches!(error.downcast_ref().or(created), Some(keystore::Error::Unreachable(_)))
}

/// Who may do what, as the config says.
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

/// Tells systemd, if it started us.
pub(super) fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "failed to notify the service manager");
    }
}
