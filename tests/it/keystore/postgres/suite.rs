//! The one suite, and what it does not know.

use futures_util::future::join_all;

use claviger::keystore::{Error, conformance};
use serde_json::json;

use super::{RIGHTS, connect, name, value};
use crate::support::postgres::Postgres;
use crate::support::{block_on, certs};

/// How many rounds eight creators race.
const ROUNDS: usize = 200;
const RACERS: usize = 8;

#[test]
#[ignore = "runs PostgreSQL: tests/run"]
fn passes_it_by_password_and_by_certificate() {
    let postgres = Postgres::shared();
    block_on(async {
        let table = postgres.table(RIGHTS);
        let mut section = postgres.section(&table);
        conformance::run(&*connect(&section).await.expect("connects")).await;
        section["user"] = "certified".into();
        section.as_object_mut().expect("a section").remove("password");
        section["tls"] = json!({ "ca": certs("ca.crt"), "cert": certs("app.crt"), "key": certs("app.key") });
        section["table"] = format!("public.{table}").into();
        conformance::run(&*connect(&section).await.expect("connects")).await;
        assert_eq!(postgres.psql(0, "keys", &format!("SELECT count(*) FROM {table}")), "0");
    });
}

#[test]
#[ignore = "runs PostgreSQL: tests/run"]
fn of_eight_creators_one_wins() {
    let postgres = Postgres::shared();
    let section = postgres.section(&postgres.table(RIGHTS));
    block_on(async {
        let mut stores = Vec::new();
        for _ in 0..RACERS {
            stores.push(connect(&section).await.expect("connects"));
        }
        for round in 0..ROUNDS {
            let key = name(&format!("race-{round}"));
            let values: Vec<_> = (0..RACERS).map(|n| value(&format!("value {n} of {round}"))).collect();
            let creates = stores.iter().zip(&values).map(|(store, value)| store.create(&key, value));
            let created = join_all(creates).await;
            let lost = created.iter().filter(|created| matches!(created, Err(Error::Exists))).count();
            assert_eq!(lost, RACERS - 1, "round {round}: {created:?}");
            let winner = created.iter().position(Result::is_ok).expect("one wins");
            for store in &stores {
                assert!(store.get(&key).await.expect("it is there").is_same(&values[winner]), "round {round}");
            }
        }
    });
}

#[test]
#[ignore = "runs PostgreSQL: tests/run"]
fn a_listing_has_many_pages_and_what_is_no_key_apart() {
    let postgres = Postgres::shared();
    let table = postgres.table(RIGHTS);
    block_on(async {
        let store = connect(&postgres.section(&table)).await.expect("connects");
        let fill =
            format!("INSERT INTO {table} SELECT 'key_' || to_char(n, 'FM00000'), 'x' FROM generate_series(0, 23456) n");
        postgres.psql(0, "keys", &fill);
        postgres.psql(0, "keys", &format!("INSERT INTO {table} VALUES ('no key', 'x'), ('keyX00000', 'x')"));
        let listing = store.list("").await.expect("it lists");
        assert_eq!(listing.names.len(), 23_458);
        assert_eq!(listing.foreign.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["no key"]);
        // An underscore is no wildcard.
        assert_eq!(store.list("key_0000").await.expect("it lists").names.len(), 10);
    });
}

#[test]
#[ignore = "runs PostgreSQL: tests/run"]
fn a_name_twice_in_one_batch_is_created_once() {
    let postgres = Postgres::shared();
    let section = postgres.section(&postgres.table(RIGHTS));
    block_on(async {
        let store = connect(&section).await.expect("connects");
        let (key, first, second) = (name("key"), value("first"), value("second"));
        let created = store.create_batch(&[(&key, &first), (&key, &second)]).await;
        assert!(matches!(created[..], [Ok(()), Err(Error::Exists)]), "{created:?}");
        let got = store.get_batch(&[key.clone(), name("missing"), key.clone()]).await;
        let [Ok(one), Err(Error::NotFound), Ok(two)] = &got[..] else { panic!("{got:?}") };
        assert!(one.is_same(&first) && two.is_same(&first));
    });
}
