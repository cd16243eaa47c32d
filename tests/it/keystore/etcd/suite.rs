//! The one suite, and what it does not know.

use futures_util::future::join_all;

use claviger::crypto::Blob;
use claviger::keystore::{Error, conformance};

use super::{connect, name};
use crate::support::block_on;
use crate::support::etcd::{Etcd, tls};
use crate::support::openbao::unique;

/// How many rounds eight creators race.
const ROUNDS: usize = 200;
const RACERS: usize = 8;

#[test]
#[ignore = "runs etcd: tests/run"]
fn passes_it() {
    let etcd = Etcd::shared();
    block_on(async {
        let store = connect(&etcd.section(&format!("{}/", unique("suite")))).await.expect("connects");
        conformance::run(&*store).await;
    });
}

/// The rights are those that the documentation gives, and no other; once by password, once by certificate.
#[test]
#[ignore = "runs etcd: tests/run"]
fn users_with_a_right_to_the_prefix_pass_it() {
    let mut etcd = Etcd::start(1, &[]);
    etcd.enable_users();
    etcd.user("claviger", "password", Some(("readwrite", "claviger/")));
    etcd.user("claviger development app", "unused", Some(("readwrite", "claviger/")));
    block_on(async {
        let by_password = connect(&etcd.section_of("claviger", "password", "claviger/")).await.expect("connects");
        conformance::run(&*by_password).await;
        let mut section = etcd.section("claviger/");
        section["tls"] = tls("app");
        conformance::run(&*connect(&section).await.expect("connects")).await;
    });
}

#[test]
#[ignore = "runs etcd: tests/run"]
fn of_eight_creators_at_three_members_one_wins() {
    let etcd = Etcd::shared();
    let prefix = format!("{}/", unique("race"));
    block_on(async {
        let mut stores = Vec::new();
        for racer in 0..RACERS {
            let mut section = etcd.section(&prefix);
            section["endpoints"].as_array_mut().expect("a list").rotate_left(racer % 3);
            stores.push(connect(&section).await.expect("connects"));
        }
        for round in 0..ROUNDS {
            let key = name(&format!("race-{round}"));
            let values: Vec<_> =
                (0..RACERS).map(|n| Blob::from(format!("value {n} of {round}").into_bytes())).collect();
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
#[ignore = "runs etcd: tests/run"]
fn a_listing_has_many_pages_and_what_is_no_key_apart() {
    let etcd = Etcd::shared();
    let prefix = format!("{}/", unique("pages"));
    block_on(async {
        let store = connect(&etcd.section(&prefix)).await.expect("connects");
        let names: Vec<_> = (0..2_345).map(|n| name(&format!("key-{n:05}"))).collect();
        let value = Blob::from(b"value".to_vec());
        for some in names.chunks(store.batch()) {
            let keys: Vec<_> = some.iter().map(|name| (name, &value)).collect();
            assert!(store.create_batch(&keys).await.iter().all(Result::is_ok));
        }
        etcd.ctl(&["put", &format!("{prefix}folder/entry"), "value"]);
        let listing = store.list("").await.expect("it lists");
        assert_eq!(listing.names, names);
        assert_eq!(listing.foreign.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["folder/entry"]);
        assert_eq!(store.list("key-0001").await.expect("it lists").names.len(), 10);
        assert!(store.about().identity.await.expect("known").contains("etcd: cluster "));
    });
}
