//! Tests of everything outside of handlers: a small service behind a real server, called over real TLS.

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::time::advance;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::route::RouteConfig;
use super::*;
use crate::auth::{Access, Identity};
use crate::crypto::json::{Field, Fields};
use crate::operation::Operation;
use crate::telemetry::{Reload, audit, log};

const SECOND: Duration = Duration::from_secs(1);

/// A service with one route for each way to behave.
struct Tiny {
    router: Router<Tiny>,
    access: Access,
    /// Handlers of `/wait` that have begun.
    begun: AtomicU64,
}

impl Service for Tiny {
    type Access = ();

    fn decide(&self, asked: Asked<'_>) -> Decision<()> {
        let outcome = self.authorize(asked.peer.clone(), asked.requirement, asked.path);
        Decision::of(asked.peer, outcome)
    }

    fn router(&self) -> &Router<Self> {
        &self.router
    }

    fn authorize(
        &self,
        peer: Result<Identity, peer::Error>,
        requirement: Requirement,
        path: &str,
    ) -> Result<Caller, Denied> {
        self.access.authorize(peer, requirement, path)
    }
}

#[derive(Default)]
struct Text {
    text: Option<String>,
}

impl Fields for Text {
    fn field(&mut self, name: &str) -> Option<Field<'_>> {
        (name == "text").then_some(Field::Text(&mut self.text))
    }
}

impl Json for Text {}

async fn hello(_: Call<Tiny>) -> Result<Reply, Error> {
    Ok(Reply::text("text/plain", "hello"))
}

async fn fail(_: Call<Tiny>, request: Text) -> Result<(), Error> {
    panic!("about to tell the secret {:?}", request.text)
}

async fn wait(call: Call<Tiny>) -> Result<(), Error> {
    call.state().begun.fetch_add(1, Ordering::SeqCst);
    std::future::pending().await
}

async fn echo(_: Call<Tiny>, request: Text) -> Result<Reply, Error> {
    Ok(Reply::text("text/plain", request.text.unwrap_or_default()))
}

async fn guarded(call: Call<Tiny>) -> Result<Reply, Error> {
    stream(call).await
}

async fn stream(_: Call<Tiny>) -> Result<Reply, Error> {
    Ok(Reply::stream("text/plain", futures_util::stream::pending(), CancellationToken::new()))
}

/// More than what the system takes for a client that does not read.
async fn large(_: Call<Tiny>) -> Result<Reply, Error> {
    Ok(Reply::text("text/plain", vec![b'x'; 16 << 20]))
}

/// A stream that has one piece, and goes on.
async fn piece(_: Call<Tiny>) -> Result<Reply, Error> {
    use futures_util::StreamExt as _;
    let pieces = futures_util::stream::iter([Bytes::from("piece")]).chain(futures_util::stream::pending());
    Ok(Reply::stream("text/plain", pieces, CancellationToken::new()))
}

fn tiny() -> Arc<Tiny> {
    tiny_of(Identity::parse("nobody").expect("valid"))
}

/// The service with an admin, who alone may read `/guarded`.
fn tiny_of(admin: Identity) -> Arc<Tiny> {
    let routes = vec![
        Route::new(Operation::get("/hello"), hello).any_identity(),
        Route::new(Operation::put("/fail"), fail).max_body(1_000).any_identity(),
        Route::new(Operation::get("/wait"), wait).any_identity(),
        Route::new(Operation::put("/echo"), echo).max_body(1_000).any_identity(),
        Route::new(Operation::get("/stream"), stream).timeout(None).any_identity(),
        Route::new(Operation::get("/guarded"), guarded).timeout(None),
        Route::new(Operation::get("/large"), large).any_identity(),
        Route::new(Operation::get("/piece"), piece).timeout(None).any_identity(),
    ];
    let access = Access::new(admin, Vec::new(), OffsetDateTime::UNIX_EPOCH);
    let router = Router::new(routes, &BTreeMap::<String, RouteConfig>::new());
    Arc::new(Tiny { router, access, begun: AtomicU64::new(0) })
}

/// Bytes that somebody wrote.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no writer panicked").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Written {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no writer panicked").clone()).expect("text")
    }
}

/// A server on the test's own thread, so that the test can stop its clock.
struct Running {
    address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    server_tls: Tls,
    /// Of the client.
    identity: Identity,
    handle: Handle<Tiny>,
    telemetry: Arc<Telemetry>,
    audited: Written,
    logged: Written,
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn start() -> Self {
        Self::with(Limits { connections: 100, shutdown: 5 * SECOND }).await
    }

