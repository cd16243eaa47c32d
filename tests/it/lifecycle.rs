//! From start to end: reload, certificates, outages, shutdown, the service manager, the process's memory.

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use rustls::HandshakeKind;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::support::client::{Request, Tls, read_h1};
use super::support::server::{PROGRAM, copy_fixture, fixture_config};
use super::support::{Client, Identity, Protocol, TestServer, block_on, certs, eventually, testdata};

#[test]
fn all_addresses_are_those_of_both_families() {
    for address in ["0.0.0.0:0", "[::]:0"] {
        let server = TestServer::dev_at(address.parse().expect("an address"));
        for host in ["127.0.0.1", "::1"] {
            let host: std::net::IpAddr = host.parse().expect("an address");
            // There are machines without IPv6.
            if std::net::TcpListener::bind((host, 0)).is_err() {
                continue;
            }
            let address = std::net::SocketAddr::new(host, server.address().port());
            let answer = block_on(Client::new(address, None, Protocol::H2).get("/version"));
            assert_eq!(answer.status, 200, "{address}");
        }
    }
}

/// A directory with the fixture's keys and certificate, open to every user.
fn fixture_directory() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().expect("a temporary directory");
    copy_fixture(directory.path());
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).expect("our directory");
    directory
}

/// Two configs that differ in everything that a reload may change but the key store. With either, exactly one of two
/// requests is allowed, and its answer shows that config.
fn two_configs() -> [String; 2] {
    let ops = Identity::fixture("ops").hash();
    [("a", "INFO", "30s"), ("b", "DEBUG", "1m")].map(|(own, log, unused)| {
        let admin = own.repeat(64);
        format!(
            "admin: {{ identity: {admin} }}
tls: {{ key: {own}.key, cert: {own}.crt }}
policy:
  ops-{own}:
    allow: [ /v1/policy/read/ops-{own}, /v1/key/describe/my-key ]
    identities: [ {ops} ]
cache: {{ expiry: {{ unused: {unused} }} }}
log: {{ error: {log}, audit: off }}
keystore: {{ fs: {{ path: keys }} }}
"
        )
    })
}

