//! A service that is not there, throttles, or is something else.

use serde_json::{Value, json};

use super::super::{ask, wait_for_log};
use super::server::{serve_cached, session};
use super::{connect, section};
use crate::support::gate::{Gate, Rule};
use crate::support::moto::Moto;
use crate::support::peer::free_address;
use crate::support::{Session, TestServer, block_on};

use claviger::keystore::Error;
use claviger::name::KeyName;
use claviger::telemetry::log::causes;

const HTML: &str = "<html><body>Not Found</body></html>";
const NO_CACHE: &str = "{ expiry: { any: 1ms, unused: 1ms } }";

const OK: (u16, &str) = (200, "");
const NO_ANSWER: (u16, &str) = (503, "failed to read key");
const REFUSED: (u16, &str) = (502, "failed to read key");

const HOT: &str = "/v1/key/describe/hot";
const COLD: &str = "/v1/key/describe/cold";

fn error(code: &str, message: &str) -> String {
    json!({ "__type": code, "message": message }).to_string()
}

fn throttled() -> Rule {
    Rule::Answer(400, error("ThrottlingException", "Rate exceeded"))
}

async fn expect(session: &Session, method: &str, target: &str, expected: (u16, &str)) {
    let (status, message) = ask(session, method, target).await;
    assert_eq!((status, message.as_str()), expected, "{method} {target}");
}

/// A server with two keys.
async fn hot_and_cold(gate: &Gate, cache: &str) -> (TestServer, Session) {
    let server = serve_cached(&section(&gate.endpoint(), "kes/"), cache);
    let session = session(&server).await;
    for key in ["hot", "cold"] {
        expect(&session, "PUT", &format!("/v1/key/create/{key}"), OK).await;
    }
    expect(&session, "GET", HOT, OK).await;
    (server, session)
}

#[test]
fn a_service_that_is_not_there_at_the_start_is_said_to_be() {
    let directory = tempfile::tempdir().expect("a directory");
    let nobody = section(&format!("http://{}", free_address()), "");
    let said = TestServer::refuses(directory.path(), &super::server::config(&nobody, NO_CACHE));
    assert!(said.contains("keystore.aws") && said.contains("Connection refused"), "{said}");
}

#[test]
#[ignore = "runs moto: tests/run"]
fn what_passes_is_a_503_and_the_offline_cache_serves() {
    let moto = Moto::start();
    let gate = Gate::new(moto.address());
    block_on(async {
        let cache = "{ expiry: { any: 1ms, unused: 1ms, offline: 1h } }";
        let (server, session) = hot_and_cold(&gate, cache).await;
        let outages = [
            throttled(),
            Rule::Answer(500, error("InternalServiceError", "An error occurred on the server side.")),
            Rule::Answer(503, HTML.into()),
            Rule::Hang,
            Rule::LoseAnswer,
        ];
        for outage in outages {
            gate.rule("secretsmanager.", outage);
            for _ in 0..10 {
                expect(&session, "GET", HOT, OK).await;
            }
            gate.open();
        }
        gate.rule("secretsmanager.", throttled());
        let (cold, list, create) = tokio::join!(
            expect(&session, "GET", COLD, NO_ANSWER),
            expect(&session, "GET", "/v1/key/list/*", (503, "failed to list keys")),
            expect(&session, "PUT", "/v1/key/create/new", (503, "failed to create key")),
        );
        let ((), (), ()) = (cold, list, create);
        wait_for_log(
            &server,
            &["failed to read key", "GetSecretValue of 'kes/cold': ThrottlingException: Rate exceeded"],
        );
        gate.open();
        expect(&session, "GET", COLD, OK).await;
        expect(&session, "PUT", "/v1/key/create/new", OK).await;
    });
}

#[test]
#[ignore = "runs moto: tests/run"]
fn throttling_within_a_request_is_not_noticed() {
    let moto = Moto::start();
    let gate = Gate::new(moto.address());
    block_on(async {
        let (_server, session) = hot_and_cold(&gate, NO_CACHE).await;
        gate.rule("secretsmanager.", Rule::Limit(4, 400, error("ThrottlingException", "Rate exceeded")));
        let reads = (0..6).map(|n| expect(&session, "GET", if n % 2 == 0 { HOT } else { COLD }, OK));
        futures_util::future::join_all(reads).await;
        for key in ["a", "b", "c"] {
            expect(&session, "PUT", &format!("/v1/key/create/{key}"), OK).await;
        }
        assert!(gate.refused("") > 0, "nothing was throttled");
    });
}

