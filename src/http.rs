//! Outbound HTTP: one client, one loader of CA certificates, one limit on what a server may answer.
//!
//! It never retries a request: only the caller knows whether sending it twice is safe.

pub(crate) mod proxy;
pub mod token;
pub(crate) mod trust;

use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::header::HeaderMap;
use hyper::{Request, Response, StatusCode};
use hyper_rustls::builderstates::WantsProtocols1;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::{CertificateError, ClientConfig};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use self::trust::{Verifier, system_authorities};
use crate::certificates::{self, Fingerprint};
use crate::crypto::buffer::Buffer;
use crate::crypto::pem;
use crate::telemetry::log;

/// How long a connection may take to be made, TLS included.
const CONNECT: Duration = Duration::from_secs(5);

/// How long an unused connection is kept for the next request.
const IDLE: Duration = Duration::from_secs(60);

/// How often a connection that requests share and that is silent is asked for a sign of life.
const PING: Duration = Duration::from_secs(10);

/// The most requests at a time: over HTTP/1.1 each is a connection, and open files are few.
const MAX_REQUESTS: usize = 100;

/// How much a request may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// How long it may take, connecting included.
    pub time: Duration,
    /// How large the body of the answer may be, in bytes.
    pub bytes: usize,
}

/// How a server is verified, and what we show it of ourselves.
#[derive(Debug, Default)]
pub struct Tls {
    /// PEM file with the client's certificate chain; goes with `key`.
    pub cert: Option<PathBuf>,
    /// PEM file with the client's private key; goes with `cert`.
    pub key: Option<PathBuf>,
    /// PEM file, or directory of such, with the CAs of the server; none: the system's roots.
    pub ca: Option<PathBuf>,
    /// The setting that names `ca`, for error texts.
    pub setting: &'static str,
    /// Accept any server certificate. Only for tests: anybody in between can read everything.
    pub insecure_skip_verify: bool,
}

/// Why TLS cannot be set up. Says nothing of what the files hold.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file or directory cannot be read.
    #[error("failed to read '{0}'")]
    Read(PathBuf, #[source] std::io::Error),
    /// A file is no PEM, or has not in it what it should.
    #[error("failed to load '{0}'")]
    Pem(PathBuf, #[source] pem::Error),
    /// A certificate or key that rustls refuses.
    #[error("'{0}' cannot be used")]
    Unusable(PathBuf, #[source] rustls::Error),
    /// No CA at all.
    #[error("no CA certificate found in '{0}'")]
    NoCa(PathBuf),
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection, or it broke.
    #[error("no connection to {0}")]
    Connection(String, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server shows a certificate that we do not believe.
    #[error("the certificate of {0} is not trusted: name the CA that issued it, or this very certificate, under {1}")]
    Untrusted(String, &'static str, #[source] rustls::Error),
    /// No complete answer in time.
    #[error("{0} did not answer within {1:?}")]
    Timeout(String, Duration),
    /// More of an answer than anybody wants.
    #[error("the answer of {0} is larger than {1} bytes")]
    TooLarge(String, usize),
}

/// An answer. What it says may be secret: it is wiped.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, complete.
    pub body: Zeroizing<Vec<u8>>,
}

/// Sends requests over connections that are kept. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    tls: Tls,
    inner: ArcSwap<Inner>,
    turns: Semaphore,
}

/// The connections that were made with the files as they were.
#[derive(Debug)]
struct Inner {
    client: legacy::Client<HttpsConnector<proxy::Connector>, Full<Bytes>>,
    files: Fingerprint,
    setting: &'static str,
}

impl Client {
    /// A client of servers that are verified like this.
    pub fn new(tls: Tls) -> Result<Self, TlsError> {
        let inner = ArcSwap::from_pointee(Inner::new(&tls)?);
        Ok(Self(Arc::new(Shared { tls, inner, turns: Semaphore::new(MAX_REQUESTS) })))
    }

    /// Sends one request, once, and reads the whole answer. After a failure the files that the settings name
    /// are read again, if they have changed: certificates are renewed while we run.
    pub async fn send(&self, request: Request<Full<Bytes>>, limit: Limit) -> Result<Answer, Error> {
        let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let _turn = self.0.turns.acquire().await.expect("it is never closed");
        let inner = self.0.inner.load_full();
        let answered = tokio::time::timeout(limit.time, inner.exchange(request, &host, limit.bytes)).await;
        let answer = answered.unwrap_or_else(|_| Err(Error::Timeout(host, limit.time)));
        if matches!(answer, Err(Error::Connection(..) | Error::Untrusted(..))) {
            self.0.reload(&inner);
        }
        answer
    }
}

impl Shared {
    fn reload(&self, inner: &Inner) {
        if self.tls.files() == inner.files {
            return;
        }
        match Inner::new(&self.tls) {
            Ok(inner) => self.inner.store(Arc::new(inner)),
            // They may be about to be replaced: the old ones are as good as any.
            Err(error) => tracing::warn!(cause = log::causes(&error), "changed TLS files cannot be used"),
        }
    }
}

impl Inner {
    fn new(tls: &Tls) -> Result<Self, TlsError> {
        let files = tls.files();
        let connector = tls.connector()?.enable_http1().enable_http2().wrap_connector(tcp());
        let client = legacy::Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            // Requests share a connection: one that is dead must be found out by other means than their silence.
            .http2_keep_alive_interval(PING)
            .http2_keep_alive_timeout(CONNECT)
            .build(connector);
        Ok(Self { client, files, setting: tls.setting })
    }

    async fn exchange(&self, request: Request<Full<Bytes>>, host: &str, max: usize) -> Result<Answer, Error> {
        let response = self.client.request(request).await;
        let response = response.map_err(|error| match untrusted(&error) {
            Some(why) => Error::Untrusted(host.to_owned(), self.setting, why),
            None => Error::Connection(host.to_owned(), error.into()),
        })?;
        let (status, headers) = (response.status(), response.headers().clone());
        Ok(Answer { status, headers, body: read(response, host, max).await? })
    }
}

/// Makes the connections that TLS goes over, through proxies where the environment says so.
pub(crate) fn tcp() -> proxy::Connector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_keepalive(Some(IDLE));
    proxy::Connector::new(connector)
}

/// Why a certificate is not believed, if that is what went wrong and another CA would help.
pub(crate) fn untrusted(error: &(dyn StdError + 'static)) -> Option<rustls::Error> {
    match error.downcast_ref() {
        Some(why @ rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::Other(_))) => {
            Some(why.clone())
        }
        Some(_) => None,
        // An error of the system hides the one that it was made of.
        None => match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(hidden) => untrusted(hidden),
            None => untrusted(error.source()?),
        },
    }
}

