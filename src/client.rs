//! A client of the KES API, for the command line, `migrate` and the tests.

mod connection;
mod endpoint;
mod error;
pub mod kms;
pub mod link;
mod stream;
mod tls;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use self::connection::Connection;
use crate::api::operations;
use crate::api::wire::{
    ApiResponse, DecryptRequest, Decrypted, DescribeIdentityResponse, DescribeKeyResponse, DescribePolicyResponse,
    EncryptRequest, Encrypted, GenerateRequest, Generated, Hmac, HmacRequest, ImportRequest, ListIdentitiesResponse,
    ListKeysResponse, ListPoliciesResponse, ReadPolicyResponse, SelfResponse, StatusResponse, VersionResponse,
};
use crate::auth::Identity;
use crate::crypto::buffer::{Buffer, to_json};
use crate::foreign;
use crate::operation::Operation;

pub use self::endpoint::{Endpoint, HTTPS};
pub use self::error::{Error, Failure, Kind, Lost};
pub use self::stream::Lines;
pub use self::tls::{Tls, Trust};

/// The time limit of an answer. It is longer than a server's own limits.
const ANSWER: Duration = Duration::from_secs(30);

/// The largest answer that is read, in bytes. Pages of listings are smaller than 1 MiB.
const MAX_BODY: usize = 8 * 1024 * 1024;

/// The content type that the key manager uses for protobuf.
const BINARY: &str = "application/octet-stream";

/// The characters that are not encoded in a path: those of names.
const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// A client of one or several equivalent servers. It can have many calls in flight.
pub struct Client {
    endpoints: Vec<Endpoint>,
    tls: Tls,
    /// The endpoint that answered last.
    preferred: AtomicUsize,
    kept: Mutex<Option<(usize, Connection)>>,
}

/// A request.
struct Call {
    method: &'static Method,
    path: String,
    body: Bytes,
    content_type: &'static str,
    /// Whether sending it twice may differ from sending it once.
    changes: bool,
}

impl Call {
    /// A call of the operation, for this name where its path ends with one.
    fn new(operation: Operation, name: &str) -> Self {
        let Operation { method, path, changes } = operation;
        let path = format!("{path}{}", utf8_percent_encode(name, NAME));
        Self { method, path, body: Bytes::new(), content_type: "application/json", changes }
    }

    /// A call of an operation that needs no name.
    fn of(operation: Operation) -> Self {
        Self::new(operation, "")
    }

    /// Adds a `body` that holds about `len` bytes in base64. It is wiped, because it may be secret.
    fn with(self, body: &impl Serialize, len: usize) -> Self {
        Self { body: Bytes::from_owner(to_json(body, len.div_ceil(3) * 4 + 128)), ..self }
    }

