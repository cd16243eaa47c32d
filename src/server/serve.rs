//! What every request runs through, whatever it asks.
//!
//! [`serve`] alone does, in this order: path, route, method, certificate, policy, name, body, handler,
//! reply; then it counts, audits and logs.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt as _;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};

use super::body;
use super::connection::Connection;
use super::path::{self, Path};
use super::reply::{self, Reply, ReplyBody};
use super::route::{Call, Route};
use super::{Error, Service, Shared, Snapshot};
use crate::auth::{Denied, Identity, peer};
use crate::clock;
use crate::telemetry::metrics::{Active, Metrics};
use crate::telemetry::{audit, log};

/// What is recorded of a request whose client went away before it was answered.
const ABANDONED: u16 = 499;

/// Answers one request.
pub(super) async fn serve<S: Service>(
    shared: &Shared<S>,
    connection: &Arc<Connection>,
    request: Request<Incoming>,
) -> Response<ReplyBody> {
    let mut counted = Counted::begin(&shared.telemetry.metrics);
    let busy = connection.begin();
    let snapshot = shared.snapshot.load_full();
    let (head, body) = request.into_parts();
    let reply = match find(&snapshot, &head.uri) {
        Err(invalid) => {
            body::discard(body).await;
            Reply::from(&Error::bad_request(invalid))
        }
        Ok(None) => {
            body::discard(body).await;
            reply::page_not_found()
        }
        Ok(Some(found)) => {
            let (ip, peer) = snapshot.trust.peer(connection, &head.headers);
            let started = counted.started;
            let exchange = Exchange { shared, snapshot: &snapshot, found, ip, started };
            exchange.run(&head.method, peer, body).await
        }
    };
    counted.code = reply.status().as_u16();
    drop(counted);
    let mut response = reply.into_response(&head.method);
    if let ReplyBody::Stream(stream) = response.body_mut() {
        // The connection is busy for as long as the stream lasts.
        let inner = std::mem::replace(stream, Box::pin(futures_util::stream::empty()));
        *stream = Box::pin(futures_util::StreamExt::inspect(inner, move |_| {
            let _ = &busy;
        }));
    }
    response
}

/// A request being answered. Counts it when dropped, so also when the client goes away.
struct Counted<'a> {
    metrics: &'a Metrics,
    _active: Active<'a>,
    started: Instant,
    code: u16,
}

impl<'a> Counted<'a> {
    fn begin(metrics: &'a Metrics) -> Self {
        Self { metrics, _active: metrics.begin(), started: Instant::now(), code: ABANDONED }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.metrics.record(self.code, self.started.elapsed());
    }
}

/// The route that a request is for.
struct Found<'a, S> {
    route: &'a Route<S>,
    /// As policies see it.
    path: String,
    /// Where in `path` the name begins.
    name_at: usize,
}

/// The first two steps: the path is well-formed, and somebody's.
fn find<'a, S: Service>(snapshot: &'a Snapshot<S>, uri: &Uri) -> Result<Option<Found<'a, S>>, path::Invalid> {
    let path = Path::parse(uri.path())?;
    let found = snapshot.state.router().find(&path);
    Ok(found.map(|(route, path, name_at)| Found { route, path: path.into_owned(), name_at }))
}

/// A request that has found its route.
struct Exchange<'a, S> {
    shared: &'a Shared<S>,
    snapshot: &'a Snapshot<S>,
    found: Found<'a, S>,
    ip: IpAddr,
    started: Instant,
}

impl<S: Service> Exchange<'_, S> {
    /// Answers, and leaves an audit event, whatever happens.
    async fn run(&self, method: &Method, peer: Result<Identity, peer::Error>, body: Incoming) -> Reply {
        let identity = peer.as_ref().ok().cloned();
        let mut audited = self.audit(identity.as_ref()).await;
        let route = self.found.route;
        let reply = if route.accepts(method) {
            // A panic is a defect, and the end of this request only.
            let answer = AssertUnwindSafe(self.answer(peer, body)).catch_unwind().await;
            self.reply(answer.unwrap_or_else(|_| Err(panicked())), identity.as_ref())
        } else {
            body::discard(body).await;
            wrong_method(method, route.method())
        };
        if let Some(audited) = &mut audited {
            audited.code = reply.status().as_u16();
        }
        reply
    }

    async fn audit<'a>(&'a self, identity: Option<&'a Identity>) -> Option<Audited<'a>> {
        let Found { route, path, .. } = &self.found;
        if !self.snapshot.state.router().is_audited(route) {
            return None;
        }
        let place = self.shared.telemetry.audit.place().await?;
        let identity = identity.map_or("", Identity::as_str);
        let (ip, started) = (self.ip, self.started);
        Some(Audited { place: Some(place), path, ip, identity, started, code: ABANDONED })
    }

    /// The rest of the steps.
    async fn answer(&self, peer: Result<Identity, peer::Error>, body: Incoming) -> Result<Reply, Error> {
        let state = &self.snapshot.state;
        let Found { route, path, name_at } = &self.found;
        let identity = peer.as_ref().ok().cloned();
        let denied = |denied: Denied| {
            self.shared.denials.note(&denied, identity.as_ref(), path, self.ip, self.started);
            Error::from(denied)
        };
        let caller = match state.access().authorize(peer, route.requirement(), path) {
            Ok(caller) => caller,
            Err(reason) => {
                body::discard(body).await;
                return Err(denied(reason));
            }
        };
        let call = Call::new(state.clone(), caller, path[*name_at..].to_owned());
        route.answer(call, body, self.started).await
    }

    fn reply(&self, answer: Result<Reply, Error>, identity: Option<&Identity>) -> Reply {
        let error = match answer {
            Ok(reply) => return reply,
            Err(error) => error,
        };
        if error.status().is_server_error() {
            let identity = identity.map_or("", Identity::as_str);
            let cause = error.source().map_or_else(String::new, |source| log::causes(source));
            tracing::error!(cause, path = self.found.path, ip = %self.ip, identity, "{}", error.message());
        }
        Reply::from(&error)
    }
}

/// A request that leaves an audit event. It does so when dropped: a client that asks for a deletion and
/// goes away at once has asked for it all the same.
struct Audited<'a> {
    place: Option<audit::Place<'a>>,
    path: &'a str,
    ip: IpAddr,
    identity: &'a str,
    started: Instant,
    code: u16,
}

impl Drop for Audited<'_> {
    fn drop(&mut self) {
        let Some(place) = self.place.take() else { return };
        let took = self.started.elapsed();
        let time = clock::now() - took;
        place.record(&audit::Event {
            time,
            ip: self.ip,
            path: self.path,
            identity: self.identity,
            code: self.code,
            took,
        });
    }
}

fn wrong_method(got: &Method, expected: &Method) -> Reply {
    let message = format!("received method '{got}' expected '{expected}'");
    let reply = Reply::from(&Error::new(StatusCode::METHOD_NOT_ALLOWED, message));
    let expected = HeaderValue::from_str(expected.as_str()).expect("the methods of our routes are plain text");
    reply.with_header(ACCEPT, expected)
}

fn panicked() -> Error {
    Error::new(StatusCode::INTERNAL_SERVER_ERROR, "internal server error")
        .caused_by("the handler panicked; this is a defect of the server, please report it")
}
