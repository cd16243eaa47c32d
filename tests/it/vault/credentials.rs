//! Who is admitted, how that is shown, and what is written about it.

use claviger::auth::enclave::ApiKey;
use claviger::client::kms::Commands;
use claviger::kms::Action;
use claviger::kms::wire::{CreateIdentityRequest, NameRequest};
use serde_json::{Value, json};

use super::door::{ALL, Door, ENCLAVE};
use crate::kms::root;
use crate::support::curl::{curl, curl_as};
use crate::support::openbao::Admin;
use crate::support::{Identity, block_on};

const DENIED: &str = r#"{"errors":["permission denied"]}"#;

fn encrypt(client: &Admin, key: &str) -> u16 {
    client.send_text("POST", &format!("transit/encrypt/{key}"), &client.token, r#"{"plaintext":""}"#).expect("sent").0
}

/// The identity of a client of `certs/`, as the key manager writes it.
fn identity_of(client: &str) -> String {
    let identity = claviger::auth::Identity::parse(&Identity::dev(client).hash()).expect("a hash");
    claviger::auth::enclave::Identity::of(&identity).expect("a hash").to_string()
}

#[test]
fn a_token_or_a_certificate_says_who_asks_and_the_token_counts_first() {
    let door = Door::start("");
    let user = door.user("all", ALL, "*");
    let with_key = door.with_token(user.expose());
    with_key.ask("POST", "transit/keys/k", json!({}));
    assert_eq!(encrypt(&with_key, "k"), 200);
    // The certificate of "app" is not known yet.
    for token in ["", "certificate"] {
        assert_eq!(encrypt(&door.with_token(token), "k"), 403);
    }
    door.admit(&identity_of("app"), "by-certificate", &["KEY:ENCRYPT"], "k");
    for token in ["", "certificate"] {
        assert_eq!(encrypt(&door.with_token(token), "k"), 200);
    }
    assert_eq!(encrypt(&door.with_token("wrong"), "k"), 403, "a wrong token is not passed over");
    let url = format!("{}/v1/transit/encrypt/k", with_key.endpoint);
    let bearer = format!("Authorization: Bearer {}", user.expose());
    for headers in [vec!["-H", &bearer], vec!["-H", "X-Vault-Token;", "-H", &bearer]] {
        let answer = curl(&[headers, vec!["-d", r#"{"plaintext":""}"#, &url]].concat()).expect("an answer");
        assert_eq!(answer.status, 200);
    }
    // It may come twice; then the first counts.
    let token = format!("X-Vault-Token: {}", user.expose());
    for (headers, status) in [([&*token, "X-Vault-Token: x"], 200), (["X-Vault-Token: x", &*token], 403)] {
        let args = ["-H", headers[0], "-H", headers[1], "-d", r#"{"plaintext":""}"#, &url];
        assert_eq!(curl(&args).expect("an answer").status, status);
    }
}

#[test]
fn whoever_is_no_user_gets_one_answer_and_a_removed_identity_nothing_more() {
    let door = Door::start("");
    let user = door.user("all", ALL, "*");
    door.with_token(user.expose()).ask("POST", "transit/keys/k", json!({}));
    let admin = ApiKey::generate().expect("random bytes");
    let request = CreateIdentityRequest {
        identity: admin.identity().to_string(),
        privilege: "Admin".into(),
        ..CreateIdentityRequest::default()
    };
    block_on(door.root().change(ENCLAVE, Commands::one(Action::IdentityCreate, &request))).expect("made");
    let other = NameRequest { name: "other".into() };
    block_on(door.root().change("", Commands::one(Action::EnclaveCreate, &other))).expect("made");
    let stranger = ApiKey::generate().expect("random bytes");
    let poor = door.user("poor", &["KEY:ENCRYPT"], "other*");
    let tokens = [root().expose().to_owned(), admin.expose().into(), stranger.expose().into(), "nonsense".into()];
    for token in tokens.iter().map(String::as_str).chain([poor.expose(), "", "certificate"]) {
        for path in ["transit/encrypt/k", "transit/encrypt/none"] {
            let answer = door.with_token(token).send_text("POST", path, token, "{").expect("an answer");
            assert_eq!((answer.0, answer.1.to_string()), (403, DENIED.to_owned()), "{path}");
        }
    }
    // An enclave where the caller is nobody, and one that is not there.
    for namespace in ["other", "nowhere", "a/b", "tenant/tenant"] {
        let body = json!({ "plaintext": "" });
        let answer = door.with_token("").send("POST", "transit/encrypt/k", Some(namespace), user.expose(), &body);
        assert_eq!(answer.expect("an answer"), (403, json!({ "errors": ["permission denied"] })), "{namespace}");
    }
    let log = door.server.stderr();
    assert!(log.contains("the identity is an administrator, and only users with a policy"), "{log}");
    let client = door.with_token(user.expose());
    assert_eq!(encrypt(&client, "k"), 200);
    door.remove(&user.identity().to_string());
    assert_eq!(encrypt(&client, "k"), 403);
}

#[test]
fn namespaces_are_enclaves() {
    let door = Door::start("");
    let other = NameRequest { name: "other".into() };
    block_on(door.root().change("", Commands::one(Action::EnclaveCreate, &other))).expect("made");
    let user = door.user("all", ALL, "*");
    let client = door.with_token(user.expose());
    client.ask("POST", "transit/keys/k", json!({}));
    for namespace in [ENCLAVE, "tenant/", "/tenant", "root", "/"] {
        client.ask_in(Some(namespace), "GET", "transit/keys/k", Value::Null);
    }
    client.ask("GET", "tenant/transit/keys/k", Value::Null);
    let url = format!("{}/v1/sys/health", client.endpoint);
    let health = curl(&["-H", "X-Vault-Namespace: nowhere", &url]).expect("an answer");
    assert_eq!((health.status, health.http.as_str()), (200, "2"));
    let old = curl(&["--http1.1", &url]).expect("an answer");
    assert_eq!((old.status, old.http.as_str()), (200, "1.1"));
    let head = curl(&["--head", &url]).expect("an answer");
    assert_eq!(head.status, 200);
}

#[test]
fn who_may_not_ask_is_answered_before_the_body_is_there() {
    let door = Door::start("");
    let url = format!("https://{}/v1/transit/encrypt/k", door.address);
    // The client waits to be told to send the body, which nobody tells it.
    let large = format!(r#"{{"plaintext":"{}"}}"#, "A".repeat(900_000));
    let file = door.server.directory().join("large.json");
    std::fs::write(&file, large).expect("written");
    let data = format!("@{}", file.display());
    let args = ["--http1.1", "--expect100-timeout", "30", "-H", "Expect: 100-continue", "-H", "X-Vault-Token: x"];
    let answer = curl(&[&args[..], &["-d", &data, &url]].concat()).expect("an answer");
    assert_eq!((answer.status, answer.body.trim()), (403, DENIED));
}

#[test]
fn limits_hold_and_wrapping_is_refused() {
    let door = Door::start("");
    let user = door.user("all", ALL, "*");
    let client = door.with_token(user.expose());
    client.ask("POST", "transit/keys/k", json!({}));
    let token = format!("X-Vault-Token: {}", user.expose());
    let url = format!("{}/v1/transit/encrypt/k", client.endpoint);
    let file = door.server.directory().join("large.json");
    std::fs::write(&file, format!(r#"{{"plaintext":"{}"}}"#, "A".repeat(1_000_000))).expect("written");
    let data = format!("@{}", file.display());
    let answer = curl(&["-H", &token, "-d", &data, &url]).expect("an answer");
    assert_eq!(answer.status, 413);
    let items = vec![json!({ "plaintext": "" }); 1_001];
    let (status, _) = client
        .send_text("POST", "transit/encrypt/k", &client.token, &json!({ "batch_input": items }).to_string())
        .expect("sent");
    assert_eq!(status, 400);
    let most = json!({ "batch_input": vec![json!({ "plaintext": "" }); 1_000] });
    let answer = client.ask("POST", "transit/encrypt/k", most);
    assert_eq!(answer["data"]["batch_results"].as_array().map(Vec::len), Some(1_000));
    for (ttl, status) in [("60", 400), ("1h", 400), ("0", 200)] {
        let wrap = format!("X-Vault-Wrap-TTL: {ttl}");
        let answer =
            curl_as("app", &["-H", &token, "-H", &wrap, "-d", r#"{"plaintext":""}"#, &url]).expect("an answer");
        assert_eq!(answer.status, status, "{ttl}");
    }
}

#[test]
fn every_request_is_audited_and_no_token_is_written_anywhere() {
    let door = Door::start("");
    let user = door.user("all", ALL, "*");
    let client = door.with_token(user.expose());
    client.ask("POST", "transit/keys/audited", json!({}));
    assert_eq!(encrypt(&client, "audited"), 200);
    assert_eq!(encrypt(&client, "none"), 400);
    let stranger = ApiKey::generate().expect("random bytes");
    assert_eq!(encrypt(&door.with_token(stranger.expose()), "audited"), 403);
    let shown = client.ask("GET", "auth/token/lookup-self", Value::Null);
    assert_eq!(shown["data"]["display_name"], user.identity().to_string());
    assert!(!shown.to_string().contains(user.expose()));
    crate::support::eventually("the events are there", || door.server.stdout().matches("lookup-self").count() > 0);
    let (events, log) = (door.server.stdout(), door.server.stderr());
    let event = events.lines().find(|line| line.contains("encrypt/audited")).expect("an event");
    for part in ["KEY:ENCRYPT", "audited", "by key", ENCLAVE, user.identity().as_str(), "200"] {
        assert!(event.contains(part), "{part}: {event}");
    }
    assert!(log.contains("KEY:CREATE audited (transit aes256-gcm96)"), "{log}");
    for token in [user.expose(), stranger.expose()] {
        let secret = token.strip_prefix("k1:").expect("an Ed25519 key");
        assert!(!events.contains(secret) && !log.contains(secret));
    }
}

#[test]
fn keys_stay_after_a_restart_and_metrics_count_requests_by_operation() {
    let door = Door::start("");
    let user = door.user("all", ALL, "*");
    let client = door.with_token(user.expose());
    client.ask("POST", "transit/keys/k", json!({}));
    let answer = client.ask("POST", "transit/encrypt/k", json!({ "plaintext": "aGVsbG8=" }));
    let ciphertext = answer["data"]["ciphertext"].clone();
    let denied = client.send("GET", "transit/keys/k", None, "bad", &Value::Null).expect("an answer");
    assert_eq!(denied.0, 403);
    door.admit(&identity_of("app"), "app", &[], "");
    let url = format!("https://{}/v1/health/metrics", door.server.address());
    let metrics = curl_as("app", &["-H", "Accept: text/plain", &url]).expect("an answer").body;
    for sample in [
        r#"claviger_http_request_duration_seconds_count{operation="PUT vault/encrypt",listener="vault"} 1"#,
        r#"kes_http_request_success{code="204",listener="vault"} 1"#,
        r#"kes_http_request_error{code="403",listener="vault"} 1"#,
        r#"claviger_connections{listener="vault"} "#,
        r#"claviger_denials_total{listener="vault"} 1"#,
    ] {
        assert!(metrics.contains(sample), "{sample} in\n{metrics}");
    }
    let heads: Vec<_> = metrics.lines().filter(|line| line.starts_with("# TYPE ")).collect();
    let distinct: std::collections::BTreeSet<_> = heads.iter().collect();
    assert_eq!(heads.len(), distinct.len(), "each metric has one head");
    let door = door.restart("");
    let opened = door.with_token(user.expose()).ask("POST", "transit/decrypt/k", json!({ "ciphertext": ciphertext }));
    assert_eq!(opened["data"]["plaintext"], "aGVsbG8=");
}
