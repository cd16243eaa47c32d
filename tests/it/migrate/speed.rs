//! How fast keys go to stores that are near and far: many keys in flight hide the way.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use claviger::name::KeyName;

use super::support::{Stores, key};
use crate::keystore::places::{Kind, Peers, Place};
use crate::support::block_on;
use crate::support::delay::Delay;

/// What every request to a far store takes longer.
const LATENCY: Duration = Duration::from_millis(20);

/// How many keys tell how long one takes.
const FEW: usize = 10;

const KINDS: [Kind; 5] = [Kind::Vault(2), Kind::SecretsManager, Kind::DynamoDb, Kind::Etcd, Kind::Postgres];

/// Says how many keys a second whole commands move. In the environment, `KEYS` is how many keys, `CLAVIGER_BINARY` a
/// program of another build, and `STORES` some of the stores; `docs/measurements.md` has the results.
#[test]
#[ignore = "runs every peer: tests/run"]
fn keys_go_a_long_way_one_by_one_and_many_at_once() {
    let keys = std::env::var("KEYS").map_or(200, |keys| keys.parse().expect("KEYS is a number"));
    let chosen = std::env::var("STORES").unwrap_or_default();
    let peers = Peers::shared();
    let is_chosen = |kind: &Kind| chosen.is_empty() || chosen.split(',').any(|name| kind.to_string() == name);
    for kind in KINDS.into_iter().filter(is_chosen) {
        let near = rates(keys, &Place::new(kind, &peers));
        let delay = Delay::new(peers.address(kind).expect("a server"), LATENCY);
        let far = || {
            let mut place = Place::new(kind, &peers);
            move_away(&mut place.section, &delay);
            place
        };
        let one = one_by_one(&far());
        let far = rates(keys, &far());
        for (way, what) in ["to", "verify of", "from"].into_iter().enumerate() {
            let ([near, far], one) = ([near[way], far[way]], one[way]);
            let times = far / one;
            eprintln!("{what} {kind}: {near:.0} keys/s; far away {far:.0} beside {one:.1}, {times:.1} times");
        }
    }
}

/// Moves keys to a store, compares them, and moves them back. Returns the keys a second of each command.
fn rates(keys: usize, place: &Place) -> [f64; 3] {
    let stores = Stores::with_keys(keys);
    stores.write("far.yml", &json!({ "keystore": place.section }).to_string());
    let ways = [
        ["migrate", "--from", "src.yml", "--to", "far.yml", "-q"],
        ["verify", "--from", "src.yml", "--to", "far.yml", "-q"],
        ["migrate", "--from", "far.yml", "--to", "dst.yml", "-q"],
    ];
    let rates = ways.map(|way| {
        let began = Instant::now();
        stores.run(&way).expect(0);
        keys as f64 / began.elapsed().as_secs_f64()
    });
    assert!(stores.keys("src") == stores.keys("dst"), "{}: all came back byte for byte", place.kind);
    rates
}

/// The same for one key at a time, where everything else is free: no start, no login, no listing.
fn one_by_one(place: &Place) -> [f64; 3] {
    block_on(async {
        let store = place.connect().await;
        let keys =
            (0..=FEW).map(|n| (KeyName::parse(&format!("key-{n}")).expect("a name"), key(n).into_bytes().into()));
        let keys: Vec<_> = keys.collect();
        // The first one makes the connections.
        let ((first, value), keys) = keys.split_first().expect("a key");
        store.create(first, value).await.expect("created");
        store.get(first).await.expect("there");
        let began = Instant::now();
        for (name, value) in keys {
            store.create(name, value).await.expect("created");
            assert!(store.get(name).await.expect("there").is_same(value));
        }
        let written = began.elapsed();
        let began = Instant::now();
        for (name, value) in keys {
            assert!(store.get(name).await.expect("there").is_same(value));
        }
        let read = began.elapsed();
        [written, read, read].map(|time| FEW as f64 / time.as_secs_f64())
    })
}

fn move_away(section: &mut Value, delay: &Delay) {
    let section = section.as_object_mut().expect("a section").values_mut().next().expect("a store");
    let section = if section.get("secretsmanager").is_some() { &mut section["secretsmanager"] } else { section };
    match section.get("endpoints") {
        _ if section.get("hosts").is_some() => section["hosts"] = json!([delay.address().to_string()]),
        Some(_) => section["endpoints"] = json!([format!("https://{}", delay.address())]),
        None => section["endpoint"] = delay.endpoint().into(),
    }
}
