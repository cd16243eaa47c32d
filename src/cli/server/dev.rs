//! `--dev`: a server for trying things out. It keeps everything in memory.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;

use super::KES_API;
use crate::api::State;
use crate::auth::Access;
use crate::auth::api_key::ApiKey;
use crate::cache::{self, Keys};
use crate::cli::daemon::certificate::Ephemeral;
use crate::cli::daemon::{Daemon, Message, Program, message};
use crate::server::tls::{Fingerprint, Tls};
use crate::{clock, config, keystore};

/// The default address of a development server: other machines cannot reach it.
const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7373);

pub(super) async fn run(daemon: Daemon, address: Option<SocketAddr>) -> anyhow::Result<()> {
    let admin = ApiKey::generate()?;
    let identity = admin.identity();
    let store = Arc::new(keystore::mem::Store::default());
    let keys = Keys::new(cache::Config::default(), store, tokio::runtime::Handle::current());
    let access = Access::new(identity.clone(), Vec::new(), clock::now());
    let (store, telemetry) = (Arc::new(keys.clone()), daemon.telemetry.clone());
    let state = State::new(&BTreeMap::new(), access, store, telemetry, daemon.started, None);
    let certificate = Ephemeral::make(None, clock::now())?;
    let log = config::Log::default();
    daemon.open_log(&log)?.apply(&daemon.telemetry);
    let program = Dev { tls: certificate.tls.clone(), state: state.clone(), keys: keys.clone() };
    let (address, limits) = (address.unwrap_or(ADDRESS), config::Limits::default());
    let listener = daemon.listen(KES_API, address, limits, program, (state, certificate.tls.clone())).await?;
    let file = certificate.file(listener.address())?;
    let mut message = Message::new();
    message.line("Key store", &keys.store());
    message.endpoints("API", listener.address());
    message.line("Admin", &identity);
    message.process(&log, &daemon.lock);
    // The key is of this server only, which keeps nothing: it may be shown.
    message.print(&[
        ("MINIO_KES_SERVER", message::endpoints(listener.address()).first().map_or("", String::as_str)),
        ("MINIO_KES_API_KEY", admin.expose().as_str()),
        ("SSL_CERT_FILE", &file.path().display().to_string()),
    ])?;
    daemon.serve(vec![Box::new(listener)]).await
}

/// The KES API over keys in memory.
struct Dev {
    tls: Tls,
    state: Arc<State>,
    keys: Arc<Keys>,
}

#[async_trait(?Send)]
impl Program for Dev {
    type Service = State;

    fn tls_files(&self) -> Fingerprint {
        Fingerprint::default()
    }

    fn load_tls(&self) -> anyhow::Result<Tls> {
        Ok(self.tls.clone())
    }

    async fn reload(&mut self) -> anyhow::Result<(Arc<State>, Tls)> {
        Ok((self.state.clone(), self.tls.clone()))
    }

    async fn finish(&mut self) {
        self.keys.finish().await;
    }
}
