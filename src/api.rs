//! The KES API: the route table, and what the handlers share.

mod error;
mod identity;
mod key;
mod log;
mod policy;
mod status;
pub mod wire;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::auth::{Access, Caller, Denied, Identity, Requirement, peer};
use crate::cache::Keys;
use crate::server::route::RouteConfig;
use crate::server::{Handle, Route, Router, Service};
use crate::telemetry::Telemetry;

pub(crate) use self::status::COMMIT;

/// A megabyte as the API counts.
const MB: u64 = 1_000_000;

/// The KES API. Read this table to know every endpoint and its limits.
pub fn routes() -> Vec<Route<State>> {
    let short = Some(Duration::from_secs(10));
    vec![
        Route::get("/version", status::version).open().timeout(short),
        Route::get("/v1/ready", status::ready).overdue(error::not_reachable).vital(),
        Route::get("/v1/status", status::status).vital(),
        Route::get("/v1/metrics", status::metrics).vital(),
        Route::get("/v1/api", status::api).timeout(short),
        Route::put("/v1/key/create/", key::create),
        Route::put("/v1/key/import/", key::import).max_body(MB),
        Route::get("/v1/key/describe/", key::describe),
        Route::delete("/v1/key/delete/", key::delete),
        Route::get("/v1/key/list/", key::list).listing(),
        Route::put("/v1/key/generate/", key::generate).max_body(MB),
        Route::put("/v1/key/encrypt/", key::encrypt).max_body(MB),
        Route::put("/v1/key/decrypt/", key::decrypt).max_body(MB),
        Route::put("/v1/key/hmac/", key::hmac).max_body(MB),
        Route::get("/v1/policy/describe/", policy::describe),
        Route::get("/v1/policy/read/", policy::read),
        Route::get("/v1/policy/list/", policy::list).listing(),
        Route::get("/v1/identity/describe/", identity::describe),
        Route::get("/v1/identity/list/", identity::list).listing(),
        Route::get("/v1/identity/self/describe", identity::describe_self).any_identity(),
        Route::get("/v1/log/error", log::error).timeout(None),
        Route::get("/v1/log/audit", log::audit).timeout(None),
    ]
}

/// The paths that may be answered without a certificate, when `skip_auth` says so.
pub const SKIP_AUTH: [&str; 4] = ["/v1/ready", "/v1/status", "/v1/metrics", "/v1/api"];

/// Everything the handlers need; one for each config.
pub struct State {
    router: Router<Self>,
    access: Access,
    keys: Arc<Keys>,
    telemetry: Arc<Telemetry>,
    started: Instant,
    /// The server that serves this; known once it is bound.
    server: OnceLock<Handle<Self>>,
}

impl State {
    /// A state that applies the settings in `api`.
    pub fn new(
        api: &BTreeMap<String, RouteConfig>,
        access: Access,
        keys: Arc<Keys>,
        telemetry: Arc<Telemetry>,
        started: Instant,
    ) -> Arc<Self> {
        let router = Router::new(routes(), api);
        Arc::new(Self { router, access, keys, telemetry, started, server: OnceLock::new() })
    }

    /// The keys this serves.
    pub fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }
}

impl Service for State {
    fn router(&self) -> &Router<Self> {
        &self.router
    }

    fn authorize(
        &self,
        peer: Result<Identity, peer::Error>,
        requirement: Requirement,
        path: &str,
    ) -> Result<Caller, Denied> {
        self.access.authorize(peer, requirement, path)
    }

    fn served_by(&self, server: Handle<Self>) {
        let _ = self.server.set(server);
    }
}
