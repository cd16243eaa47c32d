//! The two ends of a run: a config file names each, or options name the enclave that keys go to.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use secrecy::{ExposeSecret as _, SecretString};

use crate::auth::enclave::ApiKey;
use crate::cli::environment::{self, KMS_API_KEY, KMS_ENCLAVE, KMS_SERVER};
use crate::cli::out;
use crate::client::{Client, Endpoint, Tls, Trust};
use crate::clock;
use crate::config::{Config, Finding, Holder};
use crate::keystore::{self, Waits};
use crate::migrate::{Enclave, Source, Target, enclave, source, target};
use crate::name::EnclaveName;

/// A setting is missing, both on the command line and in the environment. The program exits with 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(in crate::cli) struct Usage(&'static str);

/// The error where a transit engine cannot stand.
const TRANSIT: &str =
    "a transit engine is read and written by 'claviger migrate' only, and the other side is an enclave";

/// The place that keys are copied to.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Destination {
    /// The config file of the key store that keys go to.
    #[arg(long, visible_alias = "to", value_name = "FILE", conflicts_with_all = ["server", "enclave", "api_key", "insecure"])]
    target: Option<PathBuf>,
    /// Or the key manager that keys go to [env: MINIO_KMS_SERVER]
    #[arg(short, long, value_name = "HOST[,HOST...]", help_heading = "Key manager as target")]
    server: Option<String>,
    /// Its enclave [env: MINIO_KMS_ENCLAVE]
    #[arg(short, long, value_name = "NAME", help_heading = "Key manager as target")]
    enclave: Option<String>,
    /// The API key; other users can see it in the process list, so prefer the variable [env: MINIO_KMS_API_KEY]
    #[arg(short, long, value_name = "KEY", help_heading = "Key manager as target")]
    api_key: Option<SecretString>,
    /// Do not verify the key manager's certificate
    #[arg(short = 'k', long, help_heading = "Key manager as target")]
    insecure: bool,
}

impl Destination {
    /// Connects to it without creating anything.
    pub(super) async fn open(self, waits: &Waits) -> anyhow::Result<Box<dyn Target>> {
        let Some(file) = &self.target else { return Ok(Box::new(self.enclave(waits).await?)) };
        let context = || format!("the target ({})", file.display());
        let section = match holder(file)? {
            Holder::Enclave(config) => return Ok(Box::new(enclave(&config, waits).await.with_context(context)?)),
            Holder::Transit(_) => bail!(TRANSIT),
            Holder::Store(section) => section,
        };
        let target = target::Store::open(*section, waits).await.with_context(context)?;
        warn(file, target.warnings());
        Ok(Box::new(target))
    }

    /// The config file that names it; none: options do.
    pub(super) fn file(&self) -> Option<&Path> {
        self.target.as_deref()
    }

    /// Connects to it, which must be an enclave.
    pub(super) async fn enclave_only(self, waits: &Waits) -> anyhow::Result<Enclave> {
        let Some(file) = &self.target else { return self.enclave(waits).await };
        let Holder::Enclave(config) = holder(file)? else {
            bail!("the keys of a transit engine go to an enclave: name one in 'keystore.kms' of '{}'", file.display());
        };
        enclave(&config, waits).await.with_context(|| format!("the target ({})", file.display()))
    }

    /// Connects to the enclave that options and environment name.
    async fn enclave(self, waits: &Waits) -> anyhow::Result<Enclave> {
        let servers = self.server.or_else(|| environment::text(KMS_SERVER));
        let servers = servers.ok_or(Usage("no target: use '--target FILE', or '--server HOST' (MINIO_KMS_SERVER)"))?;
        let servers = Endpoint::parse_list(&servers).context("the address of the key manager")?;
        let name = self.enclave.or_else(|| environment::text(KMS_ENCLAVE)).filter(|name| !name.is_empty());
        let name = name.ok_or(Usage("no enclave of the target: use '--enclave NAME' (MINIO_KMS_ENCLAVE)"))?;
        let key = self.api_key.or_else(|| environment::secret(KMS_API_KEY));
        let key = key.ok_or(Usage("no API key for the target: set MINIO_KMS_API_KEY, or use '--api-key'"))?;
        let trust = match self.insecure {
            true => Trust::Anybody,
            false => Trust::System { also: environment::ssl_cert_file() },
        };
        connect(servers, EnclaveName::parse(&name)?, &key, &trust, waits).await
    }
}

