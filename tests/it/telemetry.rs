//! What the server tells its operator: log and audit streams, their targets, metrics.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};

use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::io::AsyncWriteExt as _;

use super::support::client::{Guard, Request, Tls};
use super::support::lines::Lines;
use super::support::server::{copy_fixture, fixture_config};
use super::support::{Client, Identity, Protocol, TestServer, block_on, eventually};

/// More than a reader may be behind.
const MANY: usize = 1_500;

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|_| panic!("JSON, not {line:?}"))
}

/// The samples of `/v1/metrics`, by name and labels as written.
async fn metrics(client: &Client) -> BTreeMap<String, f64> {
    let request =
        Request::new("GET", "/v1/metrics").header("accept", "application/openmetrics-text, text/plain;q=0.5, */*");
    let response = client.send(request).await.expect("an answer");
    assert_eq!(response.status, 200);
    let samples = response.text().lines().filter(|line| !line.starts_with('#'));
    let samples = samples.map(|line| line.rsplit_once(' ').expect("a name and a value"));
    samples.map(|(name, value)| (name.to_owned(), value.parse().expect("a number"))).collect()
}

/// Sends the same request many times over one connection; returns how many were answered with `status`.
async fn repeat(client: &Client, target: &str, count: usize, status: u16) -> usize {
    let session = client.session().await.expect("a connection");
    let mut answered = 0;
    for batch in (0..count).collect::<Vec<_>>().chunks(100) {
        let requests = batch.iter().map(|_| {
            let mut session = session.another();
            async move { session.send(Request::new("GET", target)).await.map(|answer| answer.status) }
        });
        let answers = futures_util::future::join_all(requests).await;
        answered += answers.iter().filter(|answer| answer.as_ref().is_ok_and(|got| *got == status)).count();
    }
    answered
}

#[test]
fn the_streams_deliver_while_it_happens() {
    let server = TestServer::fixture();
    let app = Client::fixture(server.address(), "app");
    block_on(async {
        for (nth, protocol) in Protocol::ALL.into_iter().enumerate() {
            let admin = Client::new(server.address(), Some(Identity::fixture("admin")), protocol);
            let mut errors = Lines::open(&admin, "/v1/log/error").await;
            let mut events = Lines::open(&admin, "/v1/log/audit").await;
            for stream in [&errors, &events] {
                assert_eq!((stream.status, &*stream.headers["content-type"]), (200, "application/x-ndjson"));
            }
            let own = json(&events.next().await.expect("the stream's own event"));
            assert_eq!(own["request"]["path"], "/v1/log/audit");
            for path in [format!("/v1/key/describe/a{nth}"), format!("/v1/key/describe/b{nth}")] {
                assert_eq!(app.get(&path).await.status, 403);
                let event = json(&events.next().await.expect("an event"));
                assert_eq!(
                    (&event["request"]["path"], &event["response"]["code"]),
                    (&path.clone().into(), &403.into())
                );
                let error = json(&errors.next().await.expect("an event"));
                assert_eq!(error.as_object().expect("an object").keys().collect::<Vec<_>>(), ["message"]);
                assert!(error["message"].as_str().expect("text").contains(&path), "{error}");
            }
        }
    });
}

#[test]
fn a_reader_that_is_too_slow_is_cut_off_and_nobody_else() {
    let server = TestServer::fixture();
    let admin = Client::fixture(server.address(), "admin");
    block_on(async {
        // Takes the first kilobyte of the stream and then nothing more; its connection is used for others, too.
        let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(1_024);
        let io = TokioIo::new(admin.connect().await.expect("a connection"));
        let (mut sender, connection) = builder.handshake(io).await.expect("HTTP/2");
        let _guard = Guard::spawn(connection);
        let get = |path| {
            let request = hyper::Request::get(format!("https://localhost{path}"));
            request.body(Empty::<bytes::Bytes>::new()).expect("a request")
        };
        let slow = sender.send_request(get("/v1/log/audit")).await.expect("headers at once");

        let mut quick = Lines::open(&admin, "/v1/log/audit").await;
        let read = tokio::spawn(async move {
            let mut lines = 0;
            while let Some(line) = quick.next().await {
                lines += usize::from(line.contains("/v1/key/describe/my-key"));
                if lines == MANY {
                    return lines;
                }
            }
            lines
        });
        assert_eq!(repeat(&admin, "/v1/key/describe/my-key", MANY, 200).await, MANY);
        assert_eq!(read.await.expect("no panic"), MANY, "the quick one misses nothing");

        let mut body = slow.into_body();
        while let Some(Ok(_)) = body.frame().await {}
        let version = sender.send_request(get("/version")).await.expect("the connection goes on");
        assert_eq!(version.status(), 200);
        assert_eq!(metrics(&admin).await["claviger_log_readers_dropped_total"], 1.0);
    });
}

