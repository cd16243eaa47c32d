//! Members that die, a quorum that is lost, answers that do not come, and another cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use claviger::crypto::Blob;
use claviger::keystore::{Error, KeyStore, Retry};
use claviger::telemetry::log::causes;

use super::{config, connect, expect, name, serve, session};
use crate::support::etcd::Etcd;
use crate::support::gate::Gate;
use crate::support::openbao::unique;
use crate::support::peer::free_address;
use crate::support::wire::Wire;
use crate::support::{TestServer, block_on};

const OK: (u16, &str) = (200, "");
const NO_ANSWER: (u16, &str) = (503, "failed to read key");

/// Keys that were read are kept.
const CACHE: &str = "{ expiry: { any: 1h, unused: 1h } }";

fn value(text: &str) -> Blob {
    text.as_bytes().to_vec().into()
}

/// The store behind the retries of a server.
fn patient(store: Arc<dyn KeyStore>) -> Retry {
    Retry::new(store)
}

#[test]
#[ignore = "runs etcd: tests/run"]
fn a_leader_dies_and_no_key_that_was_acknowledged_is_lost() {
    let mut etcd = Etcd::start(3, &[]);
    let section = etcd.section("claviger/");
    block_on(async {
        let store = Arc::new(patient(connect(&section).await.expect("connects")));
        let done = Arc::new(AtomicBool::new(false));
        let writers = (0..4).map(|writer| {
            let (store, done) = (store.clone(), done.clone());
            tokio::spawn(async move {
                let mut written = Vec::new();
                for n in 0.. {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    let (key, text) = (name(&format!("w{writer}-{n}")), format!("value {n} of {writer}"));
                    match store.create(&key, &value(&text)).await {
                        Ok(()) => {
                            // What was acknowledged is there at once, whoever answers.
                            match store.get(&key).await {
                                Ok(stored) => assert!(stored.is_same(&value(&text))),
                                Err(Error::Unreachable(_)) => {}
                                other => panic!("{key}: {other:?}"),
                            }
                            written.push((key, text));
                        }
                        Err(Error::Unreachable(_)) => {}
                        other => panic!("{key}: {other:?}"),
                    }
                }
                written
            })
        });
        let writers: Vec<_> = writers.collect();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let leader = etcd.leader();
        etcd.kill(leader);
        tokio::time::sleep(Duration::from_secs(3)).await;
        etcd.run(leader);
        tokio::time::sleep(Duration::from_secs(1)).await;
        done.store(true, Ordering::Relaxed);
        let mut written = Vec::new();
        for writer in writers {
            written.extend(writer.await.expect("no panic"));
        }
        etcd.elected();
        assert!(written.len() > 4, "the writers did work");
        for (key, text) in written {
            let stored = store.get(&key).await.unwrap_or_else(|error| panic!("{key}: {error:?}"));
            assert!(stored.is_same(&value(&text)), "{key}");
        }
    });
}

#[test]
#[ignore = "runs etcd: tests/run"]
fn without_a_quorum_nothing_is_missing_and_with_one_all_goes_on() {
    let mut etcd = Etcd::start(3, &[]);
    let server = serve(&etcd.section("claviger/"), CACHE);
    block_on(async {
        let session = session(&server).await;
        for key in ["hot", "cold"] {
            expect(&session, "PUT", &format!("/v1/key/create/{key}"), OK).await;
        }
        expect(&session, "GET", "/v1/key/describe/hot", OK).await;
        etcd.kill(0);
        etcd.kill(1);
        let ((), (), (), ()) = tokio::join!(
            expect(&session, "GET", "/v1/key/describe/hot", OK),
            expect(&session, "GET", "/v1/key/describe/cold", NO_ANSWER),
            expect(&session, "GET", "/v1/key/describe/missing", NO_ANSWER),
            expect(&session, "PUT", "/v1/key/create/new", (503, "failed to create key")),
        );
        etcd.run(0);
        etcd.elected();
        expect(&session, "GET", "/v1/key/describe/cold", OK).await;
        expect(&session, "GET", "/v1/key/describe/missing", (404, "key does not exist")).await;
        // Whether the create was done while nobody answered: it can be done now, or it is there.
        let (status, message) = super::super::ask(&session, "PUT", "/v1/key/create/new").await;
        assert!(status == 200 || message == "key already exists", "{status} {message}");
    });
}

#[test]
#[ignore = "runs etcd: tests/run"]
fn a_create_whose_answer_is_lost_is_a_create() {
    let etcd = Etcd::shared();
    let wire = Wire::new(etcd.address(0));
    let prefix = format!("{}/", unique("lost"));
    let mut section = etcd.section(&prefix);
    section["endpoints"] = json!([format!("https://{}", wire.address())]);
    block_on(async {
        let store = patient(connect(&section).await.expect("connects"));
        wire.lose_answer(store.create(&name("key"), &value("mine"))).await.expect("it was created");
        assert!(store.get(&name("key")).await.expect("there").is_same(&value("mine")));
        let replaced = wire.lose_answer(store.replace(&name("key"), &value("mine"), &value("new"))).await;
        replaced.expect("it was replaced");
        let another = store.create(&name("key"), &value("another")).await;
        assert!(matches!(another, Err(Error::Exists)), "{another:?}");
        assert!(store.get(&name("key")).await.expect("there").is_same(&value("new")));
        wire.lose_answer(store.delete(&name("key"))).await.expect("it was deleted");
        assert!(matches!(store.get(&name("key")).await, Err(Error::NotFound)));
    });
    let written = etcd.ctl(&["get", "--prefix", &prefix, "-w", "json"]);
    assert!(!written.contains("kvs"), "{written}");
}