    async fn with(limits: Limits) -> Self {
        let (certificate, key) = certificate();
        let tls = Tls::ephemeral(certificate.clone(), key, OffsetDateTime::UNIX_EPOCH).expect("usable");
        let (audited, logged) = (Written::default(), Written::default());
        let telemetry = Arc::new(Telemetry {
            log: log::Log::start(logged.clone()).expect("a thread"),
            audit: audit::Audit::start(audited.clone()).expect("a thread"),
            started: OffsetDateTime::UNIX_EPOCH,
            reload: Reload::new(OffsetDateTime::UNIX_EPOCH),
        });
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let server_tls = tls.clone();
        let server = Server::bind(address, limits, &Budget::default(), telemetry.clone(), (tiny(), tls))
            .await
            .expect("a free port");
        let (address, handle) = (server.address().expect("bound"), server.handle());
        let (stop, stopped) = oneshot::channel();
        let workers = Workers::start(1).expect("no thread is needed");
        let ended = tokio::spawn(server.run(workers, async { drop(stopped.await) }, std::future::pending()));
        let (tls, identity) = client_config(certificate);
        Self { address, tls, server_tls, identity, handle, telemetry, audited, logged, stop, ended }
    }

    async fn connect(&self, alpn: &[u8]) -> TlsStream<TcpStream> {
        self.connect_from([127, 0, 0, 1], alpn).await
    }

    /// From another address.
    async fn connect_from(&self, ip: [u8; 4], alpn: &[u8]) -> TlsStream<TcpStream> {
        let mut config = rustls::ClientConfig::clone(&self.tls);
        config.alpn_protocols = vec![alpn.to_vec()];
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from((ip, 0))).expect("a free port");
        let socket = socket.connect(self.address).await.expect("the server listens");
        let name = ServerName::try_from("localhost").expect("a name");
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, socket).await.expect("a handshake")
    }

    async fn h1(&self) -> hyper::client::conn::http1::SendRequest<Full<Bytes>> {
        let io = TokioIo::new(self.connect(b"http/1.1").await);
        let (sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("a connection");
        tokio::spawn(connection);
        sender
    }

    async fn h2(&self) -> hyper::client::conn::http2::SendRequest<Full<Bytes>> {
        self.h2_with(65_535).await
    }

    /// With so much of each reply that the client takes before it is asked for more, in bytes.
    async fn h2_with(&self, window: u32) -> hyper::client::conn::http2::SendRequest<Full<Bytes>> {
        let io = TokioIo::new(self.connect(b"h2").await);
        let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let handshake = builder.initial_stream_window_size(window).handshake(io);
        let (sender, connection) = handshake.await.expect("a connection");
        tokio::spawn(connection);
        sender
    }

    async fn audited(&self) -> Vec<(String, u64)> {
        self.telemetry.audit.flush().await;
        let events = self.audited.text();
        let events = events.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        let text = |event: &serde_json::Value| event["request"]["path"].as_str().expect("a path").to_owned();
        events.map(|event| (text(&event), event["response"]["code"].as_u64().expect("a code"))).collect()
    }
}

fn certificate() -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).expect("PKCS#8");
    (certified.cert.der().clone(), key)
}

/// TLS whose trust is another than that of [`Tls::ephemeral`].
fn tls_with_a_proxy() -> Tls {
    let directory = tempfile::tempdir().expect("a directory");
    let (key, cert) = (directory.path().join("key"), directory.path().join("cert"));
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate");
    std::fs::write(&key, certified.signing_key.serialize_pem()).expect("written");
    std::fs::write(&cert, certified.cert.pem()).expect("written");
    let proxy = tls::Proxy { identities: vec![Identity::parse("proxy").expect("valid")], ..tls::Proxy::default() };
    let certs = vec![tls::Pair { key, cert, password: String::new().into() }];
    Tls::load(&tls::Config { certs, auth: tls::ClientAuth::Off, ca: None, proxy }, true).expect("usable")
}

fn client_config(server: CertificateDer<'static>) -> (Arc<rustls::ClientConfig>, Identity) {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(server).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (certificate, key) = certificate();
    let identity = crate::auth::peer::identify([certificate.as_ref()]).expect("a client's certificate");
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("usable")
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key);
    (Arc::new(config.expect("usable")), identity)
}

fn get(path: &str) -> Request<Full<Bytes>> {
    let request = Request::get(format!("https://localhost{path}")).header("host", "localhost");
    request.body(Full::default()).expect("a request")
}

