//! Load for a key server, from one thread; prints what it saw, and the server's CPU time, as one JSON
//! object.
//!
//! ```text
//! address=127.0.0.1:7443 certs=DIR   DIR holds client.crt and client.key
//! mode=requests|handshakes|hold      hold: one request a connection, then wait for the end of stdin
//! protocol=h1|h2 connections=1 streams=1 resume=0|1
//! api=kes|kms                        kms: the key manager's protocol, in the enclave "bench"
//! operation=generate|decrypt keys=1  requests go round the keys bench-0, bench-1, …; kms also: encrypt, status
//! warm=0.3 seconds=1                 what is not counted, what is
//! count=0                            stop after so many requests
//! pid=0                              the server, for its CPU time
//! ```

use std::cell::{Cell, RefCell};
use std::io::{Error, ErrorKind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, HandshakeKind, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use yardstick::{Options, read_pem};

#[path = "load/api.rs"]
mod api;

use api::{Api, Request};

type Stream = TlsStream<TcpStream>;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    tokio::task::LocalSet::new().run_until(run(Options::of_process())).await;
}

async fn run(options: Options) {
    let protocol = match options.text("protocol", "h1").as_str() {
        "h1" => Protocol::Http1,
        "h2" => Protocol::Http2,
        other => panic!("unknown protocol {other}"),
    };
    let (connections, streams) = (options.number("connections", 1), options.number("streams", 1));
    let client = Rc::new(Client::new(&options, protocol).await);
    let seen = Rc::new(Seen { stop_after: options.number("count", u64::MAX), ..Seen::default() });
    match options.text("mode", "requests").as_str() {
        "requests" => {
            for n in 0..connections {
                let (client, seen) = (client.clone(), seen.clone());
                tokio::task::spawn_local(async move {
                    let asked = client.ask_forever(n, streams, &seen).await;
                    seen.error(asked.err());
                });
            }
        }
        "handshakes" => {
            for _ in 0..connections {
                let (client, seen) = (client.clone(), seen.clone());
                tokio::task::spawn_local(async move { client.connect_forever(&seen).await });
            }
        }
        "hold" => return hold(&client, connections).await,
        other => panic!("unknown mode {other}"),
    }
    measure(&options, &seen).await;
}

/// Waits, and says what happened meanwhile.
async fn measure(options: &Options, seen: &Seen) {
    let pid = options.number("pid", 0);
    let wait = |name, default| tokio::time::sleep(Duration::from_secs_f64(options.number(name, default)));
    wait("warm", 0.3).await;
    seen.latencies.borrow_mut().clear();
    let (count, cpu, started) = (seen.count.get(), cpu_seconds(pid), Instant::now());
    tokio::select! {
        () = wait("seconds", 1.0) => {}
        () = seen.done.notified() => {}
    }
    let (count, cpu, elapsed) = (seen.count.get() - count, cpu_seconds(pid) - cpu, started.elapsed());
    let mut latencies = seen.latencies.take();
    latencies.sort_unstable();
    let quantile = |of: f64| latencies.get((latencies.len() as f64 * of) as usize).map_or(0.0, Duration::as_secs_f64);
    println!(
        "{}",
        serde_json::json!({
            "requests": count,
            "errors": seen.errors.get(),
            "per_second": count as f64 / elapsed.as_secs_f64(),
            "cpu_us": cpu * 1e6 / count.max(1) as f64,
            "p50_us": quantile(0.50) * 1e6,
            "p99_us": quantile(0.99) * 1e6,
            "max_us": latencies.last().map_or(0.0, Duration::as_secs_f64) * 1e6,
        })
    );
    // Streams are in flight: nobody need wait for them.
    std::process::exit(0);
}

/// Holds idle connections, each of which has sent a request.
async fn hold(client: &Client, connections: usize) {
    let mut held = Vec::new();
    for n in 0..connections {
        let mut connection = client.open().await.expect("a connection");
        connection.ask(&client.requests[n % client.requests.len()]).await.expect("an answer");
        held.push(connection);
    }
    println!("{{\"connections\":{}}}", held.len());
    let _ = tokio::io::stdin().read(&mut [0]).await;
}

