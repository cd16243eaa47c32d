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
use hyper::header::{ACCEPT, CONNECTION, HeaderValue, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};

use super::body::Arriving;
use super::connection::{Busy, Connection};
use super::denials;
use super::held::Client;
use super::path::{self, Path};
use super::reply::{self, Reply, ReplyBody};
use super::route::{Asked, Call, Route};
use super::streams::Reading;
use super::{Error, Service, Shared, Snapshot};
use crate::auth::{Caller, Denied, Identity, Requirement, peer};
use crate::clock;
use crate::foreign::cut;
use crate::server;
use crate::telemetry::audit::MAX_PATH;
use crate::telemetry::histogram::Histogram;
use crate::telemetry::metrics::{Active, Metrics};
use crate::telemetry::{audit, log};

/// The status that is recorded when the client disconnects before it is answered.
const ABANDONED: u16 = 499;

/// Answers one request.
pub(super) async fn serve<S: Service>(
    shared: &Arc<Shared<S>>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Response<ReplyBody> {
    let mut counted = Counted::begin(shared, &connection);
    let snapshot = shared.snapshot.load_full();
    let (head, body) = request.into_parts();
    let mut body = Arriving::new(body, &head.headers);
    let (is_chunked, accept) = (is_chunked(&head), head.headers.get(ACCEPT));
    let reply = match find(&snapshot, &head.method, &head.uri) {
        Err(invalid) => {
            body.discard().await;
            S::refuse(&Error::bad_request(invalid), accept)
        }
        Ok(None) => {
            body.discard().await;
            reply::page_not_found()
        }
        Ok(Some(found)) => {
            counted.times = shared.times.get(found.route.place()).or(counted.times);
            let (ip, peer) = connection.sender(&snapshot.tls.trust, &head.headers);
            let (connection, arrived, asked) = (&connection, counted.arrived, Asked::default());
            let exchange =
                Exchange { shared, connection, snapshot: &snapshot, found, ip, peer, arrived, accept, asked };
            exchange.run(&head, body).await
        }
    };
    let is_last = is_chunked || (head.version < Version::HTTP_2 && connection.is_leaving());
    counted.code = reply.status().as_u16();
    let now = counted.end();
    let mut response = reply.into_response(&head.method, connection, now);
    if is_last {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Whether the body comes in chunks, as it may over HTTP/1.1. Then the request is the last one of its connection: should
/// a proxy in front of us see its end elsewhere, nothing it forwards after that is taken for a request. So it is when
/// there is a `Content-Length`, too: the chunks count, as RFC 9112 (6.3) says, and hyper shows us no other length.
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
    ended: Option<Instant>,
    code: u16,
}

impl<'a> Counted<'a> {
    fn begin<S>(shared: &'a Shared<S>, connection: &'a Connection) -> Self {
        connection.begin();
        let (metrics, times) = (&shared.metrics, shared.times.last());
        let (_active, arrived) = (metrics.begin(), clock::instant());
        Self { metrics, times, _active, connection, arrived, ended: None, code: ABANDONED }
    }

    /// Says when it was answered: now.
    fn end(mut self) -> Instant {
        *self.ended.insert(clock::instant())
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let now = self.ended.unwrap_or_else(clock::instant);
        self.metrics.record(self.code);
        if let Some(times) = self.times {
            times.record(now.saturating_duration_since(self.arrived));
        }
        self.connection.finish(now);
    }
}

/// The route that a request is for.
struct Found<'a, S: Service> {
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
    let found = snapshot.state.find(method, path, uri.query().unwrap_or_default());
    Ok(found.map(|(route, path, name_at)| Found { route, path, name_at }))
}

/// A request that has found its route.
struct Exchange<'a, S: Service> {
    shared: &'a Arc<Shared<S>>,
    connection: &'a Arc<Connection>,
    snapshot: &'a Snapshot<S>,
    found: Found<'a, S>,
    ip: IpAddr,
    peer: Result<Identity, peer::Error>,
    arrived: Instant,
    accept: Option<&'a HeaderValue>,
    asked: Asked,
}

