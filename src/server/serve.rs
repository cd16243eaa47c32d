//! The steps that every request runs through.
//!
//! [`serve`] alone does, in this order: path, route, method, certificate, policy, name, body, handler,
//! reply; then it counts, audits and logs.

use std::borrow::Cow;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt as _;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONNECTION, CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};

use super::body;
use super::connection::{Busy, Connection};
use super::path::{self, Path};
use super::reply::{self, Reply, ReplyBody};
use super::route::{Asked, Call, Route};
use super::streams::Reading;
use super::{Error, Service, Shared, Snapshot};
use crate::auth::{Denied, Identity, peer};
use crate::clock;
use crate::telemetry::histogram::Histogram;
use crate::telemetry::metrics::{Active, Metrics};
use crate::telemetry::{audit, log};

/// The status that is recorded when the client disconnects before it is answered.
const ABANDONED: u16 = 499;

/// Answers one request.
pub(super) async fn serve<S: Service>(
    shared: &Arc<Shared<S>>,
    connection: &Arc<Connection>,
    request: Request<Incoming>,
) -> Response<ReplyBody> {
    let mut counted = Counted::begin(shared, connection);
    let snapshot = shared.snapshot.load_full();
    let (head, body) = request.into_parts();
    let (is_chunked, accept) = (is_chunked(&head), head.headers.get(ACCEPT));
    let reply = match find(&snapshot, &head.method, &head.uri) {
        Err(invalid) => {
            body::discard(body).await;
            S::refuse(&Error::bad_request(invalid), accept)
        }
        Ok(None) => {
            body::discard(body).await;
            reply::page_not_found()
        }
        Ok(Some(found)) => {
            counted.times = shared.times.get(found.route.place()).or(counted.times);
            let (ip, peer) = snapshot.tls.trust.peer(connection, &head.headers);
            let arrived = counted.arrived;
            let asked = Asked::default();
            let exchange = Exchange {
                shared,
                connection,
                snapshot: &snapshot,
                found,
                ip,
                peer,
                arrived,
                is_chunked,
                accept,
                asked,
            };
            exchange.run(&head, body).await
        }
    };
    counted.code = reply.status().as_u16();
    drop(counted);
    let mut response = reply.into_response(&head.method);
    if is_chunked || (head.version < Version::HTTP_2 && connection.is_leaving()) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Whether the body comes in chunks, over HTTP/1.1. Then this request is the last one of its connection. This prevents
/// request smuggling: if a proxy in front of us sees the end of the body elsewhere, the bytes after it are never taken
/// for a request.
fn is_chunked(head: &Parts) -> bool {
    head.version < Version::HTTP_2 && head.headers.contains_key(TRANSFER_ENCODING)
}

/// A running request. It is counted on drop, so also when the client disconnects.
struct Counted<'a> {
    metrics: &'a Metrics,
    /// Of its route; at first, of none.
    times: Option<&'a Histogram>,
    _active: Active<'a>,
    connection: &'a Connection,
    arrived: Instant,
    code: u16,
}

impl<'a> Counted<'a> {
    fn begin<S>(shared: &'a Shared<S>, connection: &'a Connection) -> Self {
        connection.begin();
        let (metrics, times) = (&shared.telemetry.metrics, shared.times.last());
        Self { metrics, times, _active: metrics.begin(), connection, arrived: clock::instant(), code: ABANDONED }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let now = clock::instant();
        self.metrics.record(self.code);
        if let Some(times) = self.times {
            times.record(now.saturating_duration_since(self.arrived));
        }
        self.connection.finish(now);
    }
}

/// The route that a request is for.
struct Found<'a, S> {
    route: &'a Route<S>,
    /// The decoded path that policies are matched against.
    path: Cow<'a, str>,
    /// Where in `path` the name begins.
    name_at: usize,
}

/// The first two steps: the path is well-formed, and has a route.
fn find<'a, S: Service>(
    snapshot: &'a Snapshot<S>,
    method: &Method,
    uri: &'a Uri,
) -> Result<Option<Found<'a, S>>, path::Invalid> {
    let path = Path::parse(uri.path())?;
    let found = snapshot.state.router().find(method, path);
    Ok(found.map(|(route, path, name_at)| Found { route, path, name_at }))
}

/// A request that has found its route.
struct Exchange<'a, S> {
    shared: &'a Arc<Shared<S>>,
    connection: &'a Arc<Connection>,
    snapshot: &'a Snapshot<S>,
    found: Found<'a, S>,
    ip: IpAddr,
    peer: Result<Identity, peer::Error>,
    arrived: Instant,
    is_chunked: bool,
    accept: Option<&'a HeaderValue>,
    asked: Asked,
}

