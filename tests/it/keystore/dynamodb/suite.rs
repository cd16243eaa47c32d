//! The one suite, and what it does not know.

use futures_util::future::join_all;
use serde_json::json;

use claviger::keystore::{Error, conformance};

use super::{connect, name, value};
use crate::support::block_on;
use crate::support::dynamodb::{DynamoDb, make};
use crate::support::moto::Moto;

/// How many rounds eight creators race.
const ROUNDS: usize = 200;
const RACERS: usize = 8;

#[test]
#[ignore = "runs moto: tests/run"]
fn passes_it() {
    let table = DynamoDb::new(Moto::shared());
    block_on(async {
        let store = connect(&table.section("claviger")).await.expect("connects");
        conformance::run(&*store).await;
        assert!(store.about().warnings.is_empty(), "{:?}", store.about().warnings);
        assert!(store.about().identity.await.expect("known").contains(":table/"));
    });
    assert!(table.items().is_empty());
}

#[test]
#[ignore = "runs moto: tests/run"]
fn of_eight_creators_one_wins() {
    let table = DynamoDb::new(Moto::shared());
    block_on(async {
        let mut stores = Vec::new();
        for _ in 0..RACERS {
            stores.push(connect(&table.section("claviger")).await.expect("connects"));
        }
        for round in 0..ROUNDS {
            let key = name(&format!("race-{round}"));
            let values: Vec<_> = (0..RACERS).map(|n| value(&format!("value {n} of {round}"))).collect();
            let creates = stores.iter().zip(&values).map(|(store, value)| store.create(&key, value));
            let created = join_all(creates).await;
            let lost = created.iter().filter(|created| matches!(created, Err(Error::Exists))).count();
            assert_eq!(lost, RACERS - 1, "round {round}: {created:?}");
            let winner = created.iter().position(Result::is_ok).expect("one wins");
            assert!(stores[round % RACERS].get(&key).await.expect("there").is_same(&values[winner]), "round {round}");
        }
    });
}

#[test]
#[ignore = "runs moto: tests/run"]
fn partitions_do_not_see_one_another_and_what_is_no_key_is_apart() {
    let table = DynamoDb::new(Moto::shared());
    block_on(async {
        let one = connect(&table.section("one")).await.expect("connects");
        let two = connect(&table.section("two")).await.expect("connects");
        one.create(&name("key"), &value("of one")).await.expect("created");
        assert!(matches!(two.get(&name("key")).await, Err(Error::NotFound)));
        two.create(&name("key"), &value("of two")).await.expect("created");
        let (of_one, of_two) =
            (one.get(&name("key")).await.expect("there"), two.get(&name("key")).await.expect("there"));
        assert!(of_one.is_same(&value("of one")) && of_two.is_same(&value("of two")));
        table.put(&json!({ "store": { "S": "one" }, "name": { "S": "no key" } }));
        table.put(&json!({ "store": { "S": "one" }, "name": { "S": "text" }, "value": { "S": "a text" } }));
        let listing = one.list("").await.expect("it lists");
        assert_eq!(listing.names, [name("key"), name("text")]);
        assert_eq!(listing.foreign[0].name, "no key");
        for got in [one.get(&name("text")).await, one.get_batch(&[name("text")]).await.remove(0)] {
            assert!(matches!(got, Err(Error::Failed(_))), "{got:?}");
        }
    });
}

#[test]
#[ignore = "runs moto: tests/run"]
fn batches_are_larger_than_calls_and_may_name_a_key_twice() {
    let table = DynamoDb::new(Moto::shared());
    block_on(async {
        let store = connect(&table.section("claviger")).await.expect("connects");
        let names: Vec<_> = (0..250).map(|n| name(&format!("key-{n:03}"))).collect();
        let values: Vec<_> = (0..250).map(|n| value(&format!("value {n}"))).collect();
        let keys: Vec<_> = names.iter().zip(&values).collect();
        assert!(store.create_batch(&keys).await.iter().all(Result::is_ok));
        let created = store.create_batch(&keys[..3]).await;
        assert!(created.iter().all(|created| matches!(created, Err(Error::Exists))), "{created:?}");
        let mut asked = names.clone();
        asked.extend([name("missing"), names[0].clone()]);
        let got = store.get_batch(&asked).await;
        assert!(got.iter().zip(&values).all(|(got, value)| got.as_ref().expect("there").is_same(value)));
        assert!(matches!(got[250], Err(Error::NotFound)));
        assert!(got[251].as_ref().expect("there").is_same(&values[0]));
        assert_eq!(store.list("key-1").await.expect("it lists").names.len(), 100);
    });
}

#[test]
#[ignore = "runs moto: tests/run"]
fn a_table_that_cannot_hold_keys_is_refused() {
    let mut table = DynamoDb::new(Moto::shared());
    let good = table.table.clone();
    let attribute = |name| json!({ "AttributeName": name, "AttributeType": "S" });
    let odd = format!("{good}-odd");
    make(&table.moto, &odd, &json!([{ "AttributeName": "name", "KeyType": "HASH" }]), &[attribute("name")]);
    block_on(async {
        for (name, says) in [(odd, "has other keys"), (format!("{good}-none"), "aws dynamodb create-table")] {
            table.table = name;
            let Err(Error::Failed(cause)) = connect(&table.section("claviger")).await.map(drop) else {
                panic!("{says}")
            };
            assert!(cause.to_string().contains(says), "{cause}");
        }
    });
}
