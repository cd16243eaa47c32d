//! `claviger kms server`: the key manager over its own data. Read [`start`] first.

mod certificate;
mod place;
mod rotation;
mod vault;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use secrecy::ExposeSecret as _;

use self::certificate::Source;
use self::place::Place;
use self::rotation::Rotation;
use crate::auth::enclave::ApiKey;
use crate::cli::daemon::{self, Daemon, Listen, Logging, Message, Program, message};
use crate::cli::environment::{self, KMS_HSM_KEY};
use crate::cli::prompt::Consent;
use crate::cli::{called, input, published, server, words};
use crate::config::{
    self,
    kms::{Config, Hsm},
};
use crate::kms::seal::{ENVIRONMENT, HsmKey, Provider, Providers, Remote};
use crate::kms::{Admin, Ended, HISTORY, State};
use crate::server::tls::{Fingerprint, Tls};
use crate::telemetry::{Telemetry, log};
use crate::{clock, memory};

/// The port of key managers.
const PORT: u16 = 7373;

/// Start a key manager
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The directory of the data; made if it is missing
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
    /// Serve the KES API, too: the config file of a KES whose key store is an enclave; may be given several times
    #[arg(long, value_name = "FILE")]
    kes: Vec<PathBuf>,
    /// Start as a single server on the data of a node, when its cluster is lost for ever
    ///
    /// What the other servers have changed since this one has heard of them is lost. Do it on one server only.
    #[arg(long, conflicts_with = "dev")]
    alone: bool,
    #[command(flatten)]
    consent: Consent,
    /// Start for development: data in memory, with a new certificate and new keys
    #[arg(long, conflicts_with_all = ["directory", "config"])]
    dev: bool,
}

/// Runs the server until it is told to stop.
pub(super) fn run(args: Args) -> anyhow::Result<()> {
    daemon::run(args.dev, async |daemon| {
        daemon.telemetry.log.records().keep(HISTORY);
        if let memory::Lock::Disabled(why) = &daemon.lock {
            tracing::warn!("memory is not locked: {why}");
        }
        start(args, daemon).await
    })
}

/// Opens the data, loads the certificate, listens, and serves.
async fn start(args: Args, daemon: Daemon) -> anyhow::Result<()> {
    let config = args.config.as_deref().map(load).transpose()?.unwrap_or_default();
    let providers = providers(&config, args.dev).await?;
    let (admin, root) = admin(&config, &providers)?;
    let (identity, log) = (admin.identity, config.log.clone());
    if !args.dev {
        published::refuse(&identity.to_hex(), "the administrator")?;
    }
    let logging = daemon.open_log(&log)?;
    let address = args.address.unwrap_or_else(|| SocketAddr::new(listening(args.dev), PORT));
    let place = Place { directory: args.directory.clone(), host: args.host.clone().unwrap_or_else(|| host(address)) };
    let keeper = if args.alone {
        place.open_alone(&args.consent, &config, providers, admin).await?
    } else {
        place.open(&config, providers, admin).await?
    };
    let source = Source::new(&config, args.directory.as_deref(), args.host.as_deref(), clock::now())?;
    let tls = source.load()?;
    let state = State::new(keeper, daemon.telemetry.clone(), daemon.started)?;
    logging.apply(&daemon.telemetry);
    state.appear().await?;
    if let Some(file) = args.config.clone() {
        state.can_move_in(place.moving(file));
    }
    let open = {
        let (state, gate) = (state.clone(), daemon.gate());
        async move { state.keep_open(gate).await }
    };
    tokio::spawn(open);

    let telemetry = daemon.telemetry.clone();
    let vault =
        config.vault.clone().map(|settings| (args.config.clone(), settings, source.with(&config), state.clone()));
    let rotation = Rotation::start(state.clone(), config.rotation.clone());
    let program = KeyManager { telemetry, file: args.config, config, source, state: state.clone(), rotation };
    let listener =
        daemon.listen("the key manager", address, config::Limits::default(), program, (state.clone(), tls)).await?;
    let vault = match vault {
        Some((file, settings, source, state)) => Some(vault::listen(&daemon, file, settings, source, state).await?),
        None => None,
    };
    let address = listener.address();
    let host = args.host.unwrap_or_else(|| host(address));
    listener.state().set_host(host.clone());

    let mut doors = Vec::new();
    for file in args.kes {
        doors.push(server::listen(&daemon, &state, file).await?);
    }

    let certificate = listener.program().source.file(address)?;
    let mut message = Message::new();
    message.line("Data", &args.directory.map_or_else(|| "in memory".to_owned(), |path| path.display().to_string()));
    message.line("Host", &format_args!("https://{host}"));
    if host != address.to_string() {
        message.line("Address", &format_args!("https://{address}"));
    }
    if let Some(vault) = &vault {
        message.line("Vault API", &format_args!("https://{}", vault.address()));
    }
    message.line("Admin", &identity);
    if root.is_some() && !args.dev {
        let hint = format!("with {KMS_HSM_KEY} set, 'claviger kms identity --admin' shows its API key");
        message.line("", &words::by_name(called(), hint));
    }
    let file = certificate.as_ref().map(|(path, _)| path.display().to_string());
    if let Some(file) = &file {
        message.line("Certificate", file);
    }
    for door in &doors {
        message.endpoints("KES API", door.address());
        message.line("", &door.program().about());
    }
    message.process(&log, &daemon.lock);
    let local = if address.ip().is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { address.ip() };
    let endpoint = format!("https://{}", SocketAddr::new(local, address.port()));
    let exports = [
        Some(("MINIO_KMS_SERVER", endpoint.as_str())),
        // The key is of this server only, which keeps nothing, unless an HSM key was given that others use, too.
        root.as_ref().map(|key| ("MINIO_KMS_API_KEY", key.expose())),
        file.as_deref().map(|path| ("SSL_CERT_FILE", path)),
    ];
    let exports: Vec<_> = exports.into_iter().flatten().filter(|_| args.dev).collect();
    message.print(&exports)?;
    let mut listeners: Vec<Box<dyn Listen>> = vec![Box::new(listener)];
    listeners.extend(doors.into_iter().map(|door| Box::new(door) as _));
    if let Some(vault) = vault {
        listeners.push(Box::new(vault));
    }
    daemon.serve(listeners).await
}

