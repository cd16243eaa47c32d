//! Requests to a Vault, and what answers mean that are the same for all requests.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{HeaderName, HeaderValue, LOCATION};
use hyper::{Method, Request, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::index::Index;
use crate::http::{self, Limit};
use crate::keystore::Error;
use crate::keystore::retry::later;

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
/// A header that Vault's agent and proxies require of every request.
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

/// The end of the path of a listing request.
pub(super) const LIST: &str = "?list=true";

/// A namespace header's value; none for the root namespace.
pub(super) type Namespace = Option<HeaderValue>;

/// The HTTP API of one server. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Api {
    http: http::Client,
    endpoint: String,
    index: Arc<Index>,
}

/// An answer in the common form of all answers.
#[derive(Debug)]
pub(super) struct Answer<D> {
    pub(super) status: u16,
    pub(super) errors: Vec<String>,
    pub(super) warnings: Vec<String>,
    pub(super) data: Option<D>,
    pub(super) auth: Option<Auth>,
    /// Whether it was refused because the token is invalid. The server does not say so; a second request finds out.
    pub(super) token_is_bad: bool,
}

/// What a login or a renewal gives.
#[derive(Debug, Deserialize)]
pub(super) struct Auth {
    pub(super) client_token: SecretString,
    /// Seconds; 0: for ever.
    #[serde(default)]
    pub(super) lease_duration: u64,
    #[serde(default)]
    pub(super) renewable: bool,
}

#[derive(Deserialize)]
struct Envelope<D> {
    errors: Option<Vec<String>>,
    warnings: Option<Vec<String>>,
    data: Option<D>,
    auth: Option<Auth>,
}

/// What is wrong with an answer, and where the operator should look.
#[derive(Debug, thiserror::Error)]
#[error("{method} {path}: {what}")]
pub(super) struct Problem {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) what: Cow<'static, str>,
}

/// One request.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) method: &'static str,
    /// The path below `/v1/`.
    pub(super) path: &'a str,
    pub(super) namespace: &'a Namespace,
    pub(super) token: Option<&'a SecretString>,
    pub(super) body: Option<&'a Zeroizing<Vec<u8>>>,
}

/// The limit of most requests: a key has some hundred bytes at most.
const USUAL: Limit = Limit { time: Duration::from_secs(5), bytes: 1024 * 1024 };
/// The limit of a listing: a million names are smaller, and no caller waits longer.
const LISTING: Limit = Limit { time: Duration::from_secs(10), bytes: 128 * 1024 * 1024 };

impl Ask<'_> {
    fn limit(&self) -> Limit {
        if self.path.ends_with(LIST) { LISTING } else { USUAL }
    }

    /// A failure that will not pass by itself.
    pub(super) fn failed(&self, what: impl Into<Cow<'static, str>>) -> Error {
        Error::Failed(self.problem(what).into())
    }

    /// A failure that may pass.
    pub(super) fn unreachable(&self, what: impl Into<Cow<'static, str>>) -> Error {
        Error::Unreachable(self.problem(what).into())
    }

    fn problem(&self, what: impl Into<Cow<'static, str>>) -> Problem {
        Problem { method: self.method, path: self.path.into(), what: what.into() }
    }
}

impl Api {
    pub(super) fn new(http: http::Client, endpoint: &str) -> Self {
        Self { http, endpoint: endpoint.trim_end_matches('/').into(), index: Arc::default() }
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Sends a request, once. Failures that may pass are [`Error::Unreachable`], and answers that no Vault gives are
    /// [`Error::Failed`]. The caller judges all other answers, also refusals.
    pub(super) async fn send<D: DeserializeOwned>(&self, ask: Ask<'_>) -> Result<Answer<D>, Error> {
        let answer = self.exchange(ask).await?;
        let status = answer.status.as_u16();
        if let Some(why) = passing(status) {
            return Err(later(ask.problem(format!("{why} (HTTP {status})")).to_string(), &answer.headers));
        }
        if status == 204 {
            let (errors, warnings) = (Vec::new(), Vec::new());
            return Ok(Answer { status, errors, warnings, data: None, auth: None, token_is_bad: false });
        }
        // The parser's own message may quote what it read.
        let envelope: Envelope<D> = serde_json::from_slice(&answer.body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            ask.failed(format!(
                "the answer (HTTP {status}) is not what a Vault says (line {line}, column {column}); \
                 is '{}' the address of one?",
                self.endpoint
            ))
        })?;
        let Envelope { errors, warnings, data, auth } = envelope;
        if status >= 400 && errors.is_none() && data.is_none() && warnings.is_none() {
            return Err(ask.failed(format!("the answer (HTTP {status}) is not what a Vault says")));
        }
        let (errors, warnings) = (errors.unwrap_or_default(), warnings.unwrap_or_default());
        Ok(Answer { status, errors, warnings, data, auth, token_is_bad: false })
    }

