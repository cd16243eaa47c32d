//! The real etcd: members that elect a leader, behind mutual TLS.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::{Value, json};

use super::openbao::unique;
use super::peer::{Peer, free_address, program};
use super::{certs, eventually};

/// The one that tests share while any of them runs. It knows no users.
static SHARED: Mutex<Weak<Etcd>> = Mutex::new(Weak::new());

/// The password of root, where there are users.
const ROOT: &str = "root-password";

/// A cluster. Stopped when dropped.
pub struct Etcd {
    directory: tempfile::TempDir,
    members: Vec<Member>,
    more: Vec<String>,
    has_users: bool,
}

struct Member {
    address: SocketAddr,
    /// Where the others reach it.
    among: SocketAddr,
    /// None: it is stopped.
    peer: Option<Peer>,
}

impl Etcd {
    /// The cluster of three that tests share, each with prefixes of its own.
    pub fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = shared.upgrade() {
            return running;
        }
        let started = Arc::new(Self::start(3, &[]));
        *shared = Arc::downgrade(&started);
        started
    }

    /// So many members for one test alone, started with `more` arguments.
    pub fn start(members: usize, more: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let member = |_| Member { address: free_address(), among: free_address(), peer: None };
        let members = (0..members).map(member).collect();
        let more = more.iter().map(|arg| (*arg).to_owned()).collect();
        let mut cluster = Self { directory, members, more, has_users: false };
        for index in 0..cluster.members.len() {
            cluster.run(index);
        }
        cluster.elected();
        cluster
    }

    /// Starts a member. It goes on with what it has.
    pub fn run(&mut self, index: usize) {
        let Member { address, among, .. } = self.members[index];
        let all = self.members.iter().enumerate().map(|(n, member)| format!("m{n}=http://{}", member.among));
        let mut args = vec![
            format!("--name=m{index}"),
            format!("--data-dir={}", self.directory.path().join(format!("data{index}")).display()),
            format!("--listen-client-urls=https://{address}"),
            format!("--advertise-client-urls=https://{address}"),
            format!("--listen-peer-urls=http://{among}"),
            format!("--initial-advertise-peer-urls=http://{among}"),
            format!("--initial-cluster={}", all.collect::<Vec<_>>().join(",")),
            // Else two clusters at the same addresses would have the same id.
            format!("--initial-cluster-token={}", self.directory.path().display()),
            format!("--cert-file={}", certs("server.crt").display()),
            format!("--key-file={}", certs("server.key").display()),
            format!("--trusted-ca-file={}", certs("ca.crt").display()),
            "--client-cert-auth".into(),
            "--enable-grpc-gateway=false".into(),
        ];
        args.extend(self.more.iter().cloned());
        let peer = Peer::start_at(&program("etcd", "etcd-server"), address, |_, _| args);
        self.members[index].peer = Some(peer);
    }

    /// Kills a member, as a power cut would.
    pub fn kill(&mut self, index: usize) {
        if let Some(peer) = self.members[index].peer.take() {
            peer.kill();
        }
    }

    pub fn address(&self, index: usize) -> SocketAddr {
        self.members[index].address
    }

    /// Where all members answer.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| format!("https://{}", member.address)).collect()
    }

    /// The section of a config file whose keys are below this prefix.
    pub fn section(&self, prefix: &str) -> Value {
        json!({ "endpoints": self.endpoints(), "prefix": prefix, "tls": tls("app") })
    }

    /// The same for a user.
    pub fn section_of(&self, user: &str, password: &str, prefix: &str) -> Value {
        let mut section = self.section(prefix);
        section["credentials"] = json!({ "username": user, "password": password });
        section
    }

    /// Waits until there is a leader whom those that run follow.
    pub fn elected(&self) {
        eventually("a leader is elected", || self.try_ctl(&["get", "nothing"]).is_some());
    }

    /// The member that leads.
    pub fn leader(&self) -> usize {
        let mut found = None;
        eventually("one of the members leads", || {
            found = (0..self.members.len()).filter(|index| self.members[*index].peer.is_some()).find(|index| {
                let endpoint = format!("https://{}", self.members[*index].address);
                let Some(said) = self.try_ctl_at(&endpoint, &["endpoint", "status", "-w", "json"]) else {
                    return false;
                };
                let status: Value = serde_json::from_str(&said).expect("JSON");
                let status = &status[0]["Status"];
                status["leader"] == status["header"]["member_id"]
            });
            found.is_some()
        });
        found.expect("there is one")
    }

    /// From now on there are users, of whom root is one.
    pub fn enable_users(&mut self) {
        self.ctl(&["user", "add", &format!("root:{ROOT}")]);
        self.ctl(&["user", "grant-role", "root", "root"]);
        self.ctl(&["auth", "enable"]);
        self.has_users = true;
    }

    /// Makes a user with this kind of right to this prefix; none: without any.
    pub fn user(&self, user: &str, password: &str, right: Option<(&str, &str)>) {
        self.ctl(&["user", "add", &format!("{user}:{password}")]);
        if let Some((kind, prefix)) = right {
            let role = unique("role");
            self.ctl(&["role", "add", &role]);
            self.ctl(&["role", "grant-permission", &role, "--prefix=true", kind, prefix]);
            self.ctl(&["user", "grant-role", user, &role]);
        }
    }

    /// Runs `etcdctl`, which must succeed.
    pub fn ctl(&self, args: &[&str]) -> String {
        self.try_ctl(args).unwrap_or_else(|| panic!("etcdctl {args:?} fails"))
    }

    fn try_ctl(&self, args: &[&str]) -> Option<String> {
        self.try_ctl_at(&self.endpoints().join(","), args)
    }

    fn try_ctl_at(&self, endpoints: &str, args: &[&str]) -> Option<String> {
        let mut command = Command::new(program("etcdctl", "etcd-client"));
        command.env("ETCDCTL_API", "3").args(["--endpoints", endpoints, "--command-timeout=3s", "--dial-timeout=2s"]);
        command.arg("--cacert").arg(certs("ca.crt"));
        command.arg("--cert").arg(certs("admin.crt")).arg("--key").arg(certs("admin.key"));
        if self.has_users {
            command.arg(format!("--user=root:{ROOT}"));
        }
        let output = command.args(args).output().expect("etcdctl runs");
        output.status.success().then(|| String::from_utf8(output.stdout).expect("text"))
    }
}

/// The section `tls` of a client with one of the certificates of `certs/`.
pub fn tls(client: &str) -> Value {
    json!({ "ca": certs("ca.crt"), "cert": certs(format!("{client}.crt")), "key": certs(format!("{client}.key")) })
}
