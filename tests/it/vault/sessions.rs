//! Clients that log in: what they get, how long it lasts, and what ends it.

use claviger::auth::enclave::ApiKey;
use claviger::client::kms::Commands;
use claviger::kms::Action;
use claviger::kms::wire::NameRequest;
use serde_json::{Value, json};

use super::door::{ALL, Door};
use crate::support::openbao::Admin;
use crate::support::{block_on, eventually};

/// Logs in as the user with this key.
fn log_in(door: &Door, key: &ApiKey) -> Value {
    let pair = json!({ "role_id": key.identity().to_string(), "secret_id": key.expose() });
    door.with_token("").ask("POST", "auth/approle/login", pair)["auth"].clone()
}

fn session(door: &Door, key: &ApiKey) -> Admin {
    door.with_token(log_in(door, key)["client_token"].as_str().expect("a token"))
}

fn works(client: &Admin) -> bool {
    let answer = client.send("POST", "transit/encrypt/k", None, &client.token, &json!({ "plaintext": "" }));
    match answer.expect("an answer") {
        (200, _) => true,
        (403, error) => {
            assert_eq!(error, json!({ "errors": ["permission denied"] }));
            false
        }
        other => panic!("{other:?}"),
    }
}

/// A door with a user that may do everything, and a key.
fn door(more: &str) -> (Door, ApiKey) {
    let door = Door::start(more);
    let user = door.user("all", ALL, "*");
    door.with_token(user.expose()).ask("POST", "transit/keys/k", json!({}));
    (door, user)
}

#[test]
fn a_session_is_what_clients_expect_and_outlives_a_restart() {
    let (door, user) = door(", token_ttl: 1h, token_max_ttl: 90m");
    let auth = log_in(&door, &user);
    assert_eq!((&auth["lease_duration"], &auth["renewable"]), (&json!(3600), &json!(true)));
    assert_eq!(auth["policies"], json!(["all"]));
    for text in ["client_token", "accessor", "entity_id", "token_type"] {
        assert!(auth[text].is_string(), "{text}");
    }
    let token = auth["client_token"].as_str().expect("a token").to_owned();
    assert!(token.starts_with("cvs."));
    let client = door.with_token(&token);
    assert!(works(&client));
    let shown = client.ask("GET", "auth/token/lookup-self", Value::Null);
    assert!(shown["data"]["ttl"].as_u64().is_some_and(|ttl| (3_000..=3_600).contains(&ttl)), "{shown}");
    assert!(!shown.to_string().contains(&token));
    let renewed = client.ask("POST", "auth/token/renew-self", json!({ "increment": "8h" }));
    assert_eq!(renewed["auth"]["client_token"], token.as_str(), "the token stays the same");
    let door = door.restart(", token_ttl: 1h, token_max_ttl: 90m");
    assert!(works(&door.with_token(&token)));
}

#[test]
fn a_session_ends_when_it_is_revoked_and_stays_so() {
    let (door, user) = door("");
    let (one, other) = (session(&door, &user), session(&door, &user));
    let answer = one.send("POST", "auth/token/revoke-self", None, &one.token, &Value::Null).expect("an answer");
    assert_eq!(answer.0, 204);
    assert!(!works(&one) && works(&other));
    let (gone, there) = (one.token.clone(), other.token.clone());
    let door = door.restart("");
    assert!(!works(&door.with_token(&gone)) && works(&door.with_token(&there)));
    // An API key is not revoked by itself.
    let key = door.with_token(user.expose());
    let answer = key.send("POST", "auth/token/revoke-self", None, &key.token, &Value::Null).expect("an answer");
    assert_eq!(answer.0, 400);
    door.remove(&user.identity().to_string());
    assert!(!works(&door.with_token(&there)), "a session is worth nothing without its identity");
}

#[test]
fn a_session_is_for_one_enclave_and_ends_with_the_root_key() {
    let (door, user) = door("");
    let client = session(&door, &user);
    let other = NameRequest { name: "other".into() };
    block_on(door.root().change("", Commands::one(Action::EnclaveCreate, &other))).expect("made");
    let body = json!({ "plaintext": "" });
    let answer = client.send("POST", "transit/encrypt/k", Some("other"), &client.token, &body).expect("an answer");
    assert_eq!(answer.0, 403);
    // An enclave that takes the place of another one is another one.
    let tenant = NameRequest { name: super::door::ENCLAVE.into() };
    block_on(door.root().change("", Commands::one(Action::EnclaveDelete, &tenant))).expect("deleted");
    block_on(door.root().change("", Commands::one(Action::EnclaveCreate, &tenant))).expect("made");
    door.admit(&user.identity().to_string(), "all", ALL, "*");
    door.with_token(user.expose()).ask("POST", "transit/keys/k", json!({}));
    assert!(!works(&client));
    let client = session(&door, &user);
    assert!(works(&client));
    block_on(door.root().rotate_root()).expect("rotated");
    assert!(!works(&client) && works(&session(&door, &user)));
}

#[test]
fn a_session_ends_by_itself_unless_it_is_renewed() {
    let (door, user) = door(", token_ttl: 3s, token_max_ttl: 1h");
    let (kept, left) = (session(&door, &user), session(&door, &user));
    eventually("the session ends", || {
        kept.ask("POST", "auth/token/renew-self", json!({}));
        !works(&left)
    });
    assert!(works(&kept));
    let (door, user) = self::door(", token_ttl: 1h, token_max_ttl: 2s");
    let short = session(&door, &user);
    eventually("the session ends for good", || {
        short.send("POST", "auth/token/renew-self", None, &short.token, &json!({}));
        !works(&short)
    });
}

#[test]
fn whoever_does_not_fit_is_told_nothing_else() {
    let (door, user) = door("");
    let other = door.user("poor", &[], "");
    let stranger = ApiKey::generate().expect("random bytes");
    let admin = crate::kms::root();
    for (role, secret) in [(&user, &other), (&stranger, &stranger), (&admin, &admin)] {
        let pair = json!({ "role_id": role.identity().to_string(), "secret_id": secret.expose() });
        let answer = door.with_token("").send("POST", "auth/approle/login", None, "", &pair).expect("an answer");
        assert_eq!(answer, (400, json!({ "errors": ["invalid role or secret ID"] })));
    }
    let pair = json!({ "role_id": user.identity().to_string(), "secret_id": user.expose() });
    let answer = door.with_token("").send("POST", "auth/approle/login", Some("nowhere"), "", &pair);
    assert_eq!(answer.expect("an answer").0, 400);
    session(&door, &user);
    eventually("the events are there", || door.server.stdout().matches("LOGIN").count() >= 5);
    let events = door.server.stdout();
    let done = events.lines().find(|line| line.contains("LOGIN") && line.contains("\"code\":200")).expect("an event");
    assert!(done.contains(user.identity().as_str()), "{done}");
    for line in events.lines().filter(|line| line.contains("LOGIN") && !line.contains("\"code\":200")) {
        assert!(!line.contains(user.identity().as_str()) && !line.contains(stranger.identity().as_str()), "{line}");
    }
    assert!(!events.contains("cvs.") && !door.server.stderr().contains("cvs."));
}