#[test]
fn a_reader_over_http_1_that_takes_nothing_is_cut_off() {
    let server = TestServer::fixture();
    let admin = Client::fixture(server.address(), "admin");
    block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        // So that little is on its way.
        socket.set_recv_buffer_size(4_096).expect("a small buffer");
        let socket = socket.connect(server.address()).await.expect("the server listens");
        let tls = Tls::new(Some(Identity::fixture("admin")), Protocol::H1).shared();
        let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
        let mut tls = tokio_rustls::TlsConnector::from(tls).connect(name, socket).await.expect("a handshake");
        let request = b"GET /v1/log/audit HTTP/1.1\r\nHost: localhost\r\n\r\n";
        tls.write_all(request).await.expect("written");
        let dropped = async || metrics(&admin).await["claviger_log_readers_dropped_total"];
        // What the kernel buffers comes on top: megabytes.
        for _ in 0..40 {
            if dropped().await == 1.0 {
                break;
            }
            repeat(&admin, "/v1/key/describe/my-key", MANY, 200).await;
        }
        assert_eq!(dropped().await, 1.0);
        let mut rest = Vec::new();
        // Ends: the server has closed it.
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut tls, &mut rest).await;
        assert!(rest.starts_with(b"HTTP/1.1 200 "));
    });
}

#[test]
fn every_request_that_matched_a_route_is_audited() {
    let server = TestServer::fixture();
    let client = |name: &str| Client::fixture(server.address(), name);
    let (admin, app, none) = (client("admin"), client("app"), Client::new(server.address(), None, Protocol::H1));
    let before = OffsetDateTime::now_utc();
    block_on(async {
        for (client, method, path, status) in [
            (&admin, "GET", "/version", 200),
            (&admin, "GET", "/v1/key/describe/my-key", 200),
            (&admin, "GET", "/v1/key/describe/%6Dy-key?x=1", 200),
            (&admin, "GET", "/v1/key/describe/no-such-key", 404),
            (&admin, "GET", "/v1/key/describe/a%20b", 400),
            (&admin, "PUT", "/v1/key/encrypt/my-key", 400),
            (&admin, "DELETE", "/v1/key/describe/my-key", 405),
            (&admin, "GET", "/v1/key/list", 200),
            (&app, "GET", "/v1/key/describe/my-key", 403),
            (&none, "GET", "/v1/key/describe/my-key", 400),
            (&none, "GET", "/version", 200),
            (&admin, "GET", "/v1/nowhere", 404),
            (&admin, "GET", "/v1//key", 400),
        ] {
            let response = client.send(Request::new(method, path)).await.expect("an answer");
            assert_eq!(response.status, status, "{method} {path}");
        }
    });
    let hash = |name: &str| Identity::fixture(name).hash();
    let expected = [
        ("/v1/key/describe/my-key", 200, hash("admin")),
        ("/v1/key/describe/my-key", 200, hash("admin")),
        ("/v1/key/describe/no-such-key", 404, hash("admin")),
        ("/v1/key/describe/a b", 400, hash("admin")),
        ("/v1/key/encrypt/my-key", 400, hash("admin")),
        ("/v1/key/describe/my-key", 405, hash("admin")),
        ("/v1/key/list/", 200, hash("admin")),
        ("/v1/key/describe/my-key", 403, hash("app")),
        ("/v1/key/describe/my-key", 400, String::new()),
    ];
    let events = || server.stdout().lines().filter(|line| line.starts_with('{')).map(json).collect::<Vec<_>>();
    eventually("the events are written", || events().len() >= expected.len());
    assert_eq!(events().len(), expected.len());
    for (event, (path, code, identity)) in events().iter().zip(expected) {
        assert_eq!(event["request"], serde_json::json!({ "ip": "127.0.0.1", "path": path, "identity": identity }));
        assert_eq!(event["response"]["code"], code);
        // In nanoseconds: no request takes less than a microsecond, none of these more than a minute.
        let took = event["response"]["time"].as_u64().expect("nanoseconds");
        assert!((1_000..60_000_000_000).contains(&took), "{event}");
        let time = OffsetDateTime::parse(event["time"].as_str().expect("text"), &Rfc3339).expect("RFC 3339");
        assert!(time > before - time::Duration::SECOND && time < OffsetDateTime::now_utc(), "{event}");
        assert!(event["time"].as_str().is_some_and(|text| text.ends_with('Z')), "{event}");
    }
}

