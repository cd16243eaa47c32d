//! Key stores that are far away: many keys in flight hide the way.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::stores::{Kind, Peers, place};
use super::support::Stores;
use crate::support::delay::Delay;

/// What every request takes longer.
const LATENCY: Duration = Duration::from_millis(20);

/// `KEYS` in the environment is how many keys are moved at once; of those that are moved one by one there are a tenth. Says how fast
/// both were; `docs/measurements.md` has the results.
#[test]
#[ignore = "runs OpenBao: tests/run"]
fn keys_go_a_long_way_one_by_one_and_many_at_once() {
    let keys = std::env::var("KEYS").map_or(200, |keys| keys.parse().expect("KEYS is a number"));
    let peers = Peers::shared();
    let places = [
        (Kind::Vault(2), peers.bao.address()),
        (Kind::SecretsManager, peers.moto.address()),
        (Kind::DynamoDb, peers.moto.address()),
        (Kind::Etcd, peers.etcd.address(0)),
        (Kind::Postgres, peers.postgres.address(0)),
    ];
    for (kind, peer) in places {
        let delay = Delay::new(peer, LATENCY);
        let mut rates = Vec::new();
        for (count, more) in [(keys / 10, &["--concurrency", "1"][..]), (keys, &[])] {
            let stores = Stores::with_keys(count);
            let (mut far, _) = place(kind, &peers);
            move_away(&mut far, &delay);
            stores.write("far.yml", &json!({ "keystore": far }).to_string());
            let ways = [
                ["migrate", "--from", "src.yml", "--to", "far.yml"],
                ["verify", "--from", "src.yml", "--to", "far.yml"],
                ["migrate", "--from", "far.yml", "--to", "dst.yml"],
            ];
            rates.push(ways.map(|way| {
                let began = Instant::now();
                stores.run(&[&way[..], more].concat()).expect(0);
                count as f64 / began.elapsed().as_secs_f64()
            }));
            assert_eq!(stores.keys("src"), stores.keys("dst"));
        }
        for (way, what) in ["to", "verify of", "from"].into_iter().enumerate() {
            let [one, many] = [rates[0][way], rates[1][way]];
            eprintln!("{what} {kind:?}: {many:.0} keys/s beside {one:.1}, {:.1} times", many / one);
        }
    }
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
