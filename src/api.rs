//! The KES API: the route table, and what the handlers share.

mod error;
mod identity;
mod key;
mod log;
pub mod operations;
mod policy;
mod status;
pub mod wire;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::auth::{Access, Caller, Denied, Identity, Requirement, peer};
use crate::keys::Keys;
use crate::server::route::RouteConfig;
use crate::server::{Asked, Decision, Handle, Route, Router, Service};
use crate::setting;
use crate::telemetry::Telemetry;

pub(crate) use self::status::COMMIT;

/// A megabyte as the API counts.
const MB: u64 = 1_000_000;

/// The KES API. Read this table to know the limits of every operation.
pub fn routes() -> Vec<Route<State>> {
    let short = Some(Duration::from_secs(10));
    vec![
        Route::new(operations::VERSION, status::version).open().timeout(short),
        Route::new(operations::READY, status::ready).overdue(error::not_reachable).vital(),
        Route::new(operations::STATUS, status::status).vital(),
        Route::new(operations::METRICS, status::metrics).vital(),
        Route::new(operations::API, status::api).timeout(short),
        Route::new(operations::KEY_CREATE, key::create),
        Route::new(operations::KEY_IMPORT, key::import).max_body(MB),
        Route::new(operations::KEY_DESCRIBE, key::describe),
        Route::new(operations::KEY_DELETE, key::delete),
        Route::new(operations::KEY_LIST, key::list).listing(),
        Route::new(operations::KEY_GENERATE, key::generate).max_body(MB),
        Route::new(operations::KEY_ENCRYPT, key::encrypt).max_body(MB),
        Route::new(operations::KEY_DECRYPT, key::decrypt).max_body(MB),
        Route::new(operations::KEY_HMAC, key::hmac).max_body(MB),
        Route::new(operations::POLICY_DESCRIBE, policy::describe),
        Route::new(operations::POLICY_READ, policy::read),
        Route::new(operations::POLICY_LIST, policy::list).listing(),
        Route::new(operations::IDENTITY_DESCRIBE, identity::describe),
        Route::new(operations::IDENTITY_LIST, identity::list).listing(),
        Route::new(operations::IDENTITY_SELF, identity::describe_self).any_identity(),
        Route::new(operations::LOG_ERROR, log::error).timeout(None),
        Route::new(operations::LOG_AUDIT, log::audit).timeout(None),
    ]
}

/// Everything the handlers need; one for each config.
pub struct State {
    router: Router<Self>,
    access: Access,
    keys: Arc<dyn Keys>,
    telemetry: Arc<Telemetry>,
    started: Instant,
    /// Of the config in force; none for a server that has none.
    config_hash: Option<setting::Hash>,
    /// The server that serves this; known once it is bound.
    server: OnceLock<Handle<Self>>,
}

impl State {
    /// A state that applies the settings in `api`.
    pub fn new(
        api: &BTreeMap<String, RouteConfig>,
        access: Access,
        keys: Arc<dyn Keys>,
        telemetry: Arc<Telemetry>,
        started: Instant,
        config_hash: Option<setting::Hash>,
    ) -> Arc<Self> {
        let router = Router::new(routes(), api);
        Arc::new(Self { router, access, keys, telemetry, started, config_hash, server: OnceLock::new() })
    }
}

impl Service for State {
    type Access = ();

    fn decide(&self, asked: Asked<'_>) -> Decision<()> {
        let outcome = self.authorize(asked.peer.clone(), asked.requirement, asked.path);
        Decision::of(asked.peer, outcome)
    }

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