    /// Sends a request, and follows one redirect of a standby that does not forward requests itself.
    async fn exchange(&self, ask: Ask<'_>) -> Result<http::Answer, Error> {
        let uri = format!("{}/v1/{}", self.endpoint, ask.path);
        let answer = self.once(ask, &uri).await?;
        if answer.status != StatusCode::TEMPORARY_REDIRECT {
            return Ok(answer);
        }
        let elsewhere = answer.headers.get(LOCATION).and_then(|location| location.to_str().ok()).unwrap_or_default();
        // The request carries the token: never follow from HTTPS to plain HTTP.
        let scheme = self.endpoint.split("://").next().unwrap_or_default();
        if !elsewhere.starts_with(&format!("{scheme}://")) {
            return Err(ask.unreachable(format!("the server sends us to '{elsewhere}', where we do not go")));
        }
        let answer = self.once(ask, elsewhere).await?;
        match answer.status {
            StatusCode::TEMPORARY_REDIRECT => Err(ask.unreachable(format!("sent to '{elsewhere}' and on from there"))),
            _ => Ok(answer),
        }
    }

    async fn once(&self, ask: Ask<'_>, uri: &str) -> Result<http::Answer, Error> {
        let answer = self
            .http
            .send(self.request(ask, uri)?, ask.limit())
            .await
            .map_err(|error| Error::Unreachable(error.into()))?;
        match answer.status {
            StatusCode::PRECONDITION_FAILED => self.index.not_yet(Instant::now()),
            _ => self.index.note(&answer.headers),
        }
        Ok(answer)
    }

    /// Checks that the server answers. This needs no token and no namespace, and the answer has no envelope.
    pub(super) async fn health<H: DeserializeOwned>(&self) -> Result<H, Error> {
        let path = "sys/health?standbyok=true&perfstandbyok=true";
        let ask = Ask { method: "GET", path, namespace: &None, token: None, body: None };
        let answer = self.exchange(ask).await?;
        let status = answer.status.as_u16();
        match passing(status) {
            Some(why) => Err(ask.unreachable(format!("{why} (HTTP {status})"))),
            None if status == 200 => serde_json::from_slice(&answer.body)
                .map_err(|_| ask.failed(format!("'{}' is not the address of a Vault", self.endpoint))),
            None => Err(ask.failed(format!("HTTP {status}; is '{}' the address of a Vault?", self.endpoint))),
        }
    }

    fn request(&self, ask: Ask<'_>, uri: &str) -> Result<Request<Full<Bytes>>, Error> {
        let method = Method::from_bytes(ask.method.as_bytes()).expect("a method of ours");
        let mut request = Request::new(Full::new(body(ask.body)));
        *request.method_mut() = method;
        *request.uri_mut() = uri.parse().map_err(|_| ask.failed(format!("'{uri}' is no URL")))?;
        let headers = request.headers_mut();
        headers.insert(REQUEST, HeaderValue::from_static("true"));
        self.index.demand(headers);
        if let Some(namespace) = ask.namespace {
            headers.insert(NAMESPACE, namespace.clone());
        }
        if let Some(token) = ask.token {
            let value = HeaderValue::from_str(token.expose_secret().trim());
            let mut value = value.map_err(|_| ask.failed("the token holds characters that no token has"))?;
            value.set_sensitive(true);
            headers.insert(TOKEN, value);
        }
        Ok(request)
    }
}

/// A body that is wiped once it is sent.
fn body(body: Option<&Zeroizing<Vec<u8>>>) -> Bytes {
    body.map_or_else(Bytes::new, |body| Bytes::from_owner(body.clone()))
}

/// Why a failure with this status may pass by itself.
fn passing(status: u16) -> Option<&'static str> {
    Some(match status {
        412 => "the server has not caught up with a write yet",
        429 => "the server is busy, or a standby",
        472 => "the server is a recovery standby",
        473 => "the server is a performance standby",
        500 => "internal error of the server",
        501 => "the server is not initialised",
        502 | 504 => "a proxy does not reach the server",
        503 => "the server is sealed or down",
        _ => return None,
    })
}

/// `{"<name>":"<value>"}`: the form of a key in the K/V engine.
pub(super) type Entry = HashMap<String, Field>;

/// A value of an entry. Ours are texts; those of other programs may be anything.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Field {
    Text(SecretString),
    Other(IgnoredAny),
}