fn put(path: &str, body: &str) -> Request<Full<Bytes>> {
    let request = Request::put(format!("https://localhost{path}")).header("host", "localhost");
    request.body(Full::new(body.to_owned().into())).expect("a request")
}

async fn answer(response: hyper::Response<hyper::body::Incoming>) -> (StatusCode, String) {
    let status = response.status();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (status, String::from_utf8(body.into()).expect("text"))
}

/// Lets everything that is ready happen, sockets included.
async fn settle() {
    for _ in 0..500 {
        tokio::task::yield_now().await;
    }
}

/// Lets time pass, on a stopped clock.
async fn pass(seconds: u32) {
    for _ in 0..seconds {
        advance(SECOND).await;
        settle().await;
    }
}

/// What has arrived, and whether the other end has closed.
async fn arrived(socket: &mut (impl tokio::io::AsyncRead + Unpin)) -> (String, bool) {
    settle().await;
    let (mut text, mut piece) = (String::new(), [0; 4_096]);
    loop {
        match futures_util::poll!(Box::pin(socket.read(&mut piece))) {
            Poll::Ready(Ok(len @ 1..)) => text.push_str(&String::from_utf8_lossy(&piece[..len])),
            Poll::Ready(_) => return (text, true),
            Poll::Pending => return (text, false),
        }
    }
}

async fn is_closed(socket: &mut (impl tokio::io::AsyncRead + Unpin)) -> bool {
    arrived(socket).await.1
}

#[tokio::test]
async fn a_panic_ends_one_request_and_tells_nobody_what_it_said() {
    let server = Running::start().await;
    let _log = tracing::subscriber::set_default(log::Layer::subscriber(server.telemetry.log.clone()));
    let (here, former) = (std::thread::current().id(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| match std::thread::current().id() == here {
        true => log::panicked(panic),
        false => former(panic),
    }));
    let failed = (StatusCode::INTERNAL_SERVER_ERROR, "{\"message\":\"internal server error\"}".to_owned());
    let hello = (StatusCode::OK, "hello".to_owned());
    let request = || put("/fail", "{\"text\":\"s3cret\"}");

    let mut h1 = server.h1().await;
    assert_eq!(answer(h1.send_request(request()).await.expect("an answer")).await, failed);
    h1.ready().await.expect("the connection goes on");
    assert_eq!(answer(h1.send_request(get("/hello")).await.expect("an answer")).await, hello);

    let mut h2 = server.h2().await;
    let beside = tokio::spawn(h2.send_request(get("/wait")));
    assert_eq!(answer(h2.send_request(request()).await.expect("an answer")).await, failed);
    assert_eq!(answer(h2.send_request(get("/hello")).await.expect("an answer")).await, hello);
    assert!(!beside.is_finished(), "others on the connection go on");

    server.telemetry.log.flush().await;
    let logged = server.logged.text();
    assert_eq!(logged.matches("the program panicked").count(), 2, "{logged}");
    assert!(logged.contains("src/server/tests.rs") && !logged.contains("s3cret"), "{logged}");
    let codes: Vec<_> = server.audited().await.into_iter().map(|(_, code)| code).collect();
    assert_eq!(codes, [500, 200, 500, 200]);
}

#[tokio::test]
async fn a_handshake_has_ten_seconds() {
    let server = Running::start().await;
    let mut silent = TcpStream::connect(server.address).await.expect("the server listens");
    let mut half = TcpStream::connect(server.address).await.expect("the server listens");
    half.write_all(b"\x16\x03\x01\x02\x00\x01").await.expect("the beginning of a record");
    settle().await;
    tokio::time::pause();
    pass(9).await;
    assert!(!is_closed(&mut silent).await && !is_closed(&mut half).await);
    pass(2).await;
    assert!(is_closed(&mut silent).await && is_closed(&mut half).await);
    assert_eq!(server.handle.0.connections.len(), 0);
}

#[tokio::test]
async fn the_first_request_has_ten_seconds() {
    let server = Running::start().await;
    for alpn in [&b"http/1.1"[..], b"h2"] {
        let mut socket = server.connect(alpn).await;
        settle().await;
        tokio::time::pause();
        pass(9).await;
        assert!(!is_closed(&mut socket).await);
        pass(7).await;
        assert!(is_closed(&mut socket).await);
        tokio::time::resume();
    }
    assert_eq!(server.handle.0.connections.len(), 0);
}

