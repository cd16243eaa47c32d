//! The key manager is killed at random moments while clients write.
//!
//! `KILLS` in the environment is the number of kills.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use claviger::client::kms::Commands;
use claviger::kms::Action;
use claviger::kms::wire::DeleteKeyRequest;
use tokio::time::sleep;

use super::{ENCLAVE, HSM, client, create_enclave, create_key, keys, root};
use crate::support::{TestServer, block_on};

/// How many clients work at once.
const CLIENTS: usize = 8;

/// The server lives at most this long after its first request, in milliseconds.
const LONGEST_LIFE: u64 = 60;

/// What a client was told of a key: its latest version, or that it is gone.
type Known = BTreeMap<String, Option<u32>>;

#[test]
#[ignore = "takes half a minute: tests/run"]
fn what_was_acknowledged_survives_any_kill() {
    survive(false);
}

#[test]
#[ignore = "takes half a minute: tests/run"]
fn what_was_acknowledged_survives_any_kill_also_while_everything_is_written_again() {
    survive(true);
}

fn survive(rotates: bool) {
    let kills = std::env::var("KILLS").map_or(50, |kills| kills.parse().expect("KILLS is a number"));
    let data = tempfile::tempdir().expect("a temporary directory");
    let mut server = TestServer::key_manager(data.path(), HSM, &[]);
    block_on(create_enclave(&client(&server, &root())));
    let mut known = Known::new();
    let mut acknowledged = 0;
    for round in 0..kills {
        let (told, unsure) = block_on(work_until_killed(server, round, rotates));
        acknowledged += told.len();
        known.extend(told);
        server = TestServer::key_manager(data.path(), HSM, &[]);
        let found: BTreeMap<_, _> = block_on(keys(&client(&server, &root()))).into_iter().collect();
        for (name, version) in &known {
            // What was asked for last and not answered may have happened or not.
            if unsure.contains(name) {
                continue;
            }
            assert_eq!(found.get(name), version.as_ref(), "round {round}: '{name}'");
        }
        for name in &unsure {
            known.insert(name.clone(), found.get(name).copied());
        }
        let strange: Vec<_> = found.keys().filter(|name| !known.contains_key(*name)).collect();
        assert!(strange.is_empty(), "round {round}: nobody asked for {strange:?}");
    }
    eprintln!("{kills} kills: {acknowledged} keys acknowledged");
    assert!(acknowledged > 0, "the clients did work");
}

async fn work_until_killed(server: TestServer, round: usize, rotates: bool) -> (Known, Vec<String>) {
    let clients: Vec<_> = (0..CLIENTS).map(|_| client(&server, &root())).collect();
    // Connected before the clock starts.
    for client in &clients {
        client.kms_version().await.expect("an answer");
    }
    let workers: Vec<_> = clients
        .into_iter()
        .enumerate()
        .map(|(nth, client)| tokio::spawn(work(client, format!("r{round}-c{nth}"))))
        .collect();
    let rotator = rotates.then(|| tokio::spawn(rotate(client(&server, &root()))));
    sleep(Duration::from_micros(RandomState::new().hash_one(round) % (1_000 * LONGEST_LIFE))).await;
    tokio::task::spawn_blocking(move || server.kill()).await.expect("killed");
    let (mut known, mut unsure) = (Known::new(), Vec::new());
    for worker in workers {
        let (told, last) = worker.await.expect("no panic");
        known.extend(told);
        unsure.push(last);
    }
    if let Some(rotator) = rotator {
        rotator.await.expect("no panic");
    }
    (known, unsure)
}

/// Has the root key replaced, until there is no answer.
async fn rotate(client: claviger::client::Client) {
    while client.rotate_root().await.is_ok() {}
}

/// Creates keys, rotates every second one and deletes every third, until there is no answer; says which one that was
/// about.
async fn work(client: claviger::client::Client, prefix: String) -> (Known, String) {
    let mut known = Known::new();
    for n in 0.. {
        let name = format!("{prefix}-{n}");
        if create_key(&client, &name, false).await.is_err() {
            return (known, name);
        }
        known.insert(name.clone(), Some(1));
        if n % 2 == 0 {
            if create_key(&client, &name, true).await.is_err() {
                return (known, name);
            }
            known.insert(name.clone(), Some(2));
        }
        if n % 3 == 0 {
            let request = DeleteKeyRequest { name: name.clone(), all_versions: true, version: 0 };
            if client.change(ENCLAVE, Commands::one(Action::KeyDelete, &request)).await.is_err() {
                return (known, name);
            }
            known.insert(name, None);
        }
    }
    unreachable!("the server is killed")
}
