//! The listener of the Vault-compatible API.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use super::certificate::Source;
use crate::cli::daemon::{Daemon, Listener, Program};
use crate::config::{self, kms::Config};
use crate::kms;
use crate::server::tls::{Fingerprint, Tls};
use crate::vault::{self, State};

/// The Vault-compatible API over the enclaves of a key manager.
pub(super) struct Vault {
    /// The config file of the key manager, where there is one.
    file: Option<PathBuf>,
    settings: vault::Config,
    source: Source,
    state: Arc<State>,
}

/// Listens where the config says. The certificates are those of the key manager.
pub(super) async fn listen(
    daemon: &Daemon,
    file: Option<PathBuf>,
    settings: vault::Config,
    source: Source,
    kms: Arc<kms::State>,
) -> anyhow::Result<Listener<Vault>> {
    let (address, limits, tls) = (settings.address, config::Limits::default(), source.load()?);
    let state = State::new(kms, &settings);
    let program = Vault { file, settings, source, state: state.clone() };
    daemon.listen("the Vault-compatible API", address, limits, program, (state, tls)).await
}

#[async_trait(?Send)]
impl Program for Vault {
    type Service = State;

    fn tls_files(&self) -> Fingerprint {
        self.source.fingerprint()
    }

    fn load_tls(&self) -> anyhow::Result<Tls> {
        self.source.load()
    }

    async fn reload(&mut self) -> anyhow::Result<(Arc<State>, Tls)> {
        let Some(file) = &self.file else { return Ok((self.state.clone(), self.source.load()?)) };
        // The listener of the key manager logs the warnings.
        let (config, _) = Config::load(file)?;
        let source = self.source.with(&config);
        let tls = source.load()?;
        if config.vault.as_ref() != Some(&self.settings) {
            tracing::warn!("a changed 'vault' section takes effect at the next start only");
        }
        self.source = source;
        Ok((self.state.clone(), tls))
    }

    async fn finish(&mut self) {}
}