async fn read(response: Response<Incoming>, host: &str, max: usize) -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut body = response.into_body();
    let hint = usize::try_from(body.size_hint().exact().unwrap_or(0)).unwrap_or(usize::MAX);
    let mut bytes = Buffer::with_capacity(hint.min(max));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Error::Connection(host.to_owned(), error.into()))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > max {
            return Err(Error::TooLarge(host.to_owned(), max));
        }
        bytes.extend(&data);
    }
    Ok(bytes.into_inner())
}

impl Tls {
    /// A fingerprint of the files and directories that the settings name.
    pub(crate) fn files(&self) -> Fingerprint {
        Fingerprint::of([&self.cert, &self.key, &self.ca].into_iter().flatten().map(PathBuf::as_path))
    }

    /// Makes the connections of HTTP, once it is said which versions are spoken.
    pub(crate) fn connector(&self) -> Result<HttpsConnectorBuilder<WantsProtocols1>, TlsError> {
        Ok(HttpsConnectorBuilder::new().with_tls_config(self.load()?).https_or_http())
    }

    /// The settings of a TLS client, with the files as they are now.
    pub(crate) fn load(&self) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for TLS 1.2 and 1.3");
        let verifier = match (self.insecure_skip_verify, &self.ca) {
            (true, _) => Verifier::anybody(provider),
            (false, Some(ca)) => Verifier::known(load_ca(ca)?, provider),
            (false, None) => Verifier::known(system_authorities(), provider),
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let chain = certificates::load(cert)?;
                let file = Zeroizing::new(std::fs::read(key).map_err(|error| TlsError::Read(key.clone(), error))?);
                let private = pem::private_key(&file, None).map_err(|error| TlsError::Pem(key.clone(), error))?;
                let config = builder.with_client_auth_cert(chain, private);
                config.map_err(|error| TlsError::Unusable(cert.clone(), error))
            }
            _ => Ok(builder.with_no_client_auth()),
        }
    }
}

fn load_ca(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = certificates::load_authorities(path)?;
    if certificates.is_empty() { Err(TlsError::NoCa(path.into())) } else { Ok(certificates) }
}

impl From<certificates::Error> for TlsError {
    fn from(error: certificates::Error) -> Self {
        match error {
            certificates::Error::Read(path, error) => Self::Read(path, error),
            certificates::Error::Pem(path, error) => Self::Pem(path, error),
        }
    }
}