/// What has happened so far.
#[derive(Default)]
struct Seen {
    stop_after: u64,
    count: Cell<u64>,
    errors: Cell<u64>,
    latencies: RefCell<Vec<Duration>>,
    done: tokio::sync::Notify,
}

impl Seen {
    fn answer(&self, asked: Instant) {
        self.latencies.borrow_mut().push(asked.elapsed());
        self.count.set(self.count.get() + 1);
        if self.count.get() == self.stop_after {
            self.done.notify_one();
        }
    }

    fn error(&self, error: Option<Error>) {
        if let Some(error) = error {
            eprintln!("{error}");
            self.errors.set(self.errors.get() + 1);
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Protocol {
    Http1,
    Http2,
}

struct Client {
    address: String,
    tls: TlsConnector,
    protocol: Protocol,
    resumes: bool,
    requests: Vec<Request>,
}

impl Client {
    async fn new(options: &Options, protocol: Protocol) -> Self {
        let resumes = options.number("resume", 0) == 1;
        let keys = options.number("keys", 1);
        let (api, operation) = (Api::of(&options.text("api", "kes")), options.text("operation", "generate"));
        let mut client = Self {
            address: options.text("address", "127.0.0.1:7443"),
            tls: tls(&options.text("certs", "certs"), protocol, resumes),
            protocol,
            resumes,
            requests: (0..keys).map(|n| api.request(&operation, n)).collect(),
        };
        if operation == "decrypt" {
            let mut connection = client.open().await.expect("a connection");
            for n in 0..keys {
                let reply = connection.ask(&api.request("generate", n)).await.expect("a data key");
                client.requests[n] = api.decrypt(n, &reply);
            }
        }
        client
    }

    async fn dial(&self) -> Result<Stream, Error> {
        let socket = TcpStream::connect(&self.address).await?;
        socket.set_nodelay(true)?;
        self.tls.connect(ServerName::try_from("localhost").expect("a name"), socket).await
    }

    async fn open(&self) -> Result<Connection, Error> {
        let stream = self.dial().await?;
        Ok(match self.protocol {
            Protocol::Http1 => Connection::Http1(Box::new(Http1 { stream, buffer: vec![0; 8192] })),
            Protocol::Http2 => Connection::Http2(http2(stream).await?),
        })
    }

    /// Asks on one connection, as many streams at once as it is told to.
    async fn ask_forever(self: &Rc<Self>, first: usize, streams: usize, seen: &Rc<Seen>) -> Result<(), Error> {
        match self.open().await? {
            connection @ Connection::Http1(_) => self.ask_in_turn(connection, first, seen).await,
            Connection::Http2(sender) => {
                for stream in 0..streams {
                    let connection = Connection::Http2(sender.clone());
                    let (client, seen) = (self.clone(), seen.clone());
                    tokio::task::spawn_local(async move {
                        let asked = client.ask_in_turn(connection, first + stream, &seen).await;
                        seen.error(asked.err());
                    });
                }
                Ok(())
            }
        }
    }

    async fn ask_in_turn(&self, mut connection: Connection, first: usize, seen: &Seen) -> Result<(), Error> {
        for n in first.. {
            let asked = Instant::now();
            connection.ask(&self.requests[n % self.requests.len()]).await?;
            seen.answer(asked);
        }
        Ok(())
    }

    /// Connects, asks once, and closes, again and again.
    async fn connect_forever(&self, seen: &Seen) {
        // The first connections bring the ticket.
        for n in 0.. {
            let asked = Instant::now();
            match self.connect_once(n > 0).await {
                Ok(()) => seen.answer(asked),
                Err(error) => seen.error(Some(error)),
            }
        }
    }

    async fn connect_once(&self, has_ticket: bool) -> Result<(), Error> {
        let mut http1 = Http1 { stream: self.dial().await?, buffer: vec![0; 8192] };
        http1.ask(&self.requests[0]).await?;
        let (socket, session) = http1.stream.get_ref();
        let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        // Leaves no socket in TIME-WAIT.
        socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO))?;
        if resumed != (self.resumes && has_ticket) {
            return Err(Error::other("the session was resumed and should not, or the reverse"));
        }
        Ok(())
    }
}

fn tls(certs: &str, protocol: Protocol, resumes: bool) -> TlsConnector {
    let certificate = CertificateDer::from(read_pem(&format!("{certs}/client.crt")));
    let key = PrivateKeyDer::Pkcs8(read_pem(&format!("{certs}/client.key")).into());
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider knows TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
        .with_client_auth_cert(vec![certificate], key)
        .expect("key and certificate belong together");
    config.alpn_protocols = vec![if protocol == Protocol::Http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    if !resumes {
        config.resumption = Resumption::disabled();
    }
    TlsConnector::from(Arc::new(config))
}

async fn http2(stream: Stream) -> Result<SendRequest<Bytes>, Error> {
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 24);
    let (sender, connection) = builder.handshake(stream).await.map_err(Error::other)?;
    tokio::task::spawn_local(connection);
    Ok(sender)
}

/// A connection on which requests can be sent.
enum Connection {
    Http1(Box<Http1>),
    Http2(SendRequest<Bytes>),
}

impl Connection {
    /// Sends a request and returns the body of the answer, which must be 200.
    async fn ask(&mut self, request: &Request) -> Result<Vec<u8>, Error> {
        match self {
            Self::Http1(http1) => http1.ask(request).await,
            Self::Http2(sender) => ask_http2(sender, request).await.map_err(Error::other),
        }
    }
}

struct Http1 {
    stream: Stream,
    buffer: Vec<u8>,
}

impl Http1 {
    async fn ask(&mut self, request: &Request) -> Result<Vec<u8>, Error> {
        self.stream.write_all(&request.http1).await?;
        self.stream.flush().await?;
        let mut have = 0;
        loop {
            have += match self.stream.read(&mut self.buffer[have..]).await? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                read => read,
            };
            if let Some(body) = parse_http1(&self.buffer[..have])? {
                return Ok(body.to_vec());
            }
        }
    }
}

