//! The order of system calls, as strace sees it: nobody is told before it is on disk.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use claviger::keystore::{KeyStore as _, fs as directory};
use claviger::name::KeyName;
use tempfile::TempDir;

use super::{config, path, wait_for_log};
use crate::support::client::Request;
use crate::support::peer::program;
use crate::support::server::PROGRAM;
use crate::support::{Client, Identity, Protocol, TestServer, block_on};

/// Tells the test below in which directory it is the one that is watched.
const REPLACE_IN: &str = "CLAVIGER_TEST_REPLACE_IN";

/// What the watched process says once a replace has returned.
const REPLACED: &str = "the replace has returned";

/// strace, as the parent's child, so that the program itself is ours to stop.
fn strace(trace: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(program("strace", "strace"));
    command.args(["-D", "-f", "-yy", "-s", "256", "-o", path(trace)]).args(more);
    command
}

/// One system call: when it began and ended, in lines of the trace, and how strace writes it.
#[derive(Debug, Clone)]
struct Call {
    began: usize,
    ended: usize,
    text: String,
}

impl Call {
    fn succeeded(&self) -> bool {
        !self.text.contains("= -1 ")
    }
}

/// The system calls of a trace, in the order in which they began.
struct Trace(Vec<Call>);

impl Trace {
    fn parse(text: &str) -> Self {
        let mut calls: Vec<Call> = Vec::new();
        let mut unfinished = std::collections::HashMap::new();
        for (line, text) in text.lines().enumerate() {
            let (thread, text) = text.split_once(' ').expect("a thread's number");
            let text = text.trim_start();
            if let Some(begin) = text.strip_suffix(" <unfinished ...>") {
                unfinished.insert(thread, calls.len());
                calls.push(Call { began: line, ended: usize::MAX, text: begin.to_owned() });
            } else if text.starts_with("<... ") {
                let call = &mut calls[unfinished.remove(thread).expect("it began")];
                call.ended = line;
                call.text.push_str(text.split_once("resumed>").expect("strace's words").1);
            } else {
                calls.push(Call { began: line, ended: line, text: text.to_owned() });
            }
        }
        Self(calls)
    }

    /// The first call that began after `line`, did not fail, and has all these texts.
    fn after(&self, line: usize, texts: &[&str]) -> &Call {
        let found = self
            .0
            .iter()
            .find(|call| call.began >= line && call.succeeded() && texts.iter().all(|text| call.text.contains(text)));
        found.unwrap_or_else(|| panic!("no call with {texts:?} after line {line} of {:#?}", self.0))
    }

    /// Follows the calls of a write that ends with `named` up to the sync of the directory; each must
    /// begin when the one before it has ended. Returns the first and the last.
    fn write(&self, keys: &Path, named: &[&str]) -> (usize, usize) {
        let temporary = format!("{}/.claviger-", path(keys));
        let made = self.after(0, &["openat(", ".claviger-", "O_CREAT|O_EXCL"]);
        let written = self.after(made.ended + 1, &["write(", &temporary]);
        let synced = self.after(written.ended + 1, &["fsync(", &temporary]);
        let named = self.after(synced.ended + 1, named);
        let end = self.after(named.ended + 1, &["fsync(", &format!("<{}>", path(keys))]);
        let names = |call: &&Call| call.succeeded() && (call.text.contains("rename") || call.text.contains("linkat"));
        let early: Vec<_> = self
            .0
            .iter()
            .filter(|call| call.began < named.began && !call.text.contains("unlink"))
            .filter(names)
            .collect();
        assert!(early.is_empty(), "named before it is synced: {early:#?}");
        (made.began, end.ended)
    }

    /// No call with `reply` in it began between these lines, and one did after them.
    fn assert_replied_after(&self, begin: usize, end: usize, reply: &[&str]) {
        let is_reply = |call: &&Call| reply.iter().all(|text| call.text.contains(text));
        let early: Vec<_> =
            self.0.iter().filter(is_reply).filter(|call| call.began > begin && call.began < end).collect();
        assert!(early.is_empty(), "told before it was on disk: {early:#?}");
        self.after(end + 1, reply);
    }
}

/// A server under strace, its keys, and where the trace is.
struct Traced {
    server: TestServer,
    keys: TempDir,
    trace: TempDir,
}

impl Traced {
    fn start(more: &[&str]) -> Self {
        let (keys, trace) = (tempdir(), tempdir());
        let mut command = strace(&trace.path().join("trace"), more);
        command.arg(PROGRAM);
        let server = TestServer::start_under(command, tempdir(), &config(keys.path()));
        Self { server, keys, trace }
    }

    /// A request over HTTP/1.1, where the server writes nothing but its answer.
    fn ask(&self, method: &str, target: &str) -> (u16, String) {
        let client = Client::new(self.server.address(), Some(Identity::dev("admin")), Protocol::H1);
        let response = block_on(client.send(Request::new(method, target))).expect("an answer");
        (response.status, if response.status == 200 { String::new() } else { response.message() })
    }

    fn stop(self) -> (Trace, TempDir) {
        self.server.stop();
        (read(self.trace.path()), self.keys)
    }
}

fn tempdir() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// The trace, once strace has written all of it.
fn read(trace: &Path) -> Trace {
    let file = trace.join("trace");
    crate::support::eventually("strace ends", || {
        fs::read_to_string(&file).is_ok_and(|text| text.trim_end().ends_with("+++"))
    });
    Trace::parse(&fs::read_to_string(file).expect("readable"))
}

const CALLS: &str = "trace=openat,open,write,writev,sendto,sendmsg,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat";

