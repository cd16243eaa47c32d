//! The real etcd, for tests.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::etcd::{self, Credentials};
use crate::kms::journal::etcd::{Config, Etcd};
use crate::setting::ClientTls;

/// No member outlives this, not even when the tests are killed.
const LIFETIME: &str = "900";

/// A cluster without TLS and without users. Stopped when dropped.
pub(super) struct Server {
    directory: tempfile::TempDir,
    members: Vec<Member>,
    more: Vec<String>,
}

struct Member {
    address: SocketAddr,
    among: SocketAddr,
    data: PathBuf,
    child: Option<Child>,
}

impl Server {
    /// So many members, started with `more` arguments.
    pub(super) async fn start(members: usize, more: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let member = |n| {
            let data = directory.path().join(format!("data{n}"));
            Member { address: free_address(), among: free_address(), data, child: None }
        };
        let members = (0..members).map(member).collect();
        let more = more.iter().map(|arg| (*arg).to_owned()).collect();
        let mut server = Self { directory, members, more };
        (0..server.members.len()).for_each(|n| server.run(n));
        server.elected().await;
        server
    }

    /// Starts a member. It goes on with what it has.
    pub(super) fn run(&mut self, n: usize) {
        let token = self.directory.path().display().to_string();
        let all: Vec<_> = self.members.iter().enumerate().map(|(n, m)| format!("m{n}=http://{}", m.among)).collect();
        let log =
            std::fs::File::options().create(true).append(true).open(self.directory.path().join(format!("log{n}")));
        let log = log.expect("a log file");
        let member = &mut self.members[n];
        let child = Command::new("timeout")
            .args(["--foreground", "--kill-after=5", LIFETIME, "etcd", "--logger=zap"])
            .arg(format!("--name=m{n}"))
            .arg(format!("--data-dir={}", member.data.display()))
            .arg(format!("--listen-client-urls=http://{}", member.address))
            .arg(format!("--advertise-client-urls=http://{}", member.address))
            .arg(format!("--listen-peer-urls=http://{}", member.among))
            .arg(format!("--initial-advertise-peer-urls=http://{}", member.among))
            .arg(format!("--initial-cluster={}", all.join(",")))
            .arg(format!("--initial-cluster-token={token}"))
            .arg("--enable-grpc-gateway=false")
            .args(&self.more)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log file"))
            .stderr(log)
            .process_group(0)
            .spawn();
        member.child = Some(child.expect("etcd starts: it is of the Debian package 'etcd-server'"));
    }

    fn signal(&self, n: usize, signal: Signal) {
        let child = self.members[n].child.as_ref().expect("it runs");
        kill_process_group(Pid::from_child(child), signal).expect("it can be signalled");
    }

    /// Kills a member, as a power cut would.
    pub(super) fn kill(&mut self, n: usize) {
        self.signal(n, Signal::KILL);
        let _ = self.members[n].child.take().expect("it runs").wait();
    }

    /// Lets a member stand still.
    pub(super) fn pause(&self, n: usize) {
        self.signal(n, Signal::STOP);
    }

    /// Lets a member go on.
    pub(super) fn resume(&self, n: usize) {
        self.signal(n, Signal::CONT);
    }

