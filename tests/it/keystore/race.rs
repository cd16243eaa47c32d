//! Two servers on one directory, as in a deployment with replicas.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::{admin, ask, serve};
use crate::support::{Session, block_on};

const ROUNDS: usize = 100;

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
