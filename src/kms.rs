//! The key manager: it keeps keys in enclaves, in its own data, and answers the protocol of its clients.
//!
//! Begin reading at [`routes`], then [`State`]. The way of a request to `/v1/kms/<enclave>`:
//!
//! 1. `crate::server` finds the route and the identity of the caller, and reads the body.
//! 2. `serve.rs` has `command.rs` parse the body into commands. One request has reads or writes, never both.
//! 3. Reads: `read.rs` answers from one snapshot (`snapshot.rs`), which is immutable, so it waits for no write.
//! 4. Writes wait in `lines.rs`, where enclaves take turns, for the one thread of `writer.rs`. It applies each request to
//!    a draft (`draft.rs`).
//! 5. `keeper.rs` encrypts the changed records (`record.rs`) and commits many drafts in one transaction (`store/`).
//! 6. Only then the writer publishes the new snapshot and answers.
//!
//! For every command, a `Standing` that only the snapshot hands out decides what the caller may do.
//! `loading.rs` reads all records at the start; `seal.rs` opens the root key that they are encrypted under.
//!
//! Operators read `docs/key-manager.md`; `docs/formats.md` states the format on disk.

mod account;
mod backup;
mod command;
mod confirm;
mod destroy;
mod door;
mod draft;
mod entry;
mod error;
mod journal;
mod keeper;
mod known;
mod lines;
mod loading;
mod log;
mod map;
mod members;
mod node;
pub mod operations;
mod policy;
mod read;
mod record;
mod ring;
mod rotation;
pub mod seal;
pub mod secret;
mod serve;
mod snapshot;
mod status;
pub mod store;
#[cfg(test)]
mod tests;
pub mod transit;
mod turn;
pub mod wire;
mod writer;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use hyper::header::HeaderValue;

use self::draft::{Author, Right};
use self::wire::{Encoding, ErrResponse};
use self::writer::{Order, Writer};
use crate::auth::{Caller, Denied, Identity, Requirement, admit, enclave, peer};
use crate::name::EnclaveName;
use crate::server::{self, Asked, Decision, Gate, Handle, Reply, Route, Router, Service, Settling};
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::Text;

pub use self::command::{Action, Revocation, actions};
pub use self::door::Door;
pub use self::entry::{Entry, NoEntry};
pub use self::error::{Error, Refusal};
pub use self::journal::etcd;
pub use self::keeper::{Admin, Error as OpenError, Joining, Keeper, Notes};
pub use self::log::HISTORY;
pub use self::node::Ended;
pub use self::rotation::Rules as RotationRules;
pub use self::turn::Turn;
pub use self::writer::Failed;

/// A megabyte as clients count.
const MB: u64 = 1_000_000;

/// The largest backup that can be restored, in bytes.
const BACKUP: u64 = 1_024 * MB;

/// The key manager's paths. Read this table to know the limits of every operation.
pub fn routes() -> Vec<Route<State>> {
    let long = Some(Duration::from_secs(300));
    vec![
        Route::new(operations::VERSION, status::version).open(),
        Route::new(operations::LIVE, status::live).open(),
        Route::new(operations::READY, status::ready).open().vital(),
        Route::new(operations::METRICS, status::metrics).vital(),
        Route::new(operations::EXECUTE, serve::execute).max_body(MB).listing(),
        Route::new(operations::BACKUP, serve::backup).timeout(long).bulk(),
        Route::new(operations::RESTORE, serve::restore).max_body(BACKUP).timeout(long).bulk(),
        Route::new(operations::ROTATE_ROOT, serve::rotate_root).timeout(long),
        Route::new(operations::MOVE_IN, serve::move_in).timeout(long),
        Route::new(operations::MOVE_OUT, serve::move_out).timeout(long),
        Route::new(operations::LOG, log::follow).max_body(MB).timeout(None),
        Route::new(operations::RESTART, status::unsupported),
        Route::new(operations::PROFILE, status::unsupported),
        Route::new(operations::PROFILE_START, status::unsupported),
        Route::new(operations::PROFILE_STOP, status::unsupported),
    ]
}

/// How long the server waits at its end for the log to accept the last changes.
const LAST_LINES: Duration = Duration::from_secs(5);

/// Writes metrics of somebody else.
type WriteMetrics = Box<dyn Fn(&mut Text) + Send + Sync>;

/// Everything the handlers need.
pub struct State {
    router: Router<Self>,
    writer: Writer,
    telemetry: Arc<Telemetry>,
    started: Instant,
    rotated: rotation::Rotated,
    /// The server that serves this, once it is bound.
    server: OnceLock<Handle<Self>>,
    /// Writes the metrics of another listener beside those of that server.
    beside: OnceLock<WriteMetrics>,
    /// The enclaves that listeners for the KES API serve.
    with_kes: RwLock<BTreeSet<EnclaveName>>,
    /// Where clients reach that server, as `host:port`.
    host: OnceLock<String>,
    /// Reads from the config how to take part in a cluster.
    cluster: OnceLock<PrepareToJoin>,
}

/// Reads from the config how to take part in a cluster, and connects to it. The error says what to do.
pub type PrepareToJoin = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Joining, String>> + Send>> + Send + Sync>;

impl State {
    /// A state that serves what `keeper` has.
    ///
    /// # Errors
    /// When the system cannot start a thread.
    pub fn new(keeper: Keeper, telemetry: Arc<Telemetry>, started: Instant) -> std::io::Result<Arc<Self>> {
        let (router, writer) = (Router::new(routes(), &BTreeMap::new()), Writer::start(keeper)?);
        let (server, beside, host, cluster) = (OnceLock::new(), OnceLock::new(), OnceLock::new(), OnceLock::new());
        let rotated = rotation::Rotated::default();
        let with_kes = RwLock::default();
        let state = Self { router, writer, telemetry, started, rotated, server, beside, with_kes, host, cluster };
        let state = Arc::new(state);
        state.take_part();
        Ok(state)
    }

