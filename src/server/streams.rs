//! Streaming responses. A stream ends when the server stops, when its reader loses the right to read it, and when its
//! reader cannot keep up.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::future::{AbortHandle, Abortable};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::connection::{Busy, Connection, End};
use super::reply::Pieces;
use super::{Service, Shared};
use crate::auth::{Identity, Requirement, peer};

tokio::task_local! {
    /// Aborts the HTTP/2 request that the current task serves.
    static REQUEST: AbortHandle;
}

/// Runs each request of an HTTP/2 connection as a task that can be aborted. No other way ends a stream whose client has
/// stopped reading: hyper does not even poll its body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Executor;

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, request: F) {
        let (handle, registration) = AbortHandle::new_pair();
        tokio::spawn(REQUEST.scope(handle, Abortable::new(request, registration)));
    }
}

/// The reader of a stream, and its connection.
pub(super) struct Reading<S> {
    pub(super) shared: Arc<Shared<S>>,
    pub(super) connection: Arc<Connection>,
    pub(super) peer: Result<Identity, peer::Error>,
    pub(super) requirement: Requirement,
    pub(super) path: String,
}

impl<S: Service> Reading<S> {
    /// Wraps the stream for the client. While the stream exists, its connection counts as busy. Call it in the
    /// request's own task.
    pub(super) fn of(self, pieces: Pieces, too_slow: CancellationToken, busy: Busy) -> Pieces {
        let request = REQUEST.try_with(AbortHandle::clone).ok();
        // Dropped with the task, and with the stream.
        let (watched, unwatched) = oneshot::channel::<()>();
        let (read, unread) = oneshot::channel::<()>();
        tokio::spawn(async move {
            let _held = (watched, busy);
            tokio::select! {
                _ = unread => {}
                _ = self.connection.ended(End::Leave) => {}
                () = self.denied() => {}
                () = too_slow.cancelled() => {
                    tracing::warn!(ip = %self.connection.ip(), path = self.path, "a reader of a stream was too slow and is disconnected");
                    match request {
                        Some(request) => request.abort(),
                        None => self.connection.end(End::Close),
                    }
                }
            }
        });
        Box::pin(pieces.take_until(unwatched).inspect(move |_| {
            let _ = &read;
        }))
    }

    /// Waits until a reload, or a change of somebody's rights, takes away the right to read this.
    async fn denied(&self) {
        let mut replaced = self.shared.replaced.subscribe();
        loop {
            // Check once at the start: the right may be gone since the request was admitted.
            let state = self.shared.snapshot.load().state.clone();
            if state.authorize(self.peer.clone(), self.requirement, &self.path).is_err() {
                return;
            }
            // It cannot fail, because `shared` holds the sender.
            if replaced.changed().await.is_err() {
                return;
            }
        }
    }
}