/// Connects to the source.
pub(in crate::cli) async fn source(file: &Path, waits: &Waits) -> anyhow::Result<Box<dyn Source>> {
    let context = || format!("the source ({})", file.display());
    let section = match holder(file)? {
        Holder::Enclave(config) => return Ok(Box::new(enclave(&config, waits).await.with_context(context)?)),
        Holder::Transit(_) => bail!(TRANSIT),
        Holder::Store(section) => section,
    };
    let Some(store) = section.open().await.with_context(context)? else {
        bail!("the source does not exist: the key store of '{}'; nothing was created", file.display());
    };
    let source = source::Store::new(store, waits);
    warn(file, source.warnings());
    Ok(Box::new(source))
}

/// Connects to the enclave that a config names.
pub(super) async fn enclave(config: &enclave::config::Config, waits: &Waits) -> anyhow::Result<Enclave> {
    ensure!(!config.endpoint.is_empty(), "keystore.kms.endpoint must name a server");
    let servers = config.endpoint.iter().map(|endpoint| Endpoint::parse(endpoint)).collect::<Result<_, _>>()?;
    let trust = Trust::System { also: config.tls.ca.clone().or_else(environment::ssl_cert_file) };
    connect(servers, config.enclave.clone(), &config.api_key, &trust, waits).await
}

async fn connect(
    servers: Vec<Endpoint>,
    name: EnclaveName,
    key: &SecretString,
    trust: &Trust,
    waits: &Waits,
) -> anyhow::Result<Enclave> {
    let key = ApiKey::parse(key.expose_secret())?;
    let client = Client::new(servers, Tls::with_enclave_key(&key, trust, clock::now())?);
    Ok(Enclave::connect(client, name, key.identity(), waits).await?)
}

/// Warns about dangerous settings of a store.
fn warn(config: &Path, warnings: &[String]) {
    for warning in warnings {
        out::note(format_args!("Warning: {}: {warning}", config.display()));
    }
}

/// Loads the section of a key store, and shows what is odd or dangerous about it.
pub(in crate::cli) fn load(path: &Path) -> anyhow::Result<keystore::Section> {
    let (section, warnings) = Config::load_keystore(path)?;
    warn_of(path, &warnings, &section);
    Ok(section)
}

/// Whether a file names a transit engine. One that cannot be read names none; whoever reads it next says why.
pub(super) fn names_transit(path: &Path) -> bool {
    matches!(Config::load_holder(path), Ok((Holder::Transit(_), _)))
}

/// As [`load`], where an enclave of a key manager, or a transit engine, may stand, too.
pub(super) fn holder(path: &Path) -> anyhow::Result<Holder> {
    let (holder, warnings) = Config::load_holder(path)?;
    match &holder {
        Holder::Store(section) => warn_of(path, &warnings, section),
        Holder::Enclave(_) | Holder::Transit(_) => warn_of_file(&warnings),
    }
    Ok(holder)
}

fn warn_of(path: &Path, warnings: &[Finding], section: &keystore::Section) {
    warn_of_file(warnings);
    for warning in section.encrypt.iter().flat_map(keystore::seal::Config::warnings) {
        out::note(format_args!("Warning: {}: {warning}", path.display()));
    }
}

fn warn_of_file(warnings: &[Finding]) {
    for warning in warnings {
        out::note(format_args!("Warning: {warning}"));
    }
}