impl<S: Service> Exchange<'_, S> {
    /// Answers, and leaves an audit event, whatever happens.
    async fn run(mut self, head: &Parts, mut body: Arriving) -> Reply {
        let route = self.found.route;
        let (telemetry, state) = (&self.shared.telemetry, &self.snapshot.state);
        let is_audited = state.router().is_audited(route);
        if is_audited {
            // Until the event is sure of its place. A client that leaves now has asked for nothing.
            telemetry.audit.ready(route.patience()).await;
        }
        let has_method = route.accepts(&head.method);
        let asked = server::Asked {
            peer: self.peer.clone(),
            requirement: route.requirement(),
            method: &head.method,
            path: &self.found.path,
            query: head.uri.query().unwrap_or_default(),
            headers: &head.headers,
        };
        if let Some(settling) = state.settle(&asked)
            && let Err(error) = settling.await
        {
            body.discard().await;
            return self.reply(Err(error));
        }
        let decision = state.decide(asked);
        self.peer = decision.identity;
        let (caller, is_counted_only) = match decision.outcome {
            Ok(caller) => (Ok(caller), false),
            Err(denied) => self.deny(denied, has_method),
        };
        let mut audited = (is_audited && !is_counted_only).then(|| self.audited());
        let mut reply = if has_method {
            let client = self.client(&caller);
            self.shared.connections.note_client(self.connection, &client);
            // A panic is a defect, and the end of this request only.
            let answer = AssertUnwindSafe(self.answer(caller, &client, head, body)).catch_unwind().await;
            let answer = answer.unwrap_or_else(|_| Err(panicked()));
            self.reply(answer.and_then(|reply| reply.holding(|| route.held(self.connection, &client))))
        } else {
            body.discard().await;
            let refused = S::refuse(&wrong_method(&head.method, route.method()), self.accept);
            refused.with_header(ACCEPT, method(route.method()))
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

    /// Notes that the client may not ask this. Says, too, whether it is only counted: somebody whom nobody knows fills no
    /// audit log.
    fn deny<T>(&self, denied: Denied, has_method: bool) -> (Result<T, Error>, bool) {
        let identity = self.identity().map(S::spell).unwrap_or_default();
        let is_known = matches!(denied, Denied::NotAllowed { policy: Some(_) });
        let mut request = denials::Request::new(&self.found.path, &identity, StatusCode::METHOD_NOT_ALLOWED);
        if has_method {
            request = request.because(&denied);
        }
        let error = S::denied(denied);
        if has_method {
            request = request.told(error.status());
        }
        let is_recorded = (is_known && !has_method) || self.shared.denials.note(request, self.ip, clock::instant());
        (Err(error), !is_recorded)
    }

    fn audited(&self) -> Audited<'_> {
        let (audit, path) = (&self.shared.telemetry.audit, &*self.found.path);
        let (identity, spell) = (self.identity(), S::spell as Spell);
        let (ip, arrived) = (self.ip, self.arrived);
        Audited { audit, path, ip, identity, spell, arrived, code: ABANDONED, asked: self.asked.clone() }
    }

    /// The rest of the steps.
    async fn answer(
        &self,
        caller: Result<(Caller, S::Access), Error>,
        client: &Client,
        head: &Parts,
        mut body: Arriving,
    ) -> Result<Reply, Error> {
        let started = clock::instant();
        let (caller, access) = match caller {
            Ok(caller) => caller,
            Err(error) => {
                body.discard().await;
                return Err(error);
            }
        };
        let Found { route, path, name_at } = &self.found;
        let query = head.uri.query().unwrap_or_default().to_owned();
        let counted = (self.asked.clone(), route.held(self.connection, client));
        let call =
            Call::new(self.snapshot.state.clone(), (caller, access, self.ip), self.accept.cloned(), query, counted);
        route.answer(call, &path[*name_at..], body, started).await
    }

    /// Who is charged for the memory that the request takes.
    fn client<T>(&self, caller: &Result<T, Error>) -> Client {
        let is_known = caller.is_ok() && self.found.route.requirement() == Requirement::Policy;
        match self.identity().filter(|_| is_known) {
            Some(identity) => Client::Known(identity.clone()),
            None => Client::Unknown(denials::network(self.ip)),
        }
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
        if error.is_overload() {
            self.shared.denials.note_memory(self.ip, clock::instant());
        } else if error.status().is_server_error() {
            let identity = self.identity().map(S::spell).unwrap_or_default();
            let cause = error.source().map_or_else(String::new, |source| log::causes(source));
            tracing::error!(cause, path = %cut(&self.found.path, MAX_PATH), ip = %self.ip, identity = %identity, "{}", error.message());
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
        let (commands, count) = (self.asked.get(), None);
        self.audit.record(&audit::Event { time, ip, path, identity: &identity, code, took, commands, count });
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
