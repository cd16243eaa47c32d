//! `claviger server`: joins everything. Read [`Setup::start`] first.

mod dev;
mod message;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use crate::api::{SKIP_AUTH, State};
use crate::auth::{Access, Identity, Policy};
use crate::cache::Keys;
use crate::config::{self, Config};
use crate::crypto::{Algorithm, Key};
use crate::name::KeyName;
use crate::server::route::RouteConfig;
use crate::server::tls::{self, Tls};
use crate::server::{Handle, Limits, Server};
use crate::telemetry::{Telemetry, audit, log, metrics};
use crate::{clock, keystore, memory};

/// How often TLS files are looked at for changes.
const WATCH: Duration = Duration::from_secs(10);

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
}

/// Runs the server until it is told to stop.
pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let started = Instant::now();
    log_panics();
    memory::forbid_core_dumps().context("failed to forbid core dumps")?;
    let lock = memory::lock();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let telemetry = telemetry()?;
        let setup = Setup { started, telemetry, lock };
        if args.dev {
            return dev::run(setup, args.addr).await;
        }
        let path = args.config.context("no config file given; use '--config FILE', or '--dev' to try things out")?;
        let source = Source { path, addr: args.addr };
        setup.start(source).await
    })
}

/// A panic ends the request that caused it. What it says may hold anything, so only its place is logged.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "the program panicked; this is a defect, please report it");
    }));
}

fn telemetry() -> anyhow::Result<Arc<Telemetry>> {
    let log = log::Log::start(std::io::stderr())?;
    log::Layer::install(log.clone())?;
    let audit = audit::Audit::start(std::io::stdout())?;
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
}

/// The parts of a running server that a reload replaces.
struct Running {
    config: Config,
    tls: Tls,
    tls_files: Vec<Option<std::time::SystemTime>>,
    keys: Arc<Keys>,
}

impl Setup {
    /// Loads the config, connects the keystore, builds the state, binds the server, and serves.
    async fn start(self, source: Source) -> anyhow::Result<()> {
        let config = source.load()?;
        let tls_files = tls::fingerprint(&config.tls);
        let tls = load_tls(&config)?;
        let keys = self.connect(&config).await?;
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
        let running = Running { config, tls, tls_files, keys };
        self.serve(server, source, running).await
    }

    async fn serve(self, server: Server<State>, source: Source, mut running: Running) -> anyhow::Result<()> {
        let handle = server.handle();
        let mut hangup = signal(SignalKind::hangup())?;
        let mut stop = Stop::new()?;
        notify(&[NotifyState::Ready]);
        let mut watch = tokio::time::interval(WATCH);
        let keys = {
            let supervise = async {
                loop {
                    tokio::select! {
                        () = stop.requested() => break,
                        _ = hangup.recv() => self.reload(&source, &handle, &mut running).await,
                        _ = watch.tick() => self.reload_certificate(&handle, &mut running),
                    }
                }
                notify(&[NotifyState::Stopping]);
                tracing::info!("stopping: no new connections, running requests are finished");
            };
            server.run(supervise).await?;
            running.keys
        };
        self.finish(&keys).await;
        Ok(())
    }

    /// Reads the whole config again. What is invalid changes nothing.
    async fn reload(&self, source: &Source, handle: &Handle<State>, running: &mut Running) {
        notify(&[NotifyState::Reloading]);
        match self.try_reload(source, handle, running).await {
            Ok(()) => tracing::info!(config = %source.path.display(), "config reloaded"),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "the config was not reloaded; the old one stays in force");
            }
        }
        notify(&[NotifyState::Ready]);
    }

    async fn try_reload(&self, source: &Source, handle: &Handle<State>, running: &mut Running) -> anyhow::Result<()> {
        let config = source.load()?;
        let tls_files = tls::fingerprint(&config.tls);
        let tls = load_tls(&config)?.keeping_sessions_of(&running.tls);
        let keys = if config.keystore_id == running.config.keystore_id {
            running.keys.reconfigure(config.cache);
            create_keys(&running.keys, &config).await?;
            running.keys.clone()
        } else {
            self.connect(&config).await?
        };
        if config.address != running.config.address || config.limits != running.config.limits {
            tracing::warn!("a changed address or limit takes effect at the next start only");
        }
        let state = self.state(&config, &tls, &keys);
        state.set_server(handle.clone());
        handle.replace(state, tls.clone());
        self.apply_log(config.log);
        *running = Running { config, tls, tls_files, keys };
        Ok(())
    }

    /// Loads the TLS files again when they changed. As long as they are unusable, the old ones stay.
    fn reload_certificate(&self, handle: &Handle<State>, running: &mut Running) {
        let files = tls::fingerprint(&running.config.tls);
        if files == running.tls_files {
            return;
        }
        running.tls_files = files;
        match load_tls(&running.config) {
            Ok(tls) => {
                let tls = tls.keeping_sessions_of(&running.tls);
                let state = self.state(&running.config, &tls, &running.keys);
                state.set_server(handle.clone());
                handle.replace(state, tls.clone());
                running.tls = tls;
                tracing::info!(expires = %running.tls.not_after, "TLS files changed and were loaded");
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "TLS files changed and cannot be used; the old ones stay in force");
            }
        }
    }

    async fn connect(&self, config: &Config) -> anyhow::Result<Arc<Keys>> {
        let store = keystore::connect(&config.keystore).await?;
        let keys = Keys::new(config.cache, store, tokio::runtime::Handle::current());
        create_keys(&keys, config).await?;
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
    async fn finish(&self, keys: &Keys) {
        keys.finish().await;
        self.telemetry.audit.flush().await;
        self.telemetry.log.flush();
    }
}

fn load_tls(config: &Config) -> Result<Tls, tls::Error> {
    let client_optional = SKIP_AUTH.iter().any(|path| config.api.get(*path).is_some_and(|api| api.skip_auth));
    Tls::load(&config.tls, client_optional)
}

fn access(config: &Config) -> Access {
    let policies = config.policy.iter().map(|(name, policy)| {
        let rules = Policy::new(name.clone(), policy.allow.clone(), policy.deny.clone());
        (rules, policy.identities.clone())
    });
    Access::new(config.admin.clone(), policies.collect(), clock::now())
}

/// Creates the keys that the config names, where they are missing.
async fn create_keys(keys: &Arc<Keys>, config: &Config) -> anyhow::Result<()> {
    for name in &config.keys {
        create_key(keys, name, &config.admin).await.with_context(|| format!("failed to create the key '{name}'"))?;
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

/// The signals that end the server.
struct Stop {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Stop {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn requested(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Tells systemd, if it started us.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "failed to notify the service manager");
    }
}