    fn request(&self, endpoint: &Endpoint) -> Request<Full<Bytes>> {
        let mut request = Request::builder()
            .method(self.method)
            .uri(endpoint.uri(&self.path))
            .header(USER_AGENT, concat!("claviger/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, self.content_type);
        if !self.body.is_empty() {
            request = request.header(CONTENT_TYPE, self.content_type);
        }
        request.body(Full::new(self.body.clone())).expect("an endpoint and an encoded path make a URI")
    }
}

/// The API, one method for each endpoint. Names and patterns are sent unchecked; the server checks them.
impl Client {
    /// A client of these endpoints, in order of preference.
    ///
    /// # Panics
    /// When the list is empty.
    pub fn new(endpoints: Vec<Endpoint>, tls: Tls) -> Self {
        assert!(!endpoints.is_empty(), "a client needs an endpoint");
        Self { endpoints, tls, preferred: AtomicUsize::new(0), kept: Mutex::new(None) }
    }

    /// The identity that this client has for servers.
    pub fn identity(&self) -> Option<&Identity> {
        self.tls.identity.as_ref()
    }

    /// The endpoint that answered last; before the first answer, the first endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoints[self.preferred.load(Ordering::Relaxed)]
    }

    /// `GET /version`
    pub async fn version(&self) -> Result<VersionResponse, Error> {
        self.json(Call::of(operations::VERSION)).await
    }

    /// `GET /v1/ready`: whether the server and its key store answer.
    pub async fn ready(&self) -> Result<(), Error> {
        self.nothing(Call::of(operations::READY)).await
    }

    /// `GET /v1/status`
    pub async fn status(&self) -> Result<StatusResponse, Error> {
        self.json(Call::of(operations::STATUS)).await
    }

    /// `GET /v1/api`
    pub async fn api(&self) -> Result<ApiResponse, Error> {
        self.json(Call::of(operations::API)).await
    }

    /// `GET /v1/metrics`: Prometheus text.
    pub async fn metrics(&self) -> Result<String, Error> {
        let call = Call::of(operations::METRICS);
        let (endpoint, body) = self.body(&call).await?;
        let text = String::from_utf8(body.to_vec());
        text.map_err(|_| Error::Nonsense { endpoint, path: call.path, what: "it is no text".into() })
    }

    /// `PUT /v1/key/create/`
    pub async fn create_key(&self, name: &str) -> Result<(), Error> {
        self.nothing(Call::new(operations::KEY_CREATE, name)).await
    }

    /// `PUT /v1/key/import/`
    pub async fn import_key(&self, name: &str, request: &ImportRequest) -> Result<(), Error> {
        self.nothing(Call::new(operations::KEY_IMPORT, name).with(request, request.key.len())).await
    }

    /// `GET /v1/key/describe/`
    pub async fn describe_key(&self, name: &str) -> Result<DescribeKeyResponse, Error> {
        self.json(Call::new(operations::KEY_DESCRIBE, name)).await
    }

    /// `DELETE /v1/key/delete/`
    pub async fn delete_key(&self, name: &str) -> Result<(), Error> {
        self.nothing(Call::new(operations::KEY_DELETE, name)).await
    }

    /// `PUT /v1/key/generate/`
    pub async fn generate(&self, name: &str, request: &GenerateRequest) -> Result<Generated, Error> {
        self.json(Call::new(operations::KEY_GENERATE, name).with(request, request.context.len())).await
    }

    /// `PUT /v1/key/encrypt/`
    pub async fn encrypt(&self, name: &str, request: &EncryptRequest) -> Result<Encrypted, Error> {
        let len = request.plaintext.len() + request.context.len();
        self.json(Call::new(operations::KEY_ENCRYPT, name).with(request, len)).await
    }

    /// `PUT /v1/key/decrypt/`
    pub async fn decrypt(&self, name: &str, request: &DecryptRequest) -> Result<Decrypted, Error> {
        let len = request.ciphertext.len() + request.context.len();
        self.json(Call::new(operations::KEY_DECRYPT, name).with(request, len)).await
    }

    /// `PUT /v1/key/hmac/`
    pub async fn hmac(&self, name: &str, request: &HmacRequest) -> Result<Hmac, Error> {
        self.json(Call::new(operations::KEY_HMAC, name).with(request, request.message.len())).await
    }

    /// `GET /v1/key/list/`, all pages: the names that match, sorted.
    pub async fn list_keys(&self, pattern: &str) -> Result<Vec<String>, Error> {
        self.pages(operations::KEY_LIST, pattern, |page: ListKeysResponse| (page.names, page.continue_at)).await
    }

    /// `GET /v1/policy/describe/`
    pub async fn describe_policy(&self, name: &str) -> Result<DescribePolicyResponse, Error> {
        self.json(Call::new(operations::POLICY_DESCRIBE, name)).await
    }

    /// `GET /v1/policy/read/`
    pub async fn read_policy(&self, name: &str) -> Result<ReadPolicyResponse, Error> {
        self.json(Call::new(operations::POLICY_READ, name)).await
    }

    /// `GET /v1/policy/list/`, all pages: the names that match, sorted.
    pub async fn list_policies(&self, pattern: &str) -> Result<Vec<String>, Error> {
        let page = |page: ListPoliciesResponse| (page.names, Some(page.continue_at));
        self.pages(operations::POLICY_LIST, pattern, page).await
    }

    /// `GET /v1/identity/describe/`
    pub async fn describe_identity(&self, identity: &str) -> Result<DescribeIdentityResponse, Error> {
        self.json(Call::new(operations::IDENTITY_DESCRIBE, identity)).await
    }

    /// `GET /v1/identity/self/describe`
    pub async fn describe_self(&self) -> Result<SelfResponse, Error> {
        self.json(Call::of(operations::IDENTITY_SELF)).await
    }

    /// `GET /v1/identity/list/`, all pages: the identities that match, sorted.
    pub async fn list_identities(&self, pattern: &str) -> Result<Vec<String>, Error> {
        let page = |page: ListIdentitiesResponse| (page.identities, Some(page.continue_at));
        self.pages(operations::IDENTITY_LIST, pattern, page).await
    }

    /// `GET /v1/log/error`: events as they happen.
    pub async fn error_log(&self) -> Result<Lines, Error> {
        self.lines(operations::LOG_ERROR).await
    }

    /// `GET /v1/log/audit`: events as they happen.
    pub async fn audit_log(&self) -> Result<Lines, Error> {
        self.lines(operations::LOG_AUDIT).await
    }
}

/// How answers are read.
impl Client {
    async fn nothing(&self, call: Call) -> Result<(), Error> {
        self.body(&call).await.map(drop)
    }

