//! Who was refused: denied requests, failed handshakes. Counted, logged and audited without flooding the log.
//!
//! Every client has a share of its own, so that the junk of one hides nothing of another. What goes beyond the share
//! is counted, and told in one line when the minute is over.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::StatusCode;

use crate::auth::Denied;
use crate::foreign::cut;

/// How long refusals are collected before they are told in one line.
const QUIET: Duration = Duration::from_secs(60);

/// How many different refusals of one client are told apart; further ones are only counted.
const MAX: usize = 32;

/// How many clients are told apart; all others share the share of one.
const CLIENTS: usize = 256;

/// How many equal refusals of a client that nobody knows are audited one by one.
const AUDITED: u64 = 16;

/// How much of a text that clients choose is shown and told apart, in bytes. Names are shorter; what is longer is hostile.
const MAX_TEXT: usize = 256;

/// Remembers what was refused lately.
#[derive(Debug, Default)]
pub(super) struct Denials(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// By address or network; all others under the unspecified address.
    clients: HashMap<IpAddr, Client>,
    by_policy: BTreeMap<String, u64>,
}

/// What one client was refused in its minute.
#[derive(Debug)]
struct Client {
    since: Instant,
    seen: HashMap<Refusal, u64>,
    /// Of those that are not told apart.
    more: u64,
    /// Of `more`, those of whom the audit log has nothing yet.
    more_requests: u64,
}

/// What is the same in equal refusals.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Refusal {
    Request(Request),
    Command { command: String, identity: String, path: String },
    Handshake(String),
    PlainHttp,
    Connection,
    Ended,
    Memory,
    Unread,
}

/// A request that was not answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Request {
    path: String,
    identity: String,
    code: u16,
    policy: String,
    /// Nothing for a wrong method, which is not worth a line in the log.
    advice: Option<&'static str>,
}

/// Equal requests of a client that nobody knows, beyond those that were audited one by one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) ip: IpAddr,
    pub(super) path: String,
    pub(super) identity: String,
    pub(super) code: u16,
    pub(super) count: u64,
}

impl Request {
    /// A request of `identity` for `path`, which is told `code`.
    pub(super) fn new(path: &str, identity: &str, code: StatusCode) -> Self {
        let code = code.as_u16();
        let (path, identity) = (cut(path, MAX_TEXT).into(), cut(identity, MAX_TEXT).into());
        Self { path, identity, code, policy: String::new(), advice: None }
    }

    /// The same with the reason why it was denied.
    pub(super) fn because(self, denied: &Denied) -> Self {
        let (policy, advice) = match denied {
            Denied::NoIdentity(error) => (String::new(), error.advice()),
            Denied::Refused(advice) => (String::new(), *advice),
            Denied::NotAllowed { policy: None } => (String::new(), "the identity has no policy"),
            Denied::NotAllowed { policy: Some(policy) } => (policy.to_string(), "the policy does not allow it"),
        };
        Self { policy, advice: Some(advice), ..self }
    }

    /// The same, told something else.
    pub(super) fn told(self, code: StatusCode) -> Self {
        Self { code: code.as_u16(), ..self }
    }

    /// Whether it came from somebody of whom the server knows nothing.
    fn is_of_unknown(&self) -> bool {
        self.policy.is_empty()
    }
}

impl Denials {
    /// Counts a request that was refused, and logs it unless an equal one was logged within the minute. Says whether
    /// it is to be audited, too.
    pub(super) fn note(&self, request: Request, ip: IpAddr, now: Instant) -> bool {
        let mut inner = self.lock();
        if request.advice.is_some() {
            *inner.by_policy.entry(request.policy.clone()).or_default() += 1;
        }
        let is_unknown = request.is_of_unknown();
        let count = inner.note(Refusal::Request(request), ip, now);
        !is_unknown || count.is_some_and(|count| count <= AUDITED)
    }

    /// Logs that a command in a request for `path` was denied.
    pub(super) fn note_command(&self, command: &str, identity: &str, path: &str, ip: IpAddr, now: Instant) {
        let (command, identity) = (cut(command, MAX_TEXT).into(), cut(identity, MAX_TEXT).into());
        let path = cut(path, MAX_TEXT).into();
        self.lock().note(Refusal::Command { command, identity, path }, ip, now);
    }

