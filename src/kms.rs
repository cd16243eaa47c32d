//! The key manager: keys in enclaves, kept by itself, and the protocol of its clients.
//!
//! `docs/key-manager.md` is for its operators; `docs/formats.md` says what is on its disk.

mod account;
mod backup;
mod command;
mod draft;
mod error;
mod keeper;
mod known;
mod loading;
mod log;
mod map;
mod policy;
mod read;
mod record;
mod ring;
pub mod seal;
mod serve;
mod snapshot;
mod status;
pub mod store;
#[cfg(test)]
mod tests;
pub mod wire;
mod writer;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use hyper::header::HeaderValue;

use self::wire::{Encoding, ErrResponse};
use self::writer::Writer;
use crate::auth::{Caller, Denied, Identity, Requirement, admit, enclave, peer};
use crate::server::{self, Handle, Reply, Route, Router, Service};
use crate::telemetry::Telemetry;

pub use self::command::{Action, actions};
pub use self::error::Error;
pub use self::keeper::{Admin, Error as OpenError, Keeper};
pub use self::log::HISTORY;

/// A megabyte as clients count.
const MB: u64 = 1_000_000;

/// The largest backup that is taken back, in bytes.
const BACKUP: u64 = 1_024 * MB;

/// The key manager's paths. Read this table to know every endpoint and its limits.
pub fn routes() -> Vec<Route<State>> {
    let long = Some(Duration::from_secs(300));
    vec![
        Route::get("/version", status::version).open(),
        Route::get("/v1/health/live", status::live).open(),
        Route::get("/v1/health/ready", status::ready).open().vital(),
        Route::get(METRICS, status::metrics).vital(),
        Route::post("/v1/kms/", serve::execute).max_body(MB).any_identity().listing(),
        Route::get("/v1/db", serve::backup).timeout(long),
        Route::put("/v1/db", serve::restore).max_body(BACKUP).timeout(long),
        Route::post("/v1/debug/log", log::follow).max_body(MB).timeout(None),
        Route::post("/v1/debug/restart", status::unsupported),
        Route::get("/v1/debug/pprof", status::unsupported),
        Route::post("/v1/debug/pprof", status::unsupported),
        Route::delete("/v1/debug/pprof", status::unsupported),
    ]
}

/// How long the log may take the last changes when the server ends.
const LAST_LINES: Duration = Duration::from_secs(5);

/// What whoever is known to any enclave may read: it shows nothing of them.
const METRICS: &str = "/v1/health/metrics";

/// Everything the handlers need.
pub struct State {
    router: Router<Self>,
    writer: Writer,
    telemetry: Arc<Telemetry>,
    started: Instant,
    /// The server that serves this, once it is bound.
    server: OnceLock<Handle<Self>>,
    /// Where clients reach that server, as `host:port`.
    host: OnceLock<String>,
}

impl State {
    /// A state that serves what `keeper` has.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn new(keeper: Keeper, telemetry: Arc<Telemetry>, started: Instant) -> std::io::Result<Arc<Self>> {
        let (router, writer) = (Router::new(routes(), &BTreeMap::new()), Writer::start(keeper)?);
        let (server, host) = (OnceLock::new(), OnceLock::new());
        Ok(Arc::new(Self { router, writer, telemetry, started, server, host }))
    }

    /// Tells the state at which `host:port` clients reach it. Only the first call counts.
    pub fn set_host(&self, host: String) {
        let _ = self.host.set(host);
    }

    fn host(&self) -> String {
        self.host.get().cloned().unwrap_or_default()
    }

    /// Waits until every change is written that somebody has asked for.
    ///
    /// The thread that writes may wait for the log. When that takes nothing any more, the server ends without it.
    pub async fn finish(&self) {
        tokio::select! {
            () = self.writer.finish() => {}
            () = tokio::time::sleep(LAST_LINES) => {
                self.telemetry.log.stop_waiting();
                self.writer.finish().await;
            }
        }
    }

    fn may_call(&self, identity: &Identity, path: &str) -> bool {
        let snapshot = self.writer.snapshot();
        enclave::Identity::of(identity).is_some_and(|identity| match path {
            METRICS => snapshot.knows(&identity),
            _ => snapshot.is_sysadmin(&identity),
        })
    }
}

impl Service for State {
    fn router(&self) -> &Router<Self> {
        &self.router
    }

    /// Lets system administrators in. What others may do stands in commands, and is decided for each.
    fn authorize(
        &self,
        peer: Result<Identity, peer::Error>,
        requirement: Requirement,
        path: &str,
    ) -> Result<Caller, Denied> {
        admit(peer, requirement, |identity| {
            if self.may_call(identity, path) { Ok(()) } else { Err(Denied::NotAllowed { policy: None }) }
        })
    }

    fn refuse(error: &server::Error, accept: Option<&HeaderValue>) -> Reply {
        let encoding = Encoding::of(accept);
        let message = ErrResponse { message: error.message().to_owned() };
        Reply::bytes(encoding.content_type(), encoding.encode(&message)).with_status(error.status())
    }

    fn spell(identity: &Identity) -> Cow<'_, str> {
        enclave::Identity::of(identity).map_or(identity.as_str().into(), |identity| identity.to_string().into())
    }

    fn denied(denied: Denied) -> server::Error {
        match denied {
            Denied::NoIdentity(error) => server::Error::bad_request(error),
            Denied::NotAllowed { .. } => Error::Denied.into(),
        }
    }

    fn served_by(&self, server: Handle<Self>) {
        let reauthorize = server.clone();
        self.writer.on_new_rights(move || reauthorize.reauthorize());
        let _ = self.server.set(server);
    }
}
