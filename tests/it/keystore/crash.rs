//! The server is killed at random moments while clients create and delete keys.
//!
//! `KILLS` in the environment is the number of kills; `docs/measurements.md` has the result of many.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::time::Duration;

use claviger::crypto::Key;
use tokio::time::sleep;

use super::{admin, serve};
use crate::support::client::Request;
use crate::support::{Session, TestServer, block_on};

/// How many clients work at once.
const CLIENTS: usize = 8;

/// The server lives at most this long after its first request, in milliseconds.
const LONGEST_LIFE: u64 = 40;

#[test]
fn what_was_acknowledged_survives_any_kill() {
    let kills = std::env::var("KILLS").map_or(50, |kills| kills.parse().expect("KILLS is a number"));
    let keys = tempfile::tempdir().expect("a temporary directory");
    let mut total = Total::default();
    let mut server = serve(keys.path());
    for round in 0..kills {
        let seen = block_on(work_until_killed(server, round));
        total.add(&check(keys.path(), &seen));
        server = serve(keys.path());
        assert_eq!(count(keys.path(), is_temporary), 0, "round {round}: the start removes leftovers");
        if round % 10 == 9 {
            block_on(all_keys_are_served(&server, keys.path()));
            clear(keys.path());
        }
    }
    eprintln!("{kills} kills: {total:?}");
    assert!(total.created > 0 && total.deleted > 0, "the clients did work: {total:?}");
    assert!(total.leftovers > 0, "some kills hit a write: {total:?}");
}

/// What the clients of a round know.
#[derive(Default)]
struct Seen {
    created: BTreeSet<String>,
    deleted: BTreeSet<String>,
}

/// What all rounds saw.
#[derive(Debug, Default)]
struct Total {
    created: usize,
    deleted: usize,
    leftovers: usize,
}

impl Total {
    fn add(&mut self, other: &Self) {
        self.created += other.created;
        self.deleted += other.deleted;
        self.leftovers += other.leftovers;
    }
}

async fn work_until_killed(server: TestServer, round: usize) -> Seen {
    let session = admin(&server).session().await.expect("connects");
    let clients: Vec<_> =
        (0..CLIENTS).map(|client| tokio::spawn(work(session.another(), format!("r{round}-c{client}")))).collect();
    sleep(Duration::from_micros(RandomState::new().hash_one(round) % (1_000 * LONGEST_LIFE))).await;
    tokio::task::spawn_blocking(move || server.kill()).await.expect("killed");
    let mut seen = Seen::default();
    for client in clients {
        let Seen { created, deleted } = client.await.expect("no panic");
        seen.created.extend(created);
        seen.deleted.extend(deleted);
    }
    seen
}

/// Creates keys, and deletes every third one, until there is no answer. Only what was answered counts, and
/// a key whose deletion was asked for and not answered may be there or not.
async fn work(session: Session, prefix: String) -> Seen {
    let mut seen = Seen::default();
    for n in 0.. {
        let name = format!("{prefix}-{n}");
        match session.another().send(Request::new("PUT", &format!("/v1/key/create/{name}"))).await {
            Ok(response) => assert_eq!(response.status, 200, "{}", response.text()),
            Err(_) => break,
        }
        if n % 3 != 0 {
            seen.created.insert(name);
            continue;
        }
        match session.another().send(Request::new("DELETE", &format!("/v1/key/delete/{name}"))).await {
            Ok(response) => assert_eq!(response.status, 200, "{}", response.text()),
            Err(_) => break,
        }
        seen.deleted.insert(name);
    }
    seen
}

/// Looks at the directory that a killed server left.
fn check(keys: &Path, seen: &Seen) -> Total {
    for name in &seen.created {
        assert!(keys.join(name).is_file(), "'{name}' was created, and is gone");
    }
    for name in &seen.deleted {
        assert!(!keys.join(name).exists(), "'{name}' was deleted, and is there");
    }
    for name in names(keys).filter(|name| !is_temporary(name)) {
        let value = fs::read(keys.join(&name)).expect("readable");
        Key::parse(&value.into()).unwrap_or_else(|error| panic!("'{name}' is no whole key: {error}"));
    }
    Total { created: seen.created.len(), deleted: seen.deleted.len(), leftovers: count(keys, is_temporary) }
}

async fn all_keys_are_served(server: &TestServer, keys: &Path) {
    let listed = admin(server).get("/v1/key/list/*").await.json();
    let listed: BTreeSet<_> = listed["names"]
        .as_array()
        .expect("names")
        .iter()
        .map(|name| name.as_str().expect("a name").to_owned())
        .collect();
    assert_eq!(listed, names(keys).collect());
    let session = admin(server).session().await.expect("connects");
    for name in &listed {
        let response =
            session.another().send(Request::new("GET", &format!("/v1/key/describe/{name}"))).await.expect("an answer");
        assert_eq!(response.status, 200, "{}", response.text());
    }
}

/// Keeps the directory small: a test of many kills is about kills.
fn clear(keys: &Path) {
    for name in names(keys).filter(|name| !is_temporary(name)) {
        fs::remove_file(keys.join(name)).expect("removed");
    }
}

fn names(keys: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(keys).expect("readable");
    entries.map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"))
}

fn count(keys: &Path, which: impl Fn(&str) -> bool) -> usize {
    names(keys).filter(|name| which(name)).count()
}

fn is_temporary(name: &str) -> bool {
    name.starts_with(".claviger-")
}