    /// Logs that a client's handshake failed.
    pub(super) fn note_handshake(&self, error: &dyn Display, ip: IpAddr, now: Instant) {
        self.lock().note(Refusal::Handshake(cut(&error.to_string(), MAX_TEXT).into()), ip, now);
    }

    /// Logs that a client spoke HTTP without TLS.
    pub(super) fn note_plain_http(&self, ip: IpAddr, now: Instant) {
        self.lock().note(Refusal::PlainHttp, ip, now);
    }

    /// Logs that a connection was refused.
    pub(super) fn note_refused(&self, ip: IpAddr, now: Instant) {
        self.lock().note(Refusal::Connection, ip, now);
    }

    /// Logs that a connection was closed in the middle of a request, for a client that has fewer of them.
    pub(super) fn note_ended(&self, ip: IpAddr, now: Instant) {
        self.lock().note(Refusal::Ended, ip, now);
    }

    /// Logs that a request was refused because of the memory that it would have taken.
    pub(super) fn note_memory(&self, ip: IpAddr, now: Instant) {
        self.lock().note(Refusal::Memory, ip, now);
    }

    /// Logs that a connection was closed, since its client took no reply.
    pub(super) fn note_unread(&self, ip: IpAddr, now: Instant) {
        self.lock().note(Refusal::Unread, ip, now);
    }

    /// How many requests were denied, per policy; those without one under the empty name.
    pub(super) fn by_policy(&self) -> BTreeMap<String, u64> {
        self.lock().by_policy.clone()
    }

    /// Logs how often each refusal came in the minutes that are over, and says what the audit log lacks of them.
    pub(super) fn tell(&self, now: Instant) -> Vec<Summary> {
        let mut inner = self.lock();
        let over: Vec<_> = inner.clients.extract_if(|_, client| client.is_over(now)).collect();
        drop(inner);
        over.into_iter().flat_map(|(ip, client)| client.tell(ip)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// How many equal refusals there were in this minute, this one included; none when it is not told apart.
    fn note(&mut self, refusal: Refusal, ip: IpAddr, now: Instant) -> Option<u64> {
        let ip = ip.to_canonical();
        let network = network(ip);
        let has_place = self.clients.len() < CLIENTS || self.clients.contains_key(&network);
        let client = self.clients.entry(if has_place { network } else { Ipv4Addr::UNSPECIFIED.into() });
        client.or_insert_with(|| Client::new(now)).note(refusal, ip)
    }
}

/// What one client has: an address, or with IPv6 all addresses of its network.
pub(super) fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
    }
}

impl Client {
    fn new(now: Instant) -> Self {
        Self { since: now, seen: HashMap::new(), more: 0, more_requests: 0 }
    }

    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= QUIET
    }

    fn note(&mut self, refusal: Refusal, ip: IpAddr) -> Option<u64> {
        if let Some(count) = self.seen.get_mut(&refusal) {
            *count += 1;
            return Some(*count);
        }
        if self.seen.len() >= MAX {
            self.more += 1;
            self.more_requests += u64::from(matches!(&refusal, Refusal::Request(request) if request.is_of_unknown()));
            return None;
        }
        refusal.log(ip, 0);
        self.seen.insert(refusal, 1);
        Some(1)
    }

    /// Logs what was counted since it was logged first.
    fn tell(self, ip: IpAddr) -> Vec<Summary> {
        let Self { seen, more, more_requests, .. } = self;
        let mut summaries = Vec::new();
        for (refusal, count) in seen {
            if count > 1 {
                refusal.log(ip, count - 1);
            }
            let Refusal::Request(request) = refusal else { continue };
            if request.is_of_unknown() && count > AUDITED {
                let Request { path, identity, code, .. } = request;
                summaries.push(Summary { ip, path, identity, code, count: count - AUDITED });
            }
        }
        if more > 0 {
            tracing::info!(%ip, count = more, "further refusals of this client, too many to list");
        }
        if more_requests > 0 {
            let (path, identity) = (Summary::OTHERS.into(), String::new());
            summaries.push(Summary { ip, path, identity, code: Summary::DENIED, count: more_requests });
        }
        summaries
    }
}

