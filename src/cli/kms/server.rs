//! `claviger kms server`: joins everything. Read [`start`] first.

mod certificate;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, bail};
use secrecy::ExposeSecret as _;

use self::certificate::{Message, Source};
use crate::auth::enclave::ApiKey;
use crate::cli::environment::{self, KMS_HSM_KEY};
use crate::cli::input;
use crate::cli::server::message::local_addresses;
use crate::cli::server::signals::Signals;
use crate::cli::server::{WATCH, flush, notify, telemetry};
use crate::config::{
    self,
    kms::{Config, Hsm},
};
use crate::kms::seal::{ENVIRONMENT, HsmKey, Provider, Providers, Remote, unseal};
use crate::kms::store::{Mem, Redb, Store};
use crate::kms::{Admin, HISTORY, Keeper, State};
use crate::server::tls::Fingerprint;
use crate::server::{Handle, Limits, Server};
use crate::telemetry::{Telemetry, audit, log};
use crate::{clock, memory};

/// The port of key managers.
const PORT: u16 = 7373;

/// Start a key manager
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where the data is; made if it is missing
    #[arg(required_unless_present = "dev", value_name = "DIR")]
    directory: Option<PathBuf>,
    /// The address to listen on [default: 0.0.0.0:7373, with --dev 127.0.0.1:7373]
    #[arg(long, value_name = "IP:PORT", value_parser = config::address)]
    address: Option<SocketAddr>,
    /// Where clients reach this server, as host:port [default: the address, or one of this machine]
    #[arg(long, value_name = "HOST:PORT")]
    host: Option<String>,
    /// The config file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Start for development: data in memory, a certificate and keys made on the spot
    #[arg(long, conflicts_with_all = ["directory", "config"])]
    dev: bool,
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
        telemetry.log.records().keep(HISTORY);
        if let memory::Lock::Disabled(why) = &lock {
            tracing::warn!("memory is not locked: {why}");
        }
        start(args, started, telemetry).await
    })
}

/// Opens the data, loads the certificate, binds the server, and serves.
async fn start(args: Args, started: Instant, telemetry: Arc<Telemetry>) -> anyhow::Result<()> {
    let signals = Signals::new()?;
    let config = args.config.as_deref().map(Config::load).transpose()?.unwrap_or_default();
    let providers = providers(&config, args.dev).await?;
    let (admin, root) = admin(&config, &providers)?;
    let keeper = open(args.directory.clone(), providers, admin).await?;

    let address = args.address.unwrap_or_else(|| SocketAddr::new(listening(args.dev), PORT));
    let source = Source::new(&config, args.directory.as_deref(), args.host.as_deref(), clock::now())?;
    // Before they are loaded: no later change is missed.
    let seen = source.fingerprint();
    let tls = source.load()?;
    let state = State::new(keeper, telemetry.clone(), started, tls.not_after)?;
    telemetry.log.set_level(config.log.error);
    telemetry.audit.set_on(config.log.audit.is_some_and(|level| level <= audit::LEVEL));
    let config::Limits { connections, shutdown } = config::Limits::default();
    let limits = Limits { connections, shutdown, workers: memory::usable_cpus() };
    let server = Server::bind(address, limits, telemetry.clone(), state.clone(), tls).await;
    let server = server.with_context(|| format!("failed to listen on {address}"))?;
    let address = server.address()?;
    let host = args.host.unwrap_or_else(|| host(address));
    state.set_server(server.handle(), host.clone());
    let file = source.file(address)?;
    let data = args.directory.map_or_else(|| "in memory".to_owned(), |directory| directory.display().to_string());
    let message = Message {
        data,
        host: &host,
        address,
        admin: admin.identity.to_string(),
        api_key: root.as_ref(),
        certificate: file.as_ref().map(|(path, _)| path.as_path()),
        exports: args.dev,
    };
    message.print()?;
    serve(server, state, (source, seen), signals, &telemetry).await
}

