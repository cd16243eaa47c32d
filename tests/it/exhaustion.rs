//! Clients that try to fill the server's memory, or its audit log.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use claviger::auth::enclave::ApiKey;
use claviger::kms::Action;
use claviger::kms::wire::{EncryptRequest, append};
use futures_util::{StreamExt as _, stream};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use super::kms;
use super::support::client::Guard;
use super::support::frames::{frame, head_as_kept, head_to_keep, next_frame, preface};
use super::support::{Client, Identity, Protocol, TestServer, block_on, door, eventually};
use super::vault::door::{ALL, Door};

const MIB: usize = 1 << 20;

/// Requests on each connection: together three times what it may hold.
const STREAMS: usize = 100;

/// How many of them are to be refused, of about 65 that have no room.
const REFUSED: usize = 40;

/// Connections of an attack, unless it says otherwise.
const CONNECTIONS: usize = 2;

/// What a server may grow by: two connections have 32 MiB each, and as much again is for what belongs to them.
const BOUND: usize = 128 * MIB;

/// As many connections as can hold together what a server may hold of all clients: 256 MiB.
const MANY: usize = 8;

/// The connections of most attacks, and how many requests there are on each.
const TWO: (usize, usize) = (CONNECTIONS, STREAMS);

/// What it may grow by then: a client alone has half of that, and as much again is for what belongs to it.
const BOUND_OF_MANY: usize = 256 * MIB;

/// Who attacks, and what each request is.
struct Attack {
    client: Client,
    method: &'static str,
    path: &'static str,
    body: Bytes,
    /// How much of a reply the client takes, in bytes.
    window: u32,
    /// Whether the end of each body is sent.
    is_whole: bool,
    /// How many, and how many requests on each.
    connections: (usize, usize),
}

/// An attack that goes on until it is dropped.
struct Running {
    answers: JoinSet<hyper::Result<Response<Incoming>>>,
    _connections: Vec<(SendRequest<BoxBody<Bytes, hyper::Error>>, Guard)>,
}

impl Attack {
    async fn begin(&self) -> Running {
        let (mut answers, mut connections) = (JoinSet::new(), Vec::new());
        let (count, streams) = self.connections;
        for _ in 0..count {
            let io = TokioIo::new(self.client.connect().await.expect("a connection"));
            let mut builder = Builder::new(TokioExecutor::new());
            let handshake = builder.initial_stream_window_size(self.window).handshake(io);
            let (mut sender, connection) = handshake.await.expect("HTTP/2");
            let guard = Guard::spawn(connection);
            for _ in 0..streams {
                answers.spawn(sender.send_request(self.request()));
            }
            connections.push((sender, guard));
        }
        Running { answers, _connections: connections }
    }

    fn request(&self) -> Request<BoxBody<Bytes, hyper::Error>> {
        let body = if self.is_whole {
            Full::new(self.body.clone()).map_err(|never| match never {}).boxed()
        } else {
            let begun = stream::iter([Ok(Frame::data(self.body.clone()))]).chain(stream::pending());
            BoxBody::new(StreamBody::new(begun))
        };
        let uri = format!("https://localhost{}", self.path);
        Request::builder().method(self.method).uri(uri).body(body).expect("a request")
    }

    /// Attacks until `enough` requests have been answered with `status`, or all are answered. Says how much the server grew at
    /// most. The answers are kept, unread.
    async fn run(&self, server: &TestServer, status: u16, enough: usize) -> usize {
        let before = server.resident();
        let mut running = self.begin().await;
        self.watch(&mut running, before, server, status, enough).await
    }

