//! Real peers: programs of others, which a test runs and stops.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rustix::process::{Pid, Signal, kill_process_group};

use super::server::PROGRAM;

/// No peer outlives this, not even when the tests are killed.
const LIFETIME: &str = "1800";

/// The program `name`, which the Debian package `package` has. Fails when it is not installed.
pub fn program(name: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").expect("there is a PATH");
    // Debian keeps servers out of the way of users.
    let directories = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = directories.map(|directory| directory.join(name)).find(|program| program.is_file());
    found.unwrap_or_else(|| panic!("this test needs '{name}' of the Debian package '{package}': run tests/run"))
}

/// The program that `tests/run` builds of `tests/peers/<name>`. Fails when it is not built.
pub fn built(name: &str) -> PathBuf {
    let target = Path::new(PROGRAM).ancestors().nth(2).expect("target/<profile>/claviger");
    let program = target.join(name).join(name);
    assert!(program.is_file(), "this test needs 'tests/peers/{name}', built with Go: run tests/run --install");
    program
}

/// The virtual environment of Python that `tests/run` makes.
fn python_environment() -> PathBuf {
    Path::new(PROGRAM).ancestors().nth(2).expect("target/<profile>/claviger").join("python")
}

/// The interpreter of Python that finds the packages which `tests/run` installs.
pub fn python() -> PathBuf {
    python_environment().join("bin/python")
}

/// Where the Python package `package` is, whose module is called `module`. Fails when it is not installed.
pub fn python_package(module: &str, package: &str) -> PathBuf {
    let versions = std::fs::read_dir(python_environment().join("lib")).into_iter().flatten().flatten();
    let mut places = versions.map(|version| version.path().join("site-packages").join(module));
    let found = places.find(|place| place.is_dir());
    found.unwrap_or_else(|| panic!("this test needs the Python package '{package}': run tests/run --install"))
}

/// Fills in the `@NAMES@` of a file of `tests/peers/`.
pub fn template(file: &str, values: &[(&str, &str)]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(file);
    let text = std::fs::read_to_string(path).expect("a file of tests/peers");
    let text = values.iter().fold(text, |text, (name, value)| text.replace(&format!("@{name}@"), value));
    assert!(!text.contains('@'), "{file} has a name that nobody fills in");
    text
}

/// A running peer with a directory of its own. Stopped when dropped.
pub struct Peer {
    child: Child,
    address: SocketAddr,
    directory: tempfile::TempDir,
    /// What stops it.
    signal: Signal,
}

impl Peer {
    /// Starts a program that listens on the port it is told; returns when it accepts connections.
    /// `prepare` makes its directory and its arguments.
    pub fn start(program: &Path, prepare: impl FnOnce(&Path, SocketAddr) -> Vec<String>) -> Self {
        Self::start_at(program, free_address(), prepare)
    }

    /// The same where the port is known.
    pub fn start_at(
        program: &Path,
        address: SocketAddr,
        prepare: impl FnOnce(&Path, SocketAddr) -> Vec<String>,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let args = prepare(directory.path(), address);
        let log = std::fs::File::create(directory.path().join("log")).expect("a log file");
        let child = Command::new("timeout")
            .args(["--foreground", "--kill-after=5", LIFETIME])
            .arg(program)
            .args(args)
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log file"))
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("the peer starts");
        let mut peer = Self { child, address, directory, signal: Signal::TERM };
        super::eventually("the peer listens", || {
            let ended = peer.child.try_wait().expect("our child");
            assert!(ended.is_none(), "{} does not start:\n{}", program.display(), peer.log());
            TcpStream::connect(address).is_ok()
        });
        peer
    }

    /// The same peer, which this signal stops.
    pub fn stopped_by(mut self, signal: Signal) -> Self {
        self.signal = signal;
        self
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends it a signal that does not end it.
    pub fn signal(&self, signal: Signal) {
        kill_process_group(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Kills it: it writes and says nothing more.
    pub fn kill(self) {
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
    }

    /// What it has written.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).expect("the log file")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // A process group of its own: the program, and the timeout that started it.
        let _ = kill_process_group(Pid::from_child(&self.child), self.signal);
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the peer\n{}", self.log());
        }
    }
}

/// An address on which nobody listens. For programs that cannot choose one and tell. It is below the ports that the
/// system gives to clients: one of those may be taken before the program listens. The next port is nobody else's either,
/// since OpenBao listens there, too.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(97);
    let mut ports = std::iter::repeat_with(|| 10_000 + begin.wrapping_add(NEXT.fetch_add(1, Relaxed)) % 10_000 * 2);
    let mut addresses = ports.by_ref().take(10_000).filter_map(|port| {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(port).ok()?));
        TcpListener::bind(address).is_ok().then_some(address)
    });
    addresses.next().expect("a free port")
}