/// Asks until told to stop; every answer must be that of one config.
async fn load(client: Client, stop: Arc<AtomicBool>, answers: [Arc<AtomicUsize>; 2]) {
    while !stop.load(Ordering::Relaxed) {
        let mut session = client.session().await.expect("a connection");
        for _ in 0..20 {
            for (own, answered) in ["a", "b"].into_iter().zip(&answers) {
                let request = Request::new("GET", &format!("/v1/policy/read/ops-{own}"));
                let response = session.send(request).await.expect("an answer");
                // 404 would be the permission of one config and the policies of the other.
                assert!([200, 403].contains(&response.status), "{}", response.status);
                if response.status == 200 {
                    let allow = response.json()["allow"].as_object().expect("an object").clone();
                    assert!(allow.contains_key(&format!("/v1/policy/read/ops-{own}")), "{allow:?}");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            }
            let response = session.send(Request::new("GET", "/v1/key/describe/my-key")).await.expect("an answer");
            assert_eq!(response.status, 200);
        }
    }
}

#[test]
fn a_reload_drops_no_request_and_each_sees_one_config() {
    let configs = two_configs();
    let directory = fixture_directory();
    for extension in ["key", "crt"] {
        let file = |name: &str| directory.path().join(format!("{name}.{extension}"));
        std::fs::copy(file("server"), file("a")).expect("copied");
        std::fs::copy(certs(format!("server.{extension}")), file("b")).expect("copied");
    }
    let server = TestServer::start_in(directory, &configs[0]);
    let stop = Arc::new(AtomicBool::new(false));
    let answers: [Arc<AtomicUsize>; 2] = Default::default();
    let loaders: Vec<_> = (0..4)
        .map(|n| {
            let client = Client::new(server.address(), Some(Identity::fixture("ops")), Protocol::ALL[n % 2]);
            let (stop, answers) = (stop.clone(), answers.clone());
            std::thread::spawn(move || block_on(load(client, stop, answers)))
        })
        .collect();
    for nth in 1..=20 {
        server.reload(&configs[nth % 2]);
        let own = &answers[nth % 2];
        let before = own.load(Ordering::Relaxed);
        eventually("requests see the new config", || {
            own.load(Ordering::Relaxed) > before + 4 || loaders.iter().any(std::thread::JoinHandle::is_finished)
        });
    }
    stop.store(true, Ordering::Relaxed);
    for loader in loaders {
        loader.join().expect("no request failed");
    }
    assert_eq!(server.stderr().matches("config reloaded").count(), 20);
    assert!(!server.stderr().contains("ERROR"), "{}", server.stderr());
}

#[test]
fn an_invalid_config_is_reported_and_the_old_one_stays() {
    let server = TestServer::fixture();
    let admin = Client::fixture(server.address(), "admin");
    let missing = fixture_config(|config| config.replace("cert: server.crt", "cert: no-such-file.crt"));
    for (nth, config) in ["tls: [", "admin: {}\n", missing.as_str()].into_iter().enumerate() {
        server.reload(config);
        assert_eq!(server.stderr().matches("the old one stays in force").count(), nth + 1, "{}", server.stderr());
        assert_eq!(block_on(admin.get("/v1/key/describe/my-key")).status, 200);
    }
    server.says("tls.cert: the file cannot be read");
}

#[test]
fn changed_trust_voids_tickets_and_other_changes_do_not() {
    let server = TestServer::fixture();
    for protocol in Protocol::ALL {
        server.reload(&fixture_config(|config| config));
        let tls = Tls::new(Some(Identity::fixture("admin")), protocol).shared();
        let client = Client::with_tls(server.address(), tls.clone(), protocol);
        let kind = || {
            block_on(async {
                let mut tls = client.connect().await.expect("a connection");
                let kind = tls.get_ref().1.handshake_kind();
                // With TLS 1.3 the ticket comes after the handshake.
                let request = b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
                let _ = tls.write_all(request).await;
                let mut end = Vec::new();
                let _ = tls.read_to_end(&mut end).await;
                kind.expect("the handshake is over")
            })
        };
        assert_eq!(kind(), HandshakeKind::Full);
        assert_eq!(kind(), HandshakeKind::Resumed);
        server.reload(&fixture_config(|config| config.replace("allow:\n    - /v1/*", "allow:\n    - /v1/key/*")));
        assert_eq!(kind(), HandshakeKind::Resumed);
        let proxy = Identity::dev("proxy").hash();
        let tls = format!("tls:\n  proxy: {{ identities: [ {proxy} ] }}\n");
        server.reload(&fixture_config(|config| config.replace("tls:\n", &tls)));
        assert_eq!(kind(), HandshakeKind::Full);
        assert_eq!(kind(), HandshakeKind::Resumed);
    }
}

#[test]
fn changed_trust_sends_clients_to_new_connections() {
    let server = TestServer::fixture();
    let admin = Client::new(server.address(), Some(Identity::fixture("admin")), Protocol::H1);
    block_on(async {
        let mut tls = admin.connect().await.expect("a connection");
        let request = b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n";
        tls.write_all(request).await.expect("written");
        assert_eq!(read_h1(&mut tls, false).await.expect("an answer").headers.get("connection"), None);
        let proxy = Identity::dev("proxy").hash();
        let section = format!("tls:\n  proxy: {{ identities: [ {proxy} ] }}\n");
        server.reload(&fixture_config(|config| config.replace("tls:\n", &section)));
        tls.write_all(request).await.expect("written");
        let last = read_h1(&mut tls, false).await.expect("an answer");
        assert_eq!((last.status, &*last.headers["connection"]), (200, "close"));
        assert_eq!(tls.read(&mut [0; 1]).await.expect("an orderly end"), 0);
    });
}

/// The certificate that the server shows now.
fn shown(server: &TestServer) -> CertificateDer<'static> {
    let tls = block_on(Client::fixture(server.address(), "admin").connect()).expect("a connection");
    tls.get_ref().1.peer_certificates().expect("a certificate")[0].clone().into_owned()
}

#[test]
fn certificate_files_are_read_again_when_they_change() {
    let server = TestServer::fixture();
    let first = CertificateDer::from_pem_file(testdata("http/fixture/server.crt")).expect("a certificate");
    let second = CertificateDer::from_pem_file(certs("server.crt")).expect("a certificate");
    assert_eq!(shown(&server), first);
    let replace = |from: std::path::PathBuf, to: &str| {
        let new = server.directory().join("new");
        std::fs::copy(from, &new).expect("copied");
        std::fs::rename(new, server.directory().join(to)).expect("renamed");
    };
    // Half of the change: the key does not fit yet.
    replace(certs("server.crt"), "server.crt");
    eventually("the half change is reported", || server.stderr().contains("cannot be used"));
    assert_eq!(shown(&server), first);
    replace(certs("server.key"), "server.key");
    eventually("the new certificate is shown", || shown(&server) == second);
    eventually("it is logged", || server.stderr().contains("TLS files changed and were loaded"));
    // In place, with a SIGHUP, at once.
    std::fs::copy(testdata("http/fixture/server.key"), server.directory().join("server.key")).expect("copied");
    std::fs::copy(testdata("http/fixture/server.crt"), server.directory().join("server.crt")).expect("copied");
    server.reload(&fixture_config(|config| config));
    assert_eq!(shown(&server), first);
}

