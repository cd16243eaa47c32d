//! Builds the KES API from a config, at start and at a reload. An invalid config changes nothing.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio_util::task::TaskTracker;

use super::{access, connect, create_keys};
use crate::api::State;
use crate::cache::Keys;
use crate::cli::daemon::{Daemon, Program, apply_log};
use crate::cli::published;
use crate::config::Config;
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

/// The KES API over the key store of a config file.
pub(super) struct Kes {
    started: Instant,
    telemetry: Arc<Telemetry>,
    source: Source,
    config: Config,
    keys: Arc<Keys>,
    /// What is still under way to key stores that a reload replaced.
    retired: TaskTracker,
}

impl Kes {
    pub(super) fn new(daemon: &Daemon, source: Source, config: Config, keys: Arc<Keys>) -> Self {
        let (started, telemetry) = (daemon.started, daemon.telemetry.clone());
        Self { started, telemetry, source, config, keys, retired: TaskTracker::new() }
    }

    /// The state that the config describes.
    pub(super) fn state(&self) -> Arc<State> {
        let access = access(&self.config);
        State::new(&self.config.api, access, self.keys.clone(), self.telemetry.clone(), self.started)
    }

    /// The keys of the key store that `config` names. If it is the same store, the present keys are kept, so that a
    /// reload in an outage does not empty the cache.
    async fn keys_for(&self, config: &Config) -> anyhow::Result<Arc<Keys>> {
        if config.keystore_id != self.config.keystore_id {
            return connect(config).await;
        }
        let new = config.keys.iter().filter(|name| !self.config.keys.contains(name));
        create_keys(&self.keys, new, &config.admin).await?;
        Ok(self.keys.clone())
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
        let keys = self.keys_for(&config).await?;
        if config.address != self.config.address || config.limits != self.config.limits {
            tracing::warn!("a changed address or limit takes effect at the next start only");
        }
        // Nothing fails from here on.
        keys.reconfigure(config.cache);
        apply_log(&self.telemetry, config.log);
        self.config = config;
        let former = std::mem::replace(&mut self.keys, keys);
        if !Arc::ptr_eq(&former, &self.keys) {
            self.retired.spawn(async move { former.finish().await });
        }
        Ok((self.state(), tls))
    }

    async fn finish(&mut self) {
        let writes = async {
            self.keys.finish().await;
            self.retired.close();
            self.retired.wait().await;
        };
        if tokio::time::timeout(WRITES, writes).await.is_err() {
            tracing::warn!("the key store did not answer in time; what came of the last writes is unknown");
        }
    }
}