#[test]
fn equal_denials_are_one_line_and_all_are_counted() {
    let server = TestServer::fixture();
    let (admin, app) = (Client::fixture(server.address(), "admin"), Client::fixture(server.address(), "app"));
    block_on(async {
        assert_eq!(repeat(&app, "/v1/key/describe/my-key", 50, 403).await, 50);
        assert_eq!(repeat(&app, "/v1/key/describe/other", 1, 403).await, 1);
        let metrics = metrics(&admin).await;
        assert_eq!(metrics["claviger_policy_denials_total{policy=\"my-app\"}"], 51.0);
        assert_eq!(metrics["claviger_denials_total"], 51.0);
        // Only for who asks for the format by name: the Go SDK wants one sample a metric.
        let plain = admin.get("/v1/metrics").await;
        assert!(plain.text().contains("claviger_denials_total 51\n"), "{}", plain.text());
        assert!(!plain.text().contains("policy="), "{}", plain.text());
    });
    eventually("the last denial is logged", || server.stderr().contains("/v1/key/describe/other"));
    let lines: Vec<_> = server.log().into_iter().filter(|line| line["message"] == "request denied").collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0]["path"], "/v1/key/describe/my-key");
    assert_eq!((&lines[0]["policy"], &lines[0]["level"]), (&"my-app".into(), &"INFO".into()));
    assert_eq!(lines[0]["repeated"], 0, "a number is a number: {}", lines[0]);
}

