//! Clients that mean no good: each gets a clear error or a closed connection, and everybody else is served.

use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::support::client::{Request, Tls, connect};
use super::support::frames::{frame, head, next_frame, preface};
use super::support::server::fixture_config;
use super::support::{Client, Identity, Protocol, TestServer, block_on};

/// What no test here waits for longer.
const PATIENCE: Duration = Duration::from_secs(60);

async fn admin(server: &TestServer, protocol: Protocol) -> TlsStream<TcpStream> {
    let client = Client::new(server.address(), Some(Identity::fixture("admin")), protocol);
    client.connect().await.expect("a connection")
}

/// Sends bytes over TLS and returns all that comes back until the server closes.
async fn raw(server: &TestServer, bytes: &[u8]) -> String {
    let mut tls = admin(server, Protocol::H1).await;
    // The server may close before it has read everything.
    let _ = tls.write_all(bytes).await;
    let _ = tls.flush().await;
    rest(&mut tls, &String::from_utf8_lossy(&bytes[..bytes.len().min(100)])).await
}

/// All that comes until the server closes, after `what` was sent.
async fn rest(socket: &mut (impl tokio::io::AsyncRead + Unpin), what: &str) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(read.is_ok(), "the server does not close the connection after {what:?}, and said {answer:?}");
    answer
}

/// Whether the server serves others, and nothing in it went wrong.
async fn is_well(server: &TestServer) {
    for protocol in Protocol::ALL {
        let client = Client::new(server.address(), Some(Identity::fixture("admin")), protocol);
        assert_eq!(client.get("/v1/key/describe/my-key").await.status, 200);
    }
    assert!(!server.stderr().contains("panicked"), "{}", server.stderr());
}

