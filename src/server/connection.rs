//! What the server knows of a connection while it lasts.

mod unsent;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use hyper::HeaderMap;
use rustls::pki_types::CertificateDer;
use tokio::sync::Notify;

use self::unsent::{Due, Unsent};
use super::held::{Account, Accounts};
use super::proxy;
use super::tls::Trust;
use crate::auth::{Identity, peer};
use crate::clock::{self, Ticker};

/// How long after the handshake the first request may take to arrive.
const FIRST_REQUEST: Duration = Duration::from_secs(10);

/// How long the head of an HTTP/1.1 request may take to arrive, on a connection that has served others:
/// as long as a whole request on most routes. On HTTP/2 a head that stays unfinished is an idle connection.
const HEAD: Duration = Duration::from_secs(15);

/// How long a connection may be idle.
const IDLE: Duration = Duration::from_secs(90);

/// How long a connection that was asked to end may take to finish.
const FAREWELL: Duration = Duration::from_secs(5);

/// What the server knows of a connection while it lasts.
#[derive(Debug)]
pub(super) struct Connection {
    ip: IpAddr,
    /// Its number among all, as long as nobody known has sent a request over it; else 0.
    unclaimed: AtomicU64,
    client: OnceLock<Client>,
    ticker: Ticker,
    /// Requests being answered.
    in_flight: AtomicU32,
    /// When it last began to be idle, by `ticker`.
    idle_since: AtomicU64,
    served: AtomicBool,
    /// When the first byte of an incomplete request head arrived, by `ticker`, plus one; 0: there is none. HTTP/1.1
    /// only.
    head_since: AtomicU64,
    /// What its requests hold.
    held: Arc<Account>,
    unsent: Unsent,
    /// An [`End`] as number. It only grows.
    end: AtomicU8,
    end_changed: Notify,
}

/// The client's certificates and identity from the handshake.
#[derive(Debug)]
struct Client {
    chain: Vec<CertificateDer<'static>>,
    /// The identity that `trust` found in the chain.
    identity: Result<Identity, peer::Error>,
    trust: u64,
}

/// How a connection is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum End {
    /// The client is asked to open another connection, so that no request is lost: over HTTP/2 at once, over HTTP/1.1
    /// with the next answer.
    Leave = 1,
    /// End when the running requests are answered.
    Drain,
    /// End now.
    Close,
}

/// A streaming reply. While it exists, its connection is not idle.
#[derive(Debug)]
pub(super) struct Busy(Arc<Connection>);

impl Busy {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        connection.begin();
        Self(connection)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.finish(clock::instant());
    }
}

/// A reply, or a piece of one, that the client has not taken yet. If it never does, its connection ends.
#[derive(Debug)]
pub(super) struct Sending {
    connection: Arc<Connection>,
    due: Due,
}

impl Sending {
    /// So many bytes begin to be sent.
    pub(super) fn begin(connection: Arc<Connection>, len: usize, now: Instant) -> Self {
        let due = connection.unsent.begin(connection.ticker.at(now), len);
        Self { connection, due }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.connection.unsent.end(self.due);
    }
}

impl Connection {
    pub(super) fn new(ip: IpAddr, ticker: Ticker, held_by_all: Arc<Accounts>, now: Instant) -> Arc<Self> {
        Arc::new(Self {
            ip,
            unclaimed: AtomicU64::new(0),
            client: OnceLock::new(),
            ticker,
            in_flight: AtomicU32::new(0),
            idle_since: AtomicU64::new(ticker.at(now)),
            served: AtomicBool::new(false),
            head_since: AtomicU64::new(0),
            held: Account::of(held_by_all),
            unsent: Unsent::new(ticker.at(now)),
            end: AtomicU8::new(0),
            end_changed: Notify::new(),
        })
    }

    /// The address of the peer.
    pub(super) fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Notes its number among all connections.
    pub(super) fn number(&self, number: u64) {
        self.unclaimed.store(number, Ordering::Relaxed);
    }

    /// Whether nobody known has sent a request over it.
    pub(super) fn is_unclaimed(&self) -> bool {
        self.unclaimed.load(Ordering::Relaxed) != 0
    }

    /// Its number among all, for whoever asks first.
    pub(super) fn claim(&self) -> Option<u64> {
        Some(self.unclaimed.swap(0, Ordering::Relaxed)).filter(|number| *number != 0)
    }

    /// Counts a running request, until [`Connection::finish`].
    pub(super) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.served.store(true, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
    }

