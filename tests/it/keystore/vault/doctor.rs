//! `claviger doctor` with a Vault.

use serde_json::{Value, json};

use super::{NO_CACHE, OK, Place, Rights, config, expect, serve, session};
use crate::support::block_on;
use crate::support::openbao::OpenBao;
use crate::support::program::Program;

/// What it finds: the exit code, and every id with its status and its message.
fn examine(config: &str, args: &[&str]) -> (Option<i32>, Vec<(String, String, String)>) {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("config.yml"), config).expect("written");
    let args = [&["doctor", "--config", "config.yml", "--json"], args].concat();
    let outcome = Program::named("claviger", directory.path()).run(&args);
    let checks: Vec<Value> = serde_json::from_str(&outcome.stdout).expect("a list");
    let text = |check: &Value, key: &str| check[key].as_str().expect("a text").to_owned();
    let checks = checks.iter().map(|check| (text(check, "id"), text(check, "status"), text(check, "message")));
    (outcome.exit, checks.filter(|(id, ..)| id.starts_with("key")).collect())
}

fn statuses(checks: &[(String, String, String)]) -> Vec<(&str, &str)> {
    checks.iter().map(|(id, status, _)| (id.as_str(), status.as_str())).collect()
}

const GOOD: [(&str, &str); 4] =
    [("keystore.reach", "ok"), ("keystore.rights", "ok"), ("keystore.latency", "ok"), ("keystore.clock", "ok")];

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn a_place_with_every_right_is_good_for_a_server_and_for_migrations() {
    let bao = OpenBao::shared();
    let place = Place::new(&bao, 2);
    let section = place.by_role(&bao.endpoint());
    let (exit, checks) = examine(&config(&section, NO_CACHE), &[]);
    assert_eq!((exit, statuses(&checks)), (Some(0), [&GOOD[..], &[("keys", "ok")]].concat()), "{checks:#?}");
    let alone = json!({ "keystore": { "vault": section } }).to_string();
    for purpose in ["migrate-source", "migrate-target"] {
        let (exit, checks) = examine(&alone, &["--for", purpose]);
        assert_eq!((exit, statuses(&checks)), (Some(0), GOOD.to_vec()), "{checks:#?}");
    }
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn what_is_missing_for_the_purpose_is_named() {
    let bao = OpenBao::shared();
    let place = Place::new(&bao, 2);
    let read = format!(
        "path \"{0}/data/team/keys/*\" {{ capabilities = [\"read\"] }}
        path \"{0}/metadata/team/keys/*\" {{ capabilities = [\"list\"] }}",
        place.engine
    );
    let (role, policy) = bao.role(None, &read, json!({}));
    let place = Place { role, policy, ..place };
    let alone = json!({ "keystore": { "vault": place.by_role(&bao.endpoint()) } }).to_string();
    let (exit, checks) = examine(&alone, &["--for", "migrate-source"]);
    assert_eq!((exit, statuses(&checks)), (Some(0), GOOD.to_vec()), "{checks:#?}");
    for (args, config) in
        [(&["--for", "migrate-target"][..], alone), (&[], config(&place.by_role(&bao.endpoint()), NO_CACHE))]
    {
        let (exit, checks) = examine(&config, args);
        let rights = checks.iter().find(|(id, ..)| id == "keystore.rights").expect("checked");
        assert_eq!((exit, rights.1.as_str()), (Some(1), "failed"), "{checks:#?}");
        for part in ["'create' on", "'delete' on", "capabilities = [\"delete\", \"list\"]"] {
            assert!(rights.2.contains(part), "{part}: {}", rights.2);
        }
    }
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn dangers_are_named() {
    let bao = OpenBao::shared();
    let place = Place::within(&bao, None, 1, Rights::Replace, "", json!({}));
    let mut section = place.by_role(&bao.endpoint());
    section["tls"] = json!({ "insecure_skip_verify": true });
    let alone = json!({ "keystore": { "vault": section } }).to_string();
    let (exit, checks) = examine(&alone, &["--for", "migrate-target"]);
    let risks: Vec<_> = checks.iter().filter(|(id, ..)| id == "keystore.risk").collect();
    assert_eq!((exit, risks.len()), (Some(0), 2), "{checks:#?}");
    assert!(risks[0].2.contains("anybody between") && risks[1].2.contains("has no compare-and-set"), "{risks:#?}");
}

/// An address in plain HTTP that is not this machine's, whatever the network makes of it.
#[test]
#[ignore = "runs OpenBao: tests/run"]
fn plain_http_is_dangerous() {
    let bao = OpenBao::shared();
    let place = Place::new(&bao, 2);
    let endpoint = bao.endpoint().replace("127.0.0.1", "0.0.0.0");
    let section = place.by_role(&endpoint);
    let danger = format!("http: anybody between here and '{endpoint}' can read and change every key");
    let (exit, checks) = examine(&config(&section, NO_CACHE), &[]);
    let risks: Vec<_> = checks.iter().filter(|(id, ..)| id == "keystore.risk").collect();
    assert_eq!((exit, risks.len()), (Some(0), 1), "{checks:#?}");
    assert!(risks[0].2.contains(&danger), "{risks:#?}");

    let server = serve(&section, NO_CACHE);
    super::super::wait_for_log(&server, &["WARN", &danger]);

    // Also where nobody answers, of an AWS, and of who seals.
    let seal = json!({ "vault": { "endpoint": endpoint, "key": "seal", "token": { "value": "t" } } });
    let aws = json!({ "secretsmanager": { "endpoint": "http://10.0.0.1", "region": "x" } });
    for (store, dangers) in [
        (json!({ "vault": section }), vec![danger.as_str()]),
        (json!({ "aws": aws }), vec!["http: anybody between here and 'http://10.0.0.1'"]),
        (json!({ "fs": { "path": "keys" }, "encrypt": seal }), vec![danger.as_str()]),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let text =
            super::config(&section, NO_CACHE).replace(&json!({ "vault": section }).to_string(), &store.to_string());
        std::fs::write(directory.path().join("config.yml"), text).expect("written");
        for file in ["server.key", "server.crt"] {
            std::fs::copy(crate::support::certs(file), directory.path().join(file)).expect("copied");
        }
        let checked = Program::named("claviger", directory.path()).run(&["config", "check", "config.yml"]);
        assert_eq!(checked.exit, Some(0), "{}{}", checked.stdout, checked.stderr);
        for danger in dangers {
            assert!(checked.stdout.contains(danger), "{}", checked.stdout);
        }
    }
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn required_keys_are_tried_out() {
    let bao = OpenBao::shared();
    let place = Place::new(&bao, 2);
    let section = place.by_role(&bao.endpoint());
    let server = serve(&section, NO_CACHE);
    block_on(async { expect(&session(&server).await, "PUT", "/v1/key/create/good", OK).await });
    let body = json!({ "options": { "cas": 0 }, "data": { "broken": "hunter2" } });
    bao.ask("PUT", &format!("{}/data/team/keys/broken", place.engine), body);
    let alone = json!({ "keystore": { "vault": section } }).to_string();
    let args = |keys| ["--for", "migrate-source", "--require-keys", keys];
    let (exit, checks) = examine(&alone, &args("good"));
    assert_eq!((exit, checks.last().expect("checks").0.as_str()), (Some(0), "keys.required"), "{checks:#?}");
    let (exit, checks) = examine(&alone, &args("good,broken,missing"));
    let (id, status, message) = checks.last().expect("checks");
    assert_eq!((exit, id.as_str(), status.as_str()), (Some(1), "keys.required", "failed"), "{checks:#?}");
    assert!(message.starts_with("2 of 3 required keys cannot be used: 'broken' ("), "{message}");
    assert!(message.ends_with("'missing' (it does not exist)") && !message.contains("hunter2"), "{message}");
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn a_store_that_is_not_there_is_said_to_be() {
    let bao = OpenBao::shared();
    let place = Place::new(&bao, 2);
    let nobody = format!("http://{}", crate::support::peer::free_address());
    let (exit, checks) = examine(&config(&place.by_role(&nobody), NO_CACHE), &[]);
    assert_eq!(exit, Some(1));
    let (id, status, message) = &checks[0];
    assert_eq!((id.as_str(), status.as_str()), ("keystore.reach", "failed"));
    assert!(message.contains("keystore.vault") && message.contains("no connection to"), "{message}");
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn an_endpoint_with_the_path_of_the_api_is_named() {
    let bao = OpenBao::shared();
    let place = Place::new(&bao, 2);
    let section = place.by_role(&format!("{}/v1", bao.endpoint()));
    let (exit, checks) = examine(&config(&section, NO_CACHE), &[]);
    let found = statuses(&checks);
    assert_eq!((exit, &found[..2]), (Some(1), &[("keystore.risk", "warning"), ("keystore.reach", "failed")][..]));
    assert!(checks[0].2.contains("ends in '/v1', which is added to every request"), "{checks:#?}");
}