    async fn json<T: DeserializeOwned>(&self, call: Call) -> Result<T, Error> {
        let (endpoint, body) = self.body(&call).await?;
        // Only the position of the error is shown: its text may quote a secret.
        serde_json::from_slice(&body).map_err(|error| {
            let what = format!("the JSON is malformed at line {}, column {}", error.line(), error.column());
            Error::Nonsense { endpoint, path: call.path, what }
        })
    }

    /// Asks for one page after the other.
    async fn pages<T: DeserializeOwned>(
        &self,
        operation: Operation,
        pattern: &str,
        split: impl Fn(T) -> (Vec<String>, Option<String>),
    ) -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        let mut next = if pattern.is_empty() { "*".to_owned() } else { pattern.to_owned() };
        loop {
            let call = Call::new(operation, &next);
            let (page, continue_at) = split(self.json(call).await?);
            let is_empty = page.is_empty();
            names.extend(page);
            match continue_at.filter(|token| !token.is_empty()) {
                None => return Ok(names),
                // An older server may name the next page by its first name, and never come to an end.
                Some(token) if is_empty || token == next => return Ok(names),
                Some(token) => next = token,
            }
        }
    }

    async fn lines(&self, operation: Operation) -> Result<Lines, Error> {
        let call = Call::of(operation);
        // No limit of time: a server may send the head of its answer together with the first event.
        let (endpoint, response) = self.send(&call, None).await?;
        match response.status() {
            StatusCode::OK => Ok(Lines::new(endpoint.clone(), response.into_body())),
            _ => Err(self.refusal(&call, endpoint, response).await),
        }
    }

    /// Asks, and reads the whole answer.
    async fn body(&self, call: &Call) -> Result<(Endpoint, Zeroizing<Vec<u8>>), Error> {
        let (endpoint, response) = self.send(call, Some(ANSWER)).await?;
        if response.status() != StatusCode::OK {
            return Err(self.refusal(call, endpoint, response).await);
        }
        match tokio::time::timeout(ANSWER, read(response.into_body())).await {
            Ok(Ok(Some(body))) => Ok((endpoint.clone(), body)),
            Ok(Ok(None)) => Err(Error::Nonsense {
                endpoint: endpoint.clone(),
                path: call.path.clone(),
                what: format!("it is longer than {MAX_BODY} bytes"),
            }),
            Ok(Err(error)) => Err(lost(call, endpoint, Lost::Broken(error))),
            Err(_) => Err(lost(call, endpoint, Lost::Timeout(ANSWER))),
        }
    }

    async fn refusal(&self, call: &Call, endpoint: &Endpoint, response: Response<Incoming>) -> Error {
        let status = response.status();
        let path = percent_encoding::percent_decode_str(&call.path).decode_utf8_lossy().into_owned();
        let message = match message(response).await {
            Some(message) => message,
            None if status == StatusCode::NOT_FOUND => match self.kind().await {
                Some(kind) if kind != Kind::that_answers(&path) => {
                    return Error::OtherKind { endpoint: endpoint.clone(), path, kind };
                }
                _ => no_message(status),
            },
            None => no_message(status),
        };
        Error::Refused { endpoint: endpoint.clone(), status, message, path, identity: self.tls.identity.clone() }
    }

    /// The kind of the server that answered last. Both kinds tell everybody their version, but only a key manager tells
    /// the version of its API.
    async fn kind(&self) -> Option<Kind> {
        let call = Call::of(operations::VERSION);
        let sent = self.send_to(self.preferred.load(Ordering::Relaxed), &call, Some(ANSWER)).await;
        let response = sent.ok().filter(|response| response.status() == StatusCode::OK)?;
        let body = tokio::time::timeout(ANSWER, read(response.into_body())).await.ok()?.ok()??;
        let version: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&body).ok()?;
        match (version.contains_key("version"), version.contains_key("api_version")) {
            (true, true) => Some(Kind::KeyManager),
            (true, false) => Some(Kind::Kes),
            _ => None,
        }
    }
}

