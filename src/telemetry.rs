//! What the server tells its operator: log, audit events, metrics.

pub mod audit;
pub mod log;
pub mod metrics;
mod stream;

pub use stream::{Events, Reader};

use std::sync::Arc;

/// Everything the server reports through. Shared by all parts, kept over a reload.
#[derive(Debug)]
pub struct Telemetry {
    /// The log: stderr and its API stream.
    pub log: Arc<log::Log>,
    /// Audit events: stdout and their API stream.
    pub audit: audit::Audit,
    /// Counters of requests.
    pub metrics: metrics::Metrics,
}
