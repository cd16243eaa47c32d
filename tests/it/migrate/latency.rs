//! Key stores that are far away: many keys in flight hide the way.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::stores::{Kind, place};
use super::support::Stores;
use crate::support::delay::Delay;
use crate::support::moto::Moto;
use crate::support::openbao::OpenBao;

/// What every request takes longer.
const LATENCY: Duration = Duration::from_millis(20);

/// So many times as fast as one at a time a run is at least, also on a machine that is busy with all the other tests.
/// `docs/measurements.md` has what it is on one that is not.
const AT_LEAST: f64 = 2.0;

/// `KEYS` in the environment is how many keys are moved at once; of those that are moved one by one there are a tenth.
#[test]
fn many_keys_in_flight_hide_the_latency_of_a_store() {
    let keys = std::env::var("KEYS").map_or(200, |keys| keys.parse().expect("KEYS is a number"));
    let (bao, moto) = (OpenBao::start(), Moto::start());
    let mut too_slow = Vec::new();
    for (kind, peer) in [(Kind::Vault(2), bao.address()), (Kind::SecretsManager, moto.address())] {
        let delay = Delay::new(peer, LATENCY);
        let mut rates = Vec::new();
        for (count, more) in [(keys / 10, &["--concurrency", "1"][..]), (keys, &[])] {
            let stores = Stores::with_keys(count);
            let (mut far, _) = place(kind, &bao, &moto);
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
            let rates = format!("{what} {kind:?}: {many:.0} keys/s beside {one:.1}, {:.1} times", many / one);
            eprintln!("{rates}");
            if many < AT_LEAST * one {
                too_slow.push(rates);
            }
        }
    }
    assert!(too_slow.is_empty(), "{too_slow:#?}");
}

fn move_away(section: &mut Value, delay: &Delay) {
    let section = section.as_object_mut().expect("a section").values_mut().next().expect("a store");
    let section = if section.get("secretsmanager").is_some() { &mut section["secretsmanager"] } else { section };
    section["endpoint"] = delay.endpoint().into();
}