    async fn watch(
        &self,
        running: &mut Running,
        before: usize,
        server: &TestServer,
        status: u16,
        enough: usize,
    ) -> usize {
        let bound = if self.connections.0 > CONNECTIONS { BOUND_OF_MANY } else { BOUND };
        let (mut grown, mut kept, mut refused) = (0, Vec::new(), 0);
        let deadline = Instant::now() + Duration::from_secs(120);
        while refused < enough {
            assert!(Instant::now() < deadline, "{} answers; {} MiB more", kept.len(), grown / MIB);
            match tokio::time::timeout(Duration::from_millis(20), running.answers.join_next()).await {
                Ok(Some(answer)) => {
                    let answer = answer.expect("no panic");
                    refused += usize::from(answer.as_ref().is_ok_and(|answer| answer.status() == status));
                    kept.push(answer);
                }
                Ok(None) => break,
                Err(_) => {}
            }
            grown = grown.max(server.resident().saturating_sub(before));
            assert!(grown < bound, "{} MiB more after {} answers", grown / MIB, kept.len());
        }
        assert!(refused > 0, "nothing is refused of {}", kept.len());
        grown
    }
}

fn key_manager() -> (TestServer, tempfile::TempDir) {
    let data = tempfile::tempdir().expect("a directory");
    let server = TestServer::key_manager(data.path(), kms::HSM, &[]);
    block_on(async {
        let client = kms::client(&server, &kms::root());
        kms::create_enclave(&client).await;
        kms::create_key(&client, "my-key", false).await.expect("created");
    });
    (server, data)
}

fn as_key(server: &TestServer, key: &ApiKey) -> Client {
    as_key_at(server.address(), key)
}

fn as_key_at(address: SocketAddr, key: &ApiKey) -> Client {
    let certificate = key.certificate(claviger::clock::now()).expect("made");
    let identity = Identity { chain: vec![certificate], key: key.private_key() };
    Client::new(address, Some(identity), Protocol::H2)
}

/// A listener for clients of a Vault with a key, and a user.
fn vault_door() -> (Door, ApiKey) {
    let door = Door::start("");
    let user = door.user("all", ALL, "*");
    door.with_token(user.expose()).ask("POST", "transit/keys/my-key", json!({}));
    (door, user)
}

fn is_well_as_vault(door: &Door, user: &ApiKey) {
    door.with_token(user.expose()).ask("POST", "transit/encrypt/my-key", json!({ "plaintext": "" }));
}

async fn is_well(server: &TestServer) {
    assert_eq!(Client::fixture(server.address(), "admin").get("/v1/key/describe/my-key").await.status, 200);
}

async fn is_well_as_key_manager(server: &TestServer) {
    let client = kms::client(server, &kms::root());
    assert_eq!(kms::keys(&client).await.len(), 1);
}

/// What an attack took is given back to the system once it is over.
fn gives_back(server: &TestServer, before: usize) {
    let bound = before + 24 * MIB;
    eventually("pages go back to the system", || server.resident() < bound);
}

/// The beginning of a body that may be as large as any.
fn unfinished() -> Bytes {
    vec![b' '; 990_000].into()
}

#[test]
fn unfinished_bodies_of_clients_take_no_more_than_their_share() {
    unfinished_bodies(&TestServer::fixture());
}

#[test]
fn unfinished_bodies_take_no_more_where_a_key_manager_serves_the_kes_api() {
    unfinished_bodies(&door::fixture());
}

/// Those of a client that is known, and of one that is not.
fn unfinished_bodies(server: &TestServer) {
    let client = Client::fixture(server.address(), "admin");
    let (method, path) = ("PUT", "/v1/key/encrypt/my-key");
    let attack = Attack { client, method, path, body: unfinished(), window: 65_535, is_whole: false, connections: TWO };
    let client = Client::fixture(server.address(), "nobody");
    let stranger =
        Attack { client, method, path, body: unfinished(), window: 65_535, is_whole: false, connections: TWO };
    block_on(async {
        is_well(server).await;
        let grown = stranger.run(server, 403, CONNECTIONS * STREAMS).await;
        assert!(grown < 24 * MIB, "nobody knows the client: {} MiB more", grown / MIB);
        let before = server.resident();
        let grown = attack.run(server, 503, CONNECTIONS * REFUSED).await;
        assert!(grown > 24 * MIB, "the attack is one: {} MiB more", grown / MIB);
        is_well(server).await;
        gives_back(server, before);
    });
    server.says("too much memory is taken");
}

