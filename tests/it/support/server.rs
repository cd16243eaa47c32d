//! The real program, started as an operator would start it.

use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Identity, certs, eventually, testdata};

/// The program that is tested.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_claviger");

/// A running `claviger server` in a directory of its own. Stopped when dropped.
pub struct TestServer {
    child: Child,
    address: SocketAddr,
    /// Of its own protocol, where `address` is that of another listener of a key manager.
    key_manager: Option<SocketAddr>,
    directory: tempfile::TempDir,
    stdout: Output,
    stderr: Output,
}

/// What the program has written so far.
#[derive(Clone, Default)]
pub struct Output(Arc<Mutex<String>>);

impl Output {
    pub fn text(&self) -> String {
        self.0.lock().expect("no reader panicked").clone()
    }

    fn follow(&self, stream: impl Read + Send + 'static, mut on_line: impl FnMut(&str) + Send + 'static) {
        let text = self.0.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines() {
                let Ok(line) = line else { return };
                on_line(&line);
                let mut text = text.lock().expect("no reader panicked");
                text.push_str(&line);
                text.push('\n');
            }
        });
    }
}

/// The config of `testdata/http/fixture`, with `change` applied to its text.
pub fn fixture_config(change: impl FnOnce(String) -> String) -> String {
    change(std::fs::read_to_string(testdata("http/fixture/config.yml")).expect("the fixture's config"))
}

/// A config with the certificates of `certs/`, whose clients there are in it: `admin` is the admin, `app` and
/// `stranger` may make and use keys that begin with `app-`, and read status and metrics. `tls` is more of that section.
pub fn dev_config(tls: &str) -> String {
    let id = |name| Identity::dev(name).hash();
    let (admin, app, stranger) = (id("admin"), id("app"), id("stranger"));
    let (certificate, key) = (certs("server.crt"), certs("server.key"));
    format!(
        "admin: {{ identity: {admin} }}
tls:
  cert: {certificate}
  key: {key}
  {tls}
policy:
  app:
    allow:
    - /v1/key/create/app-*
    - /v1/key/encrypt/app-*
    - /v1/key/decrypt/app-*
    - /v1/status
    - /v1/metrics
    identities: [ {app}, {stranger} ]
keystore: {{ fs: {{ path: keys }} }}
",
        certificate = certificate.display(),
        key = key.display(),
    )
}

impl TestServer {
    /// A server with [`dev_config`].
    pub fn with_dev_config(tls: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(directory.path().join("keys")).expect("a directory for keys");
        Self::start_in(directory, &dev_config(tls))
    }

    /// A server with the fixture's config, keys and certificate.
    pub fn fixture() -> Self {
        Self::with_config(&fixture_config(|config| config))
    }

    /// A server with the fixture's keys and certificate, and this config.
    pub fn with_config(config: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        copy_fixture(directory.path());
        Self::start_in(directory, config)
    }

    /// A server with this config in a directory that is prepared.
    pub fn start_in(directory: tempfile::TempDir, config: &str) -> Self {
        std::fs::write(directory.path().join("config.yml"), config).expect("the config is written");
        Self::launch(directory, &["server", "--config", "config.yml", "--addr", "127.0.0.1:0"])
    }

    /// The same, when its key store may take its time.
    pub fn start_waiting_in(directory: tempfile::TempDir, config: &str) -> Self {
        std::fs::write(directory.path().join("config.yml"), config).expect("the config is written");
        Self::launch(directory, &["server", "--config", "config.yml", "--addr", "127.0.0.1:0", "--wait"])
    }

    /// What the program says when it refuses to start with this config.
    pub fn refuses(directory: &Path, config: &str) -> String {
        std::fs::write(directory.join("config.yml"), config).expect("the config is written");
        let mut child = Command::new(PROGRAM)
            .args(["server", "--config", "config.yml", "--addr", "127.0.0.1:0"])
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let deadline = Instant::now() + Duration::from_secs(30);
        let status = loop {
            match child.try_wait().expect("our child") {
                Some(status) => break status,
                None if Instant::now() > deadline => {
                    let _ = child.kill();
                    let _ = child.wait();
                    panic!("the server started with\n{config}");
                }
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        assert!(!status.success(), "the server ended without an error");
        let mut stderr = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("text");
        stderr
    }

    /// The same as another user, or under another program: `wrapper` is the command that runs the server.
    pub fn start_under(wrapper: Command, directory: tempfile::TempDir, config: &str) -> Self {
        std::fs::write(directory.path().join("config.yml"), config).expect("the config is written");
        Self::launch_under(wrapper, directory, &["server", "--config", "config.yml", "--addr", "127.0.0.1:0"])
    }

    /// A key manager with its data in this directory; `args` are more of its arguments.
    pub fn key_manager(data: &Path, hsm_key: &str, args: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new(PROGRAM);
        command.env("MINIO_KMS_HSM_KEY", hsm_key);
        let data = data.to_str().expect("a path that is text");
        let args = [&["kms", "server", data, "--address", "127.0.0.1:0"], args].concat();
        Self::launch_under(command, directory, &args)
    }

    /// What a key manager says that does not start.
    pub fn key_manager_refuses(data: &Path, hsm_key: &str, args: &[&str]) -> String {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let data = data.to_str().expect("a path that is text");
        let mut command = Command::new(PROGRAM);
        command.env("MINIO_KMS_HSM_KEY", hsm_key).current_dir(directory.path()).stdin(Stdio::null());
        command.args(["kms", "server", data, "--address", "127.0.0.1:0"]).args(args);
        let output = command.output().expect("the program runs");
        assert!(!output.status.success(), "it starts");
        String::from_utf8(output.stderr).expect("text")
    }

    /// A key manager with its data in `directory`, and a listener for the KES API with this config. The address is that
    /// of this listener.
    pub fn key_manager_with_door(directory: tempfile::TempDir, hsm_key: &str, config: &str) -> Self {
        std::fs::write(directory.path().join("config.yml"), config).expect("the config is written");
        let mut command = Command::new(PROGRAM);
        command.env("MINIO_KMS_HSM_KEY", hsm_key);
        let args = ["kms", "server", "data", "--address", "127.0.0.1:0", "--kes", "config.yml"];
        let mut server = Self::launch_under(command, directory, &args);
        let said = server.stderr();
        let door = said.lines().find_map(|line| line.strip_prefix("KES API     https://")?.parse().ok());
        let door = door.unwrap_or_else(|| panic!("there is no such listener:\n{said}"));
        server.key_manager = Some(std::mem::replace(&mut server.address, door));
        server
    }

    /// A key manager in development mode.
    pub fn key_manager_dev(hsm_key: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new(PROGRAM);
        command.env("MINIO_KMS_HSM_KEY", hsm_key);
        Self::launch_under(command, directory, &["kms", "server", "--dev", "--address", "127.0.0.1:0"])
    }

    /// A server in development mode.
    pub fn dev() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self::launch(directory, &["server", "--dev", "--addr", "127.0.0.1:0"])
    }

    /// The same, where another server has been.
    pub fn dev_at(address: SocketAddr) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self::launch(directory, &["server", "--dev", "--addr", &address.to_string()])
    }

