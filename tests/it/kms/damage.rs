//! A data file that is damaged under a running server, and what follows.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use claviger::client::kms::Commands;
use claviger::kms::Action;
use claviger::kms::wire::{ImportKeyRequest, StoredVersion};

use super::start::refusal;
use super::{ENCLAVE, HSM, client, create_enclave, create_key, root};
use crate::support::client::Request;
use crate::support::{Client, Protocol, TestServer, block_on};

/// How many keys there are. Each takes 400 KiB of the file, and together more than the server's store keeps in memory.
const KEYS: usize = 24;

/// A stored key.
const STORED: &str =
    "CiQKIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHEAESJAogBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcQARoGCIDiz6oG";

fn name(n: usize) -> String {
    format!("k-{n}")
}

/// Fills a data directory.
fn fill(data: &Path) {
    let server = TestServer::key_manager(data, HSM, &[]);
    block_on(async {
        let root = client(&server, &root());
        create_enclave(&root).await;
        let version = |number| StoredVersion { number, key: STORED.as_bytes().to_vec(), imported: false };
        for n in 0..KEYS {
            let import = ImportKeyRequest::whole(name(n), (1..=3_900).map(version).collect(), 0);
            root.change(ENCLAVE, Commands::one(Action::KeyImport, &import)).await.expect("imported");
        }
    });
    assert!(server.stop().success());
}

/// Overwrites everything behind the first page with what is no page of a store.
fn overwrite(data: &Path) {
    let file = fs::File::options().write(true).open(data.join("claviger.kms")).expect("the data file");
    let len = file.metadata().expect("its size").len();
    assert!(len > 8 << 20, "{len} bytes may all be in the server's memory");
    let junk = vec![0xff; usize::try_from(len - 4_096).expect("it fits into memory")];
    file.write_all_at(&junk, 4_096).expect("overwritten");
}

#[test]
fn a_server_whose_writer_dies_says_so_and_ends() {
    let data = tempfile::tempdir().expect("a directory");
    fill(data.path());
    let mut server = TestServer::key_manager(data.path(), HSM, &[]);
    overwrite(data.path());
    block_on(async {
        let root = client(&server, &root());
        let mut session = Client::new(server.address(), None, Protocol::H2).session().await.expect("a connection");
        let mut refused = None;
        for n in 0..KEYS {
            if let Err(error) = create_key(&root, &name(n), true).await {
                refused = Some(error);
                break;
            }
        }
        let refused = refused.expect("the store notices");
        assert_eq!(refused.status().map(|status| status.as_u16()), Some(503), "{refused}");
        // It may have ended already.
        if let Ok(ready) = session.send(Request::new("GET", "/v1/health/ready?write")).await {
            assert_eq!(ready.status, 503);
        }
    });
    let status = server.wait_for_exit(Duration::from_secs(20)).expect("the process ends by itself");
    assert_eq!(status.code(), Some(1), "the service manager is to start it again");
    let said = server.stderr();
    assert!(said.contains("the program panicked"), "{said}");
    assert!(said.contains("Error: the thread that writes has ended by a defect"), "{said}");
    let said = refusal(data.path(), Some(HSM), &[]);
    assert!(said.contains("backup"), "{said}");
}