async fn serve(
    server: Server<State>,
    state: Arc<State>,
    (source, mut seen): (Source, Option<Fingerprint>),
    mut signals: Signals,
    telemetry: &Telemetry,
) -> anyhow::Result<()> {
    let handle = server.handle();
    notify(&[sd_notify::NotifyState::Ready]);
    let supervise = async {
        let mut watch = tokio::time::interval(WATCH);
        loop {
            tokio::select! {
                () = signals.stop.requested() => break,
                _ = signals.hangup.recv() => reload(&source, &handle),
                _ = watch.tick() => {
                    let now = source.fingerprint();
                    if now != seen {
                        seen = now;
                        reload(&source, &handle);
                    }
                }
            }
        }
        notify(&[sd_notify::NotifyState::Stopping]);
        tracing::info!("stopping: no new connections, running requests are finished");
    };
    server.run(supervise, signals.stop.requested()).await?;
    state.finish().await;
    flush(telemetry).await
}

/// Takes new certificates up.
fn reload(source: &Source, handle: &Handle<State>) {
    match source.load() {
        Ok(tls) => {
            handle.replace(handle.state(), tls);
            tracing::info!("the certificates were loaded again");
        }
        Err(error) => {
            tracing::error!(cause = format!("{error:#}"), "the certificates cannot be loaded; the old ones are kept")
        }
    }
}

fn listening(dev: bool) -> IpAddr {
    IpAddr::V4(if dev { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED })
}

/// Opens the data, on a thread of its own: there may be much of it, and an HSM to wait for.
async fn open(directory: Option<PathBuf>, providers: Providers, admin: Admin) -> anyhow::Result<Keeper> {
    let open = move || -> anyhow::Result<Keeper> {
        let store: Box<dyn Store> = match directory {
            Some(directory) => {
                // Before anything is written: with the wrong key nothing is.
                if let Some(seals) = Redb::peek(&directory).filter(|seals| !seals.is_empty()) {
                    unseal(&seals, &providers)?;
                }
                Box::new(Redb::open(&directory)?)
            }
            None => Box::new(Mem::default()),
        };
        Ok(Keeper::open(store, providers, admin)?)
    };
    tokio::task::spawn_blocking(open).await?
}

/// Everything that this server can unseal with.
async fn providers(config: &Config, dev: bool) -> anyhow::Result<Providers> {
    let mut providers = Providers::new();
    match environment::secret(KMS_HSM_KEY) {
        Some(key) => {
            let key = HsmKey::parse(key.expose_secret()).context(KMS_HSM_KEY)?;
            providers.insert(ENVIRONMENT.to_owned(), Provider::Hsm(key));
        }
        None if dev => {
            providers.insert(ENVIRONMENT.to_owned(), Provider::Hsm(HsmKey::generate()?));
        }
        None => {}
    }
    for (name, hsm) in &config.hsm {
        let provider = match hsm {
            Hsm::File(file) => {
                let key = input::read_line(file)?;
                let key = HsmKey::parse(key.expose_secret());
                Provider::Hsm(key.with_context(|| format!("hsm.{name}: '{}'", file.display()))?)
            }
            Hsm::Provider(config) => match Remote::connect(config).await {
                Ok(remote) => Provider::Remote(remote),
                // Another seal may do: a server that starts again must not need all of them.
                Err(error) => {
                    let why = log::causes(&error);
                    tracing::warn!(name, cause = why, "the HSM of the config cannot be used until the next start");
                    Provider::Lost(why)
                }
            },
        };
        providers.insert(name.clone(), provider);
    }
    if providers.is_empty() {
        bail!(
            "no HSM key: set {KMS_HSM_KEY}, or name an HSM under 'hsm' in the config; 'claviger kms --soft-hsm' makes a key"
        );
    }
    Ok(providers)
}

/// Who may do everything, and the key of that one where it is worked out.
fn admin(config: &Config, providers: &Providers) -> anyhow::Result<(Admin, Option<ApiKey>)> {
    if let Some(identity) = config.admin.identity {
        return Ok((Admin { identity, is_derived: false }, None));
    }
    let Some(Provider::Hsm(key)) = providers.get(ENVIRONMENT) else {
        bail!(
            "no administrator: name 'admin.identity' in the config. Only from the HSM key in {KMS_HSM_KEY} an \
             administrator's API key is worked out"
        );
    };
    let root = key.root_api_key();
    Ok((Admin { identity: root.identity(), is_derived: true }, Some(root)))
}

/// Where clients reach a server that listens on `address`, as far as one can guess.
fn host(address: SocketAddr) -> String {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        ip => {
            let all = local_addresses();
            all.iter().find(|address| !address.is_loopback()).or(all.first()).copied().unwrap_or(ip)
        }
    };
    SocketAddr::new(ip, address.port()).to_string()
}