#[test]
fn metrics_are_complete_from_the_first_scrape_and_right() {
    // Without the rules that match nothing, of which the log warns at the start.
    let dead = "    - ''\n    - /v1/key/*/my-app\n";
    let server = TestServer::with_config(&fixture_config(|config| config.replace(dead, "")));
    let (admin, app) = (Client::fixture(server.address(), "admin"), Client::fixture(server.address(), "app"));
    block_on(async {
        let first = metrics(&admin).await;
        let zero = [
            "kes_http_request_success{code=\"200\"}",
            "kes_http_request_error{code=\"400\"}",
            "kes_http_request_failure{code=\"500\"}",
            "kes_log_error_events",
            "kes_log_audit_events",
            "claviger_cache_entries",
            "claviger_cache_hits_total",
            "claviger_cache_misses_total",
            "claviger_audit_queue_length",
            "claviger_audit_waits_total",
            "claviger_log_dropped_total",
            "claviger_policy_denials_total{policy=\"my-app\"}",
            "claviger_keystore_request_errors_total{operation=\"get\"}",
            "claviger_http_request_duration_seconds_count{operation=\"PUT /v1/key/decrypt/\"}",
        ];
        for name in zero {
            assert_eq!(first.get(name), Some(&0.0), "{name}");
        }
        let positive = [
            "kes_http_request_active",
            "kes_system_num_cpu",
            "kes_system_num_cpu_used",
            "kes_system_num_threads",
            "kes_system_mem_heap_used",
            "kes_system_mem_heap_objects",
            "kes_system_mem_stack_used",
            "claviger_keystore_reachable",
            "claviger_tls_certificate_expiry_timestamp_seconds",
            "claviger_connections",
            "claviger_config_last_reload_successful",
            "claviger_config_last_reload_success_timestamp_seconds",
            "process_cpu_seconds_total",
            "process_max_fds",
            "process_open_fds",
            "process_resident_memory_bytes",
            "process_start_time_seconds",
            "process_virtual_memory_bytes",
        ];
        for name in positive {
            assert!(first.get(name).is_some_and(|value| *value > 0.0), "{name}: {:?}", first.get(name));
        }
        for name in ["kes_system_up_time", "kes_http_response_time_sum", "claviger_keystore_last_answer_age_seconds"] {
            assert!(first.contains_key(name), "{name}");
        }
        for bound in ["0.01", "0.05", "0.1", "0.25", "0.5", "1", "1.5", "3", "5", "10", "+Inf"] {
            assert!(first.contains_key(&format!("kes_http_response_time_bucket{{le=\"{bound}\"}}")), "{bound}");
        }

        assert_eq!(repeat(&admin, "/v1/key/describe/my-key", 1, 200).await, 1);
        assert_eq!(repeat(&admin, "/v1/key/describe/my-key", 4, 200).await, 4);
        assert_eq!(app.get("/v1/key/describe/my-key").await.status, 403);
        assert_eq!(admin.get("/v1/nowhere").await.status, 404);
        assert_eq!(admin.delete("/v1/key/describe/my-key").await.status, 405);
        std::fs::write(server.keys().join("garbage"), "no key").expect("written");
        assert_eq!(admin.get("/v1/key/describe/garbage").await.status, 502);
        let second = metrics(&admin).await;
        let grown = |name: &str| second[name] - first.get(name).copied().unwrap_or(0.0);
        // The first scrape and the five.
        assert_eq!(grown("kes_http_request_success{code=\"200\"}"), 6.0);
        for code in ["403", "404", "405"] {
            assert_eq!(grown(&format!("kes_http_request_error{{code=\"{code}\"}}")), 1.0, "{code}");
        }
        assert_eq!(grown("kes_http_request_failure{code=\"502\"}"), 1.0);
        assert_eq!(grown("kes_http_response_time_count"), 10.0);
        // All but the unknown path, and the first scrape.
        assert_eq!(grown("kes_log_audit_events"), 9.0);
        // The denial and the failure.
        assert!(grown("kes_log_error_events") >= 2.0);
        assert_eq!(grown("claviger_cache_misses_total") + grown("claviger_cache_hits_total"), 6.0);
        assert!(grown("claviger_cache_hits_total") >= 4.0);
        assert_eq!(second["claviger_cache_entries"], 1.0);
        // All those for the path, whatever came of them.
        for (operation, count) in [("GET /v1/key/describe/", 8.0), ("GET /v1/metrics", 1.0), ("other", 1.0)] {
            let name = format!("claviger_http_request_duration_seconds_count{{operation=\"{operation}\"}}");
            assert_eq!(grown(&name), count, "{operation}");
        }
        // What it gave is no key; but it gave it.
        assert!(grown("claviger_keystore_request_duration_seconds_count{operation=\"get\"}") >= 2.0);
        assert_eq!(second["claviger_keystore_request_errors_total{operation=\"get\"}"], 0.0);
        assert_eq!(grown("claviger_policy_denials_total{policy=\"my-app\"}"), 1.0);
        assert!(second["kes_system_up_time"] > first["kes_system_up_time"]);
    });
}

#[test]
fn process_metrics_are_those_of_the_process() {
    let server = TestServer::fixture();
    let metrics = block_on(metrics(&Client::fixture(server.address(), "admin")));
    let process = PathBuf::from(format!("/proc/{}", server.pid().as_raw_nonzero()));
    let status = std::fs::read_to_string(process.join("status")).expect("the process runs");
    let kilobytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
        line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number")
    };
    // Both move between two looks.
    for (metric, name) in [("process_resident_memory_bytes", "VmRSS:"), ("process_virtual_memory_bytes", "VmSize:")] {
        let ratio = metrics[metric] / (kilobytes(name) * 1_024.0);
        assert!((0.5..2.0).contains(&ratio), "{metric}: {ratio}");
    }
    let age = OffsetDateTime::now_utc().unix_timestamp() as f64 - metrics["process_start_time_seconds"];
    assert!((-1.0..60.0).contains(&age), "{age}");
    assert!((3.0..metrics["process_max_fds"]).contains(&metrics["process_open_fds"]));
    let build = metrics.keys().find(|name| name.starts_with("claviger_build_info{")).expect("there");
    assert!(build.contains(concat!("version=\"", env!("CARGO_PKG_VERSION"), "\",commit=\"")), "{build}");
}

