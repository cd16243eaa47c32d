//! Two servers on one directory, as in a deployment with replicas.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::{admin, ask, serve};
use crate::support::{Session, block_on};

const ROUNDS: usize = 100;

/// How many clients write while how often another server starts.
const CLIENTS: usize = 8;
const STARTS: usize = 10;

#[test]
fn of_two_servers_that_create_one_name_one_wins() {
    let keys = tempfile::tempdir().expect("a temporary directory");
    let servers = [serve(keys.path()), serve(keys.path())];
    block_on(async {
        let [a, b] = [&servers[0], &servers[1]].map(admin);
        let (a, b) = (a.session().await.expect("connects"), b.session().await.expect("connects"));
        let mut wins = [0; 2];
        for round in 0..ROUNDS {
            let target = format!("/v1/key/create/race-{round}");
            let answers = tokio::join!(ask(&a, "PUT", &target), ask(&b, "PUT", &target));
            let lost = (400, "key already exists".to_owned());
            let won = (200, String::new());
            match answers {
                (first, second) if first == won && second == lost => wins[0] += 1,
                (first, second) if first == lost && second == won => wins[1] += 1,
                answers => panic!("round {round}: {answers:?}"),
            }
            same_key(&a, &b, &format!("race-{round}")).await;
        }
        assert_eq!(wins[0] + wins[1], ROUNDS);
        assert_eq!(std::fs::read_dir(keys.path()).expect("readable").count(), ROUNDS, "no temporary file is left");
    });
}

#[test]
fn a_start_takes_nothing_from_a_server_that_writes() {
    let keys = tempfile::tempdir().expect("a temporary directory");
    let writer = serve(keys.path());
    block_on(async {
        let session = admin(&writer).session().await.expect("connects");
        let done = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| tokio::spawn(create_until(done.clone(), session.another(), format!("c{client}"))))
            .collect();
        for _ in 0..STARTS {
            let directory = keys.path().to_owned();
            tokio::task::spawn_blocking(move || drop(serve(&directory))).await.expect("no panic");
        }
        done.store(true, Ordering::Relaxed);
        let mut created = 0;
        for client in clients {
            created += client.await.expect("no panic");
        }
        let found = std::fs::read_dir(keys.path()).expect("readable").count();
        assert_eq!(found, created, "every key is there, and nothing else");
        assert!(created >= CLIENTS, "the clients did work");
    });
}

async fn create_until(done: Arc<AtomicBool>, session: Session, prefix: String) -> usize {
    for n in 0.. {
        if n > 0 && done.load(Ordering::Relaxed) {
            return n;
        }
        let created = ask(&session, "PUT", &format!("/v1/key/create/{prefix}-{n}")).await;
        assert_eq!(created, (200, String::new()));
    }
    unreachable!("the numbers do not end")
}

/// What one server encrypts the other one decrypts: both have the winner's key.
async fn same_key(a: &Session, b: &Session, name: &str) {
    let send = async |session: &Session, action: &str, body: serde_json::Value| {
        let request = crate::support::client::Request::new("PUT", &format!("/v1/key/{action}/{name}"));
        let response = session.another().send(request.body(body.to_string())).await.expect("an answer");
        assert_eq!(response.status, 200, "{}", response.text());
        response.json()
    };
    let plaintext = STANDARD.encode("secret");
    let encrypted = send(a, "encrypt", json!({ "plaintext": plaintext })).await;
    let decrypted = send(b, "decrypt", json!({ "ciphertext": encrypted["ciphertext"] })).await;
    assert_eq!(decrypted["plaintext"], json!(plaintext));
}
