//! Creators that race for a name, from two servers.

use futures_util::future::join_all;

use claviger::crypto::Blob;
use claviger::keystore::{Error, KeyStore};

use super::{VENDORS, name};
use crate::support::block_on;
use crate::support::clouds::Clouds;

/// How many creators race for one name.
const RACERS: usize = 8;

/// Lets creators race for a name, half of them at each store; fails unless one wins, and has what is stored.
pub async fn race(stores: [&dyn KeyStore; 2], key: &str) {
    let key = name(key);
    let values: Vec<Blob> = (0..RACERS).map(|n| format!("{key}: value {n}").into_bytes().into()).collect();
    let created = join_all(values.iter().enumerate().map(|(n, value)| stores[n % 2].create(&key, value))).await;
    let winners: Vec<_> = (0..RACERS).filter(|n| created[*n].is_ok()).collect();
    let [winner] = winners[..] else { panic!("{key}: {created:?}") };
    let lost = created.iter().filter(|created| matches!(created, Err(Error::Exists))).count();
    assert_eq!(lost, RACERS - 1, "{key}: {created:?}");
    for store in stores {
        assert!(store.get(&key).await.expect("created").is_same(&values[winner]), "{key}");
    }
}

#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn one_of_eight_creators_wins() {
    for vendor in VENDORS {
        let clouds = Clouds::start();
        // Where a create takes seconds, rounds run beside each other.
        block_on(async {
            let stores = [vendor.connect(&clouds).await, vendor.connect(&clouds).await];
            for batch in 0..5 {
                let rounds = (0..40).map(|n| format!("race-{batch}-{n}")).collect::<Vec<_>>();
                join_all(rounds.iter().map(|key| race([&*stores[0], &*stores[1]], key))).await;
            }
        });
    }
}