impl Summary {
    /// What stands for a path where there were too many to tell apart.
    const OTHERS: &'static str = "*";

    /// The status of those, most of them.
    const DENIED: u16 = 403;
}

impl Refusal {
    fn log(&self, ip: IpAddr, repeated: u64) {
        match self {
            Self::Request(Request { path, identity, policy, advice: Some(advice), .. }) => {
                tracing::info!(path, %ip, identity, policy, advice, repeated, "request denied");
            }
            Self::Request(_) => {}
            Self::Command { command, identity, path } => {
                tracing::info!(path, %ip, identity, command, repeated, "command denied");
            }
            Self::Handshake(error) => tracing::info!(%ip, error, repeated, "TLS handshake failed"),
            Self::PlainHttp => {
                tracing::info!(%ip, repeated, "a client spoke plain HTTP; this server speaks HTTPS only");
            }
            Self::Connection => tracing::warn!(%ip, repeated, "connection refused: all connections are taken and busy"),
            Self::Ended => tracing::warn!(
                %ip, repeated,
                "connection closed while a request was running: all connections are taken, and its client has more than any other"
            ),
            Self::Unread => tracing::warn!(%ip, repeated, "connection closed: its client does not take a reply"),
            Self::Memory => tracing::warn!(
                %ip, repeated,
                "request refused: too much memory is taken by bodies that are arriving and replies that nobody reads"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7));

    fn denied(path: &str) -> Request {
        Request::new(path, "", StatusCode::FORBIDDEN).because(&Denied::NotAllowed { policy: None })
    }

    #[test]
    fn equal_refusals_are_audited_some_times_and_then_counted() {
        let denials = Denials::default();
        let start = Instant::now();
        let audited = (0..100).filter(|_| denials.note(denied("/a"), IP, start)).count();
        assert_eq!(audited, 16);
        assert!(denials.tell(start + QUIET / 2).is_empty(), "its minute is not over");
        let summaries = denials.tell(start + QUIET);
        let (ip, path, identity) = (IP, "/a".into(), String::new());
        assert_eq!(summaries, [Summary { ip, path, identity, code: 403, count: 84 }]);
        assert!(denials.note(denied("/a"), IP, start + QUIET), "a new minute");
        assert_eq!(denials.by_policy()[""], 101);
    }

    #[test]
    fn those_whose_policy_is_known_are_always_audited() {
        let (denials, start) = (Denials::default(), Instant::now());
        let policy = Some(crate::name::PolicyName::parse("app").expect("valid"));
        let because = Denied::NotAllowed { policy };
        let request = || Request::new("/a", "id", StatusCode::FORBIDDEN).because(&because);
        assert!((0..100).all(|_| denials.note(request(), IP, start)));
        assert!(denials.tell(start + QUIET).is_empty());
    }

    #[test]
    fn the_junk_of_one_client_hides_nothing_of_another() {
        let (denials, start) = (Denials::default(), Instant::now());
        let audited = (0..10_000).filter(|n| denials.note(denied(&format!("/{n}")), IP, start)).count();
        assert_eq!(audited, MAX);
        assert!(denials.note(denied("/later"), IpAddr::from([10, 0, 0, 8]), start));
        let summaries = denials.tell(start + QUIET);
        let (path, identity) = ("*".into(), String::new());
        assert_eq!(summaries, [Summary { ip: IP, path, identity, code: 403, count: 10_000 - MAX as u64 }]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (denials, start) = (Denials::default(), Instant::now());
        let long = "x".repeat(10_000);
        for n in 0..4 * CLIENTS as u128 {
            // The last half of an address is the client's own to choose.
            for host in 0..2 {
                denials.note(denied(&long), Ipv6Addr::from_bits(n << 64 | host).into(), start);
            }
        }
        let inner = denials.lock();
        assert_eq!(inner.clients.len(), CLIENTS + 1);
        let paths = inner.clients.values().flat_map(|client| client.seen.keys());
        assert!(paths.clone().count() <= CLIENTS + 1);
        assert!(paths.into_iter().all(|seen| matches!(seen, Refusal::Request(r) if r.path.len() <= MAX_TEXT + 3)));
    }
}