#[test]
#[ignore = "runs etcd: tests/run"]
fn a_member_that_does_not_answer_is_left_for_the_next() {
    let etcd = Etcd::shared();
    let wires = [Wire::new(etcd.address(0)), Wire::new(etcd.address(1))];
    let mut section = etcd.section(&format!("{}/", unique("silent")));
    section["endpoints"] = json!(wires.each_ref().map(|wire| format!("https://{}", wire.address())));
    block_on(async {
        let store = connect(&section).await.expect("connects");
        store.create(&name("key"), &value("value")).await.expect("created");
        for (silent, other) in [(0, 1), (1, 0), (0, 1)] {
            wires[other].open();
            wires[silent].go_deaf();
            assert!(store.get(&name("key")).await.expect("the other answers").is_same(&value("value")));
            wires[silent].cut();
            assert!(store.get(&name("key")).await.expect("the other answers").is_same(&value("value")));
        }
        wires[1].go_deaf();
        let asked = Instant::now();
        let answers = store.get_batch(&[name("key"), name("missing")]).await;
        assert!(answers.iter().all(|answer| matches!(answer, Err(Error::Unreachable(_)))), "{answers:?}");
        assert!(asked.elapsed() < Duration::from_secs(60), "nobody waits for ever");
    });
}

#[test]
#[ignore = "runs etcd: tests/run"]
fn another_cluster_is_no_answer_about_a_key() {
    let etcd = Etcd::shared();
    let other = Etcd::start(1, &[]);
    let wire = Wire::new(etcd.address(0));
    let mut section = etcd.section(&format!("{}/", unique("another")));
    section["endpoints"] = json!([format!("https://{}", wire.address())]);
    block_on(async {
        let store = patient(connect(&section).await.expect("connects"));
        store.create(&name("key"), &value("value")).await.expect("created");
        wire.lead_to(other.address(0)).await;
        for key in ["key", "missing"] {
            let got = store.get(&name(key)).await;
            let Err(error @ Error::Failed(_)) = got else { panic!("{got:?}") };
            assert!(causes(&error).contains("answers in place of"), "{}", causes(&error));
        }
        assert!(matches!(store.list("").await, Err(Error::Failed(_))));
        wire.lead_to(etcd.address(1)).await;
        assert!(store.get(&name("key")).await.expect("there").is_same(&value("value")));
    });
}

#[test]
#[ignore = "runs etcd: tests/run"]
fn a_full_etcd_is_said_to_be_full_and_goes_on_reading() {
    let etcd = Etcd::start(1, &["--quota-backend-bytes=2000000"]);
    block_on(async {
        let store = connect(&etcd.section("claviger/")).await.expect("connects");
        let large = Blob::from(vec![b'x'; 65_536]);
        let mut created = 0;
        let error = loop {
            match store.create(&name(&format!("key-{created}")), &large).await {
                Ok(()) if created < 1_000 => created += 1,
                Ok(()) => panic!("it is never full"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::Failed(_)) && causes(&error).contains("etcd is full"), "{}", causes(&error));
        assert!(store.get(&name("key-0")).await.expect("there").is_same(&large));
        assert!(matches!(store.get(&name("missing")).await, Err(Error::NotFound)));
        store.delete(&name("key-0")).await.expect("deleted");
        let again = connect(&etcd.section("claviger/")).await.expect("connects");
        assert!(
            again.about().warnings.iter().any(|warning| warning.contains("etcd is full")),
            "{:?}",
            again.about().warnings
        );
    });
}

#[test]
#[ignore = "runs etcd: tests/run"]
fn what_is_no_etcd_and_what_is_not_there_is_an_error_at_the_start() {
    let directory = tempfile::tempdir().expect("a directory");
    let section = |endpoint: String| json!({ "endpoints": [endpoint] });
    let nobody = section(format!("http://{}", free_address()));
    let said = TestServer::refuses(directory.path(), &config(&nobody, CACHE));
    assert!(said.contains("keystore.etcd") && said.contains("Connection refused"), "{said}");
    // A gate speaks HTTP/1.1, as most do that are no etcd.
    let gate = Gate::new(free_address());
    let said = TestServer::refuses(directory.path(), &config(&section(gate.endpoint()), CACHE));
    assert!(said.contains("keystore.etcd") && said.contains("KV/Range"), "{said}");
    // A certificate of an authority that nobody named.
    let etcd = Etcd::shared();
    let mut section = etcd.section("claviger/");
    section["tls"].as_object_mut().expect("a section").remove("ca");
    let said = TestServer::refuses(directory.path(), &config(&section, CACHE));
    assert!(said.contains("name the CA that issued it under tls.ca"), "{said}");
}
