//! `cache`: settings with surprising effects.

use super::Report;
use crate::cli::units::span;
use crate::config::Config;
use crate::keystore;

/// Checks how long cached keys are served without the key store.
pub(super) fn check(config: &Config, report: &mut Report) {
    const ID: &str = "cache";
    let expiry = config.cache.expiry;
    // A key in the config itself cannot have an outage, and neither can an enclave of the same process.
    let can_fail = !matches!(config.keystore.store, keystore::Config::Static(_) | keystore::Config::Enclave(_));
    if expiry.offline.is_zero() && can_fail {
        let left = span(expiry.any.min(expiry.unused));
        report.warning(
            ID,
            format!(
                "in an outage of the key store requests fail as soon as keys leave the cache, unused ones after {left}"
            ),
            "to bridge outages set cache.expiry.offline to the longest one, such as 24h",
        );
    }
    if expiry.unused > expiry.any {
        let (unused, any) = (span(expiry.unused), span(expiry.any));
        report.warning(
            ID,
            format!("cache.expiry.unused ({unused}) has no effect: every key leaves after cache.expiry.any ({any})"),
            "make unused shorter than any, or any longer",
        );
    }
    if report.is_clean(ID) {
        report.ok(ID, "keys serve through an outage of the key store");
    }
}
