//! What the doctor says of each kind of key store.

use serde_json::{Value, json};

use super::places::{Kind, Peers, Place};
use crate::migrate::support::key;
use crate::support::block_on;
use crate::support::program::Program;

/// The risks that the peers of the tests have, by a part of the text: nobody is asked who they are, or a standby lags.
fn risks(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Etcd => &["etcd knows no users"],
        Kind::Postgres => &["the standbys of PostgreSQL are asynchronous"],
        _ => &[],
    }
}

/// What a check of the doctor found.
struct Found {
    id: String,
    status: String,
    message: String,
}

/// Runs the doctor; returns what it found about the key store and the required keys.
fn examine(place: &Place, purpose: &str, required: &str) -> Vec<Found> {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("config.yml"), json!({ "keystore": place.section }).to_string())
        .expect("written");
    let variables = place.variables.iter();
    let doctor = variables
        .fold(Program::named("claviger", directory.path()), |doctor, (name, value)| doctor.env(name, value.clone()));
    let args = ["doctor", "--config", "config.yml", "--json", "--for", purpose, "--require-keys", required];
    let outcome = doctor.run(&args);
    let checks: Vec<Value> = serde_json::from_str(&outcome.stdout).unwrap_or_else(|_| panic!("{outcome:?}"));
    let text = |check: &Value, field: &str| check[field].as_str().expect("a text").to_owned();
    let found = checks.iter().map(|check| Found {
        id: text(check, "id"),
        status: text(check, "status"),
        message: text(check, "message"),
    });
    found.filter(|found| found.id.starts_with("key")).collect()
}

#[test]
#[ignore = "runs every peer: tests/run"]
fn required_keys_are_tried_out_in_every_store_and_its_latency_clock_and_risks_are_shown() {
    let peers = Peers::shared();
    for kind in Kind::all() {
        let place = Place::new(kind, &peers);
        block_on(async {
            let store = place.connect().await;
            for n in 0..2 {
                let name = claviger::name::KeyName::parse(&format!("key-{n}")).expect("a name");
                store.create(&name, &key(n).into_bytes().into()).await.expect("created");
            }
        });
        let found = examine(&place, "migrate-source", "key-0,key-1");
        let of = |found: &[Found], id: &str| {
            let with = found.iter().filter(|found| found.id == id);
            with.map(|found| (found.status.clone(), found.message.clone())).collect::<Vec<_>>()
        };
        let ok = |id: &str, says: &str| {
            let [(status, message)] = &of(&found, id)[..] else { panic!("{kind}: not one line of {id}") };
            assert!(status == "ok" && message.contains(says), "{kind}: {id} is {status}: {message}");
        };
        ok("keystore.reach", "answers");
        ok("keys.required", "2 required keys, each there");
        if !matches!(kind, Kind::Directory) {
            ok("keystore.rights", "the credentials allow what is needed");
            ok("keystore.latency", "the fastest of 5 answers took");
        }
        // Neither a directory nor etcd tells the time.
        if !matches!(kind, Kind::Directory | Kind::Etcd) {
            ok("keystore.clock", "the clocks here and there agree");
        }
        let said = of(&found, "keystore.risk");
        let expected = risks(kind);
        assert!(said.len() == expected.len(), "{kind}: {said:?}");
        assert!(said.iter().zip(expected).all(|((_, said), risk)| said.contains(risk)), "{kind}: {said:?}");

        let found = examine(&place, "migrate-source", "key-0,missing");
        let [(status, message)] = &of(&found, "keys.required")[..] else { panic!("{kind}: not one line") };
        let says = "1 of 2 required keys cannot be used: 'missing' (it does not exist)";
        assert!(status == "failed" && message.contains(says), "{kind}: {message}");
    }
}