    fn launch(directory: tempfile::TempDir, args: &[&str]) -> Self {
        Self::launch_under(Command::new(PROGRAM), directory, args)
    }

    pub fn launch_under(mut command: Command, directory: tempfile::TempDir, args: &[&str]) -> Self {
        let mut child = command
            .args(args)
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let (stdout, stderr) = (Output::default(), Output::default());
        let (ready, wait) = mpsc::channel();
        let mut address = None;
        stdout.follow(child.stdout.take().expect("piped"), |_| {});
        stderr.follow(child.stderr.take().expect("piped"), move |line| {
            // Some key stores have an address, too.
            let is_own = address.is_none() && !line.starts_with("Key store");
            if let Some((_, at)) = line.split_once("https://").filter(|_| is_own) {
                address = at.trim().parse().ok();
            }
            if line.starts_with("=> Server is up") {
                let _ = ready.send(address);
            }
        });
        match wait.recv_timeout(Duration::from_secs(60)) {
            Ok(Some(address)) => Self { child, address, key_manager: None, directory, stdout, stderr },
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                panic!("the server does not start:\n{}\n{}", stdout.text(), stderr.text());
            }
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of a key manager's own protocol.
    pub fn key_manager_address(&self) -> SocketAddr {
        self.key_manager.unwrap_or(self.address)
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The directory of its keys.
    pub fn keys(&self) -> PathBuf {
        self.directory().join("keys")
    }

    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Waits for this text on standard error, of which the reader may be behind.
    pub fn says(&self, text: &str) {
        eventually(&format!("standard error has {text:?}"), || self.stderr().contains(text));
    }

    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// The lines of its log so far.
    pub fn log(&self) -> Vec<serde_json::Value> {
        let said = self.stderr();
        // The start message stands there, too.
        let lines = said.lines().filter(|line| line.starts_with('{'));
        lines.map(|line| serde_json::from_str(line).expect("a JSON object")).collect()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Memory in RAM that it uses, in bytes.
    pub fn resident(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid().as_raw_nonzero())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("such a line");
        let kilobytes = line.split_whitespace().next().and_then(|number| number.parse::<usize>().ok());
        kilobytes.expect("a number") * 1_024
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the server runs");
    }

    /// Writes another config and has it loaded; returns when the log says how that ended, for all listeners.
    pub fn reload(&self, config: &str) {
        std::fs::write(self.directory().join("config.yml"), config).expect("the config is written");
        let before = self.stderr().matches("reloaded").count();
        self.signal(Signal::HUP);
        // Each listener says it.
        let listeners = if self.key_manager.is_some() { 2 } else { 1 };
        super::eventually("the reload ends", || self.stderr().matches("reloaded").count() >= before + listeners);
    }

    /// Stops the server as a service manager does.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_for_exit(Duration::from_secs(20)).expect("the server stops when told to")
    }

    /// Kills the server as the kernel does when memory is short.
    pub fn kill(mut self) {
        self.child.kill().expect("the server runs");
        self.child.wait().expect("our child");
    }

    /// Waits until the server has ended by itself.
    pub fn wait_for_exit(&mut self, timeout: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_some()) {
            return;
        }
        let _ = kill_process(self.pid(), Signal::TERM);
        if self.wait_for_exit(Duration::from_secs(20)).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- stderr of the server\n{}", self.stderr());
        }
    }
}

/// Copies the fixture's keys and certificate into a directory.
pub fn copy_fixture(to: &Path) {
    let from = testdata("http/fixture");
    for file in ["server.key", "server.crt"] {
        std::fs::copy(from.join(file), to.join(file)).expect("the fixture's file");
    }
    std::fs::create_dir(to.join("keys")).expect("a directory for keys");
    for entry in std::fs::read_dir(from.join("keys")).expect("the fixture's keys") {
        let entry = entry.expect("readable");
        std::fs::copy(entry.path(), to.join("keys").join(entry.file_name())).expect("the fixture's key");
    }
}
