//! Credentials that do not allow everything: what is missing is named, with the statement to paste.

use serde_json::{Value, json};

use claviger::keystore::{Access, Error};
use claviger::telemetry::log::causes;

use super::{connect, name, value};
use crate::support::block_on;
use crate::support::dynamodb::DynamoDb;
use crate::support::moto::Moto;
use crate::support::program::Program;

const ALL: [&str; 7] = ["DescribeTable", "Query", "GetItem", "BatchGetItem", "PutItem", "DeleteItem", "UpdateItem"];

/// Moto compares resources with "*" alone, and knows no conditions.
fn allow(actions: &[&str]) -> Value {
    let actions: Vec<_> = actions.iter().map(|action| format!("dynamodb:{action}")).collect();
    json!([{ "Effect": "Allow", "Action": actions, "Resource": "*" }])
}

/// Gives a user these rights and no other.
fn grant(moto: &Moto, user: &str, actions: &[&str]) {
    // Whoever gives them has none.
    moto.enforce(false);
    moto.allow(user, &allow(actions));
    moto.enforce(true);
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
    let table = DynamoDb::new(Moto::start().into());
    let moto = &table.moto;
    let user = moto.user("server", &allow(&ALL));
    moto.enforce(true);
    block_on(async {
        let store = connect(&table.section_of(&user, "claviger")).await.expect("connects");
        for (access, needed) in [
            (Access::Read, &["Query", "GetItem", "BatchGetItem"][..]),
            (Access::Create, &["Query", "GetItem", "BatchGetItem", "PutItem"]),
            (Access::Serve, &["Query", "GetItem", "BatchGetItem", "PutItem", "DeleteItem"]),
            (Access::Replace, &["Query", "GetItem", "BatchGetItem", "PutItem", "UpdateItem"]),
        ] {
            for missing in needed {
                let others: Vec<_> = ALL.into_iter().filter(|action| action != missing).collect();
                grant(moto, &user.name, &others);
                let said = refused(store.check(access).await);
                assert!(said.contains(&format!("do not allow dynamodb:{missing};")), "{access:?}: {said}");
            }
            grant(moto, &user.name, needed);
            store.check(access).await.unwrap_or_else(|error| panic!("{access:?}: {}", causes(&error)));
        }
        // Nothing was stored by asking.
        grant(moto, &user.name, &ALL);
        assert!(store.list("").await.expect("it lists").names.is_empty());

        grant(moto, &user.name, &["DescribeTable"]);
        for said in [
            refused(store.get(&name("key")).await),
            refused(store.create(&name("key"), &value("value")).await),
            refused(store.list("").await),
            refused(store.delete(&name("key")).await),
        ] {
            let (_, statement) = said.split_once("for 'migrate --force'): ").expect(&said);
            let statement: Value = serde_json::from_str(statement).expect("JSON");
            assert_eq!(statement["Condition"]["ForAllValues:StringEquals"]["dynamodb:LeadingKeys"][0], "claviger");
            let arn = format!("arn:aws:dynamodb:us-east-1:*:table/{}", table.table);
            assert_eq!(statement["Resource"], arn.as_str());
        }
        let answers = store.get_batch(&[name("key")]).await;
        assert!(matches!(answers[..], [Err(Error::Failed(_))]), "{answers:?}");
        // Without the right to ask for the table there is a warning.
        grant(moto, &user.name, &ALL[1..]);
        let store = connect(&table.section_of(&user, "claviger")).await.expect("connects");
        assert!(
            store.about().warnings[0].contains("do not allow dynamodb:DescribeTable"),
            "{:?}",
            store.about().warnings
        );
    });
}

#[test]
#[ignore = "runs moto: tests/run"]
fn the_doctor_knows_rights_and_clock() {
    let table = DynamoDb::new(Moto::start().into());
    let user = table.moto.user("reader", &allow(&["DescribeTable", "Query", "GetItem", "BatchGetItem"]));
    table.moto.enforce(true);
    let directory = tempfile::tempdir().expect("a directory");
    let config = json!({ "keystore": { "dynamodb": table.section_of(&user, "claviger") } });
    std::fs::write(directory.path().join("config.yml"), config.to_string()).expect("written");
    let doctor = Program::named("claviger", directory.path());
    let examine = |purpose: &str| -> Vec<(String, String, String)> {
        let said = doctor.run(&["doctor", "--config", "config.yml", "--json", "--for", purpose]).stdout;
        let checks: Vec<Value> = serde_json::from_str(&said).expect("a list");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let of_store = checks.iter().filter(|check| text(&check["id"]).starts_with("keystore."));
        of_store.map(|check| (text(&check["id"]), text(&check["status"]), text(&check["message"]))).collect()
    };
    let checks = examine("migrate-source");
    let ids: Vec<_> = checks.iter().map(|(id, ..)| id.as_str()).collect();
    assert_eq!(ids, ["keystore.reach", "keystore.rights", "keystore.latency", "keystore.clock"], "{checks:?}");
    assert!(checks.iter().all(|(_, status, _)| status == "ok"), "{checks:?}");
    let checks = examine("migrate-target");
    let (.., message) =
        checks.iter().find(|(id, status, _)| id == "keystore.rights" && status == "failed").expect("it");
    assert!(message.contains("do not allow dynamodb:PutItem, dynamodb:UpdateItem"), "{message}");
}
