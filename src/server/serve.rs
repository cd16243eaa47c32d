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
use hyper::{Method, Request, Response, StatusCode};

use super::connection::Connection;
use super::path::{self, Path};
use super::reply::{self, Reply, ReplyBody};
use super::route::{Call, Route};
use super::{Error, Service, Shared, Snapshot};
use crate::auth::{Denied, Identity, peer};
use crate::clock;
use crate::telemetry::{audit, log};

/// Answers one request.
pub(super) async fn serve<S: Service>(
    shared: &Shared<S>,
    connection: &Arc<Connection>,
    request: Request<Incoming>,
) -> Response<ReplyBody> {
    let started = Instant::now();
    let telemetry = &shared.telemetry;
    let active = telemetry.metrics.begin();
    let busy = connection.begin();
    let snapshot = shared.snapshot.load_full();
    let (head, body) = request.into_parts();

    let path = match Path::parse(head.uri.path()) {
        Ok(path) => path,
        Err(path::Invalid) => {
            let reply = Reply::from(&Error::bad_request(path::Invalid));
            telemetry.metrics.record(reply.status().as_u16(), started.elapsed());
            return reply.into_response();
        }
    };
    let router = snapshot.state.router();
    let Some((route, path, name_at)) = router.find(&path) else {
        let reply = reply::page_not_found();
        telemetry.metrics.record(reply.status().as_u16(), started.elapsed());
        return reply.into_response();
    };
    let (ip, peer) = snapshot.trust.peer(connection, &head.headers);
    let exchange = Exchange { shared, snapshot: &snapshot, route, path: &path, ip, started };
    let identity = peer.as_ref().ok().cloned();

    let mut response = if route.accepts(&head.method) {
        // A panic is a defect, and the end of this request only.
        let answer = AssertUnwindSafe(exchange.answer(peer, name_at, body)).catch_unwind().await;
        let answer = answer.unwrap_or_else(|_| Err(exchange.panicked()));
        exchange.reply(answer, identity.as_ref()).into_response()
    } else {
        wrong_method(&head.method, route.method())
    };
    let code = response.status().as_u16();
    let took = started.elapsed();
    drop(active);
    telemetry.metrics.record(code, took);
    if router.is_audited(route) {
        let time = clock::now() - took;
        let identity = identity.as_ref().map_or("", Identity::as_str);
        telemetry.audit.record(&audit::Event { time, ip, path: &path, identity, code, took }).await;
    }
    if let ReplyBody::Stream(stream) = response.body_mut() {
        // The connection is busy for as long as the stream lasts.
        let inner = std::mem::replace(stream, Box::pin(futures_util::stream::empty()));
        *stream = Box::pin(futures_util::StreamExt::inspect(inner, move |_| {
            let _ = &busy;
        }));
    }
    response
}

fn wrong_method(got: &Method, expected: &Method) -> Response<ReplyBody> {
    let message = format!("received method '{got}' expected '{expected}'");
    let error = Error::new(StatusCode::METHOD_NOT_ALLOWED, message);
    let mut response = Reply::from(&error).into_response();
    if let Ok(expected) = HeaderValue::from_str(expected.as_str()) {
        response.headers_mut().insert(ACCEPT, expected);
    }
    response
}

/// A request that has found its route.
struct Exchange<'a, S> {
    shared: &'a Shared<S>,
    snapshot: &'a Snapshot<S>,
    route: &'a Route<S>,
    path: &'a str,
    ip: IpAddr,
    started: Instant,
}

impl<S: Service> Exchange<'_, S> {
    async fn answer(
        &self,
        peer: Result<Identity, peer::Error>,
        name_at: usize,
        body: Incoming,
    ) -> Result<Reply, Error> {
        let state = &self.snapshot.state;
        let identity = peer.as_ref().ok().cloned();
        let denied = |denied: Denied| {
            self.shared.denials.note(&denied, identity.as_ref(), self.path, self.ip, self.started);
            Error::from(denied)
        };
        let caller = state.access().authorize(peer, self.route.requirement(), self.path).map_err(denied)?;
        let call = Call::new(state.clone(), caller, self.path[name_at..].to_owned());
        self.route.answer(call, body, self.started).await
    }

    fn reply(&self, answer: Result<Reply, Error>, identity: Option<&Identity>) -> Reply {
        let error = match answer {
            Ok(reply) => return reply,
            Err(error) => error,
        };
        if error.status().is_server_error() {
            let identity = identity.map_or("", Identity::as_str);
            let cause = error.source().map_or_else(String::new, |source| log::causes(source));
            tracing::error!(cause, path = self.path, ip = %self.ip, identity, "{}", error.message());
        }
        Reply::from(&error)
    }

    fn panicked(&self) -> Error {
        Error::new(StatusCode::INTERNAL_SERVER_ERROR, "internal server error")
            .caused_by("the handler panicked; this is a defect of the server, please report it")
    }
}
