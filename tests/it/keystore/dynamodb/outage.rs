//! A service that is not there, throttles, loses answers, or is something else.

use serde_json::json;

use claviger::keystore::{Error, KeyStore as _, Retry};
use claviger::telemetry::log::causes;

use super::{connect, name, value};
use crate::support::block_on;
use crate::support::dynamodb::DynamoDb;
use crate::support::gate::{Gate, Rule};
use crate::support::moto::Moto;
use crate::support::peer::free_address;

fn error(code: &str) -> String {
    json!({ "__type": format!("com.amazonaws.dynamodb.v20120810#{code}"), "message": "words" }).to_string()
}

#[test]
#[ignore = "runs moto: tests/run"]
fn what_passes_is_unreachable_and_what_lasts_says_what_to_do() {
    let table = DynamoDb::new(Moto::shared());
    let gate = Gate::new(table.moto.address());
    block_on(async {
        let store = connect(&table.section_at(&gate.endpoint(), "claviger")).await.expect("connects");
        store.create(&name("key"), &value("value")).await.expect("created");
        for (status, code, passes) in [
            (400, "ThrottlingException", true),
            (400, "ProvisionedThroughputExceededException", true),
            (400, "RequestLimitExceeded", true),
            (500, "InternalServerError", true),
            (503, "ServiceUnavailable", true),
            (400, "AccessDeniedException", false),
            (400, "ResourceNotFoundException", false),
            (400, "ValidationException", false),
            (400, "UnrecognizedClientException", false),
            (400, "ItemCollectionSizeLimitExceededException", false),
        ] {
            gate.rule("DynamoDB_20120810.", Rule::Answer(status, error(code)));
            let answers = [
                store.get(&name("key")).await.map(drop),
                store.get_batch(&[name("key")]).await.remove(0).map(drop),
                store.create(&name("new"), &value("value")).await,
                store.replace(&name("key"), &value("value"), &value("new")).await,
                store.delete(&name("key")).await,
                store.list("").await.map(drop),
            ];
            for answer in answers {
                match answer {
                    Err(Error::Unreachable(_)) if passes => {}
                    Err(error @ Error::Failed(_)) if !passes => assert!(causes(&error).contains(code), "{error:?}"),
                    other => panic!("{code}: {other:?}"),
                }
            }
            gate.open();
        }
        assert!(store.get(&name("key")).await.expect("there").is_same(&value("value")));
    });
}

#[test]
#[ignore = "runs moto: tests/run"]
fn what_the_service_never_says_is_no_answer_about_a_key() {
    let table = DynamoDb::new(Moto::shared());
    let gate = Gate::new(table.moto.address());
    let other = json!({ "ConsumedCapacity": { "TableName": "another", "CapacityUnits": 1.0 } }).to_string();
    block_on(async {
        let store = connect(&table.section_at(&gate.endpoint(), "claviger")).await.expect("connects");
        store.create(&name("key"), &value("value")).await.expect("created");
        for (status, body) in [
            (200, "<html></html>"),
            (200, ""),
            (200, "{}"),
            (200, "null"),
            (200, &other),
            (404, "{}"),
            (404, "<html></html>"),
        ] {
            gate.rule("DynamoDB_20120810.", Rule::Answer(status, body.into()));
            let answers = [
                store.get(&name("key")).await.map(drop),
                store.get_batch(&[name("key")]).await.remove(0).map(drop),
                store.create(&name("new"), &value("value")).await,
                store.replace(&name("key"), &value("value"), &value("new")).await,
                store.delete(&name("key")).await,
                store.list("").await.map(drop),
            ];
            for (index, answer) in answers.into_iter().enumerate() {
                assert!(matches!(answer, Err(Error::Failed(_) | Error::Unreachable(_))), "{index}, {body}: {answer:?}");
            }
            gate.open();
        }
        assert!(matches!(store.get(&name("new")).await, Err(Error::NotFound)));
    });
}

#[test]
#[ignore = "runs moto: tests/run"]
fn a_write_whose_answer_is_lost_is_done_once() {
    let table = DynamoDb::new(Moto::shared());
    let gate = Gate::new(table.moto.address());
    block_on(async {
        let store = connect(&table.section_at(&gate.endpoint(), "claviger")).await.expect("connects");
        let store = Retry::new(store);
        for (action, round) in [("PutItem", 0), ("UpdateItem", 1), ("DeleteItem", 2)] {
            gate.rule(action, Rule::LoseAnswer);
            let done = match round {
                0 => store.create(&name("key"), &value("mine")).await,
                1 => store.replace(&name("key"), &value("mine"), &value("new")).await,
                _ => store.delete(&name("key")).await,
            };
            done.unwrap_or_else(|error| panic!("{action}: {}", causes(&error)));
            assert_eq!(gate.count(action), 1, "{action} is sent once");
            gate.open();
        }
        assert!(table.items().is_empty());
    });
}

#[test]
#[ignore = "runs moto: tests/run"]
fn throttling_is_waited_out() {
    let table = DynamoDb::new(Moto::shared());
    let gate = Gate::new(table.moto.address());
    block_on(async {
        let store = Retry::new(connect(&table.section_at(&gate.endpoint(), "claviger")).await.expect("connects"));
        gate.rule("PutItem", Rule::Limit(10, 400, error("ProvisionedThroughputExceededException")));
        let names: Vec<_> = (0..20).map(|n| name(&format!("key-{n}"))).collect();
        let value = value("value");
        let keys: Vec<_> = names.iter().map(|name| (name, &value)).collect();
        let created = store.create_batch(&keys).await;
        assert!(created.iter().all(Result::is_ok), "{created:?}");
        assert!(gate.refused("PutItem") > 0, "nothing was throttled");
    });
    assert_eq!(table.items().len(), 20);
}

#[test]
fn a_service_that_is_not_there_is_said_to_be() {
    let section = json!({
        "table": "keys", "region": "us-east-1", "endpoint": format!("http://{}", free_address()),
        "credentials": { "accesskey": "a", "secretkey": "b" },
    });
    let Err(error @ Error::Unreachable(_)) = block_on(connect(&section)).map(drop) else { panic!("nobody is there") };
    assert!(causes(&error).contains("Connection refused"), "{}", causes(&error));
}