impl<S: Service> Exchange<'_, S> {
    /// Answers the request, and leaves an audit event in every case.
    async fn run(&self, head: &Parts, body: Incoming) -> Reply {
        let mut audited = self.audit().await;
        let (route, accept) = (self.found.route, self.accept);
        let mut reply = if route.accepts(&head.method) {
            // A panic is a defect. It ends this request only.
            let answer = AssertUnwindSafe(self.answer(head, body)).catch_unwind().await;
            self.reply(answer.unwrap_or_else(|_| Err(panicked())))
        } else {
            body::discard(body).await;
            S::refuse(&wrong_method(&head.method, route.method()), accept).with_header(ACCEPT, method(route.method()))
        };
        if let Some(audited) = &mut audited {
            audited.code = reply.status().as_u16();
        }
        if let Some((pieces, too_slow)) = reply.stream_mut() {
            let inner = std::mem::replace(pieces, Box::pin(futures_util::stream::empty()));
            *pieces = self.reading().of(inner, too_slow.clone(), Busy::new(self.connection.clone()));
        }
        reply
    }

    /// Waits until there is room for the audit event of this request.
    async fn audit(&self) -> Option<Audited<'_>> {
        let Found { route, path, .. } = &self.found;
        let audit = &self.shared.telemetry.audit;
        if !self.snapshot.state.router().is_audited(route) {
            return None;
        }
        // When the client disconnects here, nothing has been done yet, and no event is needed.
        audit.ready(route.patience()).await;
        let (identity, spell) = (self.identity(), S::spell as Spell);
        let (ip, arrived) = (self.ip, self.arrived);
        Some(Audited { audit, path, ip, identity, spell, arrived, code: ABANDONED, asked: self.asked.clone() })
    }

    /// The rest of the steps.
    async fn answer(&self, head: &Parts, body: Incoming) -> Result<Reply, Error> {
        let started = clock::instant();
        let Found { route, path, name_at } = &self.found;
        if self.is_chunked && head.headers.contains_key(CONTENT_LENGTH) {
            return Err(Error::new(StatusCode::BAD_REQUEST, "both Content-Length and Transfer-Encoding given"));
        }
        let denied = |denied: Denied| {
            let identity = self.identity().map(S::spell).unwrap_or_default();
            self.shared.denials.note(&denied, &identity, path, self.ip, started);
            S::denied(denied)
        };
        let state = &self.snapshot.state;
        let caller = match state.authorize(self.peer.clone(), route.requirement(), path) {
            Ok(caller) => caller,
            Err(reason) => {
                body::discard(body).await;
                return Err(denied(reason));
            }
        };
        let query = head.uri.query().unwrap_or_default().to_owned();
        let call = Call::new(state.clone(), (caller, self.ip), self.accept.cloned(), query, self.asked.clone());
        route.answer(call, &path[*name_at..], body, started).await
    }

    fn identity(&self) -> Option<&Identity> {
        self.peer.as_ref().ok()
    }

    /// Describes the reader of the reply, for streams.
    fn reading(&self) -> Reading<S> {
        Reading {
            shared: self.shared.clone(),
            connection: self.connection.clone(),
            peer: self.peer.clone(),
            requirement: self.found.route.requirement(),
            path: self.found.path.clone().into_owned(),
        }
    }

    fn reply(&self, answer: Result<Reply, Error>) -> Reply {
        let error = match answer {
            Ok(reply) => return reply,
            Err(error) => error,
        };
        if error.status().is_server_error() {
            let identity = self.identity().map(S::spell).unwrap_or_default();
            let cause = error.source().map_or_else(String::new, |source| log::causes(source));
            tracing::error!(cause, path = %self.found.path, ip = %self.ip, identity = %identity, "{}", error.message());
        }
        if let Some(command) = error.denied() {
            let identity = self.identity().map(S::spell).unwrap_or_default();
            self.shared.denials.note_command(command, &identity, &self.found.path, self.ip, clock::instant());
        }
        S::refuse(&error, self.accept)
    }
}

/// Writes the audit event of a request on drop, so also when a client disconnects right after it asked for a deletion.
struct Audited<'a> {
    audit: &'a audit::Audit,
    path: &'a str,
    ip: IpAddr,
    identity: Option<&'a Identity>,
    spell: Spell,
    arrived: Instant,
    code: u16,
    asked: Asked,
}

/// How a service writes an identity.
type Spell = fn(&Identity) -> Cow<'_, str>;

impl Drop for Audited<'_> {
    fn drop(&mut self) {
        if !self.audit.is_wanted() {
            return;
        }
        let took = clock::instant().saturating_duration_since(self.arrived);
        let (time, code) = (clock::now() - took, self.code);
        let (path, ip, identity) = (self.path, self.ip, self.identity.map(self.spell).unwrap_or_default());
        let commands = self.asked.get();
        self.audit.record(&audit::Event { time, ip, path, identity: &identity, code, took, commands });
    }
}

fn wrong_method(got: &Method, expected: &Method) -> Error {
    Error::new(StatusCode::METHOD_NOT_ALLOWED, format!("received method '{got}' expected '{expected}'"))
}

fn method(method: &Method) -> HeaderValue {
    HeaderValue::from_str(method.as_str()).expect("the methods of our routes are plain text")
}

fn panicked() -> Error {
    Error::new(StatusCode::INTERNAL_SERVER_ERROR, "internal server error")
        .caused_by("the handler panicked; this is a defect of the server, please report it")
}
