//! HTTP over mTLS. It knows no keys: the program that it serves is a [`Service`].
//!
//! Begin reading at [`Server::run`]. The way of a request:
//!
//! 1. [`Server::run`] accepts the socket; `connections.rs` counts it and enforces the limit.
//! 2. `worker.rs` gives it to the worker thread with the fewest connections.
//! 3. `connection.rs` does the TLS handshake (`tls/`) and notes the client's identity, then serves HTTP.
//! 4. `serve.rs` runs the same steps for every request: path, route, method, certificate, policy, name, body.
//! 5. The handler gets a [`Call`], which only `serve.rs` can make: no handler runs unauthorised.
//! 6. Its [`Reply`] goes back. `serve.rs` counts the request, writes the audit event and logs.
//!
//! A request takes one snapshot of state and TLS when it begins. [`Handle::replace`] swaps it, so that a reload never
//! shows a request half of two configs.

mod body;
mod budget;
mod connection;
mod connections;
mod conversation;
mod denials;
mod error;
mod files;
mod held;
pub mod path;
pub mod proxy;
pub mod reply;
pub mod route;
mod serve;
mod streams;
#[cfg(test)]
mod tests;
pub mod tls;
mod worker;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::header::HeaderValue;
use hyper::{HeaderMap, Method};
use rustix::net::sockopt::set_ipv6_v6only;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use self::connection::{Connection, End};
use self::connections::Connections;
use self::denials::{Denials, Summary};
use self::held::Accounts;
use self::path::Path;
use self::tls::Tls;
use crate::auth::{Caller, Denied, Identity, Requirement, peer};
use crate::clock::{self, Ticker};
use crate::telemetry::Telemetry;
use crate::telemetry::audit::Event;
use crate::telemetry::histogram::{self, Histogram};
use crate::telemetry::metrics::{Metrics, Text};

pub use self::body::{FromBody, Json, Whole};
pub use self::budget::{Budget, Gate};
pub use self::error::Error;
pub use self::reply::{IntoReply, Reply};
pub use self::route::{Call, Route, Router};
pub use self::worker::Workers;

/// How many connections the kernel keeps for us until they are accepted.
const BACKLOG: u32 = 4_096;

/// How long to wait at shutdown for connections that were cut off.
const CUT_OFF: Duration = Duration::from_secs(2);

/// The metric that tells operations apart.
const BY_OPERATION: &str = "claviger_http_request_duration_seconds";

/// How often idle connections are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// A program that a [`Server`] serves: its routes, and who may call them.
pub trait Service: Sized + Send + Sync + 'static {
    /// What the service finds out about an authorised request beside its caller, for the handler.
    type Access: Send + Sync + 'static;

    /// The route table.
    fn router(&self) -> &Router<Self>;

    /// The route for a request, the path as policies see it, and where in it the name begins. By default the table says
    /// it.
    fn find<'p>(&self, method: &Method, path: Path<'p>, query: &str) -> Option<(&Route<Self>, Cow<'p, str>, usize)> {
        let _ = query;
        self.router().find(method, path)
    }

    /// Decides about a request for the decoded `path`, before its body is read.
    fn decide(&self, asked: Asked<'_>) -> Decision<Self::Access>;

    /// What the service has to find out before it decides; none: nothing, it decides at once. A request that would be
    /// refused may be one of which another server of the same cluster knows more.
    fn settle<'s>(&'s self, asked: &Asked<'_>) -> Option<Settling<'s>> {
        let _ = asked;
        None
    }

    /// Decides whether the reader of a stream may still read it.
    ///
    /// # Errors
    /// When the caller may not.
    fn authorize(
        &self,
        peer: Result<Identity, peer::Error>,
        requirement: Requirement,
        path: &str,
    ) -> Result<Caller, Denied>;

    /// The reply for an error, to a client that accepts the content types `accept`. By default `{"message":"…"}`.
    fn refuse(error: &Error, accept: Option<&HeaderValue>) -> Reply {
        let _ = accept;
        Reply::from(error)
    }

    /// How identities are written in the log and in audit events.
    fn spell(identity: &Identity) -> Cow<'_, str> {
        identity.as_str().into()
    }

    /// The error that a client gets for a denied request.
    fn denied(denied: Denied) -> Error {
        denied.into()
    }

    /// Tells the service which server serves it, before the first request.
    fn served_by(&self, server: Handle<Self>) {
        let _ = server;
    }
}

/// Waits until a service can decide. When it cannot, the request gets the error.
pub type Settling<'s> = Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 's>>;

/// A request that is to be decided about.
#[derive(Debug, Clone)]
pub struct Asked<'a> {
    /// The identity of the client's certificate.
    pub peer: Result<Identity, peer::Error>,
    /// What the route requires.
    pub requirement: Requirement,
    /// The method.
    pub method: &'a Method,
    /// The decoded path.
    pub path: &'a str,
    /// What follows the `?`.
    pub query: &'a str,
    /// The headers.
    pub headers: &'a HeaderMap,
}

