//! The time and the result of the last reload of the config.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use time::OffsetDateTime;

use super::metrics::Text;

/// When the config was taken up last, and whether it was when it was last read again.
#[derive(Debug)]
pub struct Reload {
    succeeded: AtomicBool,
    /// In seconds since 1970.
    taken_up: AtomicI64,
}

impl Reload {
    /// A server that has started has taken its config up.
    pub fn new(now: OffsetDateTime) -> Self {
        Self { succeeded: AtomicBool::new(true), taken_up: AtomicI64::new(now.unix_timestamp()) }
    }

    /// Remembers whether the config was taken up.
    pub fn note(&self, succeeded: bool, now: OffsetDateTime) {
        self.succeeded.store(succeeded, Ordering::Relaxed);
        if succeeded {
            self.taken_up.store(now.unix_timestamp(), Ordering::Relaxed);
        }
    }

    pub(super) fn write(&self, text: &mut Text) {
        let help = "1 if the config was taken up when it was last read.";
        text.gauge("claviger_config_last_reload_successful", help, u8::from(self.succeeded.load(Ordering::Relaxed)));
        let help = "When the config was last taken up, in seconds since 1970.";
        let taken_up = self.taken_up.load(Ordering::Relaxed);
        text.gauge("claviger_config_last_reload_success_timestamp_seconds", help, taken_up);
    }
}
