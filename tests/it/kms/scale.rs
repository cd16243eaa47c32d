//! Very many keys in one enclave.
//!
//! `KEYS` in the environment is their number; `benches/yardstick/measure.py kms_scale` measures with a million.

use std::time::Instant;

use claviger::client::Client;
use claviger::client::kms::Commands;
use claviger::kms::Action;
use claviger::kms::wire::{CreateKeyRequest, ListKeysResponse, ListRequest};

use super::{ENCLAVE, HSM, client, create_enclave, keys, root};
use crate::support::{TestServer, block_on};

/// How many keys a request creates.
const TOGETHER: usize = 1_000;

#[test]
fn very_many_keys_are_there_again_and_listed_once_and_in_order() {
    let count = std::env::var("KEYS").map_or(5_000, |keys| keys.parse().expect("KEYS is a number"));
    let data = tempfile::tempdir().expect("a temporary directory");
    let server = TestServer::key_manager(data.path(), HSM, &[]);
    let started = Instant::now();
    block_on(fill(&client(&server, &root()), count));
    eprintln!("{count} keys made in {:.1?}", started.elapsed());
    assert!(server.stop().success());

    let started = Instant::now();
    let server = TestServer::key_manager(data.path(), HSM, &[]);
    eprintln!("started with them in {:.1?}", started.elapsed());
    block_on(async {
        let client = client(&server, &root());
        let found = keys(&client).await;
        assert!(found.is_sorted_by(|one, other| one.0 < other.0), "once and in order");
        assert_eq!(found.len(), count);
        let middle = &found[count / 2].0;
        let request = ListRequest { continue_at: middle.clone(), limit: 10, ..ListRequest::default() };
        let started = Instant::now();
        let page: ListKeysResponse = client.ask(ENCLAVE, Action::KeyList, &request).await.expect("listed");
        eprintln!("a page from the middle in {:.1?}", started.elapsed());
        let names: Vec<_> = page.keys.iter().map(|key| &key.name).collect();
        let expected: Vec<_> = found[count / 2..].iter().take(10).map(|(name, _)| name).collect();
        assert_eq!(names, expected);
    });
}

async fn fill(client: &Client, count: usize) {
    create_enclave(client).await;
    for first in (0..count).step_by(TOGETHER) {
        let request = |n| CreateKeyRequest { name: format!("key-{n}"), ..CreateKeyRequest::default() };
        let all = first..(first + TOGETHER).min(count);
        let commands = all.fold(Commands::default(), |all, n| all.and(Action::KeyCreate, &request(n)));
        client.change(ENCLAVE, commands).await.expect("created");
    }
}