#[test]
fn a_config_that_was_refused_shows_until_one_is_taken_up() {
    let server = TestServer::fixture();
    let admin = Client::fixture(server.address(), "admin");
    let reloaded = || {
        let metrics = block_on(metrics(&admin));
        let name = "claviger_config_last_reload_success";
        (metrics[&format!("{name}ful")], metrics[&format!("{name}_timestamp_seconds")])
    };
    let (succeeded, started) = reloaded();
    assert_eq!(succeeded, 1.0);
    server.reload("keystore: [");
    eventually("the refusal", || reloaded() == (0.0, started));
    server.reload(&fixture_config(|config| config));
    eventually("the success", || reloaded().0 == 1.0);
    assert!(reloaded().1 >= started);
}

/// A server whose standard output and error nobody reads until the test does.
struct Unread {
    child: Child,
    address: SocketAddr,
    stdout: Option<ChildStdout>,
    stderr: BufReader<ChildStderr>,
    directory: tempfile::TempDir,
}

impl Unread {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        copy_fixture(directory.path());
        std::fs::write(directory.path().join("config.yml"), fixture_config(|config| config)).expect("written");
        let mut child = Command::new(env!("CARGO_BIN_EXE_claviger"))
            .args(["server", "--config", "config.yml", "--addr", "127.0.0.1:0"])
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stdout = child.stdout.take().expect("piped");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (mut line, mut address) = (String::new(), None);
        while !line.starts_with("=> Server is up") {
            line.clear();
            assert!(stderr.read_line(&mut line).expect("a line") > 0, "the server starts");
            address = address.or(line.split_once("https://").and_then(|(_, at)| at.trim().parse().ok()));
        }
        let address = address.expect("the start message says where");
        Self { child, address, stdout: Some(stdout), stderr, directory }
    }

    /// Takes what the server writes to standard output from now on, to its end.
    fn read(&mut self) -> std::thread::JoinHandle<String> {
        let mut stdout = self.stdout.take().expect("not read yet");
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stdout.read_to_string(&mut text);
            text
        })
    }

    /// Tells the server to stop, and waits until it has.
    fn stop(&mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("the server runs");
        self.child.wait().expect("our child").code()
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn when_nobody_takes_audit_events_requests_wait_and_none_is_lost() {
    let mut server = Unread::start();
    let admin = Client::fixture(server.address, "admin");
    let requests = 6_000;
    block_on(async {
        let other = Client::fixture(server.address, "admin");
        let all = tokio::spawn(async move { repeat(&other, "/v1/key/describe/my-key", requests, 200).await });
        // Who asks why everything stands still is answered.
        let mut seen = metrics(&admin).await;
        while seen["claviger_audit_waits_total"] == 0.0 {
            assert!(!all.is_finished(), "the requests wait");
            seen = metrics(&admin).await;
        }
        assert!(seen["claviger_audit_queue_length"] >= 4_096.0);
        assert!(seen["kes_http_request_active"] > 1.0);
        assert!(!all.is_finished());

        let reader = server.read();
        assert_eq!(all.await.expect("no panic"), requests);
        assert_eq!(server.stop(), Some(0));
        let text = reader.join().expect("no panic");
        let events: Vec<_> = text.lines().filter(|line| line.starts_with('{')).map(json).collect();
        let of = |path: &str| events.iter().filter(|event| event["request"]["path"] == path).count();
        assert_eq!(of("/v1/key/describe/my-key"), requests);
        assert!(of("/v1/metrics") > 0);
    });
}

#[test]
fn a_server_that_cannot_write_its_last_audit_events_ends_and_says_so() {
    let mut server = Unread::start();
    let admin = Client::fixture(server.address, "admin");
    block_on(repeat(&admin, "/v1/key/describe/my-key", 2_000, 200));
    assert_eq!(server.stop(), Some(1));
    let mut said = String::new();
    server.stderr.read_to_string(&mut said).expect("text");
    assert!(said.contains("audit events are lost"), "{said}");
}

#[test]
fn when_nobody_takes_the_log_lines_are_dropped_and_counted_and_nobody_waits() {
    let mut server = Unread::start();
    std::fs::write(server.directory.path().join("keys/garbage"), "no key").expect("written");
    let admin = Client::fixture(server.address, "admin");
    server.read();
    block_on(async {
        assert_eq!(repeat(&admin, "/v1/key/describe/garbage", 6_000, 502).await, 6_000);
        let metrics = metrics(&admin).await;
        assert!(metrics["claviger_log_dropped_total"] > 0.0);
        assert!(metrics["kes_log_error_events"] >= 6_000.0);
    });
}