/// The body of an answer, when all of it is there.
fn parse_http1(bytes: &[u8]) -> Result<Option<&[u8]>, Error> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(bytes).map_err(Error::other)? else { return Ok(None) };
    if response.code != Some(200) {
        return Err(Error::other(format!("status {:?}", response.code)));
    }
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok()).unwrap_or(0);
    Ok(bytes[head..].get(..length))
}

async fn ask_http2(sender: &mut SendRequest<Bytes>, request: &Request) -> Result<Vec<u8>, h2::Error> {
    let mut ready = sender.clone().ready().await?;
    let (response, mut body) = ready.send_request(request.http2(), false)?;
    body.send_data(request.body.clone(), true)?;
    let response = response.await?;
    if response.status() != 200 {
        eprintln!("status {}", response.status());
        return Err(h2::Reason::INTERNAL_ERROR.into());
    }
    let (mut body, mut bytes) = (response.into_body(), Vec::new());
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// The CPU time that a process has used, in seconds; 0 for no process.
fn cpu_seconds(pid: i32) -> f64 {
    if pid == 0 {
        return 0.0;
    }
    let (mut clock, mut time) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
    // SAFETY: both calls only write to the variable that they are given.
    let failed =
        unsafe { libc::clock_getcpuclockid(pid, &mut clock) != 0 || libc::clock_gettime(clock, &mut time) != 0 };
    assert!(!failed, "process {pid} has no CPU clock");
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// The server's certificate is not what is measured.
#[derive(Debug)]
struct AnyServer;

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
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519]
    }
}
