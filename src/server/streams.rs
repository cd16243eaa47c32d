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
    /// Cuts off the HTTP/2 request whose task this is.
    static REQUEST: AbortHandle;
}

/// Runs each request of an HTTP/2 connection as a task that can be cut off. That is the only way to end a
/// stream whose client takes nothing any more: its body is not even asked for the next piece.
#[derive(Debug, Clone, Copy)]
pub(super) struct Executor;

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, request: F) {
        let (handle, registration) = AbortHandle::new_pair();
        tokio::spawn(REQUEST.scope(handle, Abortable::new(request, registration)));
    }
}

/// Who reads a stream, and where.
pub(super) struct Reading<S> {
    pub(super) shared: Arc<Shared<S>>,
    pub(super) connection: Arc<Connection>,
    pub(super) peer: Result<Identity, peer::Error>,
    pub(super) requirement: Requirement,
    pub(super) path: String,
}

impl<S: Service> Reading<S> {
    /// The stream as the client gets it; for as long as it lasts, its connection is `busy`. To be called in the
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
            // First now: the right may have gone after the request was let in.
            let state = self.shared.snapshot.load().state.clone();
            if state.authorize(self.peer.clone(), self.requirement, &self.path).is_err() {
                return;
            }
            // There is always a sender: it is in `shared`.
            if replaced.changed().await.is_err() {
                return;
            }
        }
    }
}
