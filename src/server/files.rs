//! The limit of open files: every connection takes one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files for everything but connections: the keystore, the config, standard streams, event queues.
const OTHERS: u64 = 128;

/// Raises the soft limit of open files to the hard one, and says how many of `wanted` connections that leaves room for,
/// beside those that other servers of the process may have.
pub(super) fn for_connections(wanted: usize, taken: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let limit = if raised.is_ok() { limit.maximum } else { limit.current };
    let Some(limit) = limit else { return wanted };
    let possible = usize::try_from(limit.saturating_sub(OTHERS)).unwrap_or(usize::MAX);
    let possible = possible.saturating_sub(taken).max(1);
    if possible < wanted {
        tracing::warn!(
            "at most {possible} of {wanted} connections are possible, since the limit of open files is {limit}; raise it \
             with LimitNOFILE= or 'ulimit -n'"
        );
    }
    possible.min(wanted)
}
