//! Builds the KES API from a config, at start and at a reload. An invalid config changes nothing.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio_util::task::TaskTracker;

use super::access;
use super::served::Served;
use crate::api::State;
use crate::cli::daemon::{Daemon, Logging, Program};
use crate::cli::published;
use crate::config::Config;
use crate::kms;
use crate::server::tls::{self, Fingerprint, Tls};
use crate::telemetry::Telemetry;

/// How long running writes to the key store may take after the last request.
const WRITES: Duration = Duration::from_secs(10);

/// The source of the config.
pub(super) struct Source {
    pub(super) path: PathBuf,
    /// Instead of the config's address.
    pub(super) addr: Option<SocketAddr>,
}

impl Source {
    pub(super) fn load(&self) -> anyhow::Result<Config> {
        let (mut config, warnings) = Config::load(&self.path)?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        published::refuse(config.admin.as_str(), config.admin_place())?;
        config.address = self.addr.unwrap_or(config.address);
        Ok(config)
    }
}

/// The KES API over the keys that a config file names.
pub(in crate::cli) struct Kes {
    started: Instant,
    telemetry: Arc<Telemetry>,
    source: Source,
    config: Config,
    served: Served,
    /// The key manager of this process, of which it is another listener.
    kms: Option<Arc<kms::State>>,
    /// What is still under way to key stores that a reload replaced.
    retired: TaskTracker,
}

impl Kes {
    pub(super) fn new(
        daemon: &Daemon,
        source: Source,
        config: Config,
        served: Served,
        kms: Option<Arc<kms::State>>,
    ) -> Self {
        let (started, telemetry) = (daemon.started, daemon.telemetry.clone());
        Self { started, telemetry, source, config, served, kms, retired: TaskTracker::new() }
    }

    /// The state that the config describes.
    pub(super) fn state(&self) -> Arc<State> {
        let access = access(&self.config);
        let (keys, telemetry) = (self.served.keys(), self.telemetry.clone());
        State::new(&self.config.api, access, keys, telemetry, self.started, Some(self.config.hash()))
    }

    /// What is served, and which config says so.
    pub(in crate::cli) fn about(&self) -> String {
        format!("{}, {}", self.served, self.source.path.display())
    }

    /// What `config` names. If it is the same store, the present keys are kept, so that a reload in an outage does not
    /// empty the cache.
    async fn served_by(&self, config: &Config) -> anyhow::Result<Served> {
        if config.keystore_id != self.config.keystore_id {
            return Served::connect(config, self.kms.as_ref()).await;
        }
        // The keys of an enclave may be missing because it was when this server started.
        let is_new = |name: &&_| matches!(self.served, Served::Enclave(_)) || !self.config.keys.contains(name);
        let new = config.keys.iter().filter(is_new);
        self.served.create(new, &config.admin).await?;
        Ok(self.served.clone())
    }
}

#[async_trait(?Send)]
impl Program for Kes {
    type Service = State;

    fn tls_files(&self) -> Fingerprint {
        tls::fingerprint(&self.config.tls)
    }

    fn load_tls(&self) -> anyhow::Result<Tls> {
        Ok(self.config.load_tls()?)
    }

    async fn reload(&mut self) -> anyhow::Result<(Arc<State>, Tls)> {
        let config = self.source.load()?;
        let tls = config.load_tls()?;
        // In a key manager its own config says what is logged.
        let logging = match self.kms {
            None => Some(Logging::open(&self.telemetry, &config.log)?),
            Some(_) => None,
        };
        let served = self.served_by(&config).await?;
        if config.address != self.config.address || config.limits != self.config.limits {
            tracing::warn!("a changed address or limit takes effect at the next start only");
        }
        // Nothing fails from here on.
        served.reconfigure(config.cache);
        logging.into_iter().for_each(|logging| logging.apply(&self.telemetry));
        self.config = config;
        let former = std::mem::replace(&mut self.served, served);
        if !former.is(&self.served) {
            self.retired.spawn(async move { former.finish().await });
        }
        Ok((self.state(), tls))
    }

    async fn finish(&mut self) {
        let writes = async {
            self.served.finish().await;
            self.retired.close();
            self.retired.wait().await;
        };
        if tokio::time::timeout(WRITES, writes).await.is_err() {
            tracing::warn!("the key store did not answer in time; what came of the last writes is unknown");
        }
    }
}