#[test]
#[ignore = "runs moto: tests/run"]
fn a_create_whose_answer_is_lost_is_a_create() {
    let moto = Moto::start();
    let gate = Gate::new(moto.address());
    block_on(async {
        let (_server, session) = hot_and_cold(&gate, NO_CACHE).await;
        let before = gate.count("CreateSecret");
        gate.rule("CreateSecret", Rule::LoseAnswer);
        expect(&session, "PUT", "/v1/key/create/new", OK).await;
        assert_eq!(gate.count("CreateSecret"), before + 1, "it is sent once");
        gate.open();
        expect(&session, "GET", "/v1/key/describe/new", OK).await;
    });
}

#[test]
#[ignore = "runs moto: tests/run"]
fn what_the_service_never_says_is_no_answer_about_a_key() {
    let moto = Moto::start();
    let gate = Gate::new(moto.address());
    block_on(async {
        let (_server, session) = hot_and_cold(&gate, NO_CACHE).await;
        for (status, body) in [
            (200, HTML),
            (200, ""),
            (200, "{}"),
            (200, "null"),
            (200, r#"{"SecretString":"value"}"#),
            (200, r#"{"Name":"kes/other","SecretString":"value"}"#),
            (404, HTML),
            (404, ""),
            (404, "{}"),
            (
                400,
                r#"{"__type":"ResourceNotFoundException","message":"Secrets Manager can't find the specified secret value for staging label: AWSCURRENT"}"#,
            ),
        ] {
            gate.rule("GetSecretValue", Rule::Answer(status, body.into()));
            expect(&session, "GET", COLD, REFUSED).await;
            gate.open();
        }
        for body in [HTML, "", "{}", "null"] {
            gate.rule("secretsmanager.", Rule::Answer(200, body.into()));
            expect(&session, "PUT", "/v1/key/create/new", (502, "failed to create key")).await;
            expect(&session, "DELETE", "/v1/key/delete/cold", (502, "failed to delete key")).await;
            expect(&session, "GET", "/v1/key/list/*", (502, "failed to list keys")).await;
            gate.open();
        }
        expect(&session, "GET", COLD, OK).await;
        expect(&session, "GET", "/v1/key/describe/new", (404, "key does not exist")).await;
    });
}

/// Answers of AWS that moto does not give, as its documentation has them.
#[test]
#[ignore = "runs moto: tests/run"]
fn what_lasts_is_a_failure_that_says_what_to_do() {
    let moto = Moto::start();
    let gate = Gate::new(moto.address());
    let key = KeyName::parse("key").expect("valid");
    let value = || b"value".to_vec().into();
    let scheduled = "You can't create this secret because a secret with this name is already scheduled for deletion.";
    let denied = "User: arn:aws:iam::1:user/kes is not authorized to perform: secretsmanager:CreateSecret on \
                  resource: kes/key because no identity-based policy allows the secretsmanager:CreateSecret action";
    let cases: [(&str, &str, &[&str]); 6] = [
        ("InvalidRequestException", scheduled, &["scheduled for deletion", "aws secretsmanager restore-secret"]),
        (
            "AccessDeniedException",
            denied,
            &[
                r#"{"Effect":"Allow","Action":["secretsmanager:CreateSecret"],"Resource":"arn:aws:secretsmanager:us-east-1:*:secret:kes/*"}"#,
            ],
        ),
        (
            "AccessDeniedException",
            "Access to KMS is not allowed",
            &["kms:GenerateDataKey", r#""Resource":"arn:aws:kms:us-east-1:1:key/2""#],
        ),
        ("ResourceNotFoundException", "Key 'arn:aws:kms:us-east-1:1:key/2' does not exist", &["does not exist"]),
        ("LimitExceededException", "You've reached the quota of secrets.", &["LimitExceededException"]),
        ("ExpiredTokenException", "The security token included in the request is expired", &["not good (any more)"]),
    ];
    block_on(async {
        let mut section = section(&gate.endpoint(), "kes/");
        section["kmskey"] = "arn:aws:kms:us-east-1:1:key/2".into();
        let store = connect(&section).await;
        for (code, message, says) in cases {
            gate.rule("CreateSecret", Rule::Answer(400, error(code, message)));
            let created: Result<(), Error> = store.create(&key, &value()).await;
            let Err(error @ Error::Failed(_)) = created else { panic!("{code}: {created:?}") };
            let said = causes(&error);
            assert!(says.iter().all(|text| said.contains(text)), "{code}: {said}");
            gate.open();
        }
        store.create(&key, &value()).await.expect("moto has no such worries");
    });
    let described: Value = moto.ask("DescribeSecret", &json!({ "SecretId": "kes/key" }));
    assert_eq!(described["KmsKeyId"], "arn:aws:kms:us-east-1:1:key/2");
}
