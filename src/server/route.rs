//! Routes: the requests that clients may send, and the functions that answer them.
//!
//! A handler gets a [`Call`]. Only `serve` makes one, and only for a request that is authorised.

mod name;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::Either;
use hyper::header::HeaderValue;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use tokio::time::timeout_at;

use super::body::{Arriving, FromBody};
use super::connection::Connection;
use super::held::{self, Held};
use super::path::Path;
use super::reply::{IntoReply, Reply};
use super::{Error, Service};
use crate::auth::{Caller, Requirement};
use crate::clock;
use crate::operation::Operation;
use crate::telemetry::audit::{Commands, Patience};

pub use self::name::Name;

/// The settings of one path under `api:` in the config file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouteConfig {
    /// Answer without a client certificate.
    pub skip_auth: bool,
    /// The time limit of a request; none: the route's own.
    #[serde(deserialize_with = "crate::duration::unless_zero")]
    pub timeout: Option<Duration>,
}

/// A method and path that clients may request, with its limits and its handler.
pub struct Route<S: Service> {
    method: &'static Method,
    path: &'static str,
    max_body: u64,
    timeout: Option<Duration>,
    requirement: Requirement,
    is_listing: bool,
    takes_all_methods: bool,
    patience: Patience,
    is_counted: bool,
    overdue: fn() -> Error,
    handler: Handler<S>,
    /// Which one of its table it is.
    place: usize,
}

type Reaction = Pin<Box<dyn Future<Output = Result<Reply, Error>> + Send>>;
type Handler<S> = Box<dyn Fn(Call<S>, &str, Arriving, Budget) -> Reaction + Send + Sync>;

/// The limits of a request.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    max_body: u64,
    deadline: Option<Instant>,
    overdue: fn() -> Error,
}

impl<S: Service> Route<S> {
    /// A route for an operation.
    pub fn new<A>(operation: Operation, handler: impl IntoHandler<S, A>) -> Self {
        let Operation { method, path, .. } = operation;
        Self {
            method,
            path,
            max_body: 0,
            timeout: Some(Duration::from_secs(15)),
            requirement: Requirement::Policy,
            is_listing: false,
            takes_all_methods: false,
            patience: Patience::Ordinary,
            is_counted: true,
            overdue,
            handler: handler.into_handler(),
            place: 0,
        }
    }

    /// The largest body, in bytes; 0 (the default): the body is ignored.
    #[must_use]
    pub fn max_body(self, max_body: u64) -> Self {
        Self { max_body, ..self }
    }

    /// The time limit of a request; `None`: no limit. Default 15 seconds.
    #[must_use]
    pub fn timeout(self, timeout: Option<Duration>) -> Self {
        Self { timeout, ..self }
    }

    /// The error that clients get when the time is over. Default 503, on which they try again.
    #[must_use]
    pub fn overdue(self, overdue: fn() -> Error) -> Self {
        Self { overdue, ..self }
    }

    /// Answers clients without a certificate, too, and makes no audit events.
    #[must_use]
    pub fn open(self) -> Self {
        Self { requirement: Requirement::None, ..self }
    }

    /// Answers every client with a certificate.
    #[must_use]
    pub fn any_identity(self) -> Self {
        Self { requirement: Requirement::Certificate, ..self }
    }

    /// Also answers the path without its final slash. The name is then empty.
    #[must_use]
    pub fn listing(self) -> Self {
        Self { is_listing: true, ..self }
    }

    /// Answers every method: the service has looked at it when it chose the route.
    #[must_use]
    pub fn all_methods(self) -> Self {
        Self { takes_all_methods: true, ..self }
    }

    /// Answers even when audit events cannot be written and other requests wait for that: it shows the server's health.
    #[must_use]
    pub fn vital(self) -> Self {
        Self { patience: Patience::Reserved, ..self }
    }

    /// Takes and gives more than clients may make the server hold otherwise. For those who are trusted with that.
    #[must_use]
    pub fn bulk(self) -> Self {
        Self { is_counted: false, ..self }
    }

    /// What `/v1/api` says of the route: method, path, largest body, time limit.
    pub fn describe(&self) -> (&Method, &'static str, u64, Option<Duration>) {
        (self.method, self.path, self.max_body, self.timeout)
    }

