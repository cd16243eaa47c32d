//! What the tests share: the real program as a child process, and clients that say exactly what they
//! are told to.

pub mod certificates;
pub mod client;
pub mod clouds;
pub mod console;
pub mod curl;
pub mod delay;
pub mod differences;
pub mod door;
pub mod dynamodb;
pub mod etcd;
pub mod frames;
pub mod gate;
pub mod lines;
pub mod metadata;
pub mod moto;
pub mod openbao;
pub mod peer;
pub mod postgres;
pub mod program;
pub mod pty;
pub mod server;
pub mod softhsm;
pub mod terminal;
pub mod wire;

use std::path::{Path, PathBuf};

pub use client::{Client, Identity, Protocol, Response, Session};
pub use server::TestServer;

/// A file of `testdata/`.
pub fn testdata(path: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(path)
}

/// A file of `certs/`.
pub fn certs(path: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("certs").join(path)
}

/// Runs a test's requests.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// Asks `ready` until it says yes; panics with `what` after a minute.
pub fn eventually(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !ready() {
        assert!(std::time::Instant::now() < deadline, "{what}: not within a minute");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
