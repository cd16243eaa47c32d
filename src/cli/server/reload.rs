//! What a reload replaces, and how: what is invalid changes nothing.

use std::sync::Arc;

use sd_notify::NotifyState;

use super::{Setup, Source, create_keys, notify};
use crate::api::State;
use crate::cache::Keys;
use crate::config::Config;
use crate::server::Handle;
use crate::server::tls::{self, Fingerprint, Tls};

/// The parts of a running server that a reload replaces.
pub(super) struct Running {
    config: Config,
    tls: Tls,
    /// The TLS files that were loaded last, or could not be.
    loaded: Fingerprint,
    /// The TLS files as they were seen last.
    seen: Fingerprint,
    pub(super) keys: Arc<Keys>,
}

impl Running {
    pub(super) fn new(config: Config, tls: Tls, files: Fingerprint, keys: Arc<Keys>) -> Self {
        Self { config, tls, loaded: files.clone(), seen: files, keys }
    }

    /// Reads the whole config again.
    pub(super) async fn reload(&mut self, setup: &Setup, source: &Source, handle: &Handle<State>) {
        notify_reloading();
        match self.try_reload(setup, source, handle).await {
            Ok(()) => tracing::info!(config = %source.path.display(), "config reloaded"),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "the config was not reloaded; the old one stays in force");
            }
        }
        notify(&[NotifyState::Ready]);
    }

    async fn try_reload(&mut self, setup: &Setup, source: &Source, handle: &Handle<State>) -> anyhow::Result<()> {
        let config = source.load()?;
        let files = tls::fingerprint(&config.tls);
        let tls = config.load_tls()?.keeping_sessions_of(&self.tls);
        let keys = self.keys_for(setup, &config).await?;
        if config.address != self.config.address || config.limits != self.config.limits {
            tracing::warn!("a changed address or limit takes effect at the next start only");
        }
        // From here on nothing fails.
        let state = setup.state(&config, &tls, &keys);
        state.set_server(handle.clone());
        handle.replace(state, tls.clone());
        keys.reconfigure(config.cache);
        setup.apply_log(config.log);
        let former = std::mem::replace(self, Self::new(config, tls, files, keys));
        if !Arc::ptr_eq(&former.keys, &self.keys) {
            setup.retired.spawn(async move { former.keys.finish().await });
        }
        Ok(())
    }

    /// The keys of the keystore that `config` names: those there are where it is the same, so that a reload in
    /// an outage keeps what is cached.
    async fn keys_for(&self, setup: &Setup, config: &Config) -> anyhow::Result<Arc<Keys>> {
        if config.keystore_id != self.config.keystore_id {
            return setup.connect(config).await;
        }
        let new = config.keys.iter().filter(|name| !self.config.keys.contains(name));
        create_keys(&self.keys, new, &config.admin).await?;
        Ok(self.keys.clone())
    }

    /// Loads the TLS files again when they have changed, and have then been the same for two looks: a key
    /// and its certificate are seldom replaced in one go. As long as they are unusable, the old ones stay.
    pub(super) fn watch(&mut self, setup: &Setup, handle: &Handle<State>) {
        let files = tls::fingerprint(&self.config.tls);
        let settled = files == self.seen;
        self.seen = files;
        if !settled || self.seen == self.loaded {
            return;
        }
        self.loaded = self.seen.clone();
        match self.config.load_tls() {
            Ok(tls) => {
                self.tls = tls.keeping_sessions_of(&self.tls);
                let state = setup.state(&self.config, &self.tls, &self.keys);
                state.set_server(handle.clone());
                handle.replace(state, self.tls.clone());
                tracing::info!(expires = %self.tls.not_after, "TLS files changed and were loaded");
            }
            Err(error) => {
                let error = anyhow::Error::from(error);
                let error = format!("{error:#}");
                tracing::error!(error, "TLS files changed and cannot be used; the old ones stay in force");
            }
        }
    }
}

/// As `Type=notify-reload` wants it: with the time at which the reload began.
fn notify_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "failed to read the clock for the service manager"),
    }
}