    /// The method to answer.
    pub fn method(&self) -> &'static Method {
        self.method
    }

    /// Which one of its table it is.
    pub(super) fn place(&self) -> usize {
        self.place
    }

    /// Whether requests wait for the audit log.
    pub(super) fn patience(&self) -> Patience {
        self.patience
    }

    /// Counts what a request of this client on this connection makes the server hold.
    pub(super) fn held(&self, connection: &Connection, client: &held::Client) -> Held {
        if self.is_counted { Held::on(connection.account().clone(), client.clone()) } else { Held::uncounted() }
    }

    /// The requirement on callers.
    pub fn requirement(&self) -> Requirement {
        self.requirement
    }

    /// Whether the route accepts `method`.
    pub fn accepts(&self, method: &Method) -> bool {
        self.takes_all_methods || method == self.method || (*self.method == Method::PUT && method == Method::POST)
    }

    /// Parses name and body, and lets the handler answer.
    pub(super) fn answer(&self, call: Call<S>, name: &str, body: Arriving, started: Instant) -> Reaction {
        let deadline = self.timeout.map(|timeout| started + timeout);
        (self.handler)(call, name, body, Budget { max_body: self.max_body, deadline, overdue: self.overdue })
    }

    /// Whether `path` belongs to this route.
    fn matches(&self, path: &Path<'_>) -> bool {
        if self.path.ends_with('/') {
            path.after(self.path).is_some() || self.is_bare(path)
        } else {
            path.is(self.path)
        }
    }

    /// Whether `path` belongs to this route and only lacks the final slash.
    fn is_bare(&self, path: &Path<'_>) -> bool {
        self.is_listing && self.path.strip_suffix('/').is_some_and(|bare| path.is(bare))
    }
}

/// The route table.
pub struct Router<S: Service> {
    routes: Vec<Route<S>>,
    audited_open: Vec<&'static str>,
}

impl<S: Service> Router<S> {
    /// The table with the settings of the config file applied.
    pub fn new(mut routes: Vec<Route<S>>, config: &BTreeMap<String, RouteConfig>) -> Self {
        let mut audited_open = Vec::new();
        for (place, route) in routes.iter_mut().enumerate() {
            route.place = place;
            let Some(config) = config.get(route.path) else { continue };
            route.timeout = config.timeout.or(route.timeout);
            if config.skip_auth {
                route.requirement = Requirement::None;
                audited_open.push(route.path);
            }
        }
        Self { routes, audited_open }
    }

    /// All routes, in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = &Route<S>> {
        self.routes.iter()
    }

    /// The route for a path, the path as policies see it, and where in it the name begins. Where several routes have
    /// the path, it is the one that accepts the method, else the first.
    pub fn find<'p>(&self, method: &Method, path: Path<'p>) -> Option<(&Route<S>, Cow<'p, str>, usize)> {
        let mut matching = self.routes.iter().filter(|route| route.matches(&path));
        let first = matching.next()?;
        let route = if first.accepts(method) { first } else { matching.find(|r| r.accepts(method)).unwrap_or(first) };
        let text = if route.is_bare(&path) { route.path.into() } else { path.into_text() };
        Some((route, text, route.path.len()))
    }

    /// Whether requests for the route make audit events.
    pub(super) fn is_audited(&self, route: &Route<S>) -> bool {
        route.requirement != Requirement::None || self.audited_open.contains(&route.path)
    }
}

/// The commands that a handler found in a request, for the audit event at its end.
pub(super) type Asked = Arc<OnceLock<Commands>>;

/// A request on its way to a handler: authorised, its name parsed.
pub struct Call<S: Service, N = ()> {
    state: Arc<S>,
    caller: Caller,
    access: S::Access,
    name: N,
    accept: Option<HeaderValue>,
    query: String,
    ip: IpAddr,
    asked: Asked,
    held: Held,
}

impl<S: Service> Call<S> {
    /// A call by `caller` from `ip`, which accepts the content types `accept`. A call proves that the request is
    /// authorised.
    pub(super) fn new(
        state: Arc<S>,
        (caller, access, ip): (Caller, S::Access, IpAddr),
        accept: Option<HeaderValue>,
        query: String,
        (asked, held): (Asked, Held),
    ) -> Self {
        Self { state, caller, access, name: (), accept, query, ip, asked, held }
    }

    fn naming<N>(self, name: N) -> Call<S, N> {
        let Self { state, caller, access, name: (), accept, query, ip, asked, held } = self;
        Call { state, caller, access, name, accept, query, ip, asked, held }
    }
}

