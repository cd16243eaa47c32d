//! `metrics`: every name and type that dashboards know is there from the first scrape, and counts the same.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::support::client::Request;
use crate::support::{Client, Protocol, TestServer, block_on, testdata};

#[derive(Deserialize)]
struct Recorded {
    first_scrape: FirstScrape,
    after: After,
    text_sample: String,
}

#[derive(Deserialize)]
struct FirstScrape {
    names: BTreeMap<String, Family>,
}

#[derive(Deserialize)]
struct Family {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct After {
    counters: BTreeMap<String, String>,
}

fn recorded() -> Recorded {
    let text = std::fs::read(testdata("http/metrics.json")).expect("readable");
    serde_json::from_slice(&text).expect("valid")
}

/// A scrape: type by name, value by sample.
struct Scrape {
    types: BTreeMap<String, String>,
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    fn parse(text: &str) -> Self {
        let (mut types, mut samples) = (BTreeMap::new(), BTreeMap::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a name and a type");
                let double = types.insert(name.to_owned(), kind.to_owned()).is_some();
                assert!(!double, "{name} is there twice");
            } else if !line.starts_with('#') {
                let (sample, value) = line.rsplit_once(' ').expect("a sample and its value");
                samples.insert(sample.to_owned(), value.parse().unwrap_or(0.0));
            }
        }
        Self { types, samples }
    }

    fn value(&self, sample: &str) -> f64 {
        self.samples.get(sample).copied().unwrap_or_default()
    }
}

async fn scrape(client: &Client) -> Scrape {
    let response = client.get("/v1/metrics").await;
    assert_eq!(response.status, 200);
    assert_eq!(response.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    Scrape::parse(response.text())
}

#[test]
fn all_names_are_there_from_the_first_scrape() {
    let (server, recorded) = (TestServer::fixture(), recorded());
    let first = block_on(scrape(&Client::fixture(server.address(), "admin")));
    for (name, Family { kind }) in &recorded.first_scrape.names {
        assert_eq!(first.types.get(name), Some(kind), "{name}");
    }
    let later = Scrape::parse(&recorded.text_sample);
    for (name, kind) in &later.types {
        assert_eq!(first.types.get(name), Some(kind), "{name}");
    }
    for sample in later.samples.keys().filter(|sample| !sample.starts_with("kes_http_request_")) {
        assert!(first.samples.contains_key(sample), "{sample}");
    }
    for name in ["mem_heap_used", "mem_heap_objects", "mem_stack_used", "num_cpu", "num_cpu_used", "num_threads"] {
        assert!(first.value(&format!("kes_system_{name}")) > 0.0, "{name}");
    }
}

/// The requests that `after` names. The archived server counted key, policy and identity routes only,
/// after authentication (2 of them, and not the 403, the 405 and the unknown path); ours counts all.
#[test]
fn requests_are_counted_by_class() {
    let (server, recorded) = (TestServer::fixture(), recorded());
    let (admin, app) = (Client::fixture(server.address(), "admin"), Client::fixture(server.address(), "app"));
    block_on(async {
        let before = scrape(&admin).await;
        let requests = [
            (&admin, "/v1/key/describe/my-key", 200),
            (&admin, "/v1/key/describe/nope", 404),
            (&admin, "/v1/key/describe/broken", 502),
            (&admin, "/v1/status", 200),
            (&admin, "/version", 200),
            (&admin, "/nope", 404),
            (&admin, "/v1/key/list/*", 200),
            (&admin, "/v1/policy/list/*", 200),
            (&admin, "/v1/key/create/x", 405),
            (&app, "/v1/key/describe/my-key", 403),
        ];
        for (client, path, status) in requests {
            assert_eq!(client.send(Request::new("GET", path)).await.expect("an answer").status, status, "{path}");
        }
        let after = scrape(&admin).await;
        let grown = |sample: &str| after.value(sample) - before.value(sample);
        let expected = [
            // The first scrape is among them.
            ("kes_http_request_success{code=\"200\"}", 6.0),
            ("kes_http_request_error{code=\"404\"}", 2.0),
            ("kes_http_request_error{code=\"405\"}", 1.0),
            ("kes_http_request_error{code=\"403\"}", 1.0),
            ("kes_http_request_failure{code=\"502\"}", 1.0),
            ("kes_http_response_time_count", 11.0),
        ];
        for (sample, count) in expected {
            assert_eq!(grown(sample), count, "{sample}");
        }
        for (sample, count) in &recorded.after.counters {
            let count: f64 = count.parse().expect("a number");
            assert!(grown(sample) >= count, "{sample}: the archived server counted {count}");
        }
        // The scrape that asks is active.
        assert_eq!(after.value("kes_http_request_active"), 1.0);
        assert!(grown("kes_log_audit_events") >= 9.0, "every request that matched a route, /version excepted");
        assert!(grown("kes_log_error_events") >= 1.0, "the 502");
    });
}

#[test]
fn scrapes_over_http_1_are_the_same() {
    let server = TestServer::fixture();
    let identity = crate::support::Identity::fixture("admin");
    let h1 = block_on(scrape(&Client::new(server.address(), Some(identity), Protocol::H1)));
    let h2 = block_on(scrape(&Client::fixture(server.address(), "admin")));
    assert_eq!(h1.types, h2.types);
}