/// What was decided about a request.
#[derive(Debug)]
pub struct Decision<A> {
    /// Who asks, for the log and the audit event: also where that is not enough.
    pub identity: Result<Identity, peer::Error>,
    /// The caller, and what else was found out.
    pub outcome: Result<(Caller, A), Denied>,
}

impl Decision<()> {
    /// The decision where certificates say who asks.
    pub fn of(peer: Result<Identity, peer::Error>, outcome: Result<Caller, Denied>) -> Self {
        Self { identity: peer, outcome: outcome.map(|caller| (caller, ())) }
    }
}

/// Limits of a server.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest number of connections. When all are taken, the one idle longest is closed for a new one.
    pub connections: usize,
    /// How long running requests may take after a shutdown has begun.
    pub shutdown: Duration,
}

/// Everything that one config sets. A request takes one, so that a reload never shows it half of two configs.
struct Snapshot<S> {
    state: Arc<S>,
    tls: Tls,
}

/// What all workers share.
struct Shared<S> {
    snapshot: ArcSwap<Snapshot<S>>,
    /// Notified when the snapshot is replaced, and when somebody's rights change.
    replaced: watch::Sender<()>,
    telemetry: Arc<Telemetry>,
    metrics: Metrics,
    connections: Arc<Connections>,
    held: Arc<Accounts>,
    denials: Denials,
    /// How long the requests for each route took, in the order of the table; at its end those for no route.
    times: Box<[Histogram]>,
    ticker: Ticker,
}

/// A server that is bound to its address and not yet running.
pub struct Server<S> {
    listener: TcpListener,
    /// As it was asked for.
    ip: IpAddr,
    limits: Limits,
    gate: Gate,
    shared: Arc<Shared<S>>,
}

/// A handle to a running server: replaces what it serves, and reads its state and metrics.
pub struct Handle<S>(Arc<Shared<S>>);