/// The key manager's own protocol over its data.
struct KeyManager {
    telemetry: Arc<Telemetry>,
    /// The config file, where there is one.
    file: Option<PathBuf>,
    config: Config,
    source: Source,
    state: Arc<State>,
    rotation: Rotation,
}

#[async_trait(?Send)]
impl Program for KeyManager {
    type Service = State;

    fn tls_files(&self) -> Fingerprint {
        self.source.fingerprint()
    }

    fn load_tls(&self) -> anyhow::Result<Tls> {
        self.source.load()
    }

    async fn reload(&mut self) -> anyhow::Result<(Arc<State>, Tls)> {
        let Some(file) = &self.file else { return Ok((self.state.clone(), self.source.load()?)) };
        let config = load(file)?;
        let source = self.source.with(&config);
        let tls = source.load()?;
        let logging = Logging::open(&self.telemetry, &config.log)?;
        if config.admin != self.config.admin || config.hsm.keys().ne(self.config.hsm.keys()) {
            tracing::warn!("a changed administrator or HSM takes effect at the next start only");
        }
        if config.cluster.is_some() != self.config.cluster.is_some() {
            tracing::warn!("a changed 'cluster' section takes effect at the next start, or by 'claviger kms join'");
        }
        // Nothing fails from here on.
        logging.apply(&self.telemetry);
        self.rotation.set(config.rotation);
        self.source = source;
        Ok((self.state.clone(), tls))
    }

    fn failed(&self) -> Pin<Box<dyn Future<Output = anyhow::Error>>> {
        let state = self.state.clone();
        Box::pin(async move {
            tokio::select! {
                failed = state.failed() => failed.into(),
                ended = state.ended() => match ended {
                    Ended::Removed => daemon::Finished(ended.to_string()).into(),
                    ended => ended.into(),
                }
            }
        })
    }

    async fn finish(&mut self) {
        self.rotation.stop().await;
        self.state.finish().await;
    }
}

/// Reads the config, and logs what is odd about it.
fn load(file: &Path) -> anyhow::Result<Config> {
    let (config, warnings) = Config::load(file)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(config)
}

fn listening(dev: bool) -> IpAddr {
    IpAddr::V4(if dev { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED })
}

/// The providers that this server can unseal with.
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
                // Another seal may be enough: a restart must not need all providers.
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

/// The administrator, and its API key if that is derived from the HSM key.
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

/// A guess of the `host:port` at which clients reach a server that listens on `address`.
fn host(address: SocketAddr) -> String {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        ip => {
            let all = message::local_addresses();
            all.iter().find(|address| !address.is_loopback()).or(all.first()).copied().unwrap_or(ip)
        }
    };
    SocketAddr::new(ip, address.port()).to_string()
}
