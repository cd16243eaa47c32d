//! The real PostgreSQL: a primary and a standby that streams from it, with TLS, passwords and client certificates.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::openbao::unique;
use super::peer::{Peer, free_address};
use super::{certs, eventually};

/// The pair that tests share while any of them runs. Its standby is asynchronous.
static SHARED: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());

/// The user that runs the servers, which refuse to run as root.
const USER: &str = "postgres";

/// The password of all roles.
pub const PASSWORD: &str = "password";

/// A primary (0) and its standby (1). Stopped when dropped.
pub struct Postgres {
    directory: tempfile::TempDir,
    servers: [Server; 2],
}

struct Server {
    address: SocketAddr,
    /// None: it is stopped.
    peer: Option<Peer>,
}

impl Postgres {
    /// The pair that tests share, each with a table of its own.
    pub fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = shared.upgrade() {
            return running;
        }
        let started = Arc::new(Self::start());
        *shared = Arc::downgrade(&started);
        started
    }

    /// A pair for one test alone.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let server = || Server { address: free_address(), peer: None };
        let mut pair = Self { directory, servers: [server(), server()] };
        pair.prepare();
        pair.run(0);
        pair.psql(0, "postgres", "CREATE DATABASE keys");
        pair.psql(0, "keys", &format!("CREATE ROLE claviger LOGIN PASSWORD '{PASSWORD}'; CREATE ROLE certified LOGIN"));
        pair.copy(0, 1);
        pair.run(1);
        pair
    }

    fn prepare(&self) {
        let path = self.directory.path();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("ours");
        for file in ["server.crt", "server.key", "ca.crt"] {
            std::fs::copy(certs(file), path.join(file)).expect("copied");
        }
        let key = path.join("server.key");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("ours");
        std::fs::create_dir(path.join("sockets")).expect("a directory");
        std::fs::create_dir(path.join("data")).expect("a directory");
        if rustix::process::getuid().is_root() {
            run(Command::new("chown").arg(USER).arg(&key).arg(path.join("sockets")).arg(path.join("data")));
        }
        let mut initdb = self.tool("initdb");
        initdb.arg("-D").arg(self.data(0)).args([
            "-U",
            USER,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ]);
        run(&mut initdb);
        let shown = path.display();
        let settings = format!(
            "ssl = on\nssl_cert_file = '{shown}/server.crt'\nssl_key_file = '{shown}/server.key'\nssl_ca_file = \
             '{shown}/ca.crt'\nmax_connections = 100\nshared_buffers = 16MB\nmax_wal_size = 128MB\n\
             password_encryption = 'scram-sha-256'\nwal_log_hints = on\n"
        );
        append(&self.data(0).join("postgresql.conf"), &settings);
        let access = "local all all trust\nlocal replication all trust\n\
                      hostssl all certified 127.0.0.1/32 cert map=certificates\n\
                      hostssl all all 127.0.0.1/32 scram-sha-256\n";
        std::fs::write(self.data(0).join("pg_hba.conf"), access).expect("written");
        append(&self.data(0).join("pg_ident.conf"), "certificates \"claviger development app\" certified\n");
    }

    fn data(&self, index: usize) -> PathBuf {
        self.directory.path().join(format!("data/{index}"))
    }

    fn sockets(&self) -> PathBuf {
        self.directory.path().join("sockets")
    }

    /// A tool of the servers, run as their user.
    fn tool(&self, name: &str) -> Command {
        let (program, args) = as_user(&server_program(name));
        let mut command = Command::new(program);
        command.args(args).current_dir(self.directory.path());
        command
    }

    /// Starts a server. It goes on with what it has.
    pub fn run(&mut self, index: usize) {
        let address = self.servers[index].address;
        // One that was killed has left them.
        let lock = format!(".s.PGSQL.{}.lock", address.port());
        for left in [self.data(index).join("postmaster.pid"), self.sockets().join(lock)] {
            let _ = std::fs::remove_file(left);
        }
        let (program, mut args) = as_user(&server_program("postgres"));
        let text = |path: PathBuf| path.display().to_string();
        args.extend(["-D".into(), text(self.data(index)), "-p".into(), address.port().to_string()]);
        args.extend(["-h".into(), "127.0.0.1".into(), "-k".into(), text(self.sockets())]);
        let peer = Peer::start_at(&program, address, |directory, _| {
            // It looks at the directory that it is started in.
            std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).expect("ours");
            args
        });
        let peer = peer.stopped_by(Signal::INT);
        self.servers[index].peer = Some(peer);
        eventually("PostgreSQL is ready", || self.try_psql(index, "postgres", "SELECT 1").is_some());
    }

    /// Makes one server a standby of another, with a copy of its data.
    pub fn copy(&mut self, from: usize, to: usize) {
        self.servers[to].peer = None;
        if rustix::process::getuid().is_root() || self.data(to).exists() {
            run(Command::new("rm").arg("-rf").arg(self.data(to)));
        }
        let mut backup = self.tool("pg_basebackup");
        backup.arg("-h").arg(self.sockets()).arg("-p").arg(self.servers[from].address.port().to_string());
        backup.args(["-U", USER, "-R", "-X", "stream", "-c", "fast", "--no-sync", "-D"]).arg(self.data(to));
        run(&mut backup);
    }

    /// Kills a server, as a power cut would.
    pub fn kill(&mut self, index: usize) {
        if let Some(peer) = self.servers[index].peer.take() {
            peer.kill();
        }
        let port = self.servers[index].address.port();
        eventually("nobody listens there any more", || std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    }

    /// Makes the standby a primary.
    pub fn promote(&self) {
        self.psql(1, "postgres", "SELECT pg_promote()");
    }

    /// From now on the primary waits for the standby at each commit, or not.
    pub fn set_synchronous(&self, index: usize, names: &str) {
        self.psql(index, "postgres", &format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'"));
        self.psql(index, "postgres", "SELECT pg_reload_conf()");
    }

    pub fn address(&self, index: usize) -> SocketAddr {
        self.servers[index].address
    }

    /// A new table for keys, to which the role `claviger` has these rights.
    pub fn table(&self, rights: &str) -> String {
        let table = unique("keys").replace('-', "_");
        self.psql(
            0,
            "keys",
            &format!(
                "CREATE TABLE {table} (name text COLLATE \"C\" PRIMARY KEY, value bytea NOT NULL, created timestamptz \
                 NOT NULL DEFAULT now())"
            ),
        );
        if !rights.is_empty() {
            self.psql(0, "keys", &format!("GRANT {rights} ON {table} TO claviger, certified"));
        }
        table
    }

    /// The section of a config file whose keys are in this table.
    pub fn section(&self, table: &str) -> Value {
        let hosts: Vec<_> = self.servers.iter().map(|server| server.address.to_string()).collect();
        json!({
            "hosts": hosts, "database": "keys", "user": "claviger", "password": PASSWORD, "table": table,
            "tls": { "ca": certs("ca.crt") },
        })
    }

    /// The section of a config file that reaches one server by its Unix socket.
    pub fn section_by_socket(&self, index: usize, table: &str) -> Value {
        let socket = format!("{}:{}", self.sockets().display(), self.servers[index].address.port());
        json!({ "hosts": [socket], "database": "keys", "user": "claviger", "table": table })
    }

    /// Runs a statement of a superuser, which must succeed.
    pub fn psql(&self, index: usize, database: &str, statement: &str) -> String {
        self.try_psql(index, database, statement).unwrap_or_else(|| panic!("psql fails: {statement}"))
    }

    fn try_psql(&self, index: usize, database: &str, statement: &str) -> Option<String> {
        let mut command = Command::new(super::peer::program("psql", "postgresql-client"));
        command.arg("-h").arg(self.sockets()).arg("-p").arg(self.servers[index].address.port().to_string());
        command.args(["-U", USER, "-d", database, "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-c", statement]);
        let output = command.output().expect("psql runs");
        output.status.success().then(|| String::from_utf8(output.stdout).expect("text").trim_end().to_owned())
    }
}

/// PgBouncer in front of one server of a pair, with TLS and passwords. Stopped when dropped.
pub struct Pooler {
    peer: Peer,
    config: PathBuf,
    sockets: PathBuf,
    settings: String,
}

impl Pooler {
    /// One that gives its clients one of so many connections for a `transaction` or a `session`.
    pub fn start(postgres: &Postgres, mode: &str, connections: usize) -> Self {
        let (address, directory) = (free_address(), postgres.directory.path());
        let (shown, config) = (directory.display(), directory.join(format!("pooler-{}.ini", address.port())));
        let users = directory.join("pooler-users");
        std::fs::write(&users, format!("\"claviger\" \"{PASSWORD}\"\n")).expect("written");
        let settings = format!(
            "[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\nunix_socket_dir = {shown}/sockets\n\
             auth_type = scram-sha-256\nauth_file = {}\npool_mode = {mode}\ndefault_pool_size = {connections}\n\
             client_tls_sslmode = require\nclient_tls_cert_file = {shown}/server.crt\n\
             client_tls_key_file = {shown}/server.key\nserver_login_retry = 0\n",
            address.port(),
            users.display(),
        );
        let sockets = postgres.sockets();
        write_pooler(&config, &sockets, postgres.address(0), &settings);
        let (program, mut args) = as_user(&super::peer::program("pgbouncer", "pgbouncer"));
        args.push(config.display().to_string());
        let peer = Peer::start_at(&program, address, |directory, _| {
            std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).expect("ours");
            args
        });
        Self { peer, config, sockets, settings }
    }

    /// From now on its clients are led to another server of the pair; their own connections stay.
    pub fn lead_to(&self, postgres: &Postgres, index: usize) {
        write_pooler(&self.config, &self.sockets, postgres.address(index), &self.settings);
        self.peer.signal(Signal::HUP);
    }

    /// The section of a config file that reaches it over the network.
    pub fn section(&self, postgres: &Postgres, table: &str) -> Value {
        let mut section = postgres.section(table);
        section["hosts"] = json!([self.peer.address().to_string()]);
        section
    }

    /// The same by its Unix socket.
    pub fn section_by_socket(&self, table: &str) -> Value {
        let socket = format!("{}:{}", self.sockets.display(), self.peer.address().port());
        json!({ "hosts": [socket], "database": "keys", "user": "claviger", "password": PASSWORD, "table": table })
    }
}