#[test]
fn malformed_requests_are_refused() {
    let server = TestServer::fixture();
    let long = "a".repeat(300_000);
    let many: String = (0..1_000).map(|n| format!("X-{n}: a\r\n")).collect();
    block_on(async {
        for (request, answer) in [
            ("GET /version\r\n\r\n".to_owned(), "400"),
            ("\0\r\n\r\n".into(), "400"),
            ("GET /version HTTP/1.1\r\nHost localhost\r\n\r\n".into(), "400"),
            ("GET /version HTTP/1.1\r\n: x\r\n\r\n".into(), "400"),
            ("GET /version HTTP/1.1\r\nA: b\0c\r\n\r\n".into(), "400"),
            ("GET /version HTTP/3.0\r\nHost: x\r\n\r\n".into(), "400"),
            ("GET /v1/key/describe/\u{0} HTTP/1.1\r\nHost: x\r\n\r\n".into(), "400"),
            ("PUT /v1/key/encrypt/my-key HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n".into(), "400"),
            (
                "PUT /v1/key/encrypt/my-key HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n".into(),
                "400",
            ),
            (
                "PUT /v1/key/encrypt/my-key HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}"
                    .into(),
                "400",
            ),
            ("PUT /v1/key/encrypt/my-key HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n".into(), "400"),
            (
                "PUT /v1/key/encrypt/my-key HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".into(),
                "400",
            ),
            (format!("GET /version HTTP/1.1\r\nX: {long}\r\n\r\n"), "431"),
            (format!("GET /version HTTP/1.1\r\n{many}\r\n"), "431"),
            (format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"), "431"),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), "4"),
        ] {
            let answered = raw(&server, request.as_bytes()).await;
            let status = format!("HTTP/1.1 {answer}");
            let start = &request[..request.len().min(80)];
            assert!(answered.is_empty() || answered.starts_with(&status), "{start:?}: {answered}");
        }
        is_well(&server).await;
    });
}

#[test]
fn no_request_is_smuggled_behind_another() {
    let server = TestServer::fixture();
    let hidden = "GET /v1/key/list/ HTTP/1.1\r\nHost: x\r\n\r\n";
    let put = "PUT /v1/key/encrypt/my-key HTTP/1.1\r\nHost: x\r\n";
    block_on(async {
        for request in [
            format!("{put}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
            format!("{put}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{hidden}"),
            format!("{put}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
            format!("{put}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}"),
            format!("{put}Transfer-Encoding: identity\r\nContent-Length: 0\r\n\r\n{hidden}"),
            format!("{put}Transfer-Encoding : chunked\r\nContent-Length: 0\r\n\r\n{hidden}"),
            format!("{put}Content-Length: 0\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len()),
            format!("{put}Content-Length: +0\r\n\r\n{hidden}"),
            format!("{put}Content-Length: 0, 0\r\n\r\n{hidden}"),
        ] {
            let answered = raw(&server, request.as_bytes()).await;
            assert!(!answered.contains("\"names\""), "{request}: {answered}");
            assert!(answered.is_empty() || answered.starts_with("HTTP/1.1 400 "), "{request}: {answered}");
            assert_eq!(answered.matches("HTTP/1.1 ").count(), usize::from(!answered.is_empty()), "{answered}");
        }
        is_well(&server).await;
    });
}

#[test]
fn odd_paths_and_names_reach_no_key() {
    let server = TestServer::fixture();
    block_on(async {
        for protocol in Protocol::ALL {
            let client = Client::new(server.address(), Some(Identity::fixture("admin")), protocol);
            let long = format!("/v1/key/describe/{}", "k".repeat(10_000));
            for (path, status) in [
                ("/v1/key/describe/..%2f..%2fserver.key", 400),
                ("/v1/key/describe/%2e%2e", 400),
                ("/v1/key/describe/../my-key", 400),
                ("/v1/key/describe/./my-key", 400),
                ("/v1/key/describe/my-key%00", 400),
                ("/v1/key/describe/%00", 400),
                ("/v1/key/describe/%ff%fe", 400),
                ("/v1/key/describe/%c0%ae", 400),
                ("/v1/key/describe/%", 400),
                ("/v1/key/describe/.hidden", 400),
                ("/v1/key/describe/my-key/", 400),
                ("/v1/key/describe/a/b", 400),
                ("/v1/key/describe/", 400),
                ("/v1/key/describe/%F0%9F%94%91", 400),
                ("//v1/key/describe/my-key", 400),
                ("/v1%2fkey%2fdescribe%2fmy-key", 404),
                ("/V1/key/describe/my-key", 404),
                ("/", 404),
                (long.as_str(), 400),
            ] {
                let response = client.send(Request::new("GET", path)).await.expect("an answer");
                assert_eq!(response.status, status, "{protocol:?} {path}");
                assert!(response.body.len() < 20_000);
            }
        }
        is_well(&server).await;
    });
}

#[test]
fn malformed_bodies_are_refused() {
    let server = TestServer::fixture();
    let nested = |open: &str, close: &str| format!("{{\"x\":{}{}}}", open.repeat(100_000), close.repeat(100_000));
    // Unknown fields are ignored, however deep.
    let ignored = nested("[", "]");
    let bodies: Vec<Bytes> = vec![
        "{".into(),
        "[]".into(),
        "\"text\"".into(),
        "{\"plaintext\":1}".into(),
        "{\"plaintext\":\"a\"}".into(),
        "{\"plaintext\":\"!!!!\"}".into(),
        "{\"plaintext\":\"_-8=\"}".into(),
        "{\"plaintext\":{}}".into(),
        "\u{feff}{}".into(),
        nested("[", "]").replace('x', "plaintext").into(),
        nested("[", "").into(),
        "[".repeat(500_000).into(),
        Bytes::from_static(b"{\"plaintext\":\"\xff\xfe\"}"),
        Bytes::from_static(b"\0"),
        Bytes::new(),
    ];
    block_on(async {
        for protocol in Protocol::ALL {
            let client = Client::new(server.address(), Some(Identity::fixture("admin")), protocol);
            for body in &bodies {
                let response = client.put("/v1/key/encrypt/my-key", body.clone()).await;
                let start = &body[..body.len().min(40)];
                assert_eq!(response.status, 400, "{protocol:?} {start:?}");
                assert_eq!(response.message(), "invalid request body");
            }
            assert_eq!(client.put("/v1/key/encrypt/my-key", ignored.clone()).await.status, 200);
        }
        is_well(&server).await;
    });
}

#[test]
fn a_body_over_the_limit_is_refused_however_it_comes() {
    let server = TestServer::fixture();
    let fill = |len: usize| format!("{{\"plaintext\":\"\"{}}}", " ".repeat(len - 16));
    block_on(async {
        for protocol in Protocol::ALL {
            let client = Client::new(server.address(), Some(Identity::fixture("admin")), protocol);
            for chunked in [false, true] {
                for (len, status) in [(1_000_000, 200), (1_000_001, 400), (3_000_000, 400)] {
                    let request = Request::new("PUT", "/v1/key/encrypt/my-key").body(fill(len));
                    // Whoever goes on sending gets the answer all the same.
                    let response = client.send(Request { chunked, ..request }).await.expect("an answer");
                    assert_eq!(response.status, status, "{protocol:?} {chunked} {len}");
                }
            }
        }
        is_well(&server).await;
    });
}

#[test]
fn what_is_no_tls_is_closed() {
    let server = TestServer::fixture();
    block_on(async {
        for bytes in [
            &b"SSH-2.0-OpenSSH_9.2\r\n"[..],
            b"\x16\x03\x01\xff\xff\x01",
            b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
            b"\x15\x03\x03\x00\x02\x02\x28",
            &[0; 5_000],
            &[0xff; 5_000],
        ] {
            let mut socket = TcpStream::connect(server.address()).await.expect("the server listens");
            let _ = socket.write_all(bytes).await;
            let _ = socket.shutdown().await;
            let answered = rest(&mut socket, &String::from_utf8_lossy(&bytes[..4])).await;
            // At most an alert.
            assert!(answered.len() < 20, "{answered:?}");
        }
        is_well(&server).await;
    });
}

#[test]
fn who_speaks_http_without_tls_is_told_so() {
    let server = TestServer::fixture();
    block_on(async {
        let large = [&b"POST /v1/key/create/k HTTP/1.1\r\nContent-Length: 40000\r\n\r\n"[..], &[b'x'; 40_000]].concat();
        for bytes in
            [&b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &large]
        {
            let mut socket = TcpStream::connect(server.address()).await.expect("the server listens");
            socket.write_all(bytes).await.expect("written");
            let answered = rest(&mut socket, &String::from_utf8_lossy(&bytes[..4])).await;
            let (head, text) = answered.split_once("\r\n\r\n").expect("an answer of HTTP");
            assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
            assert_eq!(text, "Client sent an HTTP request to an HTTPS server: use https:// instead of http://.\n");
        }
        is_well(&server).await;
    });
    server.says("a client spoke plain HTTP");
}

#[test]
fn a_path_that_is_none_ends_its_stream_over_http_2() {
    let server = TestServer::fixture();
    block_on(async {
        for path in ["/v1/key/describe/my key", "/v1/key/describe/<my-key>"] {
            let mut tls = admin(&server, Protocol::H2).await;
            let good = head("GET", "/v1/key/describe/my-key");
            let frames = [preface(), frame(1, 5, 1, &head("GET", path)), frame(1, 5, 3, &good)].concat();
            tls.write_all(&frames).await.expect("written");
            let (mut bytes, mut reset, mut answered) = (Vec::new(), false, false);
            while !answered {
                assert!(tls.read_buf(&mut bytes).await.expect("the connection lasts") > 0);
                while let Some((kind, stream, payload)) = next_frame(&mut bytes) {
                    // PROTOCOL_ERROR.
                    reset |= (kind, stream) == (3, 1) && payload == [0, 0, 0, 1];
                    answered |= (kind, stream) == (1, 3);
                }
            }
            assert!(reset, "{path}");
        }
        is_well(&server).await;
    });
}

/// The frames of one round.
type Flood = Box<dyn Fn(u32) -> Vec<u8>>;

#[test]
fn floods_over_http_2_end_their_own_connection_at_most() {
    let server = TestServer::fixture();
    let rounds = 50_000_u32;
    let opened = |n: u32| 2 * n + 1;
    let get = head("GET", "/version");
    let floods: [(&str, Flood); 8] = [
        ("rapid reset", {
            let get = get.clone();
            Box::new(move |n| [frame(1, 5, opened(n), &get), frame(3, 0, opened(n), &[0, 0, 0, 8])].concat())
        }),
        ("ping", Box::new(|_| frame(6, 0, 0, &[0; 8]))),
        ("settings", Box::new(|_| frame(4, 0, 0, &[0, 3, 0, 0, 0, 100]))),
        ("empty data", Box::new(|_| frame(0, 0, 1, &[]))),
        ("priority", Box::new(move |n| frame(2, 0, opened(n), &[0, 0, 0, 0, 16]))),
        ("window updates", Box::new(|_| frame(8, 0, 0, &[0, 0, 0, 1]))),
        ("continuation without an end", {
            let get = get.clone();
            Box::new(move |n| if n == 0 { frame(1, 1, 1, &get) } else { frame(9, 0, 1, &[0x40, 1, b'a', 1, b'b']) })
        }),
        ("requests whose answers nobody reads", Box::new(move |n| frame(1, 5, opened(n), &get))),
    ];
    block_on(async {
        let before = server.resident();
        for (flood, make) in &floods {
            let mut tls = admin(&server, Protocol::H2).await;
            let mut sent = tls.write_all(&preface()).await;
            for start in (0..rounds).step_by(100) {
                if sent.is_err() {
                    break;
                }
                let frames: Vec<u8> = (start..start + 100).flat_map(make).collect();
                // A server that reads no more is as good as one that closes.
                let Ok(written) = tokio::time::timeout(Duration::from_secs(5), tls.write_all(&frames)).await else {
                    break;
                };
                sent = written;
            }
            assert_eq!(
                Client::fixture(server.address(), "admin").get("/v1/key/describe/my-key").await.status,
                200,
                "{flood}"
            );
        }
        is_well(&server).await;
        let grown = server.resident().saturating_sub(before);
        assert!(grown < 64 << 20, "{} MiB more", grown >> 20);
    });
}

#[test]
fn a_connection_has_250_requests_at_a_time() {
    let server = TestServer::fixture();
    block_on(async {
        let mut tls = admin(&server, Protocol::H2).await;
        // Requests whose bodies do not come: each stays open.
        let put = head("PUT", "/v1/key/encrypt/my-key");
        let requests = (0..251).flat_map(|n| frame(1, 4, 2 * n + 1, &put));
        tls.write_all(&[preface(), requests.collect()].concat()).await.expect("written");
        let (mut bytes, mut reset) = (Vec::new(), None);
        while reset.is_none() {
            assert!(tls.read_buf(&mut bytes).await.expect("the connection lasts") > 0);
            while let Some((kind, stream, payload)) = next_frame(&mut bytes) {
                if kind == 3 {
                    reset = Some((stream, payload));
                }
                assert!(kind != 1, "no request is answered");
            }
        }
        // REFUSED_STREAM: the client may send it again elsewhere.
        assert_eq!(reset, Some((2 * 250 + 1, vec![0, 0, 0, 7])));
        is_well(&server).await;
    });
}

#[test]
fn clients_that_take_their_time_hold_up_nobody() {
    let server = TestServer::with_config(&fixture_config(|config| {
        format!("{config}api: {{ /v1/key/encrypt/: {{ timeout: 1s }} }}\n")
    }));
    block_on(async {
        // In the handshake, in the head, in the body, over both protocols.
        let mut slow = Vec::new();
        for _ in 0..100 {
            let mut socket = TcpStream::connect(server.address()).await.expect("the server listens");
            socket.write_all(b"\x16\x03\x01\x02\x00\x01").await.expect("written");
            slow.push(socket);
        }
        let mut heads = Vec::new();
        for _ in 0..100 {
            let mut tls = admin(&server, Protocol::H1).await;
            tls.write_all(b"GET /v1/key/describe/my-key HTTP/1.1\r\nHost: ").await.expect("written");
            heads.push(tls);
        }
        let mut bodies = Vec::new();
        for _ in 0..20 {
            let mut tls = admin(&server, Protocol::H1).await;
            let head = b"PUT /v1/key/encrypt/my-key HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{";
            tls.write_all(head).await.expect("written");
            bodies.push(tls);
        }
        is_well(&server).await;
        for mut tls in bodies {
            let mut answer = [0; 12];
            tls.read_exact(&mut answer).await.expect("an answer when the route's time is over");
            assert_eq!(&answer, b"HTTP/1.1 408");
        }
        is_well(&server).await;
    });
}

#[test]
#[ignore = "takes half a minute: tests/run"]
fn ten_thousand_idle_connections_are_held_and_the_next_one_replaces_the_oldest() {
    let limit = getrlimit(Resource::Nofile);
    let needed = 10_500;
    assert!(limit.maximum.is_none_or(|most| most >= needed), "this test needs 'ulimit -Hn' of {needed} or more");
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .expect("up to the hard limit");
    let server = TestServer::fixture();
    block_on(async {
        // A session that is resumed costs a fraction of a full handshake, and leaves the same connection.
        let tls = Tls::new(Some(Identity::fixture("admin")), Protocol::H1).shared();
        let open = async || {
            let mut tls = connect(server.address(), tls.clone()).await.expect("a connection");
            tls.write_all(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("written");
            let mut answer = [0; 12];
            tls.read_exact(&mut answer).await.expect("an answer");
            assert_eq!(&answer, b"HTTP/1.1 200");
            tls
        };
        let first = open().await;
        let before = server.resident();
        let mut connections = std::collections::VecDeque::from([first]);
        let begun = std::time::Instant::now();
        while connections.len() < 10_000 {
            connections.push_back(open().await);
        }
        let each = (server.resident() - before) / connections.len();
        assert!(each < 64 << 10, "{each} bytes for each connection");
        // Only if the machine was quick enough have none been idle for too long.
        let mut last = open().await;
        let quick = begun.elapsed() < Duration::from_secs(80);
        let mut oldest = connections.pop_front().expect("there are many");
        rest(&mut oldest, "a request").await;
        last.write_all(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("written");
        if quick {
            let mut second = connections.pop_front().expect("there are many");
            second.write_all(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("written");
            let mut answer = vec![0; 12];
            // What was left of the first answer comes first.
            while !answer.ends_with(b"HTTP/1.1 200") {
                answer.push(second.read_u8().await.expect("it is still served"));
            }
        }
        is_well(&server).await;
    });
}