    /// Notes that a request is over. A connection without requests is idle.
    pub(super) fn finish(&self, now: Instant) {
        if self.in_flight.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.idle_since.store(self.ticker.at(now), Ordering::Relaxed);
        }
    }

    /// What its requests hold.
    pub(super) fn account(&self) -> &Arc<Account> {
        &self.held
    }

    /// Notes whose certificates the handshake brought, and which identity the settings `trust` found in them. From now
    /// on the connection is idle.
    pub(super) fn meet(
        &self,
        chain: Vec<CertificateDer<'static>>,
        identity: Result<Identity, peer::Error>,
        trust: &Trust,
    ) {
        let _ = self.client.set(Client { chain, identity, trust: trust.id() });
        self.idle_since.store(self.ticker.at(clock::instant()), Ordering::Relaxed);
    }

    /// The address and the identity of the sender of a request: the peer, or the client that a listed proxy forwards.
    pub(super) fn sender(&self, trust: &Trust, headers: &HeaderMap) -> (IpAddr, Result<Identity, peer::Error>) {
        match self.identity(trust) {
            Ok(identity) if trust.is_proxy(&identity) => {
                (proxy::client_ip(headers).unwrap_or(self.ip), trust.forwarded(headers))
            }
            direct => (self.ip, direct),
        }
    }

    /// The identity of the peer by the current trust settings: a reload may have changed them since the handshake.
    fn identity(&self, trust: &Trust) -> Result<Identity, peer::Error> {
        match self.client.get() {
            Some(client) if client.trust == trust.id() => client.identity.clone(),
            Some(client) => trust.identify(&client.chain),
            None => Err(peer::Error::Missing),
        }
    }

    /// Asks the connection to end.
    pub(super) fn end(&self, end: End) {
        if self.end.fetch_max(end as u8, Ordering::Release) < end as u8 {
            self.end_changed.notify_waiters();
        }
    }

    /// How it is asked to end so far, as a number that only grows.
    pub(super) fn ending(&self) -> u8 {
        self.end.load(Ordering::Acquire)
    }

    /// Whether the connection is asked to end at least like this.
    pub(super) fn is_ending(&self, at_least: End) -> bool {
        self.ending() >= at_least as u8
    }

    /// Whether the client is asked to open another connection.
    pub(super) fn is_leaving(&self) -> bool {
        self.is_ending(End::Leave)
    }

    /// Notes that bytes arrived while no request is running. Over HTTP/1.1 they begin the head of a request.
    pub(super) fn hear(&self) {
        if self.in_flight.load(Ordering::Relaxed) == 0 && self.head_since.load(Ordering::Relaxed) == 0 {
            self.head_since.store(self.ticker.at(clock::instant()) + 1, Ordering::Relaxed);
        }
    }

    /// Whether the head of a request has been arriving for too long.
    fn is_head_overdue(&self, now: Instant) -> bool {
        match self.head_since.load(Ordering::Relaxed) {
            0 => false,
            since => Duration::from_millis(self.ticker.at(now).saturating_sub(since - 1)) >= HEAD,
        }
    }

    /// How long the connection has been idle; `None` while a request is running.
    pub(super) fn idle(&self, now: Instant) -> Option<Duration> {
        (self.in_flight.load(Ordering::Relaxed) == 0).then(|| self.since_idle(now))
    }

    /// How long ago it last began to be idle. While a request is running, that is about as long as it has been busy.
    pub(super) fn since_idle(&self, now: Instant) -> Duration {
        Duration::from_millis(self.ticker.at(now).saturating_sub(self.idle_since.load(Ordering::Relaxed)))
    }

    /// Ends the connection if the client has not taken a reply in time; says whether. To be called often.
    pub(super) fn is_unread(&self, now: Instant) -> bool {
        let is_unread = self.unsent.is_overdue(self.ticker.at(now));
        if is_unread {
            self.end(End::Close);
        }
        is_unread
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
        if idle >= limit && self.unsent.is_any() {
            // Replies have a time of their own.
            self.idle_since.store(self.ticker.at(now), Ordering::Relaxed);
        } else if idle >= limit + FAREWELL || self.is_head_overdue(now) {
            self.end(End::Close);
        } else if idle >= limit {
            self.end(End::Drain);
        }
    }

    /// Waits until the connection is asked to end at least like this.
    pub(super) async fn ended(&self, at_least: End) {
        loop {
            // Registers for changes from here on, even before it is polled.
            let changed = self.end_changed.notified();
            if self.is_ending(at_least) {
                return;
            }
            changed.await;
        }
    }
}
