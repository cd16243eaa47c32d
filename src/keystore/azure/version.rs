//! Versions of a secret: which one is the key, and when that is settled.
//!
//! A vault knows no conditions, and notes the times of versions in whole seconds. So a version counts as the oldest only
//! when the second in which it was made has passed by the vault's own clock, and one second more: nobody can add a version
//! of that second any more.

use std::time::Duration;

use serde::Deserialize;

use crate::keystore::Error;
use crate::keystore::rest::Reply;

/// How many seconds after its own a version may count as the oldest.
const SETTLED: i64 = 2;

/// A version as a listing shows it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Version {
    /// `https://<vault>/secrets/<name>/<version>`
    pub(super) id: String,
    pub(super) attributes: Attributes,
}

/// The times are seconds since 1970.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Attributes {
    pub(super) created: i64,
    #[serde(default = "yes")]
    enabled: bool,
    nbf: Option<i64>,
    exp: Option<i64>,
    #[serde(default)]
    pub(super) recovery_level: String,
}

fn yes() -> bool {
    true
}

impl Version {
    /// Why it cannot be read now.
    pub(super) fn unusable(&self, now: i64) -> Option<&'static str> {
        let Attributes { enabled, nbf, exp, .. } = self.attributes;
        match (enabled, nbf, exp) {
            (false, ..) => Some("it is disabled"),
            (_, Some(begin), _) if now < begin => Some("it may not be used yet ('nbf')"),
            (.., Some(end)) if end <= now => Some("it has expired ('exp')"),
            _ => None,
        }
    }

    /// How long to wait until it is known whether a version is older; none: it is known.
    pub(super) fn unsettled(&self, now: i64) -> Option<Duration> {
        let seconds = self.attributes.created.saturating_add(SETTLED).saturating_sub(now);
        // A vault whose clock jumps is asked again, not waited for.
        u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(|seconds| Duration::from_secs(seconds.min(3)))
    }
}

/// The version that counts: the oldest, and of several of the same second the first that is listed.
pub(super) fn oldest(versions: &[Version]) -> Option<&Version> {
    versions.iter().min_by_key(|version| version.attributes.created)
}

/// The name and the version in an id, which begins with any host.
pub(super) fn parts(id: &str) -> Option<(&str, &str)> {
    let path = id.split_once("://")?.1.split_once('/')?.1;
    let rest = path.strip_prefix("secrets/").or_else(|| path.strip_prefix("deletedsecrets/"))?;
    Some(rest.split_once('/').unwrap_or((rest, "")))
}

/// The vault's time, in seconds since 1970.
pub(super) fn time_of(reply: &Reply) -> Result<i64, Error> {
    let date = reply.date().ok_or_else(|| reply.failed("the answer does not tell the vault's time ('Date')"))?;
    Ok(date.unix_timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(id: &str, attributes: &str) -> Version {
        let id = format!("https://h/secrets/n/{id}");
        serde_json::from_str(&format!("{{ \"id\": \"{id}\", \"attributes\": {attributes} }}")).expect("valid")
    }

    #[test]
    fn of_the_oldest_the_first_counts() {
        let versions: Vec<_> = [("a", 7), ("b", 5), ("c", 5)]
            .map(|(id, created)| version(id, &format!("{{ \"created\": {created} }}")))
            .into();
        assert_eq!(parts(&oldest(&versions).expect("one").id), Some(("n", "b")));
        assert!(oldest(&[]).is_none());
    }

    #[test]
    fn a_version_counts_when_nobody_can_add_an_older_one() {
        let version = version("a", "{ \"created\": 100 }");
        for (now, wait) in [(99, Some(3)), (100, Some(2)), (101, Some(1)), (102, None), (200, None), (-5, Some(3))] {
            assert_eq!(version.unsettled(now), wait.map(Duration::from_secs), "{now}");
        }
    }

    #[test]
    fn what_may_not_be_used_is_no_key() {
        for (attributes, usable) in [
            ("{ \"created\": 1 }", true),
            ("{ \"created\": 1, \"enabled\": true, \"nbf\": 10, \"exp\": 11 }", true),
            ("{ \"created\": 1, \"enabled\": false }", false),
            ("{ \"created\": 1, \"nbf\": 11 }", false),
            ("{ \"created\": 1, \"exp\": 10 }", false),
        ] {
            assert_eq!(version("a", attributes).unusable(10).is_none(), usable, "{attributes}");
        }
    }

    #[test]
    fn an_id_has_a_name_and_a_version() {
        assert_eq!(parts("https://v.vault.azure.net/secrets/key/1"), Some(("key", "1")));
        assert_eq!(parts("https://v/secrets/key"), Some(("key", "")));
        for bad in ["", "key", "https://v", "https://v/keys/key/1", "/secrets/key"] {
            assert_eq!(parts(bad), None, "{bad}");
        }
    }
}
