//! `/v1/log/…`: events while they happen.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, stream};

use super::State;
use crate::server::{Call, Error, Reply};
use crate::telemetry::Events;

const NDJSON: &str = "application/x-ndjson";

pub(super) async fn error(call: Call<State>) -> Result<Reply, Error> {
    Ok(Reply::stream(NDJSON, follow(call.state().clone(), |state| state.telemetry.log.events())))
}

pub(super) async fn audit(call: Call<State>) -> Result<Reply, Error> {
    Ok(Reply::stream(NDJSON, follow(call.state().clone(), |state| state.telemetry.audit.events())))
}

/// The events from now on; ends when the reader cannot keep up.
fn follow(state: Arc<State>, events: fn(&State) -> &Events) -> impl Stream<Item = Bytes> + Send {
    let reader = events(&state).subscribe();
    stream::unfold((state, reader), move |(state, mut reader)| async move {
        match reader.next().await? {
            Ok(line) => Some((line, (state, reader))),
            Err(too_slow) => {
                events(&state).count_dropped_reader();
                tracing::warn!("a reader of a log stream was disconnected: {too_slow}");
                None
            }
        }
    })
}
