//! Stores that are not there, are slow, or are something else.

use serde_json::json;

use super::{CACHE, COLD, HOT, NO_ANSWER, NO_CACHE, OK, Place, REFUSED};
use super::{config, expect, hot_and_cold, recovers, serve, session};
use crate::support::gate::{Gate, Rule};
use crate::support::openbao::OpenBao;
use crate::support::peer::free_address;
use crate::support::{TestServer, block_on, eventually};

const HTML: &str = "<html><body>404 Not Found</body></html>";

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn a_store_that_is_not_there_at_the_start_is_said_to_be() {
    let bao = OpenBao::shared();
    let place = Place::new(&bao, 2);
    let nobody = format!("http://{}", free_address());
    let directory = tempfile::tempdir().expect("a directory");
    let said = TestServer::refuses(directory.path(), &config(&place.by_role(&nobody), CACHE));
    assert!(said.contains("keystore.vault") && said.contains("no connection to 127.0.0.1"), "{said}");
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn a_server_waits_for_its_store_when_told_to() {
    let bao = OpenBao::shared();
    let (place, gate) = (Place::new(&bao, 2), Gate::new(bao.address()));
    gate.rule("", Rule::Answer(503, String::new()));
    let directory = tempfile::tempdir().expect("a directory");
    let config = config(&place.by_role(&gate.endpoint()), CACHE);
    let server = std::thread::scope(|scope| {
        scope.spawn(|| {
            eventually("it asks again", || gate.count("login") > 1);
            gate.open();
        });
        TestServer::start_waiting_in(directory, &config)
    });
    server.says("waiting for the key store");
    block_on(async { hot_and_cold(&session(&server).await).await });
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn a_key_that_takes_long_holds_up_no_other() {
    let bao = OpenBao::shared();
    let (place, gate) = (Place::new(&bao, 2), Gate::new(bao.address()));
    let server = serve(&place.by_role(&gate.endpoint()), NO_CACHE);
    block_on(async {
        let session = session(&server).await;
        hot_and_cold(&session).await;
        gate.rule("data/team/keys/cold", Rule::Hang);
        let slow = expect(&session, "GET", COLD, NO_ANSWER);
        tokio::pin!(slow);
        for _ in 0..20 {
            tokio::select! {
                biased;
                () = &mut slow => panic!("nobody has answered"),
                () = expect(&session, "GET", HOT, OK) => {}
            }
        }
        slow.await;
    });
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn what_no_vault_says_never_means_that_a_key_is_missing() {
    let bao = OpenBao::shared();
    let (place, gate) = (Place::new(&bao, 2), Gate::new(bao.address()));
    let server = serve(&place.by_role(&gate.endpoint()), NO_CACHE);
    let cold = "data/team/keys/cold";
    block_on(async {
        let session = session(&server).await;
        hot_and_cold(&session).await;
        let nonsense = [
            (200, HTML, REFUSED),
            (404, HTML, REFUSED),
            (404, "", REFUSED),
            (404, "{}", REFUSED),
            (404, "null", REFUSED),
            (404, r#"{"errors":null}"#, REFUSED),
            (404, r#"{"errors":["no handler for route 'x'"]}"#, REFUSED),
            (403, HTML, REFUSED),
            (200, "", REFUSED),
            (200, "{}", REFUSED),
            (200, r#"{"data":{}}"#, REFUSED),
            (200, r#"{"data":{"data":null}}"#, REFUSED),
            (200, r#"{"data":{"data":{"cold":""}}}"#, REFUSED),
            (200, r#"{"data":{"data":{"other":"x"}}}"#, REFUSED),
            (302, "", REFUSED),
            (502, HTML, NO_ANSWER),
            (503, HTML, NO_ANSWER),
        ];
        let mut waiting = Vec::new();
        for (status, body, expected) in nonsense {
            gate.open();
            gate.rule(cold, Rule::Answer(status, body.into()));
            if expected == NO_ANSWER {
                waiting.push((status, body));
                continue;
            }
            let answer = super::super::ask(&session, "GET", COLD).await;
            assert_eq!((answer.0, answer.1.as_str()), expected, "HTTP {status} {body}");
        }
        // These are asked again for ten seconds.
        for (status, body) in waiting {
            gate.open();
            gate.rule(cold, Rule::Answer(status, body.into()));
            let before = gate.count(cold);
            expect(&session, "GET", COLD, NO_ANSWER).await;
            let asked = gate.count(cold) - before;
            assert!((2..=12).contains(&asked), "asked {asked} times, and not for ever");
        }
        gate.open();
        recovers(&session, COLD).await;
    });
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn a_create_whose_answer_is_lost_is_a_create() {
    let bao = OpenBao::shared();
    for (version, write) in [(1, "PUT /v1/"), (2, "PUT /v1/")] {
        let (place, gate) = (Place::new(&bao, version), Gate::new(bao.address()));
        let server = serve(&place.by_role(&gate.endpoint()), NO_CACHE);
        block_on(async {
            let session = session(&server).await;
            gate.rule(&format!("{write}{}", place.engine), Rule::LoseAnswer);
            expect(&session, "PUT", "/v1/key/create/once", OK).await;
            gate.open();
            expect(&session, "GET", "/v1/key/describe/once", OK).await;
            expect(&session, "PUT", "/v1/key/create/once", (400, "key already exists")).await;
        });
    }
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn a_standby_that_sends_us_away_is_obeyed() {
    let bao = OpenBao::shared();
    let (place, gate) = (Place::new(&bao, 2), Gate::new(bao.address()));
    gate.rule("", Rule::Redirect);
    let server = serve(&place.by_role(&gate.endpoint()), NO_CACHE);
    block_on(async {
        let session = session(&server).await;
        hot_and_cold(&session).await;
        expect(&session, "GET", COLD, OK).await;
        expect(&session, "GET", "/v1/ready", OK).await;
    });
    assert!(gate.count("data/team/keys/cold") > 0, "it was asked first");
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn connections_are_used_again() {
    let bao = OpenBao::shared();
    let (place, gate) = (Place::new(&bao, 2), Gate::new(bao.address()));
    let server = serve(&place.by_role(&gate.endpoint()), NO_CACHE);
    block_on(async {
        let session = session(&server).await;
        hot_and_cold(&session).await;
        for _ in 0..100 {
            expect(&session, "GET", COLD, OK).await;
        }
    });
    let requests = gate.count("data/team/keys/");
    assert!(gate.connections() * 20 < requests, "{} connections for {requests} requests", gate.connections());
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn the_offline_cache_serves_through_an_outage() {
    let bao = OpenBao::shared();
    let (place, gate) = (Place::new(&bao, 2), Gate::new(bao.address()));
    let cache = "{ expiry: { any: 1ms, unused: 1ms, offline: 1h } }";
    let server = serve(&place.by_role(&gate.endpoint()), cache);
    block_on(async {
        let session = session(&server).await;
        hot_and_cold(&session).await;
        expect(&session, "GET", HOT, OK).await;
        gate.rule("", Rule::Answer(503, json!({ "errors": ["Vault is sealed"] }).to_string()));
        for _ in 0..50 {
            expect(&session, "GET", HOT, OK).await;
        }
        expect(&session, "GET", COLD, NO_ANSWER).await;
        gate.open();
        recovers(&session, COLD).await;
    });
}
