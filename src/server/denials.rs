//! Denied requests and failed handshakes: counts them, and logs them without flooding the log.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::auth::Denied;

/// Equal denials within this time make one line in the log.
const QUIET: Duration = Duration::from_secs(60);

/// How many different denials are told apart; further ones are only counted.
const MAX: usize = 1_024;

/// How much of a path is logged and compared, in characters. Longer paths are hostile: no valid name is that long.
const MAX_PATH: usize = 256;

/// Remembers which denials were logged lately.
#[derive(Debug, Default)]
pub(super) struct Denials(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    seen: HashMap<String, Repeated>,
    by_policy: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Repeated {
    since: Instant,
    count: u64,
}

impl Denials {
    /// Counts a denied request for `path`, and logs it unless an equal one was logged within the
    /// last minute; the next line then says how many there were.
    pub(super) fn note(&self, denied: &Denied, identity: &str, path: &str, ip: IpAddr, now: Instant) {
        let (policy, advice) = match denied {
            Denied::NoIdentity(error) => ("", error.advice()),
            Denied::NotAllowed { policy: None } => ("", "the identity has no policy"),
            Denied::NotAllowed { policy: Some(policy) } => (policy.as_str(), "the policy does not allow it"),
        };
        let path = path.char_indices().nth(MAX_PATH).map_or(path, |(end, _)| &path[..end]);
        let mut inner = self.lock();
        *inner.by_policy.entry(policy.to_owned()).or_default() += 1;
        if let Some(repeated) = inner.repeated(format!("{identity} {ip} {path} {advice}"), now) {
            drop(inner);
            tracing::info!(path, %ip, identity, policy, advice, repeated, "request denied");
        }
    }

    /// Logs that a command in a request for `path` was denied. Equal denials are logged once a minute.
    pub(super) fn note_command(&self, command: &str, identity: &str, path: &str, ip: IpAddr, now: Instant) {
        let path = path.char_indices().nth(MAX_PATH).map_or(path, |(end, _)| &path[..end]);
        let repeated = self.lock().repeated(format!("{identity} {ip} {path} {command}"), now);
        if let Some(repeated) = repeated {
            tracing::info!(path, %ip, identity, command, repeated, "command denied");
        }
    }

    /// Logs that a client's handshake failed, equal failures once a minute.
    pub(super) fn note_handshake(&self, error: &dyn Display, ip: IpAddr, now: Instant) {
        let repeated = self.lock().repeated(format!("{ip} {error}"), now);
        if let Some(repeated) = repeated {
            tracing::info!(%ip, %error, repeated, "TLS handshake failed");
        }
    }

    /// Logs that a connection was refused, at most once a minute for each address.
    pub(super) fn note_refused(&self, ip: IpAddr, now: Instant) {
        let repeated = self.lock().repeated(format!("{ip} refused"), now);
        if let Some(repeated) = repeated {
            tracing::warn!(%ip, repeated, "connection refused: all are taken and busy");
        }
    }

    /// How many requests were denied, per policy; those without one under the empty name.
    pub(super) fn by_policy(&self) -> BTreeMap<String, u64> {
        self.lock().by_policy.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// How many equal denials went unlogged before this one, if it is to be logged.
    fn repeated(&mut self, key: String, now: Instant) -> Option<u64> {
        if let Some(seen) = self.seen.get_mut(&key) {
            if now.saturating_duration_since(seen.since) < QUIET {
                seen.count += 1;
                return None;
            }
            let repeated = seen.count;
            *seen = Repeated { since: now, count: 0 };
            return Some(repeated);
        }
        if self.seen.len() >= MAX {
            self.seen.retain(|_, seen| now.saturating_duration_since(seen.since) < QUIET);
        }
        if self.seen.len() >= MAX {
            return None;
        }
        self.seen.insert(key, Repeated { since: now, count: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_denials_are_logged_once_a_minute_with_their_count() {
        let mut inner = Inner::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(inner.repeated("a".into(), at(0)), Some(0));
        assert_eq!(inner.repeated("a".into(), at(1)), None);
        assert_eq!(inner.repeated("a".into(), at(59)), None);
        assert_eq!(inner.repeated("b".into(), at(59)), Some(0));
        assert_eq!(inner.repeated("a".into(), at(60)), Some(2));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut inner = Inner::default();
        let start = Instant::now();
        for n in 0..2 * MAX {
            inner.repeated(n.to_string(), start);
        }
        assert_eq!(inner.seen.len(), MAX);
        assert_eq!(inner.repeated("later".into(), start + QUIET), Some(0));
    }
}