impl<S> Clone for Handle<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: Service> Server<S> {
    /// Binds the address. Everything that can fail at start fails here.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(
        address: SocketAddr,
        limits: Limits,
        budget: &Budget,
        telemetry: Arc<Telemetry>,
        (state, tls): (Arc<S>, Tls),
    ) -> std::io::Result<Self> {
        let listener = listen(address)?;
        let connections = budget.take_connections(limits.connections);
        // A table is the same for all configs.
        let times = (0..=state.router().iter().count()).map(|_| Histogram::default()).collect();
        let shared = Shared {
            snapshot: ArcSwap::from_pointee(Snapshot { state, tls }),
            replaced: watch::Sender::default(),
            telemetry,
            metrics: Metrics::default(),
            connections: Connections::new(connections),
            held: budget.held.clone(),
            denials: Denials::default(),
            times,
            ticker: Ticker::start(clock::instant()),
        };
        let gate = budget.gate();
        let server = Self { listener, ip: address.ip(), limits, gate, shared: Arc::new(shared) };
        server.handle().state().served_by(server.handle());
        Ok(server)
    }

    /// The address, with the port that the system chose where the config said 0.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        Ok(SocketAddr::new(self.ip, self.listener.local_addr()?.port()))
    }

    /// Reaches this server while it runs.
    pub fn handle(&self) -> Handle<S> {
        Handle(self.shared.clone())
    }

    /// Serves on `workers` until `shutdown` ends, then lets running requests finish within the grace period, which is
    /// over at once when `hurry` ends.
    pub async fn run(
        mut self,
        workers: Arc<Workers>,
        shutdown: impl Future<Output = ()>,
        hurry: impl Future<Output = ()>,
    ) {
        let served = TaskTracker::new();
        let sweeper = tokio::spawn(sweep(self.shared.clone()));
        tokio::select! {
            () = self.accept(&workers, &served) => {}
            () = shutdown => {}
        }
        drop(self.listener);
        self.shared.connections.end_all(End::Drain);
        served.close();
        let grace = async {
            tokio::select! {
                () = tokio::time::sleep(self.limits.shutdown) => {}
                () = hurry => {}
            }
        };
        let finished = tokio::select! {
            () = served.wait() => true,
            () = grace => false,
        };
        if !finished {
            tracing::warn!(
                "requests still running at the end of the shutdown timeout, or at a second signal, were cut off"
            );
            self.shared.connections.end_all(End::Close);
            // They end at once. Waiting for it makes sure that their audit events and log lines are written.
            let _ = tokio::time::timeout(CUT_OFF, served.wait()).await;
        }
        sweeper.abort();
    }

    /// Takes connections while the gate is open, for ever.
    async fn accept(&mut self, workers: &Workers, served: &TaskTracker) {
        let gate = self.gate.clone();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((socket, address)) => self.admit(workers, served, socket, address),
                    // Out of file descriptors, most likely: some will be free in a moment.
                    Err(error) => {
                        tracing::error!(%error, "failed to accept a connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                () = gate.is(false) => self.stay_away(&gate).await,
            }
        }
    }

    /// Refuses all connections until the gate opens.
    async fn stay_away(&mut self, gate: &Gate) {
        let Ok(address) = self.address() else { return gate.is(true).await };
        // A socket that nobody finds takes the place of the one that clients know.
        let Ok(nowhere) = listen_on(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)) else { return gate.is(true).await };
        drop(std::mem::replace(&mut self.listener, nowhere));
        self.shared.connections.end_all(End::Close);
        tracing::warn!(%address, "no connections are taken, and those that were there are closed");
        gate.is(true).await;
        loop {
            match listen(address) {
                Ok(listener) => {
                    self.listener = listener;
                    return tracing::info!(%address, "connections are taken again");
                }
                Err(error) => {
                    tracing::error!(%address, %error, "failed to listen again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    fn admit(&self, workers: &Workers, served: &TaskTracker, socket: TcpStream, address: SocketAddr) {
        let now = clock::instant();
        let _ = socket.set_nodelay(true);
        let (ip, held) = (address.ip().to_canonical(), self.shared.held.clone());
        let connection = Connection::new(ip, self.shared.ticker, held, now);
        let Some((place, ended)) = self.shared.connections.admit(connection.clone(), now) else {
            return self.shared.denials.note_refused(ip, now);
        };
        if let Some(ip) = ended {
            self.shared.denials.note_ended(ip, now);
        }
        let (shared, counted) = (self.shared.clone(), served.token());
        workers.spawn(socket, move |socket| async move {
            conversation::run(shared, connection, socket).await;
            drop((place, counted));
        });
    }
}

impl<S: Service> Handle<S> {
    /// Serves `state` from the next request on, and `tls` from the next connection on. TLS sessions of clients stay
    /// valid unless the trust settings have changed. Then older connections are asked to close, too.
    pub fn replace(&self, state: Arc<S>, tls: Tls) {
        let former = self.0.snapshot.load();
        let tls = tls.keeping_sessions_of(&former.tls);
        let trust_changed = tls.trust.id() != former.tls.trust.id();
        state.served_by(self.clone());
        self.0.snapshot.store(Arc::new(Snapshot { state, tls }));
        if trust_changed {
            self.0.connections.end_all(End::Leave);
        }
        self.0.replaced.send_replace(());
    }

    /// Checks again whether the readers of open streams may read them. Call it when the answer of
    /// [`Service::authorize`] may have changed.
    pub fn reauthorize(&self) {
        self.0.replaced.send_replace(());
    }

    /// The state that is served now.
    pub fn state(&self) -> Arc<S> {
        self.0.snapshot.load().state.clone()
    }

    /// Writes the metrics that every server has. Each server of a process counts its own requests.
    pub fn write_metrics(&self, text: &mut Text) {
        self.0.metrics.write(text);
        let expires = self.0.snapshot.load().tls.not_after.unix_timestamp();
        let help = "When the first of the server certificates expires, in seconds since 1970.";
        text.gauge("claviger_tls_certificate_expiry_timestamp_seconds", help, expires);
        text.gauge("claviger_connections", "Open connections.", self.0.connections.len());
        text.counter("claviger_denials_total", "Requests denied.", self.denials().values().sum::<u64>());
        let name = "kes_http_response_time";
        text.family(name, "histogram", "Time from a request's arrival to its answer, in seconds.");
        histogram::write_inherited(&self.0.times, text, name);
    }

    /// The same by operation, as the route table has them; "other" is none of those.
    pub fn write_operations(&self, text: &mut Text) {
        text.family(BY_OPERATION, "histogram", "Time from a request's arrival to its answer, by operation.");
        let state = self.state();
        let operations = state.router().iter().map(|route| {
            let (method, path, ..) = route.describe();
            format!("{method} {path}")
        });
        for (operation, times) in operations.chain(["other".into()]).zip(&self.0.times) {
            times.write(text, BY_OPERATION, "operation", &operation);
        }
    }

    /// How many requests were denied, per policy; those without one under the empty name.
    pub fn denials(&self) -> BTreeMap<String, u64> {
        self.0.denials.by_policy()
    }
}

/// Listens. An address that stands for all stands for those of both families, in whichever it is written: so it is with
/// Go, and so networks with both rely on it.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    if !address.ip().is_unspecified() {
        return listen_on(address);
    }
    match listen_on(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), address.port())) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied) => {
            // A system without IPv6.
            listen_on(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
        }
        listener => listener,
    }
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        set_ipv6_v6only(&socket, false)?;
    }
    socket.set_reuseaddr(true)?;
    // Finds clients that vanished while a stream was open.
    socket.set_keepalive(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn sweep<S: Service>(shared: Arc<Shared<S>>) {
    let mut every = tokio::time::interval(SWEEP);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let now = clock::instant();
        for ip in shared.connections.check(now) {
            shared.denials.note_unread(ip, now);
        }
        for Summary { ip, path, identity, code, count } in shared.denials.tell(now) {
            let (time, took, commands, count) = (clock::now(), Duration::ZERO, None, Some(count));
            shared.telemetry.audit.record(&Event {
                time,
                ip,
                path: &path,
                identity: &identity,
                code,
                took,
                commands,
                count,
            });
        }
    }
}