/// How requests find a server.
impl Client {
    /// Asks one endpoint after the other, the one that answered last first, until one answers.
    async fn send(&self, call: &Call, limit: Option<Duration>) -> Result<(&Endpoint, Response<Incoming>), Error> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        for nth in 0..self.endpoints.len() {
            let index = (first + nth) % self.endpoints.len();
            let endpoint = &self.endpoints[index];
            let cause = match self.send_to(index, call, limit).await {
                Ok(response) if self.endpoints.len() > 1 && is_passing(response.status()) && !call.changes => {
                    let status = response.status();
                    Lost::Unavailable { status, message: message(response).await.unwrap_or_else(|| no_message(status)) }
                }
                Ok(response) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok((endpoint, response));
                }
                Err(Sent::No(cause)) => cause,
                Err(Sent::Yes(cause)) if !call.changes => cause,
                Err(Sent::Yes(source)) => return Err(Error::OutcomeUnknown { endpoint: endpoint.clone(), source }),
            };
            failures.push(Failure { endpoint: endpoint.clone(), cause });
        }
        Err(Error::Unreachable(failures))
    }

    async fn send_to(&self, index: usize, call: &Call, limit: Option<Duration>) -> Result<Response<Incoming>, Sent> {
        let endpoint = &self.endpoints[index];
        if let Some(kept) = self.kept_connection(index).await {
            match send_on(kept, endpoint, call, limit).await {
                // The kept connection may have ended long ago. That says nothing about the server.
                Err(Sent::No(Lost::Broken(_))) => {}
                Err(Sent::Yes(Lost::Broken(_))) if !call.changes => {}
                sent => return sent,
            }
        }
        let opened = self.open(index).await.map_err(Sent::No)?;
        send_on(opened, endpoint, call, limit).await
    }

    /// The kept connection, if it is to this endpoint and can take another request.
    async fn kept_connection(&self, index: usize) -> Option<Connection> {
        let kept = self.kept().as_ref().filter(|(of, _)| *of == index).and_then(|(_, kept)| kept.share());
        let mut kept = kept?;
        kept.is_ready().await.then_some(kept)
    }

    /// Opens a new connection. It is kept if it can take more than one request.
    async fn open(&self, index: usize) -> Result<Connection, Lost> {
        let mut opened = Connection::open(&self.endpoints[index], &self.tls.config).await?;
        if let Some(shared) = opened.share() {
            *self.kept() = Some((index, shared));
        }
        opened.is_ready().await;
        Ok(opened)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<(usize, Connection)>> {
        self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

async fn send_on(
    mut connection: Connection,
    endpoint: &Endpoint,
    call: &Call,
    limit: Option<Duration>,
) -> Result<Response<Incoming>, Sent> {
    let send = connection.send(call.request(endpoint));
    let sent = match limit {
        Some(limit) => tokio::time::timeout(limit, send).await.map_err(|_| Sent::Yes(Lost::Timeout(limit)))?,
        None => send.await,
    };
    sent.map_err(|error| {
        // hyper has not sent a request that it cancels.
        if error.is_canceled() { Sent::No(Lost::Broken(error)) } else { Sent::Yes(Lost::Broken(error)) }
    })
}

/// Why a request has no answer, and whether a server may have seen it.
enum Sent {
    No(Lost),
    Yes(Lost),
}

fn lost(call: &Call, endpoint: &Endpoint, cause: Lost) -> Error {
    let endpoint = endpoint.clone();
    match call.changes {
        true => Error::OutcomeUnknown { endpoint, source: cause },
        false => Error::Unreachable(vec![Failure { endpoint, cause }]),
    }
}

/// Whether another server may be able to answer.
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
}

/// Reads a body; `None` when it is too long.
async fn read(mut body: Incoming) -> Result<Option<Zeroizing<Vec<u8>>>, hyper::Error> {
    let size = body.size_hint().exact().and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
    let mut bytes = Buffer::with_capacity(size.min(MAX_BODY));
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            if bytes.len() + data.len() > MAX_BODY {
                return Ok(None);
            }
            bytes.extend(&data);
        }
    }
    Ok(Some(bytes.into_inner()))
}

/// The message of an error answer, in one line, if it is an answer of the API.
async fn message(response: Response<Incoming>) -> Option<String> {
    #[derive(Deserialize)]
    struct Message {
        // Older servers say `error`.
        #[serde(alias = "error")]
        message: String,
    }
    let is_binary = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == BINARY);
    let body = tokio::time::timeout(ANSWER, read(response.into_body())).await;
    let body = body.ok().and_then(Result::ok).flatten().unwrap_or_default();
    if let Some(message) = is_binary.then(|| kms::error_message(&body)).flatten() {
        return Some(message.replace(foreign::is_deceptive, " "));
    }
    match serde_json::from_slice::<Message>(&body) {
        Ok(Message { message }) if !message.is_empty() => Some(message.replace(foreign::is_deceptive, " ")),
        _ => None,
    }
}

fn no_message(status: StatusCode) -> String {
    format!("the server answered {status}")
}
