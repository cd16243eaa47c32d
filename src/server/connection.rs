//! One client's connection: handshake, requests, end.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::serve::serve;
use super::tls::Trust;
use super::{Service, Shared};
use crate::auth::{Identity, peer};
use crate::clock::Ticker;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long after the handshake the first request must have come.
const FIRST_REQUEST: Duration = Duration::from_secs(10);

/// How long a connection may be idle.
const IDLE: Duration = Duration::from_secs(90);

/// How long a connection that was told to go may take to finish.
const FAREWELL: Duration = Duration::from_secs(5);

/// Requests that one HTTP/2 connection may have in flight.
const MAX_STREAMS: u32 = 250;

/// The largest request head over HTTP/1.1, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// What the server knows of a connection while it lasts.
#[derive(Debug)]
pub(super) struct Connection {
    ip: IpAddr,
    client: OnceLock<Client>,
    ticker: Ticker,
    /// Requests being answered.
    in_flight: AtomicU32,
    /// When it last began to be idle, by `ticker`.
    idle_since: AtomicU64,
    served: AtomicBool,
    state: AtomicU8,
    wake: Notify,
}

/// Who the client showed itself to be in the handshake.
#[derive(Debug)]
struct Client {
    chain: Vec<CertificateDer<'static>>,
    /// What `trust` made of the chain.
    identity: Result<Identity, peer::Error>,
    trust: u64,
}

/// How a connection is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum End {
    /// Not yet.
    Open = 0,
    /// When its running requests are answered.
    Drain = 1,
    /// Now.
    Close = 2,
}

/// A request in flight; while it lives, its connection is not idle.
#[derive(Debug)]
pub(super) struct Busy(Arc<Connection>);

impl Drop for Busy {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.idle_since.store(self.0.ticker.at(Instant::now()), Ordering::Relaxed);
        }
    }
}

impl Connection {
    pub(super) fn new(ip: IpAddr, ticker: Ticker, now: Instant) -> Arc<Self> {
        Arc::new(Self {
            ip,
            client: OnceLock::new(),
            ticker,
            in_flight: AtomicU32::new(0),
            idle_since: AtomicU64::new(ticker.at(now)),
            served: AtomicBool::new(false),
            state: AtomicU8::new(End::Open as u8),
            wake: Notify::new(),
        })
    }

    /// The address of the peer.
    pub(super) fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Counts a request.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.served.store(true, Ordering::Relaxed);
        Busy(self.clone())
    }

    /// Who the peer is, by today's trust: a reload may have changed it since the handshake.
    pub(super) fn identity(&self, trust: &Trust) -> Result<Identity, peer::Error> {
        match self.client.get() {
            Some(client) if client.trust == trust.id() => client.identity.clone(),
            Some(client) => trust.identify(&client.chain),
            None => Err(peer::Error::Missing),
        }
    }

    /// Asks the connection to end.
    pub(super) fn end(&self, end: End) {
        if self.state.fetch_max(end as u8, Ordering::Relaxed) < end as u8 {
            self.wake.notify_one();
        }
    }

    /// For how long nothing has been asked, if nothing is being answered.
    pub(super) fn idle(&self, now: Instant) -> Option<Duration> {
        let idle = self.ticker.at(now).saturating_sub(self.idle_since.load(Ordering::Relaxed));
        (self.in_flight.load(Ordering::Relaxed) == 0).then(|| Duration::from_millis(idle))
    }

    /// Ends the connection if it has been idle for too long. Called about once a second.
    pub(super) fn check(&self, now: Instant) {
        let Some(idle) = self.idle(now) else { return };
        let limit = match (self.client.get(), self.served.load(Ordering::Relaxed)) {
            // The handshake has its own deadline.
            (None, _) => return,
            (Some(_), false) => FIRST_REQUEST,
            (Some(_), true) => IDLE,
        };
        if idle >= limit + FAREWELL {
            self.end(End::Close);
        } else if idle >= limit {
            self.end(End::Drain);
        }
    }

    /// Waits until the connection is asked to end in a way that it was not before.
    async fn ended(&self, known: End) -> End {
        loop {
            let wake = self.wake.notified();
            match self.state.load(Ordering::Relaxed) {
                2 => return End::Close,
                1 if known < End::Drain => return End::Drain,
                _ => wake.await,
            }
        }
    }
}

/// Serves a connection until it ends.
pub(super) async fn run<S: Service>(shared: Arc<Shared<S>>, connection: Arc<Connection>, socket: TcpStream) {
    let handshake = tokio::time::timeout(HANDSHAKE, handshake(&shared, &connection, socket));
    let tls = tokio::select! {
        tls = handshake => match tls {
            Ok(Ok(tls)) => tls,
            Ok(Err(error)) => return tracing::info!(ip = %connection.ip, %error, "TLS handshake failed"),
            Err(_) => return tracing::info!(ip = %connection.ip, "TLS handshake took too long"),
        },
        _ = connection.ended(End::Open) => return,
    };
    let is_http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    let io = TokioIo::new(tls);
    let service = {
        let connection = connection.clone();
        service_fn(move |request| {
            let (shared, connection) = (shared.clone(), connection.clone());
            async move { Ok::<_, std::convert::Infallible>(serve(&shared, &connection, request).await) }
        })
    };
    if is_http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS);
        until_end(builder.serve_connection(io, service), &connection).await;
    } else {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(MAX_HEAD).header_read_timeout(None);
        until_end(builder.serve_connection(io, service), &connection).await;
    }
}

/// Answers requests until the client or [`Connection::end`] says that it is over.
async fn until_end(served: impl GracefulConnection, connection: &Connection) {
    let mut served = pin!(served);
    let mut end = End::Open;
    while end < End::Close {
        tokio::select! {
            // How a connection fails is the client's business.
            _ = served.as_mut() => return,
            next = connection.ended(end) => {
                end = next;
                served.as_mut().graceful_shutdown();
            }
        }
    }
}

async fn handshake<S: Service>(
    shared: &Shared<S>,
    connection: &Connection,
    socket: TcpStream,
) -> std::io::Result<TlsStream<TcpStream>> {
    let snapshot = shared.snapshot.load_full();
    let tls = TlsAcceptor::from(snapshot.tls.clone()).accept(socket).await?;
    let session = tls.get_ref().1;
    let chain: Vec<_> =
        session.peer_certificates().unwrap_or_default().iter().map(|c| c.clone().into_owned()).collect();
    // A resumed session brings back certificates that nobody verified this time.
    let identity = if session.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
        snapshot.trust.identify(&chain)
    } else {
        peer::identify(chain.iter().map(AsRef::as_ref))
    };
    let _ = connection.client.set(Client { chain, identity, trust: snapshot.trust.id() });
    connection.idle_since.store(connection.ticker.at(Instant::now()), Ordering::Relaxed);
    Ok(tls)
}
