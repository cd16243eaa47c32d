//! Key stores under a running server, on real file systems.

mod aws;
pub mod clouds;
mod crash;
mod doctor;
mod dynamodb;
mod etcd;
mod order;
mod pkcs11;
pub mod places;
mod postgres;
mod proxies;
mod race;
mod seal;
mod trouble;
mod vault;

use std::path::Path;
use std::process::Command;

use crate::support::client::Request;
use crate::support::server::dev_config;
use crate::support::{Client, Identity, Protocol, Session, TestServer};

/// A config whose keys are in this directory.
fn config(keys: &Path) -> String {
    dev_config("").replace("path: keys", &format!("path: {}", keys.display()))
}

/// A server whose keys are in this directory.
fn serve(keys: &Path) -> TestServer {
    TestServer::start_in(tempfile::tempdir().expect("a temporary directory"), &config(keys))
}

fn admin(server: &TestServer) -> Client {
    Client::new(server.address(), Some(Identity::dev("admin")), Protocol::H2)
}

/// Sends a request without body; returns the status and the message, which is empty for a success.
async fn ask(session: &Session, method: &str, target: &str) -> (u16, String) {
    let response = session.another().send(Request::new(method, target)).await.expect("an answer");
    (response.status, if response.status == 200 { String::new() } else { response.message() })
}

/// Whether an event with all these texts is in the server's log, sooner or later.
fn wait_for_log(server: &TestServer, texts: &[&str]) {
    crate::support::eventually(&format!("a line with {texts:?} in the log"), || {
        server.stderr().lines().any(|line| texts.iter().all(|text| line.contains(text)))
    });
}

/// Runs a command that has to succeed.
fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A file system in memory, mounted for a test. The tests run as root for that.
struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    fn new(place: &'a Path, options: &str) -> Self {
        run("mount", &["-t", "tmpfs", "-o", options, "claviger-test", path(place)]);
        Self(place)
    }

    fn remount(&self, options: &str) {
        run("mount", &["-o", &format!("remount,{options}"), path(self.0)]);
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        // Not the test's matter, and nothing more can be done.
        let _ = Command::new("umount").args(["--lazy", path(self.0)]).output();
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
