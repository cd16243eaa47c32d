//! Reading what was written, also from a standby that lags behind.
//!
//! Clusters whose standbys answer by themselves (OpenBao since 2.5, Vault Enterprise) say with a write how far
//! their log was then (`X-Vault-Index`). Told that with a later request, a standby that has not come so far has the
//! leader answer instead. Without it a key that was just created would be missing for a moment, and a token that was
//! just given refused.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use serde::Deserialize;

use crate::crypto::base64;

const INDEX: HeaderName = HeaderName::from_static("x-vault-index");
const INCONSISTENT: HeaderName = HeaderName::from_static("x-vault-inconsistent");

/// How far the log of the cluster was when it last answered us.
#[derive(Debug, Default)]
pub(super) struct Index(ArcSwapOption<HeaderValue>);

/// The header's value in OpenBao, decoded.
#[derive(Deserialize)]
struct Position {
    cluster: String,
    value: String,
}

impl Index {
    /// Asks for an answer that is no older.
    pub(super) fn demand(&self, headers: &mut HeaderMap) {
        if let Some(index) = &*self.0.load() {
            headers.insert(INDEX, HeaderValue::clone(index));
            headers.insert(INCONSISTENT, HeaderValue::from_static("forward-active-node"));
        }
    }

    /// Remembers what an answer says.
    pub(super) fn note(&self, headers: &HeaderMap) {
        let Some(index) = headers.get(INDEX) else { return };
        self.0.rcu(|known| match known {
            Some(known) if !is_newer(index, known) => Some(known.clone()),
            _ => Some(Arc::new(index.clone())),
        });
    }

    /// Demands nothing any more: of a cluster that was restored from a backup no answer would be new enough.
    pub(super) fn forget(&self) {
        self.0.store(None);
    }
}

/// Whether `index` is not known to be the older one.
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
        known.forget();
        assert_eq!(demanded(&known), None);
    }
}
