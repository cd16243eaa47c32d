//! Services that do not answer, answer half, or are something else: no doubt is ever a "missing" or a "created".

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use claviger::crypto::Blob;
use claviger::keystore::{Error, KeyStore, Retry};

use super::{VENDORS, Vendor, name};
use crate::support::block_on;
use crate::support::clouds::Clouds;

const HTML: &str = "<html><body>Not Found</body></html>";

/// Answers that say nothing about a key, and whether they may pass by themselves.
fn oddities() -> Vec<(Value, bool)> {
    let answer = |status: u16, body: &str| json!({ "status": status, "body": body });
    vec![
        (answer(200, HTML), false),
        (answer(200, ""), false),
        (answer(200, "null"), false),
        (answer(200, "{}"), false),
        (answer(200, "[]"), false),
        (answer(200, r#"{"name":"#), false),
        (answer(404, HTML), false),
        (answer(404, ""), false),
        (answer(404, "{}"), false),
        (answer(404, r#"{"error":{}}"#), false),
        (answer(404, r#"{"errors":[]}"#), false),
        (answer(302, ""), false),
        (answer(400, "{}"), false),
        (answer(409, HTML), false),
        (answer(500, HTML), true),
        (answer(502, ""), true),
        (answer(503, "{}"), true),
        (answer(429, ""), true),
        (json!({ "drop": true }), true),
    ]
}

fn value(text: &str) -> Blob {
    text.as_bytes().to_vec().into()
}

/// Which of the two kinds of failure it is.
fn is_passing<T: std::fmt::Debug>(answer: Result<T, Error>, what: &str) -> bool {
    match answer {
        Err(Error::Unreachable(_)) => true,
        Err(Error::Failed(_)) => false,
        other => panic!("{what}: {other:?}"),
    }
}

#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn odd_answers_say_nothing_about_keys() {
    for vendor in VENDORS {
        let clouds = Clouds::start();
        block_on(async {
            let store = vendor.connect(&clouds).await;
            let (there, missing) = (name("there"), name("missing"));
            store.create(&there, &value("v")).await.expect("created");
            for (odd, may_pass) in oddities() {
                let what = |call: &str| format!("{} {call}: {odd}", vendor.name);
                for key in [&there, &missing] {
                    vendor.fault(&clouds, vendor.read, 1, &odd);
                    assert_eq!(is_passing(store.get(key).await, &what("get")), may_pass, "{}", what("get"));
                    clouds.reset();
                }
                // Some say nothing else when they have nothing more to say.
                let is_answer = |call: &str| {
                    odd["status"] == 200 && vendor.bare.iter().any(|(of, body)| *of == call && odd["body"] == *body)
                };
                if !is_answer("list") {
                    vendor.fault(&clouds, vendor.list, 1, &odd);
                    assert_eq!(is_passing(store.list("").await, &what("list")), may_pass, "{}", what("list"));
                    clouds.reset();
                }
                vendor.fault(&clouds, vendor.create, 1, &odd);
                is_passing(store.create(&missing, &value("v")).await, &what("create"));
                clouds.reset();
                if !is_answer("delete") {
                    vendor.fault(&clouds, vendor.delete, 1, &odd);
                    is_passing(store.delete(&there).await, &what("delete"));
                    clouds.reset();
                }
                assert!(store.get(&there).await.expect("it is there").is_same(&value("v")), "{}", what("all"));
                assert!(matches!(store.get(&missing).await, Err(Error::NotFound)), "{}", what("all"));
            }
        });
    }
}

/// A store that asks again, as a server's does.
async fn patient(vendor: &Vendor, clouds: &Clouds) -> Retry {
    Retry::new(vendor.connect(clouds).await)
}

#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn lost_answers_are_settled_by_a_read() {
    for vendor in VENDORS {
        let clouds = Clouds::start();
        block_on(async {
            let store = patient(vendor, &clouds).await;
            let key = name("key");
            // What was asked for is done, and nobody hears of it.
            let lost = json!({ "after": true, "drop": true });
            vendor.fault(&clouds, vendor.create, 1, &lost);
            store.create(&key, &value("ours")).await.unwrap_or_else(|e| panic!("{}: {e:?}", vendor.name));
            assert!(store.get(&key).await.expect("created").is_same(&value("ours")));
            let again = store.create(&key, &value("other")).await;
            assert!(matches!(again, Err(Error::Exists)), "{}: {again:?}", vendor.name);
            vendor.fault(&clouds, vendor.delete, 1, &lost);
            store.delete(&key).await.unwrap_or_else(|e| panic!("{}: {e:?}", vendor.name));
            assert!(matches!(store.get(&key).await, Err(Error::NotFound)));

            // What was not done is done at the second attempt.
            vendor.fault(&clouds, vendor.create, 1, &json!({ "drop": true }));
            store.create(&key, &value("ours")).await.unwrap_or_else(|e| panic!("{}: {e:?}", vendor.name));
            assert!(store.get(&key).await.expect("created").is_same(&value("ours")));
        });
    }
}

#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn a_service_that_says_when_to_come_again_is_not_asked_before() {
    let busy = json!({ "status": 429, "body": "busy", "headers": { "Retry-After": "2" } });
    let all: Vec<_> = VENDORS.iter().map(|vendor| (vendor, Clouds::start())).collect();
    block_on(join_all(all.iter().map(async |(vendor, clouds)| {
        let store = patient(vendor, clouds).await;
        vendor.fault(clouds, vendor.read, 1, &busy);
        let began = Instant::now();
        store.create(&name("key"), &value("v")).await.expect("created");
        store.get(&name("key")).await.expect("there");
        assert!(began.elapsed() >= Duration::from_secs(2), "{}: {:?}", vendor.name, began.elapsed());
    })));
}

#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn throttled_and_slow_answers_are_waited_for() {
    for vendor in VENDORS {
        let clouds = Clouds::start();
        block_on(async {
            let store = patient(vendor, &clouds).await;
            let key = name("key");
            let throttled = json!({
                "status": 429,
                "headers": { "Retry-After": "1" },
                "body": r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"Quota exceeded"}}"#,
            });
            vendor.fault(&clouds, vendor.create, 3, &throttled);
            store.create(&key, &value("v")).await.unwrap_or_else(|e| panic!("{}: {e:?}", vendor.name));
            vendor.fault(&clouds, vendor.read, 3, &throttled);
            vendor.fault(&clouds, vendor.read, 2, &json!({ "delay_ms": 300 }));
            assert!(store.get(&key).await.expect("created").is_same(&value("v")));
            vendor.fault(&clouds, vendor.list, 2, &throttled);
            assert_eq!(store.list("").await.expect("listed").names, [key]);
        });
    }
}

#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn a_service_that_is_gone_is_unreachable_from_the_start_on() {
    for vendor in VENDORS {
        let clouds = Clouds::start();
        let nowhere = vendor.section(&clouds).to_string().replace(clouds.secure(), "https://127.0.0.1:1");
        let nowhere = serde_json::from_str(&nowhere).expect("JSON");
        block_on(async {
            let started = super::connect(&nowhere, &vendor.variables(&clouds)).await.map(drop);
            assert!(matches!(started, Err(Error::Unreachable(_))), "{}: {started:?}", vendor.name);
            let store = vendor.connect(&clouds).await;
            let key = name("key");
            drop(clouds);
            assert!(is_passing(store.get(&key).await, vendor.name));
            assert!(is_passing(store.create(&key, &value("v")).await, vendor.name));
            assert!(is_passing(store.delete(&key).await, vendor.name));
            assert!(is_passing(store.list("").await, vendor.name));
            assert!(is_passing(store.status().await, vendor.name));
        });
    }
}
