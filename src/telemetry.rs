//! What the server tells its operator: log, audit events, metrics.

pub mod log;
