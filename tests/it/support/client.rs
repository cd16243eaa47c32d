//! A client that speaks as one identity, over HTTP/1.1 or HTTP/2, and says exactly what it is told to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Either, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::{certs, testdata};

/// How requests are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    H1,
    H2,
}

impl Protocol {
    pub const ALL: [Self; 2] = [Self::H1, Self::H2];

    fn alpn(self) -> &'static [u8] {
        match self {
            Self::H1 => b"http/1.1",
            Self::H2 => b"h2",
        }
    }
}

/// A client certificate (or several) and its key.
pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl Identity {
    /// From two PEM files.
    pub fn load(certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        let chain = CertificateDer::pem_file_iter(certificate).expect("a certificate file");
        let chain = chain.collect::<Result<_, _>>().expect("certificates");
        Self { chain, key: PrivateKeyDer::from_pem_file(key).expect("a key file") }
    }

    /// A client of a key manager.
    pub fn enclave(key: &claviger::auth::enclave::ApiKey) -> Self {
        let certificate = key.certificate(claviger::clock::now()).expect("a certificate");
        Self { chain: vec![certificate], key: key.private_key() }
    }

    /// A client of `testdata/http/fixture`.
    pub fn fixture(name: &str) -> Self {
        let clients = testdata("http/fixture/clients");
        Self::load(clients.join(format!("{name}.crt")), clients.join(format!("{name}.key")))
    }

    /// A client of `certs/`.
    pub fn dev(name: &str) -> Self {
        Self::load(certs(format!("{name}.crt")), certs(format!("{name}.key")))
    }

    /// What the server is to call it: the hash of its public key.
    pub fn hash(&self) -> String {
        let (_, certificate) = x509_parser::parse_x509_certificate(&self.chain[0]).expect("a certificate");
        Sha256::digest(certificate.public_key().raw).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Settings of a client's TLS.
pub struct Tls(ClientConfig);

impl Tls {
    pub fn new(identity: Option<Identity>, protocol: Protocol) -> Self {
        Self::with_versions(identity, protocol, rustls::ALL_VERSIONS)
    }

    pub fn with_versions(
        identity: Option<Identity>,
        protocol: Protocol,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .expect("supported versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer::new(provider)));
        let mut config = match identity {
            // Through a resolver, since the builder checks that certificate and key belong together.
            Some(identity) => {
                let key = aws_lc_rs::sign::any_supported_type(&identity.key).expect("a supported key");
                let certified = rustls::sign::CertifiedKey::new(identity.chain, key);
                builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![protocol.alpn().to_vec()];
        config.enable_sni = false;
        Self(config)
    }

    /// Settings that several connections share, so that later ones resume the session of the first.
    pub fn shared(self) -> Arc<ClientConfig> {
        Arc::new(self.0)
    }
}

/// Opens a TLS connection.
pub async fn connect(address: SocketAddr, tls: Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let name = ServerName::IpAddress(address.ip().into());
    tokio_rustls::TlsConnector::from(tls).connect(name, socket).await
}

/// One client.
pub struct Client {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    protocol: Protocol,
}

/// A connection for several requests.
pub struct Session {
    inner: Inner,
    kind: Option<rustls::HandshakeKind>,
}

enum Inner {
    H1(Box<TlsStream<TcpStream>>),
    H2(hyper::client::conn::http2::SendRequest<Body>, Arc<Guard>),
}

/// Ends a connection's task.
pub struct Guard(tokio::task::JoinHandle<()>);

impl Guard {
    pub fn spawn(connection: impl Future<Output = hyper::Result<()>> + Send + 'static) -> Self {
        Self(tokio::spawn(async { drop(connection.await) }))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Session {
    /// Speaks over a connection that nothing has been sent on.
    pub async fn over(tls: TlsStream<TcpStream>, protocol: Protocol) -> std::io::Result<Self> {
        let kind = tls.get_ref().1.handshake_kind();
        let inner = match protocol {
            Protocol::H1 => Inner::H1(Box::new(tls)),
            Protocol::H2 => {
                let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls));
                let (sender, connection) = handshake.await.map_err(std::io::Error::other)?;
                Inner::H2(sender, Arc::new(Guard::spawn(connection)))
            }
        };
        Ok(Self { inner, kind })
    }

    /// The same connection once more, for requests at the same time. Over HTTP/2 only.
    pub fn another(&self) -> Self {
        match &self.inner {
            Inner::H1(_) => panic!("HTTP/1.1 has one request at a time"),
            Inner::H2(sender, guard) => Self { inner: Inner::H2(sender.clone(), guard.clone()), kind: self.kind },
        }
    }

    /// Whether the TLS session was resumed.
    pub fn handshake_kind(&self) -> Option<rustls::HandshakeKind> {
        self.kind
    }

    /// Sends a request and waits for the whole answer.
    pub async fn send(&mut self, request: Request) -> std::io::Result<Response> {
        match &mut self.inner {
            Inner::H1(tls) => send_h1(tls, &request).await,
            Inner::H2(sender, _) => send_h2(sender, request).await,
        }
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    /// By lower-case name.
    pub headers: BTreeMap<String, String>,
    pub body: Bytes,
}

impl Response {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of text")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("JSON, not {:?}", self.text()))
    }

    pub fn message(&self) -> String {
        self.json()["message"].as_str().expect("a message").to_owned()
    }
}

/// A request.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Option<Bytes>,
    /// Do not say beforehand how long the body is.
    pub chunked: bool,
    /// Do not send the end of the body.
    pub stalled: bool,
}

impl Request {
    pub fn new(method: &str, target: &str) -> Self {
        Self { method: method.into(), target: target.into(), ..Self::default() }
    }

    pub fn body(self, body: impl Into<Bytes>) -> Self {
        Self { body: Some(body.into()), ..self }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

impl Client {
    pub fn new(address: SocketAddr, identity: Option<Identity>, protocol: Protocol) -> Self {
        Self { address, tls: Tls::new(identity, protocol).shared(), protocol }
    }

    pub fn with_tls(address: SocketAddr, tls: Arc<ClientConfig>, protocol: Protocol) -> Self {
        Self { address, tls, protocol }
    }

    /// A client of the fixture, over HTTP/2.
    pub fn fixture(address: SocketAddr, name: &str) -> Self {
        Self::new(address, Some(Identity::fixture(name)), Protocol::H2)
    }

    /// Sends a request on a connection of its own.
    pub async fn send(&self, request: Request) -> std::io::Result<Response> {
        self.session().await?.send(request).await
    }

    /// Opens a connection that nothing has been sent on.
    pub async fn connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        connect(self.address, self.tls.clone()).await
    }

    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Opens a connection for several requests.
    pub async fn session(&self) -> std::io::Result<Session> {
        Session::over(self.connect().await?, self.protocol).await
    }

    pub async fn get(&self, target: &str) -> Response {
        self.send(Request::new("GET", target)).await.expect("an answer")
    }

    pub async fn put(&self, target: &str, body: impl Into<Bytes>) -> Response {
        self.send(Request::new("PUT", target).body(body)).await.expect("an answer")
    }

    pub async fn put_json(&self, target: &str, body: &serde_json::Value) -> Response {
        self.put(target, body.to_string()).await
    }

    pub async fn delete(&self, target: &str) -> Response {
        self.send(Request::new("DELETE", target)).await.expect("an answer")
    }
}

/// Sends a request as it stands, whatever a library would think of it, and reads one response.
pub async fn send_h1(tls: &mut TlsStream<TcpStream>, request: &Request) -> std::io::Result<Response> {
    let mut head = format!("{} {} HTTP/1.1\r\n", request.method, request.target);
    if !request.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head.push_str("Host: localhost\r\n");
    }
    for (name, value) in &request.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let has_length = request.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let mut body = request.body.clone().unwrap_or_default();
    if request.chunked {
        head.push_str("Transfer-Encoding: chunked\r\n");
        body = in_chunks(&body);
    } else if request.body.is_some() && !has_length {
        head.push_str(&format!("Content-Length: {}\r\n", body.len() + usize::from(request.stalled)));
    }
    head.push_str("\r\n");
    let (mut reader, mut writer) = tokio::io::split(tls);
    let write = async {
        // The server may answer, and close, before it has read everything.
        let _ = writer.write_all(head.as_bytes()).await;
        let _ = writer.write_all(&body).await;
        let _ = writer.flush().await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        response = read_h1(&mut reader, request.method == "HEAD") => response,
        () = write => unreachable!("it never ends"),
    }
}

/// A body in the chunked transfer coding.
fn in_chunks(body: &[u8]) -> Bytes {
    let mut chunks = Vec::new();
    for chunk in body.chunks(10_000) {
        chunks.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        chunks.extend_from_slice(chunk);
        chunks.extend_from_slice(b"\r\n");
    }
    chunks.extend_from_slice(b"0\r\n\r\n");
    chunks.into()
}

/// Reads one HTTP/1.1 response.
pub async fn read_h1(reader: &mut (impl tokio::io::AsyncRead + Unpin), head_only: bool) -> std::io::Result<Response> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = find(&bytes, b"\r\n\r\n") {
            break end + 4;
        }
        if reader.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let mut lines = text.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status line");
    let headers: BTreeMap<_, _> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let len = headers.get("content-length").and_then(|len| len.parse().ok());
    while !head_only && len.is_none_or(|len: usize| bytes.len() < head + len) {
        if reader.read_buf(&mut bytes).await? == 0 {
            break;
        }
    }
    // What follows it would be the next response.
    let end = if head_only { head } else { len.map_or(bytes.len(), |len| bytes.len().min(head + len)) };
    Ok(Response { status, headers, body: Bytes::from(bytes).slice(head..end) })
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}

type Body = Either<Unsized, Full<Bytes>>;

async fn send_h2(
    sender: &mut hyper::client::conn::http2::SendRequest<Body>,
    request: Request,
) -> std::io::Result<Response> {
    fn other(error: impl std::error::Error + Send + Sync + 'static) -> std::io::Error {
        std::io::Error::other(error)
    }
    let mut builder =
        hyper::Request::builder().method(request.method.as_str()).uri(format!("https://localhost{}", request.target));
    for (name, value) in &request.headers {
        builder = builder.header(name, value);
    }
    let body = Full::new(request.body.unwrap_or_default());
    let body = if request.chunked || request.stalled {
        Either::Left(Unsized { body, stalled: request.stalled })
    } else {
        Either::Right(body)
    };
    let request = builder.body(body).map_err(other)?;
    let response = sender.send_request(request).await.map_err(other)?;
    let (head, body) = response.into_parts();
    let headers = head.headers.iter();
    let headers =
        headers.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    let (status, headers) = (head.status.as_u16(), headers.collect());
    let body = body.collect().await.map_err(other)?.to_bytes();
    Ok(Response { status, headers, body })
}

/// A body that does not say how long it is.
pub struct Unsized {
    body: Full<Bytes>,
    stalled: bool,
}

impl hyper::body::Body for Unsized {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        match std::pin::Pin::new(&mut self.body).poll_frame(context) {
            std::task::Poll::Ready(None) if self.stalled => std::task::Poll::Pending,
            frame => frame,
        }
    }
}

/// Takes any server for the right one: the tests' certificates expire, and the tests go on.
#[derive(Debug)]
pub struct AnyServer {
    provider: Arc<CryptoProvider>,
    schemes: Vec<SignatureScheme>,
}

impl AnyServer {
    pub fn new(provider: Arc<CryptoProvider>) -> Self {
        let schemes = provider.signature_verification_algorithms.supported_schemes();
        Self { provider, schemes }
    }

    /// It says that it understands no other signatures.
    pub fn understanding(self, schemes: &[SignatureScheme]) -> Self {
        Self { schemes: schemes.to_vec(), ..self }
    }
}

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
