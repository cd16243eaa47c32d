//! One connection to one endpoint.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::HOST;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;

use super::{Endpoint, Lost};

/// The time to connect, TLS handshake included.
const CONNECT: Duration = Duration::from_secs(10);

/// A connection that requests can be sent on. Its driver is a task that ends with the last handle or answer.
pub(super) enum Connection {
    /// Any number of requests at a time.
    H2(http2::SendRequest<Full<Bytes>>),
    /// One request only.
    H1(http1::SendRequest<Full<Bytes>>),
}

impl Connection {
    /// Connects within ten seconds.
    pub(super) async fn open(endpoint: &Endpoint, tls: &Arc<ClientConfig>) -> Result<Self, Lost> {
        let opened = tokio::time::timeout(CONNECT, Self::open_slowly(endpoint, tls)).await;
        opened.unwrap_or(Err(Lost::Timeout(CONNECT)))
    }

    async fn open_slowly(endpoint: &Endpoint, tls: &Arc<ClientConfig>) -> Result<Self, Lost> {
        let socket = dial(endpoint).await?;
        let connecting = TlsConnector::from(tls.clone()).connect(endpoint.server_name(), socket);
        let stream = connecting.await.map_err(handshake_error)?;
        let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let io = TokioIo::new(stream);
        if is_h2 {
            let (sender, driver) = http2::handshake(TokioExecutor::new(), io).await.map_err(Lost::Broken)?;
            tokio::spawn(driver);
            Ok(Self::H2(sender))
        } else {
            let (sender, driver) = http1::handshake(io).await.map_err(Lost::Broken)?;
            tokio::spawn(driver);
            Ok(Self::H1(sender))
        }
    }

    /// A handle for the next request, if this connection takes one.
    pub(super) fn share(&self) -> Option<Self> {
        match self {
            Self::H2(sender) if !sender.is_closed() => Some(Self::H2(sender.clone())),
            _ => None,
        }
    }

    /// Whether it can take a request. Check this before sending one: a connection that was closed meanwhile shows it
    /// here, while nothing is lost yet.
    pub(super) async fn is_ready(&mut self) -> bool {
        match self {
            Self::H2(sender) => sender.ready().await.is_ok(),
            Self::H1(sender) => sender.ready().await.is_ok(),
        }
    }

    /// Sends a request; returns when the head of the answer is there.
    pub(super) async fn send(&mut self, mut request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::H2(sender) => {
                *request.version_mut() = Version::HTTP_2;
                sender.send_request(request).await
            }
            Self::H1(sender) => {
                let host = request.uri().authority().and_then(|host| host.as_str().parse().ok());
                let path = request.uri().path_and_query().cloned();
                if let (Some(host), Some(path)) = (host, path) {
                    request.headers_mut().insert(HOST, host);
                    *request.uri_mut() = path.into();
                }
                sender.send_request(request).await
            }
        }
    }
}

async fn dial(endpoint: &Endpoint) -> Result<TcpStream, Lost> {
    let mut failure = None;
    for address in lookup_host(endpoint.address()).await.map_err(Lost::Resolve)? {
        match TcpStream::connect(address).await {
            Ok(socket) => {
                // Requests are small, and must not wait for others to fill a packet.
                socket.set_nodelay(true).map_err(Lost::Connect)?;
                return Ok(socket);
            }
            Err(error) => failure = Some(error),
        }
    }
    let nowhere = || io::Error::new(io::ErrorKind::NotFound, "it has no address");
    Err(failure.map_or_else(|| Lost::Resolve(nowhere()), Lost::Connect))
}

fn handshake_error(error: io::Error) -> Lost {
    match error.get_ref().and_then(|source| source.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(why)) => Lost::Untrusted(why.clone()),
        _ => Lost::Handshake(error),
    }
}
