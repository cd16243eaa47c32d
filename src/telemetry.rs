//! What the server tells its operator: log, audit events, metrics.

pub mod audit;
pub mod histogram;
pub mod log;
pub mod metrics;
pub mod process;
mod reload;
mod stream;

pub use reload::Reload;
pub use stream::{Events, Reader};

use std::sync::Arc;

use time::OffsetDateTime;

/// Everything the server reports through. Shared by all parts, kept over a reload.
#[derive(Debug)]
pub struct Telemetry {
    /// The log: stderr and its API stream.
    pub log: Arc<log::Log>,
    /// Audit events: stdout, a file, and their API stream.
    pub audit: audit::Audit,
    /// When the process began.
    pub started: OffsetDateTime,
    /// What came of reading the config, the last time.
    pub reload: Reload,
}

impl Telemetry {
    /// Writes what there is to measure of the log and the audit events.
    pub fn write_metrics(&self, text: &mut metrics::Text) {
        let Self { log, audit, started, reload } = self;
        reload.write(text);
        let began = started.unix_timestamp_nanos() as f64 / 1e9;
        text.gauge("process_start_time_seconds", "When the process began, in seconds since 1970.", began);
        text.counter("kes_log_error_events", "Events of the log.", log.written());
        text.counter("kes_log_audit_events", "Audit events.", audit.written());
        let help = "Log lines dropped because standard error was too slow.";
        text.counter("claviger_log_dropped_total", help, log.dropped());
        let readers = log.events().readers_dropped() + audit.events().readers_dropped();
        let help = "Readers of log streams disconnected because they were too slow.";
        text.counter("claviger_log_readers_dropped_total", help, readers);
        text.gauge("claviger_audit_queue_length", "Audit events that wait to be written.", audit.queued());
        let help = "Requests that waited because the audit queue was full.";
        text.counter("claviger_audit_waits_total", help, audit.waits());
        let help = "Audit events that could not be written; those for a file are tried again, and count each time.";
        text.counter("claviger_audit_failed_total", help, audit.failed());
    }
}
