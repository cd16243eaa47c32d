//! Read-after-write, also when a standby that lags behind answers.
//!
//! In some clusters standbys answer reads themselves (OpenBao since 2.5, Vault Enterprise). Their answer to a write
//! says how far the log was then (`X-Vault-Index`). When a later request repeats that index, a standby that has not
//! come so far forwards the request to the leader. Without it, a key that was just created would be missing for a
//! moment, and a new token would be refused.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use serde::Deserialize;
use tokio::time::Instant;

use crate::crypto::base64;

const INDEX: HeaderName = HeaderName::from_static("x-vault-index");
const INCONSISTENT: HeaderName = HeaderName::from_static("x-vault-inconsistent");

/// How long a cluster may take to reach the index again. A cluster that was restored from a backup never reaches it.
const CATCHES_UP: Duration = Duration::from_secs(30);

/// How far the log of the cluster was when it last answered us.
#[derive(Debug, Default)]
pub(super) struct Index {
    known: ArcSwapOption<HeaderValue>,
    /// Since when every server has answered that it has not reached the index.
    behind: Mutex<Option<Instant>>,
}

/// The header's value in OpenBao, decoded.
#[derive(Deserialize)]
struct Position {
    cluster: String,
    value: String,
}

impl Index {
    /// Asks for an answer at least as recent as the last one.
    pub(super) fn demand(&self, headers: &mut HeaderMap) {
        if let Some(index) = &*self.known.load() {
            headers.insert(INDEX, HeaderValue::clone(index));
            headers.insert(INCONSISTENT, HeaderValue::from_static("forward-active-node"));
        }
    }

    /// Remembers the index of an answer.
    pub(super) fn note(&self, headers: &HeaderMap) {
        *self.behind.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let Some(index) = headers.get(INDEX) else { return };
        self.known.rcu(|known| match known {
            Some(known) if !is_newer(index, known) => Some(known.clone()),
            _ => Some(Arc::new(index.clone())),
        });
    }

    /// The server has not reached the index. The demand is dropped only when no server reaches it for a long time:
    /// without it, a server could answer that a new key does not exist.
    pub(super) fn not_yet(&self, now: Instant) {
        let mut behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(*behind.get_or_insert(now)) >= CATCHES_UP {
            self.known.store(None);
        }
    }
}

/// Whether `index` may be newer than `known`.
fn is_newer(index: &HeaderValue, known: &HeaderValue) -> bool {
    match (position(index), position(known)) {
        (Some((cluster, value)), Some((known_cluster, known))) => cluster != known_cluster || value > known,
        _ => true,
    }
}

fn position(index: &HeaderValue) -> Option<(String, u64)> {
    let json = base64::decode(index.as_bytes())?;
    let Position { cluster, value } = serde_json::from_slice(&json).ok()?;
    Some((cluster, value.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(cluster: &str, value: u64) -> HeaderValue {
        let json = format!(r#"{{"cluster":"{cluster}","value":"{value}"}}"#);
        HeaderValue::from_str(&base64::encode(json.as_bytes())).expect("a header's value")
    }

    fn demanded(known: &Index) -> Option<HeaderValue> {
        let mut headers = HeaderMap::new();
        known.demand(&mut headers);
        assert_eq!(headers.len() % 2, 0, "both headers or none");
        headers.get(INDEX).cloned()
    }

    #[test]
    fn the_newest_answer_counts_whenever_it_arrives() {
        let known = Index::default();
        assert_eq!(demanded(&known), None);
        for (seen, expected) in [
            (index("a", 9), index("a", 9)),
            (index("a", 10), index("a", 10)),
            (index("a", 9), index("a", 10)),
            (index("b", 1), index("b", 1)),
            (HeaderValue::from_static("opaque"), HeaderValue::from_static("opaque")),
            (index("b", 2), index("b", 2)),
        ] {
            known.note(&HeaderMap::from_iter([(INDEX, seen)]));
            known.note(&HeaderMap::new());
            assert_eq!(demanded(&known), Some(expected));
        }
    }

    #[test]
    fn who_lags_behind_is_asked_again_and_who_never_catches_up_is_believed() {
        let (known, began) = (Index::default(), Instant::now());
        let answered = || known.note(&HeaderMap::from_iter([(INDEX, index("a", 9))]));
        answered();
        for seconds in [0, 1, 29] {
            known.not_yet(began + Duration::from_secs(seconds));
            assert_eq!(demanded(&known), Some(index("a", 9)), "after {seconds} s");
        }
        answered();
        known.not_yet(began + Duration::from_secs(31));
        assert_eq!(demanded(&known), Some(index("a", 9)), "it had answered meanwhile");
        known.not_yet(began + Duration::from_secs(61));
        assert_eq!(demanded(&known), None);
    }
}