/// The head of an upload whose body is to follow.
const UPLOAD: &[u8] = b"PUT /v1/key/encrypt/my-key HTTP/1.1\r\nHost: localhost\r\nContent-Length: 24\r\n\r\n";
const BODY: &[u8; 24] = b"{\"plaintext\":\"aGVsbG8=\"}";

/// An upload that the server has begun with, as its metrics say: the head of a request is on its way for a while.
async fn begin_upload(admin: &Client) -> TlsStream<TcpStream> {
    let mut tls = admin.connect().await.expect("a connection");
    tls.write_all(UPLOAD).await.expect("written");
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    // The other one is the request for the metrics.
    while !admin.get("/v1/metrics").await.text().contains("kes_http_request_active 2\n") {
        assert!(std::time::Instant::now() < deadline, "the upload has not begun within a minute");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tls
}

#[test]
fn a_running_upload_is_finished_before_the_server_ends() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = TestServer::fixture();
        let admin = Client::new(server.address(), Some(Identity::fixture("admin")), Protocol::H1);
        block_on(async {
            let mut idle = admin.connect().await.expect("a connection");
            let mut tls = begin_upload(&admin).await;
            tls.write_all(&BODY[..10]).await.expect("written");
            server.signal(signal);
            eventually("no new connections", || std::net::TcpStream::connect(server.address()).is_err());
            assert_eq!(idle.read(&mut [0; 1]).await.expect("an orderly end"), 0, "idle connections end at once");
            tls.write_all(&BODY[10..]).await.expect("written");
            let response = read_h1(&mut tls, false).await.expect("an answer");
            assert_eq!(response.status, 200);
            assert!(response.json()["ciphertext"].is_string());
        });
        let status = server.wait_for_exit(Duration::from_secs(20)).expect("the server ends");
        assert_eq!(status.code(), Some(0));
        assert!(!server.stderr().contains("cut off"), "{}", server.stderr());
    }
}

#[test]
fn a_second_signal_ends_the_server_at_once() {
    let mut server = TestServer::with_config(&fixture_config(|c| format!("{c}limits: {{ shutdown: 1h }}\n")));
    let admin = Client::new(server.address(), Some(Identity::fixture("admin")), Protocol::H1);
    block_on(async {
        let mut tls = begin_upload(&admin).await;
        server.signal(Signal::TERM);
        eventually("the server is stopping", || server.stderr().contains("stopping"));
        server.signal(Signal::INT);
        let status = server.wait_for_exit(Duration::from_secs(20)).expect("the server ends");
        assert_eq!(status.code(), Some(0));
        server.says("cut off");
        let mut rest = Vec::new();
        let _ = tls.read_to_end(&mut rest).await;
        assert!(rest.is_empty(), "the upload got no answer");
    });
    // What was cut off is on record.
    assert!(server.stdout().contains("/v1/key/encrypt/my-key"), "{}", server.stdout());
}

#[test]
fn a_request_that_does_not_end_is_cut_off_after_the_shutdown_timeout() {
    let mut server = TestServer::with_config(&fixture_config(|c| format!("{c}limits: {{ shutdown: 1s }}\n")));
    let admin = Client::new(server.address(), Some(Identity::fixture("admin")), Protocol::H1);
    block_on(async {
        let _upload = begin_upload(&admin).await;
        server.signal(Signal::TERM);
        let status = server.wait_for_exit(Duration::from_secs(20)).expect("the server ends");
        assert_eq!(status.code(), Some(0));
    });
    server.says("cut off");
}

/// A socket that takes what a service is told to tell its manager.
struct Manager {
    socket: UnixDatagram,
    directory: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let socket = UnixDatagram::bind(directory.path().join("notify")).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
        Self { socket, directory }
    }

    /// The variables of the next message.
    fn next(&self) -> BTreeMap<String, String> {
        let mut message = [0; 4_096];
        let len = self.socket.recv(&mut message).expect("a message within half a minute");
        let text = std::str::from_utf8(&message[..len]).expect("text");
        let variables = text.lines().map(|line| line.split_once('=').expect("NAME=value"));
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

#[test]
fn the_service_manager_is_told_what_happens() {
    fn microseconds() -> u64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        u64::try_from(now.tv_sec * 1_000_000 + now.tv_nsec / 1_000).expect("after the start of the machine")
    }
    let manager = Manager::new();
    let socket = manager.directory.path().join("notify");
    let config = fixture_config(|config| config);
    let mut program = Command::new(PROGRAM);
    program.env("NOTIFY_SOCKET", &socket);
    let mut server = TestServer::start_under(program, fixture_directory(), &config);
    assert_eq!(manager.next()["READY"], "1");
    for config in [config.as_str(), "invalid: ["] {
        let before = microseconds();
        server.reload(config);
        let reloading = manager.next();
        assert_eq!(reloading["RELOADING"], "1");
        let began: u64 = reloading["MONOTONIC_USEC"].parse().expect("a number");
        assert!((before..=microseconds()).contains(&began), "{began}");
        assert_eq!(manager.next()["READY"], "1");
    }
    server.signal(Signal::TERM);
    assert_eq!(manager.next()["STOPPING"], "1");
    assert!(server.wait_for_exit(Duration::from_secs(20)).is_some_and(|status| status.success()));
}

