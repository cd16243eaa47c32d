//! Credentials that do not allow everything: what is missing is named, with the statement to paste.

use serde_json::{Value, json};

use claviger::keystore::{Access, Error};
use claviger::name::KeyName;
use claviger::telemetry::log::causes;

use super::{connect, section_of};
use crate::support::block_on;
use crate::support::moto::Moto;

const ALL: [&str; 6] =
    ["ListSecrets", "GetSecretValue", "CreateSecret", "DeleteSecret", "PutSecretValue", "UpdateSecretVersionStage"];

fn allow(actions: &[&str]) -> Value {
    let actions: Vec<_> = actions.iter().map(|action| format!("secretsmanager:{action}")).collect();
    json!([{ "Effect": "Allow", "Action": actions, "Resource": "*" }])
}

/// The statements that a message asks for, as an operator pastes them. Moto compares resources with "*" alone.
fn pasted(message: &str) -> Value {
    let (_, statements) = message.split_once("add to the statements of their IAM policy: ").expect(message);
    let mut statements: Value = serde_json::from_str(&format!("[{statements}]")).expect("JSON");
    for statement in statements.as_array_mut().expect("a list") {
        let (list, resource) = (json!(["secretsmanager:ListSecrets"]), statement["Resource"].take());
        let of_keys = "arn:aws:secretsmanager:us-east-1:*:secret:kes/*";
        assert_eq!(resource, if statement["Action"] == list { "*" } else { of_keys });
        statement["Resource"] = "*".into();
    }
    statements
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Error>) -> String {
    match answer {
        Err(error @ Error::Failed(_)) => causes(&error),
        other => panic!("a refusal, not {other:?}"),
    }
}

#[test]
#[ignore = "runs moto: tests/run"]
fn every_missing_right_is_named_beforehand() {
    let moto = Moto::start();
    moto.put("kes/key", "value");
    for (access, needed) in [(Access::Read, 2), (Access::Create, 3), (Access::Replace, 6)] {
        for missing in ALL.iter().take(needed).filter(|action| **action != "DeleteSecret") {
            let others: Vec<_> = ALL.into_iter().filter(|action| action != missing).collect();
            let user = moto.user(&format!("{access:?}-without-{missing}"), &allow(&others));
            moto.enforce(true);
            block_on(async {
                let store = connect(&section_of(&user, &moto, "kes/")).await;
                let message = refused(store.check(access).await);
                assert!(message.contains(&format!("do not allow secretsmanager:{missing}; add")), "{message}");
                moto.enforce(false);
                let mut statements = allow(&others);
                statements.as_array_mut().expect("a list").extend(pasted(&message).as_array().expect("a list").clone());
                moto.allow(&user.name, &statements);
                moto.enforce(true);
                store.check(access).await.expect("what was asked for was given");
            });
            moto.enforce(false);
        }
    }
    assert_eq!((moto.names(), moto.value("kes/key").as_str()), (vec!["kes/key".to_owned()], "value"));
}

#[test]
#[ignore = "runs moto: tests/run"]
fn all_that_is_missing_is_named_at_once() {
    let moto = Moto::start();
    moto.put("kes/key", "value");
    let user = moto.user("nobody", &allow(&["DescribeSecret"]));
    moto.enforce(true);
    block_on(async {
        let store = connect(&section_of(&user, &moto, "kes/")).await;
        let message = refused(store.check(Access::Create).await);
        let missing = "secretsmanager:ListSecrets, secretsmanager:CreateSecret; add";
        assert!(message.contains(missing), "without a listing no key is known: {message}");
        assert_eq!(pasted(&message).as_array().map(Vec::len), Some(2));
    });
}

#[test]
#[ignore = "runs moto: tests/run"]
fn a_call_that_is_refused_names_its_right() {
    let moto = Moto::start();
    moto.put("kes/key", "value");
    let user = moto.user("nobody", &allow(&["DescribeSecret"]));
    moto.enforce(true);
    let key = KeyName::parse("key").expect("valid");
    let value = || b"value".to_vec().into();
    block_on(async {
        let store = connect(&section_of(&user, &moto, "kes/")).await;
        store.status().await.expect("needs no right");
        for (action, message) in [
            ("GetSecretValue", refused(store.get(&key).await)),
            ("CreateSecret", refused(store.create(&key, &value()).await)),
            ("DeleteSecret", refused(store.delete(&key).await)),
            ("GetSecretValue", refused(store.replace(&key, &value(), &value()).await)),
            ("ListSecrets", refused(store.list("").await)),
        ] {
            assert!(message.contains(&format!("{action} of '")) && message.contains("AccessDenied"), "{message}");
            assert_eq!(pasted(&message)[0]["Action"], json!([format!("secretsmanager:{action}")]));
        }
    });
}

#[test]
#[ignore = "runs moto: tests/run"]
fn wrong_credentials_are_no_missing_right() {
    let moto = Moto::start();
    let mut user = moto.user("server", &allow(&ALL));
    user.secret_key = "wrong".into();
    moto.enforce(true);
    block_on(async {
        let store = connect(&section_of(&user, &moto, "kes/")).await;
        for message in [refused(store.check(Access::Read).await), refused(store.list("").await)] {
            assert!(message.contains("SignatureDoesNotMatch") && message.contains("not good"), "{message}");
            assert!(!message.contains("IAM"), "{message}");
        }
        user.access_key = "AKIAIOSFODNN7EXAMPLE".into();
        let store = connect(&section_of(&user, &moto, "kes/")).await;
        let message = refused(store.list("").await);
        assert!(message.contains("InvalidClientTokenId") && message.contains("not good"), "{message}");
    });
}
