//! The key/value engine: documents with versions, for whoever may read and write them.

use serde_json::{Value, json};

use super::door::{ALL, Door, SECRETS};
use crate::support::openbao::Admin;
use crate::support::{block_on, eventually};

fn status(client: &Admin, method: &str, path: &str, body: Value) -> u16 {
    client.send(method, path, None, &client.token, &body).expect("an answer").0
}

#[test]
fn without_the_setting_there_is_no_such_engine() {
    let door = Door::start("");
    let user = door.with_token(door.user("all", &[ALL, SECRETS].concat(), "*").expose());
    let answer = user.send("POST", "secret/data/a", None, &user.token, &json!({ "data": {} })).expect("an answer");
    let text = "no handler for route \"secret/data/a\". route entry not found.";
    assert_eq!(answer, (404, json!({ "errors": [text] })));
}

#[test]
fn documents_stay_as_they_were_over_a_restart_and_are_nowhere_in_plain() {
    let door = Door::start(", kv: secret");
    let key = door.user("all", SECRETS, "*");
    let user = door.with_token(key.expose());
    // Numbers that no float holds, and an order of fields.
    let body = r#"{"data":{"z":123456789012345678901234567890.5,"a":"hunter2-in-kv","m":{"é":[1,null,true]}}}"#;
    assert_eq!(user.send_text("POST", "secret/data/app/db", &user.token, body).expect("an answer").0, 200);
    let document = body.strip_prefix(r#"{"data":"#).and_then(|rest| rest.strip_suffix('}')).expect("as above");
    let is_same = |user: &Admin| {
        let url = format!("{}/v1/secret/data/app/db", user.endpoint);
        let token = format!("X-Vault-Token: {}", user.token);
        let answer = crate::support::curl::curl_as("app", &["-H", &token, &url]).expect("an answer");
        assert!(answer.body.contains(&format!("\"data\":{document},\"metadata\"")), "{}", answer.body);
    };
    is_same(&user);
    eventually("the event is there", || door.server.stdout().contains("SECRET:READ"));
    let (events, log) = (door.server.stdout(), door.server.stderr());
    for text in ["SECRET:WRITE", "SECRET:READ", "app/db"] {
        assert!(events.contains(text), "{text}: {events}");
    }
    assert!(log.contains("SECRET:WRITE app/db (new version)"), "{log}");
    assert!(!events.contains("hunter2") && !log.contains("hunter2"));
    for file in std::fs::read_dir(door.data()).expect("the data").flatten() {
        let bytes = std::fs::read(file.path()).unwrap_or_default();
        assert!(!bytes.windows(7).any(|bytes| bytes == b"hunter2"), "{:?}", file.path());
    }
    let door = door.restart(", kv: secret");
    is_same(&door.with_token(key.expose()));
    let backup = block_on(door.root().backup()).expect("a backup");
    drop(door);
    let door = Door::start(", kv: secret");
    block_on(door.root().restore(backup.to_vec())).expect("restored");
    is_same(&door.with_token(key.expose()));
}

#[test]
fn each_step_takes_its_right_on_the_path() {
    let door = Door::start(", kv: secret");
    let all = door.with_token(door.user("all", SECRETS, "*").expose());
    for path in ["app/a", "app/b", "other"] {
        all.ask("POST", &format!("secret/data/{path}"), json!({ "data": { "n": 1 } }));
    }
    for (action, allowed) in [
        ("SECRET:READ", &["GET data/app/a", "GET metadata/app/a"][..]),
        ("SECRET:WRITE", &["POST data/app/a", "POST undelete/app/a"]),
        ("SECRET:LIST", &["LIST metadata/app", "LIST metadata/app/"]),
        ("SECRET:DELETE", &["DELETE data/app/a", "POST delete/app/a", "POST destroy/app/a", "DELETE metadata/app/b"]),
    ] {
        let policy = action.to_lowercase().replace(':', "-");
        let user = door.with_token(door.user(&policy, &[action], "app/*").expose());
        for request in [
            "GET data/app/a",
            "GET metadata/app/a",
            "POST data/app/a",
            "POST undelete/app/a",
            "LIST metadata/app",
            "LIST metadata/app/",
            "DELETE data/app/a",
            "POST delete/app/a",
            "POST destroy/app/a",
            "DELETE metadata/app/b",
            "GET data/other",
            "POST data/other",
            "DELETE data/other",
            "LIST metadata",
            "LIST metadata/other",
        ] {
            let (method, path) = request.split_once(' ').expect("a method");
            let body = json!({ "data": { "n": 2 }, "versions": [1] });
            let status = status(&user, method, &format!("secret/{path}"), body);
            assert_eq!(status != 403, allowed.contains(&request), "{action}: {request}: {status}");
        }
    }
    let keys = door.with_token(door.user("keys", ALL, "*").expose());
    assert_eq!(status(&keys, "GET", "secret/data/app/a", Value::Null), 403, "rights over keys are others");
}

#[test]
fn of_two_that_expect_the_same_version_one_writes() {
    let door = Door::start(", kv: secret");
    let key = door.user("all", SECRETS, "*");
    let user = &door.with_token(key.expose());
    for expected in 0..5 {
        let body = |n: usize| json!({ "data": { "n": n }, "options": { "cas": expected } });
        let answers: Vec<_> = std::thread::scope(|scope| {
            let write = |n| scope.spawn(move || user.send("POST", "secret/data/raced", None, &user.token, &n));
            let all: Vec<_> = (0..4).map(|n| write(body(n))).collect();
            all.into_iter().map(|one| one.join().expect("no panic").expect("an answer")).collect()
        });
        let written: Vec<_> = answers.iter().filter(|(status, _)| *status == 200).collect();
        assert_eq!(written.len(), 1, "{answers:?}");
        assert_eq!(written[0].1["data"]["version"], expected + 1);
        let text = "check-and-set parameter did not match the current version";
        assert!(
            answers
                .iter()
                .filter(|(status, _)| *status != 200)
                .all(|other| *other == (400, json!({ "errors": [text] })))
        );
    }
}

#[test]
fn what_is_too_large_is_refused_and_says_so() {
    let door = Door::start(", kv: secret");
    let user = door.with_token(door.user("all", SECRETS, "*").expose());
    let text = |len: usize| json!({ "data": { "x": "x".repeat(len) } });
    assert_eq!(status(&user, "POST", "secret/data/large", text(65_536 - 8)), 200);
    assert_eq!(status(&user, "POST", "secret/data/large", text(65_536)), 400);
    assert_eq!(status(&user, "POST", "secret/data/large", text(90_000)), 413);
    assert_eq!(status(&user, "POST", &format!("secret/data/{}", "p".repeat(512)), text(1)), 200);
    assert_eq!(status(&user, "POST", &format!("secret/data/{}", "p".repeat(513)), text(1)), 404);
    assert_eq!(status(&user, "POST", "secret/data/a%00b", text(1)), 404);
}
