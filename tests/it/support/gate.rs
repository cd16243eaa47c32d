//! A gate in front of a real peer that speaks plain HTTP: it counts what passes, and stands in the way when told to.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// What becomes of a request.
#[derive(Debug, Clone)]
pub enum Rule {
    /// The gate itself answers, with this status and body.
    Answer(u16, String),
    /// The client is sent to the peer.
    Redirect,
    /// Nobody answers.
    Hang,
    /// It is held up until the rule is lifted.
    Hold,
    /// It arrives, and the connection breaks before the answer.
    LoseAnswer,
    /// So many a second pass. Those beyond are answered with this status and body.
    Limit(u32, u16, String),
    /// Every so many-th is answered with this status and body.
    Every(usize, u16, String),
}

/// A gate that is open but for its rules. Closed when dropped.
pub struct Gate {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    peer: SocketAddr,
    /// What the line of a request contains, and what becomes of it.
    rules: Mutex<Vec<(String, Rule)>>,
    /// The lines of all requests: `GET /path?query`, and the action where it stands in a header of AWS.
    seen: Mutex<Vec<String>>,
    /// Lines of requests that a limit has turned away.
    refused: Mutex<Vec<String>>,
    /// When requests passed that a limit let pass, by its place.
    passed: Mutex<HashMap<usize, VecDeque<Instant>>>,
    /// Requests that had to do with a rule for some of them.
    counted: AtomicUsize,
    connections: AtomicUsize,
}

impl Gate {
    /// A gate in front of the peer at this address.
    pub fn new(peer: SocketAddr) -> Self {
        let shared = Arc::new(Shared {
            peer,
            rules: Mutex::default(),
            seen: Mutex::default(),
            refused: Mutex::default(),
            passed: Mutex::default(),
            counted: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
        });
        let stop = CancellationToken::new();
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a socket of ours");
        let address = listener.local_addr().expect("its address");
        let thread = std::thread::spawn({
            let (shared, stop) = (shared.clone(), stop.clone());
            move || super::block_on(stop.run_until_cancelled(serve(listener, shared))).unwrap_or_default()
        });
        Self { address, shared, stop, thread: Some(thread) }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on this becomes of requests whose line (`GET /path?query`) contains `part`; the first rule counts.
    pub fn rule(&self, part: &str, rule: Rule) {
        self.shared.rules.lock().expect("no test panicked").push((part.into(), rule));
    }

    /// From now on the rules for this part are gone.
    pub fn lift(&self, part: &str) {
        self.shared.rules.lock().expect("no test panicked").retain(|(rule, _)| rule != part);
    }

    /// From now on everything passes.
    pub fn open(&self) {
        self.shared.rules.lock().expect("no test panicked").clear();
    }

    /// How many requests came whose line contains `part`.
    pub fn count(&self, part: &str) -> usize {
        self.shared.seen.lock().expect("no test panicked").iter().filter(|line| line.contains(part)).count()
    }

    /// How many of them a limit has turned away.
    pub fn refused(&self, part: &str) -> usize {
        self.shared.refused.lock().expect("no test panicked").iter().filter(|line| line.contains(part)).count()
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Waits until no rule holds up a request with this line.
    async fn held(&self, line: &str) {
        let holds = |(part, rule): &(String, Rule)| matches!(rule, Rule::Hold) && line.contains(part);
        while self.rules.lock().expect("no test panicked").iter().any(holds) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What becomes of a request with this line; none: it passes.
    fn rule(&self, line: &str) -> Option<Rule> {
        let rules = self.rules.lock().expect("no test panicked");
        let (place, (_, rule)) = rules.iter().enumerate().find(|(_, (part, _))| line.contains(part))?;
        let (passes, status, body) = match rule {
            Rule::Limit(limit, status, body) => (self.is_within(place, *limit), status, body),
            Rule::Every(n, status, body) => {
                (!(self.counted.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(*n), status, body)
            }
            rule => return Some(rule.clone()),
        };
        if passes {
            return None;
        }
        self.refused.lock().expect("no test panicked").push(line.to_owned());
        Some(Rule::Answer(*status, body.clone()))
    }

    /// Whether the limit in this place lets another one pass.
    fn is_within(&self, place: usize, limit: u32) -> bool {
        let mut passed = self.passed.lock().expect("no test panicked");
        let passed = passed.entry(place).or_default();
        while passed.front().is_some_and(|at| at.elapsed() > Duration::from_secs(1)) {
            passed.pop_front();
        }
        let is_within = passed.len() < limit as usize;
        if is_within {
            passed.push_back(Instant::now());
        }
        is_within
    }
}

async fn serve(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).expect("a listener");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        shared.connections.fetch_add(1, Ordering::Relaxed);
        let shared = shared.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| answer(&shared, request));
            // A client that leaves, or an answer that is to be lost, is an error here.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// An error breaks the connection.
async fn answer(shared: &Shared, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let action = request.headers().get("x-amz-target").map_or("", |action| action.to_str().expect("text"));
    let line = format!("{} {} {action}", request.method(), request.uri());
    let rule = shared.rule(&line);
    let target = format!("http://{}{}", shared.peer, request.uri());
    shared.seen.lock().expect("no test panicked").push(line.clone());
    let lost = || std::io::Error::other("lost");
    match rule {
        None => pass(shared.peer, request).await.ok_or_else(lost),
        Some(Rule::Hold) => {
            shared.held(&line).await;
            pass(shared.peer, request).await.ok_or_else(lost)
        }
        Some(Rule::Answer(status, body) | Rule::Limit(_, status, body) | Rule::Every(_, status, body)) => {
            Ok(response(status, body.into()))
        }
        Some(Rule::Redirect) => {
            let mut answer = response(307, Bytes::new());
            answer.headers_mut().insert("location", target.parse().expect("a header's value"));
            Ok(answer)
        }
        Some(Rule::Hang) => std::future::pending().await,
        Some(Rule::LoseAnswer) => {
            pass(shared.peer, request).await;
            Err(lost())
        }
    }
}

fn response(status: u16, body: Bytes) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::new(body)).expect("a status")
}

/// Has the peer answer; none when it does not.
async fn pass(peer: SocketAddr, request: Request<Incoming>) -> Option<Response<Full<Bytes>>> {
    let stream = TcpStream::connect(peer).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let (mut parts, body) = request.into_parts();
    parts.uri = parts.uri.path_and_query()?.as_str().parse::<Uri>().ok()?;
    let body = Full::new(body.collect().await.ok()?.to_bytes());
    let (parts, body) = sender.send_request(Request::from_parts(parts, body)).await.ok()?.into_parts();
    Some(Response::from_parts(parts, Full::new(body.collect().await.ok()?.to_bytes())))
}
