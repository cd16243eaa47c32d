//! Months of tokens in seconds: they end, are taken away, cannot be had for a while. Keys in the cache never notice.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{CACHE, COLD, HOT, NO_ANSWER, NO_CACHE, OK, Place, REFUSED, Rights};
use super::{expect, hot_and_cold, recovers, serve, session};
use crate::support::gate::{Gate, Rule};
use crate::support::openbao::OpenBao;
use crate::support::{Session, block_on};

const LOGIN: &str = "/v1/auth/approle/login";
const RENEWAL: &str = "/v1/auth/token/renew-self";

/// A place whose tokens last so many seconds, and so many with all their renewals.
fn place(bao: &OpenBao, ttl: u32, max_ttl: u32) -> Place {
    let settings = json!({ "token_ttl": format!("{ttl}s"), "token_max_ttl": format!("{max_ttl}s") });
    Place::within(bao, None, 2, Rights::Server, "", settings)
}

/// Takes every token of the place's role away.
fn revoke(bao: &OpenBao, place: &Place) {
    let accessors = bao.ask("LIST", "auth/token/accessors", Value::Null);
    for accessor in accessors["data"]["keys"].as_array().expect("a list") {
        let body = json!({ "accessor": accessor });
        let found = bao.send("POST", "auth/token/lookup-accessor", None, "root", &body);
        // One that has ended meanwhile is not found.
        let Some((200, found)) = found else { continue };
        let policies = found["data"]["policies"].as_array().expect("a list");
        if policies.iter().any(|policy| *policy == place.policy) {
            bao.ask("POST", "auth/token/revoke-accessor", body);
        }
    }
}

async fn metric(session: &Session, name: &str) -> Option<f64> {
    let request = crate::support::client::Request::new("GET", "/v1/metrics");
    let metrics = session.another().send(request).await.expect("metrics");
    let line = metrics.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
    line.map(|value| value.parse().expect("a number"))
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn tokens_are_renewed_and_replaced_without_anybody_noticing() {
    let bao = OpenBao::shared();
    let (place, gate) = (place(&bao, 5, 11), Gate::new(bao.address()));
    let server = serve(&place.by_role(&gate.endpoint()), NO_CACHE);
    block_on(async {
        let session = session(&server).await;
        hot_and_cold(&session).await;
        // Two tokens come to the end of all their renewals.
        while gate.count(LOGIN) < 3 {
            expect(&session, "GET", COLD, OK).await;
        }
        let age = metric(&session, "claviger_keystore_token_age_seconds").await.expect("there is a token");
        assert!(age < 11.0, "the token is the third one: {age} s");
    });
    assert!(gate.count(RENEWAL) >= 4, "each was renewed before: {}", gate.count(RENEWAL));
    assert!(!server.stderr().contains("login to the key store failed"), "{}", server.stderr());
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn a_revoked_token_costs_one_login_however_many_requests_find_it_out() {
    let bao = OpenBao::shared();
    let (place, gate) = (place(&bao, 600, 600), Gate::new(bao.address()));
    let server = serve(&place.by_role(&gate.endpoint()), NO_CACHE);
    block_on(async {
        let session = session(&server).await;
        hot_and_cold(&session).await;
        for round in 1..=3 {
            revoke(&bao, &place);
            let asked = (0..50).map(|n| super::super::ask(&session, "GET", if n % 2 == 0 { HOT } else { COLD }));
            for (status, message) in futures_util::future::join_all(asked).await {
                assert_eq!((status, message.as_str()), OK, "in round {round}");
            }
            assert_eq!(gate.count(LOGIN), 1 + round, "one login replaces the token");
        }
    });
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn a_login_that_does_not_answer_is_not_stormed() {
    let bao = OpenBao::shared();
    let (place, gate) = (place(&bao, 600, 600), Gate::new(bao.address()));
    let server = serve(&place.by_role(&gate.endpoint()), CACHE);
    block_on(async {
        let session = session(&server).await;
        hot_and_cold(&session).await;
        gate.rule(LOGIN, Rule::Answer(503, json!({ "errors": ["not today"] }).to_string()));
        revoke(&bao, &place);
        let (began, before) = (Instant::now(), gate.count(LOGIN));
        let waiting = expect(&session, "GET", COLD, NO_ANSWER);
        let meanwhile = async {
            for _ in 0..100 {
                expect(&session, "GET", HOT, OK).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        futures_util::future::join(waiting, meanwhile).await;
        let logins = gate.count(LOGIN) - before;
        // After 0.25, 0.5, 1, 2 and 4 s, then every 5 s.
        let most = 6 + usize::try_from(began.elapsed().as_secs()).expect("seconds") / 5;
        assert!((2..=most).contains(&logins), "{logins} logins in {:?}", began.elapsed());
        gate.open();
        recovers(&session, COLD).await;
        expect(&session, "GET", HOT, OK).await;
    });
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn a_login_that_is_down_harms_nobody_while_the_token_lasts() {
    let bao = OpenBao::shared();
    let (place, gate) = (place(&bao, 18, 18), Gate::new(bao.address()));
    let server = serve(&place.by_role(&gate.endpoint()), NO_CACHE);
    block_on(async {
        let session = session(&server).await;
        hot_and_cold(&session).await;
        gate.rule(LOGIN, Rule::Answer(503, String::new()));
        gate.rule(RENEWAL, Rule::Answer(503, String::new()));
        // At two thirds of its time the token should be renewed.
        while gate.count(LOGIN) < 3 {
            expect(&session, "GET", COLD, OK).await;
        }
        gate.open();
        recovers(&session, COLD).await;
    });
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn a_refused_login_is_not_a_store_that_is_down() {
    let bao = OpenBao::shared();
    let (place, gate) = (place(&bao, 600, 600), Gate::new(bao.address()));
    let server = serve(&place.by_role(&gate.endpoint()), CACHE);
    block_on(async {
        let session = session(&server).await;
        hot_and_cold(&session).await;
        let role = format!("auth/approle/role/{}", place.policy);
        bao.ask("POST", &format!("{role}/secret-id/destroy"), json!({ "secret_id": place.role.1 }));
        revoke(&bao, &place);
        expect(&session, "GET", COLD, REFUSED).await;
        expect(&session, "GET", HOT, OK).await;
        expect(&session, "GET", "/v1/ready", (502, "key store is unavailable")).await;
        assert_eq!(metric(&session, "claviger_keystore_token_age_seconds").await, None, "there is no token");
    });
    super::super::wait_for_log(&server, &["login refused (HTTP 400)"]);
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn a_sealed_store_is_used_again_when_it_is_unsealed() {
    let bao = OpenBao::start();
    let place = place(&bao, 600, 600);
    let server = serve(&place.by_role(&bao.endpoint()), CACHE);
    block_on(async {
        let session = session(&server).await;
        hot_and_cold(&session).await;
        bao.ask("PUT", "sys/seal", Value::Null);
        expect(&session, "GET", COLD, NO_ANSWER).await;
        expect(&session, "GET", HOT, OK).await;
        expect(&session, "GET", "/v1/ready", (504, "key store is not reachable")).await;
        bao.unseal();
        recovers(&session, COLD).await;
        expect(&session, "GET", "/v1/ready", OK).await;
    });
}