#[test]
fn one_client_with_many_connections_leaves_room_for_the_others() {
    let server = TestServer::fixture();
    let client = Client::fixture(server.address(), "admin");
    let (method, path) = ("PUT", "/v1/key/encrypt/my-key");
    // A megabyte is reserved for each of these, and a connection has room for 33.
    let (body, connections) = (vec![b' '; 530_000].into(), (MANY, 40));
    let attack = Attack { client, method, path, body, window: 65_535, is_whole: false, connections };
    block_on(async {
        is_well(&server).await;
        let before = server.resident();
        let mut running = attack.begin().await;
        let grown = attack.watch(&mut running, before, &server, 503, 50).await;
        assert!(grown > 48 * MIB, "the attack is one: {} MiB more", grown / MIB);
        let plaintext = STANDARD.encode(vec![7; 700_000]);
        let other = Client::fixture(server.address(), "ops");
        let large = other.put(path, format!("{{\"plaintext\":\"{plaintext}\"}}")).await;
        assert_eq!(large.status, 200, "{}", String::from_utf8_lossy(&large.body));
        is_well(&server).await;
        drop(running);
        gives_back(&server, before);
    });
}

#[test]
fn unfinished_bodies_take_no_more_in_a_key_manager_and_nothing_where_nobody_knows_the_client() {
    let (server, _data) = key_manager();
    let (method, path, body) = ("POST", "/v1/kms/tenant", unfinished());
    let root = as_key(&server, &kms::root());
    let known =
        Attack { client: root, method, path, body: body.clone(), window: 65_535, is_whole: false, connections: TWO };
    let stranger = as_key(&server, &ApiKey::generate().expect("random bytes"));
    let stranger = Attack { client: stranger, method, path, body, window: 65_535, is_whole: false, connections: TWO };
    block_on(async {
        is_well_as_key_manager(&server).await;
        let grown = stranger.run(&server, 403, CONNECTIONS * STREAMS).await;
        assert!(grown < 24 * MIB, "{} MiB more", grown / MIB);
        let before = server.resident();
        known.run(&server, 503, CONNECTIONS * REFUSED).await;
        is_well_as_key_manager(&server).await;
        gives_back(&server, before);
    });
}

#[test]
fn unfinished_bodies_take_no_more_where_clients_of_a_vault_are_served() {
    let (door, user) = vault_door();
    let stranger = ApiKey::generate().expect("random bytes");
    let of = |key: &ApiKey| Attack {
        client: as_key_at(door.address, key),
        method: "POST",
        path: "/v1/transit/encrypt/my-key",
        body: unfinished(),
        window: 65_535,
        is_whole: false,
        connections: TWO,
    };
    let grown = block_on(of(&stranger).run(&door.server, 403, CONNECTIONS * STREAMS));
    assert!(grown < 24 * MIB, "nobody knows the client: {} MiB more", grown / MIB);
    let before = door.server.resident();
    block_on(of(&user).run(&door.server, 503, CONNECTIONS * REFUSED));
    is_well_as_vault(&door, &user);
    gives_back(&door.server, before);
}

#[test]
fn replies_that_nobody_reads_take_no_more_where_clients_of_a_vault_are_served() {
    let (door, user) = vault_door();
    let body = format!("{{\"plaintext\":\"{}\"}}", STANDARD.encode(vec![7; 700_000])).into();
    let (method, path, client) = ("POST", "/v1/transit/encrypt/my-key", as_key_at(door.address, &user));
    let attack = Attack { client, method, path, body, window: 0, is_whole: true, connections: TWO };
    let before = door.server.resident();
    block_on(attack.run(&door.server, 503, CONNECTIONS * REFUSED));
    is_well_as_vault(&door, &user);
    gives_back(&door.server, before);
}

#[test]
fn replies_that_nobody_reads_take_no_more_than_their_share() {
    unread_replies(&TestServer::fixture());
}