    /// In a cluster: tells the others of this server, and goes on with what was begun.
    fn take_part(self: &Arc<Self>) {
        let Some(node) = self.writer.node() else { return };
        let state = Arc::downgrade(self);
        node.describe(move |snapshot| state.upgrade().map(|state| status::server(&state, snapshot)));
        let state = Arc::downgrade(self);
        node.runtime.spawn(async move {
            while let Some(state) = state.upgrade() {
                state.empty_enclaves().await;
                if let Some(node) = state.writer.node().cloned() {
                    drop(state);
                    node.has_to_empty().await;
                }
            }
        });
    }

    /// Removes what is left of enclaves that nobody enters any more. Whatever stops this, another server goes on.
    async fn empty_enclaves(&self) {
        let Some(node) = self.writer.node() else { return };
        let most = node.journal.most_changes();
        loop {
            let snapshot = self.writer.snapshot();
            let Some(change) = destroy::next_to_empty(&snapshot, most) else { return };
            let author = Author { caller: snapshot.admin, now: crate::clock::now(), right: Right::Account };
            drop(snapshot);
            let commands = vec![(Action::EnclaveDelete, change)];
            let order = Order { author, enclave: String::new(), commands, size: 0 };
            if let Err(error) = self.writer.write(order).await {
                return tracing::debug!(%error, "a deleted enclave is not empty yet");
            }
        }
    }

    /// Keeps a gate open as long as this server may answer reads.
    pub async fn keep_open(&self, gate: Gate) {
        loop {
            gate.set(!self.writer.node().is_some_and(|node| node.is_stale()));
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// Waits until this server is no member of its cluster any more; for ever, if there is none.
    pub async fn ended(&self) -> Ended {
        loop {
            if let Some(node) = self.writer.node() {
                return node.ended().await;
            }
            // It may move into one.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Says to the others for the first time that this server is there.
    ///
    /// # Errors
    /// When another process claims to be the same member.
    pub async fn appear(&self) -> Result<(), Ended> {
        match self.writer.node() {
            Some(node) => {
                node.begin_saying().await?;
                // It may have been removed before it was live. Then it learns of that now.
                let _ = node.confirm().await;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Sets how to move everything into a cluster. Only the first call counts.
    pub fn can_move_in(&self, prepare: PrepareToJoin) {
        let _ = self.cluster.set(prepare);
    }

    /// Whether a listener for the KES API serves this enclave.
    fn has_kes(&self, enclave: &str) -> bool {
        self.with_kes.read().unwrap_or_else(PoisonError::into_inner).contains(enclave)
    }

    /// Shows the metrics of another listener beside its own. Only the first call counts.
    pub fn show_beside(&self, write: impl Fn(&mut Text) + Send + Sync + 'static) {
        let _ = self.beside.set(Box::new(write));
    }

    /// Sets the `host:port` at which clients reach the server. Only the first call counts.
    pub fn set_host(&self, host: String) {
        let _ = self.host.set(host);
    }

    fn host(&self) -> String {
        self.host.get().cloned().unwrap_or_default()
    }

    /// Waits until every requested change is written.
    ///
    /// The writer thread may wait for the log. When the log accepts no more lines, the server ends without it.
    pub async fn finish(&self) {
        tokio::select! {
            () = self.writer.finish() => {}
            () = tokio::time::sleep(LAST_LINES) => {
                self.telemetry.log.stop_waiting();
                self.writer.finish().await;
            }
        }
    }

    /// Waits until nothing can be changed any more because of a defect; for ever, if that never happens. The process
    /// should end then, and be started again.
    pub async fn failed(&self) -> Failed {
        self.writer.failed().await
    }

    fn may_call(&self, identity: &Identity, path: &str) -> bool {
        let snapshot = self.writer.snapshot();
        let Some(identity) = enclave::Identity::of(identity) else { return false };
        match path.strip_prefix(operations::EXECUTE.path) {
            // Before its commands are read: whoever is a stranger to the enclave may send none.
            Some(enclave) => !matches!(snapshot.enter(enclave, &identity), Err(Error::Denied)),
            None if path == operations::METRICS.path => snapshot.knows(&identity),
            None => snapshot.is_sysadmin(&identity),
        }
    }
}

impl Service for State {
    type Access = ();

    fn decide(&self, asked: Asked<'_>) -> Decision<()> {
        let outcome = self.authorize(asked.peer.clone(), asked.requirement, asked.path);
        Decision::of(asked.peer, outcome)
    }

    /// Another server of the cluster may know an identity that this one has not heard of yet.
    fn settle<'s>(&'s self, asked: &Asked<'_>) -> Option<Settling<'s>> {
        self.writer.node()?;
        let identity = asked.peer.as_ref().ok().filter(|_| asked.requirement == Requirement::Policy)?;
        let is_known = self.may_call(identity, asked.path);
        (!is_known).then(|| Box::pin(async { Ok(self.writer.confirm().await?) }) as Settling<'s>)
    }

    fn router(&self) -> &Router<Self> {
        &self.router
    }

    /// Admits system administrators, and whoever the enclave knows. The rights of the latter are decided for each command.
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
            Denied::NotAllowed { .. } | Denied::Refused(_) => Error::Denied.into(),
        }
    }

    fn served_by(&self, server: Handle<Self>) {
        let reauthorize = server.clone();
        self.writer.on_new_rights(move || reauthorize.reauthorize());
        let _ = self.server.set(server);
    }
}