/// A number of `/proc/PID/status`, in the unit that stands there.
fn process_status(server: &TestServer, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid().as_raw_nonzero())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("such a line");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}

/// A server of an ordinary user, started by `setpriv` with these arguments. Needs root.
fn as_nobody(privileges: &[&str]) -> TestServer {
    let found = Command::new("setpriv").arg("--version").stdout(Stdio::null()).status();
    assert!(found.is_ok(), "this test needs 'setpriv': install the package 'util-linux'");
    let directory = fixture_directory();
    for entry in std::fs::read_dir(directory.path().join("keys")).expect("keys") {
        std::os::unix::fs::chown(entry.expect("readable").path(), Some(65_534), None).expect("root");
    }
    for name in ["keys", "server.key", "server.crt"] {
        std::os::unix::fs::chown(directory.path().join(name), Some(65_534), None).expect("root");
    }
    let config = fixture_config(|config| config);
    // The limit is finite wherever this runs.
    let mut command = Command::new("prlimit");
    command.args(["--memlock=65536:65536", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.args(privileges).arg(PROGRAM);
    TestServer::start_under(command, directory, &config)
}

#[test]
#[ignore = "runs setpriv: tests/run"]
fn memory_is_locked_when_all_of_it_may_be() {
    let capable = as_nobody(&["--inh-caps=+ipc_lock", "--ambient-caps=+ipc_lock"]);
    assert!(capable.stderr().contains("enabled"), "{}", capable.stderr());
    assert!(process_status(&capable, "VmLck:") > 1_024, "more than a megabyte is locked");
    let finite = as_nobody(&[]);
    assert!(finite.stderr().contains("disabled: the limit RLIMIT_MEMLOCK is finite"), "{}", finite.stderr());
    assert_eq!(process_status(&finite, "VmLck:"), 0);
}

#[test]
#[ignore = "runs setpriv: tests/run"]
fn nobody_reads_the_memory_of_the_server() {
    let server = as_nobody(&[]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid().as_raw_nonzero())).expect("it runs");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("such a line");
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");
    // The same user may look into each of its processes, unless one is not dumpable.
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let reads = |pid: std::num::NonZeroI32| {
        let memory = format!("/proc/{pid}/environ");
        let output = Command::new("setpriv").args(user).args(["cat", &memory]).output().expect("setpriv runs");
        output.status.success()
    };
    let mut other = Command::new("setpriv").args(user).args(["sleep", "60"]).spawn().expect("setpriv runs");
    let pid = rustix::process::Pid::from_child(&other).as_raw_nonzero();
    let name = || std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    eventually("it sleeps", || name().trim() == "sleep");
    assert!(reads(pid), "a user may read the environment of its own process");
    assert!(!reads(server.pid().as_raw_nonzero()));
    other.kill().expect("our child");
    other.wait().expect("our child");
}

#[test]
#[ignore = "runs systemd-analyze: tests/run"]
fn the_unit_files_are_valid_and_hardened() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for name in ["claviger.service", "claviger-kms.service"] {
        let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name);
        let text = std::fs::read_to_string(unit).expect("the unit file");
        let copy = directory.path().join(name);
        std::fs::write(&copy, text.replace("/usr/bin/claviger", PROGRAM)).expect("written");
        let analyze = |args: &[&str]| {
            let output = Command::new("systemd-analyze").args(args).arg(&copy).output();
            let output = output.expect("this test needs 'systemd-analyze': install the package 'systemd'");
            let said = [output.stdout, output.stderr].concat();
            (output.status.success(), String::from_utf8(said).expect("text"))
        };
        let (valid, said) = analyze(&["verify", "--man=no"]);
        assert!(valid && !said.contains(&format!("{name}:")), "{said}");
        // 0 is what no service can do without, 100 is a service without any protection.
        let (hardened, said) = analyze(&["security", "--offline=true", "--threshold=15", "--no-pager"]);
        assert!(hardened, "{name}: {said}");
    }
}