    /// The member that leads.
    pub(super) async fn leader(&self) -> usize {
        loop {
            for n in 0..self.members.len() {
                let said = self.try_ctl_at(n, &["endpoint", "status", "-w", "json"]).unwrap_or_default();
                let said: serde_json::Value = serde_json::from_str(&said).unwrap_or_default();
                let status = &said[0]["Status"];
                if status["leader"].is_u64() && status["leader"] == status["header"]["member_id"] {
                    return n;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a majority answers.
    pub(super) async fn elected(&self) {
        for _ in 0..600 {
            if (0..self.members.len()).any(|n| self.try_ctl_at(n, &["get", "nothing"]).is_some()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("etcd does not start:\n{}", self.log(0));
    }

    fn log(&self, n: usize) -> String {
        std::fs::read_to_string(self.directory.path().join(format!("log{n}"))).unwrap_or_default()
    }

    /// Runs `etcdctl` with the first member that runs.
    pub(super) fn ctl(&self, args: &[&str]) -> String {
        let n = self.members.iter().position(|member| member.child.is_some()).unwrap_or(0);
        self.try_ctl_at(n, args).unwrap_or_else(|| panic!("etcdctl {args:?} fails"))
    }

    fn try_ctl_at(&self, n: usize, args: &[&str]) -> Option<String> {
        let endpoint = format!("http://{}", self.members[n].address);
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &endpoint, "--command-timeout=3s", "--dial-timeout=2s"]);
        let output = command.args(args).output().expect("etcdctl runs: it is of the Debian package 'etcd-client'");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The revision of the newest change.
    pub(super) fn revision(&self) -> i64 {
        let said: serde_json::Value = serde_json::from_str(&self.ctl(&["get", "nothing", "-w", "json"])).expect("JSON");
        said["header"]["revision"].as_i64().expect("a number")
    }

    /// Writes everything to a file.
    pub(super) fn save(&self) -> PathBuf {
        let file = self.directory.path().join("snapshot");
        self.ctl(&["snapshot", "save", file.to_str().expect("text")]);
        file
    }

    /// Sets the only member back to what is in a file.
    pub(super) fn set_back(&mut self, file: &std::path::Path) {
        self.kill(0);
        let (data, among) = (self.directory.path().join("restored"), self.members[0].among);
        let status = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["snapshot", "restore", file.to_str().expect("text"), "--name=m0"])
            .arg(format!("--data-dir={}", data.display()))
            .arg(format!("--initial-cluster=m0=http://{among}"))
            .arg(format!("--initial-advertise-peer-urls=http://{among}"))
            .arg(format!("--initial-cluster-token={}", self.directory.path().display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(status.expect("etcdctl runs").success(), "restored");
        self.members[0].data = data;
        self.run(0);
    }

    pub(super) fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| format!("http://{}", member.address)).collect()
    }

    /// A journal below this prefix.
    pub(super) fn journal(&self, prefix: &str) -> Etcd {
        journal(&self.endpoints(), prefix)
    }

    /// The same for a user.
    pub(super) fn journal_of(&self, prefix: &str, user: &str, password: &str) -> Etcd {
        let (username, password) = (user.to_owned(), password.to_owned().into());
        connect(&self.endpoints(), prefix, Some(Credentials { username, password }))
    }
}

/// A journal at these members.
pub(super) fn journal(endpoints: &[String], prefix: &str) -> Etcd {
    connect(endpoints, prefix, None)
}

fn connect(endpoints: &[String], prefix: &str, credentials: Option<Credentials>) -> Etcd {
    let endpoints = endpoints.iter().map(|url| serde_yaml::from_str(url).expect("an address")).collect();
    let (tls, attempt) = (ClientTls::default(), Duration::from_secs(1));
    let etcd = etcd::Config { endpoints, credentials, tls, setting: "tls.ca", attempt };
    let prefix = serde_yaml::from_str(prefix).expect("a prefix");
    Etcd::new(&Config { etcd, prefix, operations: 128 }).expect("no files")
}

impl Drop for Server {
    #[expect(clippy::print_stderr, reason = "it is shown with the failure of the test")]
    fn drop(&mut self) {
        for child in self.members.iter_mut().filter_map(|member| member.child.as_mut()) {
            let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- log of etcd\n{}", self.log(0));
        }
    }
}

/// An address on which nobody listens, below the ports that the system gives to clients.
fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(97);
    let mut ports = std::iter::repeat_with(|| 10_000 + begin.wrapping_add(NEXT.fetch_add(1, Relaxed)) % 20_000);
    let mut addresses = ports.by_ref().take(20_000).filter_map(|port| {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(port).ok()?));
        TcpListener::bind(address).is_ok().then_some(address)
    });
    addresses.next().expect("a free port")
}
