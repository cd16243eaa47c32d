//! `/v1/log/…`: streams the error log and the audit log.

use futures_util::stream;

use super::State;
use crate::server::{Call, Error, Reply};
use crate::telemetry::Events;

const NDJSON: &str = "application/x-ndjson";

pub(super) async fn error(call: Call<State>) -> Result<Reply, Error> {
    Ok(follow(call.state().telemetry.log.events()))
}

pub(super) async fn audit(call: Call<State>) -> Result<Reply, Error> {
    Ok(follow(call.state().telemetry.audit.events()))
}

/// The events from now on; the reader is cut off when it cannot keep up.
fn follow(events: &Events) -> Reply {
    let reader = events.subscribe();
    let too_slow = reader.too_slow();
    let lines = stream::unfold(reader, |mut reader| async { reader.next().await.map(|line| (line, reader)) });
    Reply::stream(NDJSON, lines, too_slow)
}