#[test]
fn replies_that_nobody_reads_take_no_more_where_a_key_manager_serves_the_kes_api() {
    unread_replies(&door::fixture());
}

fn unread_replies(server: &TestServer) {
    let client = Client::fixture(server.address(), "admin");
    let plaintext = STANDARD.encode(vec![7; 700_000]);
    let body = format!("{{\"plaintext\":\"{plaintext}\"}}").into();
    let (method, path) = ("PUT", "/v1/key/encrypt/my-key");
    let attack = Attack { client, method, path, body, window: 0, is_whole: true, connections: TWO };
    block_on(async {
        let before = server.resident();
        attack.run(server, 503, CONNECTIONS * REFUSED).await;
        is_well(server).await;
        gives_back(server, before);
    });
}

#[test]
fn replies_that_nobody_reads_take_no_more_in_a_key_manager() {
    let (server, _data) = key_manager();
    let mut request = EncryptRequest::default();
    (request.name, request.plaintext) = ("my-key".into(), vec![7; 900_000]);
    let mut body = Vec::new();
    append(Action::KeyEncrypt.number(), &request.encode_to_vec(), &mut body);
    let (method, path, client) = ("POST", "/v1/kms/tenant", as_key(&server, &kms::root()));
    let attack = Attack { client, method, path, body: body.into(), window: 0, is_whole: true, connections: TWO };
    block_on(async {
        let before = server.resident();
        attack.run(&server, 503, CONNECTIONS * REFUSED).await;
        is_well_as_key_manager(&server).await;
        gives_back(&server, before);
    });
}

#[test]
fn a_client_that_nobody_knows_fills_no_audit_log() {
    let server = TestServer::fixture();
    audit_flood(&server, server.address(), "/v1/key/describe/", || block_on(is_well(&server)));
}

#[test]
fn nor_does_it_where_a_key_manager_serves_the_kes_api() {
    let server = door::fixture();
    audit_flood(&server, server.address(), "/v1/key/describe/", || block_on(is_well(&server)));
}

#[test]
fn nor_does_it_where_clients_of_a_vault_are_served() {
    let (door, user) = vault_door();
    audit_flood(&door.server, door.address, "/v1/transit/keys/", || is_well_as_vault(&door, &user));
}

/// Asks for a long path below this one, many times, as nobody.
fn audit_flood(server: &TestServer, address: SocketAddr, below: &str, is_well: impl Fn()) {
    let batch = 100;
    block_on(async {
        let client = Client::new(address, None, Protocol::H2);
        let path = format!("{below}{}", "a".repeat(3_900));
        let mut tls = client.connect().await.expect("a connection");
        let whole_window = frame(8, 0, 0, &(1_u32 << 30).to_be_bytes());
        tls.write_all(&[preface(), whole_window].concat()).await.expect("written");
        let mut bytes = Vec::new();
        for first in (0..5_000).step_by(batch) {
            for n in first..first + batch {
                let head = if n == 0 { head_to_keep("GET", &path) } else { head_as_kept("GET") };
                let stream = u32::try_from(2 * n + 1).expect("few");
                tls.write_all(&frame(1, 5, stream, &head)).await.expect("written");
            }
            tls.flush().await.expect("written");
            // A client has some hundred requests at a time.
            let mut answered = 0;
            while answered < batch {
                assert!(tls.read_buf(&mut bytes).await.expect("the connection lasts") > 0);
                while let Some((kind, _, _)) = next_frame(&mut bytes) {
                    assert!(kind != 3, "a stream is reset");
                    answered += usize::from(kind == 1);
                }
            }
        }
    });
    is_well();
    eventually("the audit log goes on", || server.stdout().contains("/my-key"));
    let events = server.stdout();
    let of_attack: Vec<_> = events.lines().filter(|line| line.contains("/aaaa")).collect();
    assert!(!of_attack.is_empty() && of_attack.len() <= 16, "{} lines", of_attack.len());
    assert!(of_attack.iter().all(|line| line.len() < 1_000), "{}", of_attack[0]);
}