impl<S: Service, N> Call<S, N> {
    /// The state that the server serves. It stays the same for the whole request.
    pub fn state(&self) -> &Arc<S> {
        &self.state
    }

    /// Who calls.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// What the service found out when it authorised the request.
    pub fn access(&self) -> &S::Access {
        &self.access
    }

    /// Notes the commands in the body. The audit event of the request names them, also when the request fails.
    pub fn asks(&self, commands: Commands) {
        let _ = self.asked.set(commands);
    }

    /// Counts memory that the answer takes while it is made.
    ///
    /// # Errors
    /// When clients make the server hold too much already.
    pub fn hold(&self, bytes: usize) -> Result<(), Error> {
        self.held.grow(bytes)
    }

    /// The name at the end of the path.
    pub fn name(&self) -> &N {
        &self.name
    }

    /// The query after the `?`, as it was sent.
    pub fn query(&self) -> &str {
        &self.query
    }

    /// The `Accept` header, as it was sent.
    pub fn accept(&self) -> Option<&HeaderValue> {
        self.accept.as_ref()
    }

    /// Whether the caller asks for this content type by name; `*/*` does not count.
    pub fn asks_for(&self, content_type: &str) -> bool {
        names(self.accept.as_ref(), content_type)
    }
}

/// Whether an `Accept` header names this content type, or range of types.
pub fn names(accept: Option<&HeaderValue>, content_type: &str) -> bool {
    let Some(accept) = accept else { return false };
    // Programs name the one type that they want.
    if accept == content_type {
        return true;
    }
    let ranges = accept.to_str().unwrap_or_default().split(',');
    ranges.map(|range| range.split(';').next().unwrap_or_default()).any(|name| name.trim() == content_type)
}

/// Functions that can answer a route: `async fn(Call<S, Name>) -> Result<Reply, Error>`, or the same with
/// a request body as second argument.
pub trait IntoHandler<S: Service, A> {
    #[doc(hidden)]
    fn into_handler(self) -> Handler<S>;
}

impl<S, N, R, E, F, Fut> IntoHandler<S, (N,)> for F
where
    S: Service,
    N: Name,
    R: IntoReply,
    E: Into<Error>,
    F: Fn(Call<S, N>) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future<Output = Result<R, E>> + Send + 'static,
{
    fn into_handler(self) -> Handler<S> {
        (move |call: Call<S, N>, (): ()| self(call)).into_handler()
    }
}

impl<S, N, B, R, E, F, Fut> IntoHandler<S, (N, B)> for F
where
    S: Service,
    N: Name,
    B: FromBody,
    R: IntoReply,
    E: Into<Error>,
    F: Fn(Call<S, N>, B) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future<Output = Result<R, E>> + Send + 'static,
{
    fn into_handler(self) -> Handler<S> {
        Box::new(move |call, name, mut body, budget| {
            let call = N::parse(name).map(|name| call.naming(name));
            Box::pin(async move {
                let call = match call {
                    Ok(call) => call,
                    Err(invalid) => {
                        body.discard().await;
                        return Err(invalid);
                    }
                };
                // One timer for both steps: setting a timer is a large part of a request's cost outside of HTTP.
                let mut has_arrived = false;
                let answer = budget.within(async {
                    let request = B::read(body, budget.max_body, &call.held).await?;
                    // The client has been told that the time is over, so the handler must not start.
                    if budget.is_over() {
                        return Err((budget.overdue)());
                    }
                    has_arrived = true;
                    self(call, request).await.map(IntoReply::into_reply).map_err(Into::into)
                });
                match answer.await {
                    Some(reply) => reply,
                    None if has_arrived => Err((budget.overdue)()),
                    None => Err(too_slow()),
                }
            })
        })
    }
}

impl Budget {
    fn is_over(self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= clock::instant())
    }

    fn within<F: Future>(self, future: F) -> impl Future<Output = Option<F::Output>> {
        match self.deadline {
            Some(deadline) => Either::Left(timeout_at(deadline.into(), future).map(Result::ok)),
            None => Either::Right(future.map(Some)),
        }
    }
}

fn too_slow() -> Error {
    Error::new(StatusCode::REQUEST_TIMEOUT, "request body did not arrive in time")
}

fn overdue() -> Error {
    Error::new(StatusCode::SERVICE_UNAVAILABLE, "request timed out")
}
