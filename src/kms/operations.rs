//! Every operation of the key manager's protocol: the one list that the server and its clients share.

use crate::operation::Operation;

/// The version of the server.
pub const VERSION: Operation = Operation::get("/version");
/// Whether the process runs.
pub const LIVE: Operation = Operation::get("/v1/health/live");
/// Whether requests can be served.
pub const READY: Operation = Operation::get("/v1/health/ready");
/// Metrics. Every identity with an account in any enclave may read them, because they reveal nothing about enclaves.
pub const METRICS: Operation = Operation::get("/v1/health/metrics");
/// Commands to an enclave. It depends on the commands whether they change something.
pub const EXECUTE: Operation = Operation::post("/v1/kms/");
/// A backup of all data.
pub const BACKUP: Operation = Operation::get("/v1/db");
/// Replaces all data by a backup.
pub const RESTORE: Operation = Operation::change("/v1/db");
/// Encrypts all data under another root key.
pub const ROTATE_ROOT: Operation = Operation::change("/v1/db/root");
/// Moves all data into the cluster that the server's config names.
pub const MOVE_IN: Operation = Operation::change("/v1/db/join");
/// Moves all data out of the cluster, to the server that is asked.
pub const MOVE_OUT: Operation = Operation::change("/v1/db/leave");
/// Records of the log as they happen.
pub const LOG: Operation = Operation::post("/v1/debug/log");
/// Refused, like the next three: operations of the protocol that this server does not have.
pub const RESTART: Operation = Operation::post("/v1/debug/restart");
/// Refused.
pub const PROFILE: Operation = Operation::get("/v1/debug/pprof");
/// Refused.
pub const PROFILE_START: Operation = Operation::post("/v1/debug/pprof");
/// Refused.
pub const PROFILE_STOP: Operation = Operation::delete("/v1/debug/pprof");
