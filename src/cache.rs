//! `Keys`: decoded keys, fetched once, expired by rule.

use std::time::Duration;

/// The `cache:` section of the config file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// No entry is served longer than this after it was fetched. Default 5 minutes.
    pub any: Duration,
    /// Entries not used within this leave. Default 30 seconds.
    pub unused: Duration,
    /// How long after the keystore's last good answer entries go on serving in an outage; zero: not at all.
    pub offline: Duration,
    /// The most entries kept. Default 100,000.
    pub max_entries: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            any: Duration::from_secs(300),
            unused: Duration::from_secs(30),
            offline: Duration::ZERO,
            max_entries: 100_000,
        }
    }
}
