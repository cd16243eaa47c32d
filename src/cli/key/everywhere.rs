//! Deletes a key at several servers of one key store: one deletes it, and the others drop it from their caches.

use anyhow::bail;
use hyper::StatusCode;

use crate::client::{Client, Error};

/// Deletes a key at each server. The servers after the first find it gone from the key store, and forget it.
///
/// # Errors
/// When a server refuses, when no server had the key, or when one could not be asked: it may use the key until its
/// cache expires. All servers are asked in any case.
pub(super) async fn remove(servers: &[Client], name: &str) -> anyhow::Result<()> {
    let mut was_there = false;
    let mut missing = None;
    let mut failures = Vec::new();
    for server in servers {
        match server.delete_key(name).await {
            Ok(()) => was_there = true,
            Err(error) if is_missing(&error) => missing = Some(error),
            Err(error) => failures.push((server, error)),
        }
    }
    match (failures.is_empty(), missing) {
        (true, Some(missing)) if !was_there => Err(missing.into()),
        (true, _) => Ok(()),
        // Of one server the error itself says all.
        (false, _) if servers.len() == 1 => Err(failures.remove(0).1.into()),
        (false, missing) => {
            let listed =
                failures.iter().map(|(server, error)| format!("\n  {}: {error}", server.endpoint().authority()));
            let listed = listed.collect::<String>();
            let state = match (was_there, missing) {
                (true, _) => "the key is deleted",
                (false, Some(_)) => "the key store does not have the key",
                (false, None) => bail!("no server deleted it:{listed}"),
            };
            bail!(
                "{state}, but these servers have not confirmed that they forgot it. They may use it for as long as \
                 'cache.expiry.any' of their config says. Make no key of this name before that, or run the command \
                 again:{listed}"
            )
        }
    }
}

fn is_missing(error: &Error) -> bool {
    matches!(error, Error::Refused { status: StatusCode::NOT_FOUND, .. })
}