#[test]
#[ignore = "runs strace: tests/run"]
fn a_create_is_answered_when_it_is_on_disk() {
    let traced = Traced::start(&["-e", CALLS]);
    assert_eq!(traced.ask("PUT", "/v1/key/create/my-key"), (200, String::new()));
    let (trace, keys) = traced.stop();
    let (begin, end) = trace.write(keys.path(), &["renameat2(", "\"my-key\", RENAME_NOREPLACE"]);
    trace.assert_replied_after(begin, end, &["<TCP:["]);
}

#[test]
#[ignore = "runs strace: tests/run"]
fn a_delete_is_answered_when_it_is_on_disk() {
    let traced = Traced::start(&["-e", CALLS]);
    fs::write(traced.keys.path().join("my-key"), "value").expect("written");
    assert_eq!(traced.ask("DELETE", "/v1/key/delete/my-key"), (200, String::new()));
    let (trace, keys) = traced.stop();
    let deleted = trace.after(0, &["unlinkat(", "\"my-key\""]);
    let synced = trace.after(deleted.ended + 1, &["fsync(", &format!("<{}>", path(keys.path()))]);
    trace.assert_replied_after(deleted.began, synced.ended, &["<TCP:["]);
}

#[test]
#[ignore = "runs strace: tests/run"]
fn a_replace_returns_when_it_is_on_disk() {
    if let Some(keys) = env::var_os(REPLACE_IN) {
        return replace_once(Path::new(&keys));
    }
    let (keys, trace) = (tempdir(), tempdir());
    let mut command = strace(&trace.path().join("trace"), &["-e", CALLS]);
    command.arg(env::current_exe().expect("this program"));
    command.args([
        "--exact",
        "--include-ignored",
        "--nocapture",
        "keystore::order::a_replace_returns_when_it_is_on_disk",
    ]);
    let output = command.env(REPLACE_IN, keys.path()).output().expect("strace runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read(keys.path().join("my-key")).expect("readable"), b"new");

    let trace = read(trace.path());
    // After the creation of the key that is replaced.
    let created = trace.after(0, &["renameat2(", "\"my-key\", RENAME_NOREPLACE"]).ended;
    let trace = Trace(trace.0.into_iter().filter(|call| call.began > created).collect());
    let synced = trace.after(0, &["fsync(", &format!("<{}>", path(keys.path()))]).ended;
    let trace = Trace(trace.0.into_iter().filter(|call| call.began > synced).collect());
    let (begin, end) = trace.write(keys.path(), &["renameat", "\"my-key\""]);
    trace.assert_replied_after(begin, end, &["write(1", REPLACED]);
    assert!(!trace.0.iter().any(|call| call.text.contains("unlink") && call.text.contains("my-key")));
}

fn replace_once(keys: &Path) {
    block_on(async {
        let config = directory::Config { path: keys.into() };
        let store = directory::Store::open(&config).await.expect("opens");
        let name = KeyName::parse("my-key").expect("valid");
        let (old, new) = (b"old".to_vec().into(), b"new".to_vec().into());
        store.create(&name, &old).await.expect("created");
        store.replace(&name, &old, &new).await.expect("replaced");
    });
    writeln!(std::io::stdout(), "{REPLACED}").expect("written");
}

#[test]
#[ignore = "runs strace: tests/run"]
fn a_file_system_without_exclusive_renames_gets_links() {
    let traced = Traced::start(&["-e", CALLS, "-e", "inject=renameat2:error=EINVAL"]);
    assert_eq!(traced.ask("PUT", "/v1/key/create/my-key"), (200, String::new()));
    assert_eq!(traced.ask("PUT", "/v1/key/create/my-key"), (400, "key already exists".into()));
    assert_eq!(traced.ask("GET", "/v1/key/describe/my-key"), (200, String::new()));
    let (trace, keys) = traced.stop();
    let (begin, end) = trace.write(keys.path(), &["linkat(", "\"my-key\", 0"]);
    trace.assert_replied_after(begin, end, &["<TCP:["]);
    assert_eq!(fs::read_dir(keys.path()).expect("readable").count(), 1, "the temporary name is gone");
}

#[test]
#[ignore = "runs strace: tests/run"]
fn a_failed_sync_of_the_file_creates_nothing() {
    let traced = Traced::start(&["-e", CALLS, "-e", "inject=fsync:error=EIO:when=1"]);
    assert_eq!(traced.ask("PUT", "/v1/key/create/my-key"), (502, "failed to create key".into()));
    wait_for_log(&traced.server, &["cannot write", "the storage has failed; see the kernel's log", "os error 5"]);
    assert_eq!(fs::read_dir(traced.keys.path()).expect("readable").count(), 0);
}

#[test]
#[ignore = "runs strace: tests/run"]
fn a_failed_sync_of_the_directory_is_no_success() {
    let traced = Traced::start(&["-e", CALLS, "-e", "inject=fsync:error=EIO:when=2"]);
    assert_eq!(traced.ask("PUT", "/v1/key/create/my-key"), (502, "failed to create key".into()));
    wait_for_log(&traced.server, &["may not survive a power cut", "the storage has failed"]);
    // Somebody may have used it already, so it stays.
    assert_eq!(traced.ask("GET", "/v1/key/describe/my-key"), (200, String::new()));
}

#[test]
#[ignore = "runs strace: tests/run"]
fn what_may_pass_is_tried_again_inside_the_request() {
    let traced = Traced::start(&["-e", "trace=flock", "-e", "inject=flock:error=ESTALE:when=1"]);
    assert_eq!(traced.ask("PUT", "/v1/key/create/my-key"), (200, String::new()));
    let (trace, _) = traced.stop();
    assert!(trace.0.iter().any(|call| call.text.contains("= -1 ESTALE")), "{:#?}", trace.0);
}