fn write_pooler(config: &Path, sockets: &Path, server: SocketAddr, settings: &str) {
    let (sockets, port) = (sockets.display(), server.port());
    std::fs::write(config, format!("[databases]\nkeys = host={sockets} port={port}\n{settings}")).expect("written");
}

/// The newest installed server's program of this name. Debian keeps them out of the way of users.
fn server_program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<_> =
        versions.map(|version| version.path().join("bin").join(name)).filter(|path| path.is_file()).collect();
    found.sort();
    found.pop().unwrap_or_else(|| panic!("this test needs '{name}' of the Debian package 'postgresql': run tests/run"))
}

/// A program and its first arguments, so that it runs as the servers' user.
fn as_user(program: &Path) -> (PathBuf, Vec<String>) {
    if !rustix::process::getuid().is_root() {
        return (program.into(), Vec::new());
    }
    let setpriv = super::peer::program("setpriv", "util-linux");
    let args = [format!("--reuid={USER}"), format!("--regid={USER}"), "--clear-groups".into()];
    (setpriv, args.into_iter().chain([program.display().to_string()]).collect())
}

fn append(file: &Path, text: &str) {
    let before = std::fs::read_to_string(file).expect("readable");
    std::fs::write(file, format!("{before}\n{text}")).expect("written");
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