#[tokio::test]
async fn an_idle_connection_has_ninety_seconds() {
    let server = Running::start().await;
    let (mut h1, mut h2) = (server.h1().await, server.h2().await);
    let h1_answer = h1.send_request(get("/hello")).await.expect("an answer");
    assert_eq!(answer(h1_answer).await.0, StatusCode::OK);
    let h2_answer = h2.send_request(get("/hello")).await.expect("an answer");
    assert_eq!(answer(h2_answer).await.0, StatusCode::OK);
    tokio::time::pause();
    pass(88).await;
    assert!(!h1.is_closed() && !h2.is_closed());
    pass(8).await;
    assert!(h1.is_closed() && h2.is_closed());
    assert_eq!(server.handle.0.connections.len(), 0);
}

#[tokio::test]
async fn a_connection_with_a_request_in_flight_is_not_idle() {
    let server = Running::start().await;
    let mut h2 = server.h2().await;
    let response = h2.send_request(get("/stream")).await.expect("headers at once");
    tokio::time::pause();
    pass(200).await;
    assert!(!h2.is_closed());
    drop(response);
    pass(96).await;
    assert!(h2.is_closed());
}

#[tokio::test]
async fn a_request_head_that_only_drips_is_not_waited_for() {
    let server = Running::start().await;
    let mut first = server.connect(b"http/1.1").await;
    let mut second = server.connect(b"http/1.1").await;
    second.write_all(b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("written");
    while !arrived(&mut second).await.0.contains("hello") {}
    tokio::time::pause();
    for byte in b"GET /hello H" {
        // The server may have closed it.
        let _ = first.write_all(&[*byte]).await;
        second.write_all(&[*byte]).await.expect("written");
        pass(1).await;
    }
    assert!(!is_closed(&mut second).await);
    pass(6).await;
    assert!(is_closed(&mut first).await && is_closed(&mut second).await);
}

#[tokio::test]
async fn a_body_has_the_time_of_its_route() {
    let server = Running::start().await;
    let mut socket = server.connect(b"http/1.1").await;
    let head = b"PUT /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{";
    socket.write_all(head).await.expect("written");
    settle().await;
    tokio::time::pause();
    pass(14).await;
    assert_eq!(arrived(&mut socket).await, (String::new(), false));
    pass(2).await;
    let (text, _) = arrived(&mut socket).await;
    assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
}

#[tokio::test]
async fn a_body_that_nobody_needs_is_not_waited_for_long() {
    let server = Running::start().await;
    let mut socket = server.connect(b"http/1.1").await;
    let head = b"GET /stream HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{";
    socket.write_all(head).await.expect("written");
    settle().await;
    tokio::time::pause();
    pass(11).await;
    let (text, _) = arrived(&mut socket).await;
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
}

#[tokio::test]
async fn an_answer_has_the_time_of_its_route() {
    let server = Running::start().await;
    let mut h2 = server.h2().await;
    let waiting = tokio::spawn(h2.send_request(get("/wait")));
    settle().await;
    tokio::time::pause();
    pass(14).await;
    assert!(!waiting.is_finished());
    pass(2).await;
    let response = waiting.await.expect("no panic").expect("an answer");
    assert_eq!(answer(response).await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_request_whose_client_leaves_is_audited() {
    let server = Running::start().await;
    let begun = |count| {
        let state = server.handle.state();
        async move {
            while state.begun.load(Ordering::SeqCst) < count {
                settle().await;
            }
        }
    };
    let mut socket = server.connect(b"http/1.1").await;
    socket.write_all(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("written");
    begun(1).await;
    drop(socket);
    let mut h2 = server.h2().await;
    let waiting = tokio::spawn(h2.send_request(get("/wait")));
    begun(2).await;
    waiting.abort();
    while server.telemetry.audit.written() < 2 {
        settle().await;
    }
    assert_eq!(server.audited().await, [("/wait".to_owned(), 499), ("/wait".to_owned(), 499)]);
}

#[tokio::test]
async fn when_all_connections_are_taken_the_one_idle_longest_has_to_go() {
    let server = Running::with(Limits { connections: 3, shutdown: SECOND }).await;
    let mut busy = server.h2().await;
    let waiting = tokio::spawn(busy.send_request(get("/wait")));
    let mut longest = server.h1().await;
    answer(longest.send_request(get("/hello")).await.expect("an answer")).await;
    tokio::time::pause();
    pass(1).await;
    tokio::time::resume();
    let mut idle = server.h1().await;
    answer(idle.send_request(get("/hello")).await.expect("an answer")).await;
    assert_eq!(server.handle.0.connections.len(), 3);
    let mut new = server.h1().await;
    answer(new.send_request(get("/hello")).await.expect("an answer")).await;
    settle().await;
    assert!(longest.is_closed());
    assert!(!idle.is_closed() && !busy.is_closed() && !new.is_closed() && !waiting.is_finished());
    assert_eq!(server.handle.0.connections.len(), 3);
}

/// Connections of one client, each with a request that goes on.
async fn busy(server: &Running, path: &str, count: usize) -> Vec<hyper::client::conn::http2::SendRequest<Full<Bytes>>> {
    let mut connections = Vec::new();
    for _ in 0..count {
        let mut connection = server.h2().await;
        drop(tokio::spawn(connection.send_request(get(path))));
        settle().await;
        connections.push(connection);
    }
    connections
}

#[tokio::test]
async fn a_client_that_keeps_all_connections_busy_loses_one_to_another_client() {
    let server = Running::with(Limits { connections: 3, shutdown: SECOND }).await;
    let all = busy(&server, "/wait", 3).await;
    // Nobody knows whose they are, so the address says it.
    let mut refused = TcpStream::connect(server.address).await.expect("the system accepts it");
    assert_eq!(refused.read(&mut [0; 1]).await.expect("an orderly end"), 0, "the same client");
    let socket = server.connect_from([127, 0, 0, 2], b"http/1.1").await;
    let (mut other, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.expect("a connection");
    tokio::spawn(connection);
    answer(other.send_request(get("/hello")).await.expect("an answer")).await;
    settle().await;
    assert!(all[0].is_closed(), "it was busy longest");
    assert!(!all[1].is_closed() && !all[2].is_closed());
    // One that is idle goes first, and only one of its own client, since nobody else has more.
    let _second = server.connect_from([127, 0, 0, 2], b"http/1.1").await;
    settle().await;
    assert!(other.is_closed() && !all[1].is_closed() && !all[2].is_closed());
    assert_eq!(server.handle.0.connections.len(), 3);
}

#[tokio::test]
async fn a_client_that_is_known_is_told_from_others_at_its_address() {
    let server = Running::with(Limits { connections: 3, shutdown: SECOND }).await;
    server.handle.replace(tiny_of(server.identity.clone()), server.server_tls.clone());
    let all = busy(&server, "/guarded", 3).await;
    let mut other = server.h1().await;
    answer(other.send_request(get("/hello")).await.expect("an answer")).await;
    settle().await;
    assert_eq!(all.iter().filter(|connection| connection.is_closed()).count(), 1);
    assert_eq!(server.handle.0.connections.len(), 3);
}

#[tokio::test]
async fn a_chunked_request_is_the_last_of_its_connection() {
    let server = Running::start().await;
    let mut socket = server.connect(b"http/1.1").await;
    let request = b"PUT /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
        d\r\n{\"text\":\"hi\"}\r\n0\r\n\r\nGET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n";
    socket.write_all(request).await.expect("written");
    let mut text = String::new();
    socket.read_to_string(&mut text).await.expect("the server closes");
    assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("hi"), "{text}");
    assert!(text.contains("connection: close\r\n"), "{text}");
}

#[tokio::test]
async fn of_two_lengths_the_chunks_count_and_nothing_comes_after() {
    let server = Running::start().await;
    let (length, chunked) = ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n");
    for lengths in [[length, chunked], [chunked, length]].map(|both| both.concat()) {
        let mut socket = server.connect(b"http/1.1").await;
        let request = format!(
            "PUT /echo HTTP/1.1\r\nHost: localhost\r\n{lengths}\r\nd\r\n{{\"text\":\"hi\"}}\r\n0\r\n\r\n\
             GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await.expect("written");
        let mut text = String::new();
        socket.read_to_string(&mut text).await.expect("the server closes");
        assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("\r\n\r\nhi"), "{text}");
        assert!(text.contains("connection: close\r\n"), "{text}");
    }
}

#[tokio::test]
async fn a_reply_that_nobody_reads_ends_its_connection_whatever_else_comes_on_it() {
    for path in ["/hello", "/piece"] {
        let server = Running::start().await;
        let mut h2 = server.h2_with(0).await;
        let unread = h2.send_request(get(path)).await.expect("the head of an answer");
        settle().await;
        tokio::time::pause();
        for _ in 0..6 {
            pass(5).await;
            let other = Request::head("https://localhost/hello").body(Full::default()).expect("a request");
            assert_eq!(h2.send_request(other).await.expect("an answer").status(), StatusCode::METHOD_NOT_ALLOWED);
        }
        pass(15).await;
        assert!(h2.ready().await.is_err(), "{path}");
        assert_eq!(server.handle.0.connections.len(), 0);
        assert!(unread.into_body().collect().await.is_err());
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_large_reply_has_its_time_over_http_1_too() {
    let server = Running::start().await;
    let mut socket = server.connect(b"http/1.1").await;
    socket.write_all(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("written");
    settle().await;
    tokio::time::pause();
    pass(100).await;
    assert_eq!(server.handle.0.connections.len(), 1, "it is not idle, and 16 MiB have two minutes");
    pass(25).await;
    assert_eq!(server.handle.0.connections.len(), 0);
}

#[tokio::test]
async fn a_reply_that_is_read_late_is_whole() {
    let server = Running::start().await;
    let mut h2 = server.h2_with(65_535).await;
    let reply = h2.send_request(get("/large")).await.expect("the head of an answer");
    settle().await;
    tokio::time::pause();
    pass(60).await;
    tokio::time::resume();
    let body = reply.into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(body.len(), 16 << 20);
    assert_eq!(answer(h2.send_request(get("/hello")).await.expect("an answer")).await.1, "hello");
}

#[tokio::test]
async fn when_trust_changes_clients_are_sent_to_new_connections_and_no_request_fails() {
    let server = Running::start().await;
    let (mut h1, mut h2) = (server.h1().await, server.h2().await);
    answer(h1.send_request(get("/hello")).await.expect("an answer")).await;
    let waiting = tokio::spawn(h2.send_request(get("/wait")));
    settle().await;
    server.handle.replace(tiny(), tls_with_a_proxy());
    settle().await;
    assert!(!h1.is_closed(), "the next answer says it");
    let last = h1.send_request(get("/hello")).await.expect("an answer");
    assert_eq!(last.headers()["connection"], "close");
    assert_eq!(answer(last).await.0, StatusCode::OK);
    settle().await;
    assert!(h1.is_closed());
    assert!(!waiting.is_finished(), "what runs goes on");
    assert!(h2.send_request(get("/hello")).await.is_err(), "the client knows that the server is going");
}

#[tokio::test]
async fn a_stream_ends_when_the_server_stops() {
    let server = Running::start().await;
    let (mut h1, mut h2) = (server.h1().await, server.h2().await);
    let h1_stream = h1.send_request(get("/stream")).await.expect("headers at once");
    let h2_stream = h2.send_request(get("/stream")).await.expect("headers at once");
    server.stop.send(()).expect("the server runs");
    assert_eq!(answer(h1_stream).await.1, "");
    assert_eq!(answer(h2_stream).await.1, "");
    server.ended.await.expect("no panic");
}

#[tokio::test]
async fn a_stream_ends_when_a_reload_takes_the_right_to_read_it() {
    let server = Running::start().await;
    let reload = |admin: &str| {
        let admin = if admin == "client" { server.identity.clone() } else { Identity::parse(admin).expect("valid") };
        server.handle.replace(tiny_of(admin), server.server_tls.clone());
    };
    for protocol in ["h1", "h2"] {
        reload("client");
        let response = match protocol {
            "h1" => server.h1().await.send_request(get("/guarded")).await,
            _ => server.h2().await.send_request(get("/guarded")).await,
        };
        let response = response.expect("headers at once");
        assert_eq!(response.status(), StatusCode::OK);
        let mut body = Box::pin(answer(response));
        reload("client");
        settle().await;
        assert!(futures_util::poll!(&mut body).is_pending(), "the right is still there");
        reload("somebody-else");
        assert_eq!(body.await.1, "", "the stream ends");
    }
}

#[tokio::test]
async fn requests_that_do_not_end_are_cut_off_after_the_shutdown_timeout() {
    let server = Running::start().await;
    let mut h2 = server.h2().await;
    let waiting = tokio::spawn(h2.send_request(get("/wait")));
    settle().await;
    server.stop.send(()).expect("the server runs");
    settle().await;
    assert!(TcpStream::connect(server.address).await.is_err(), "no new connections");
    tokio::time::pause();
    pass(4).await;
    assert!(!waiting.is_finished() && !server.ended.is_finished());
    pass(2).await;
    assert!(waiting.await.expect("no panic").is_err());
    server.ended.await.expect("no panic");
}
