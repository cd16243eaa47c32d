//! Metrics, as the real Prometheus takes them.

mod monitoring;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::curl::{curl, curl_as};
use crate::support::peer::{Peer, program, template};
use crate::support::{TestServer, certs, eventually};

/// The metrics that clients of the archived server rely on, and their types.
const INHERITED: [(&str, &str); 14] = [
    ("kes_http_request_active", "gauge"),
    ("kes_http_request_error", "counter"),
    ("kes_http_request_failure", "counter"),
    ("kes_http_request_success", "counter"),
    ("kes_http_response_time", "histogram"),
    ("kes_log_audit_events", "counter"),
    ("kes_log_error_events", "counter"),
    ("kes_system_mem_heap_objects", "gauge"),
    ("kes_system_mem_heap_used", "gauge"),
    ("kes_system_mem_stack_used", "gauge"),
    ("kes_system_num_cpu", "gauge"),
    ("kes_system_num_cpu_used", "gauge"),
    ("kes_system_num_threads", "gauge"),
    ("kes_system_up_time", "gauge"),
];

fn prometheus(server: &TestServer) -> Peer {
    Peer::start(&program("prometheus", "prometheus"), |directory, address| {
        let (target, certs) = (server.address().to_string(), certs("").display().to_string());
        let config = template("prometheus.yml", &[("SERVER", &target), ("CERTS", &certs)]);
        std::fs::write(directory.join("prometheus.yml"), config).expect("its config");
        let listen = format!("--web.listen-address={address}");
        ["--config.file=prometheus.yml", "--storage.tsdb.path=data", &listen].map(Into::into).into()
    })
}

/// What an endpoint of Prometheus answers.
fn ask(prometheus: &Peer, path: &str) -> Value {
    let answer = curl(&[&format!("http://{}/api/v1/{path}", prometheus.address())]);
    // Until it has loaded its storage, it answers 503.
    answer.map_or(Value::Null, |answer| if answer.status == 200 { answer.json()["data"].clone() } else { Value::Null })
}

/// The value of the one series of a query.
fn value(prometheus: &Peer, query: &str) -> Option<f64> {
    let data = ask(prometheus, &format!("query?query={query}"));
    let result = data["result"].as_array()?;
    assert!(result.len() < 2, "{query} has more than one series: {result:?}");
    result.first()?["value"][1].as_str()?.parse().ok()
}

#[test]
#[ignore = "runs Prometheus: tests/run"]
fn prometheus_scrapes_with_a_client_certificate() {
    let server = TestServer::with_dev_config("");
    let prometheus = prometheus(&server);
    eventually("a scrape succeeds", || value(&prometheus, "up") == Some(1.0));

    let metadata = ask(&prometheus, "metadata");
    let types: BTreeMap<_, _> =
        INHERITED.iter().map(|(name, _)| (*name, metadata[*name][0]["type"].as_str())).collect();
    assert_eq!(types, INHERITED.iter().map(|(name, kind)| (*name, Some(*kind))).collect());

    for query in ["kes_system_num_cpu", "kes_system_mem_heap_used", "kes_system_mem_heap_objects", "kes_system_up_time"]
    {
        assert!(value(&prometheus, query).is_some_and(|value| value > 0.0), "{query}");
    }
    for bound in ["0.01", "0.05", "0.1", "0.25", "0.5", "1", "1.5", "3", "5", "10", "+Inf"] {
        let query = format!("kes_http_response_time_bucket%7Ble=%22{}%22%7D", bound.replace('+', "%2B"));
        assert!(value(&prometheus, &query).is_some(), "the bucket {bound}");
    }
    // Its own scrapes are requests, too.
    let answered = "kes_http_request_success%7Bcode=%22200%22%7D";
    eventually("a counter counts", || value(&prometheus, answered).is_some_and(|value| value > 0.0));
}

/// What promtool says about names that clients know from the archived server, and that therefore stay.
const COMPLAINTS: [&str; 5] = [
    "kes_http_request_error counter metrics should have \"_total\" suffix",
    "kes_http_request_failure counter metrics should have \"_total\" suffix",
    "kes_http_request_success counter metrics should have \"_total\" suffix",
    "kes_log_audit_events counter metrics should have \"_total\" suffix",
    "kes_log_error_events counter metrics should have \"_total\" suffix",
];

#[test]
#[ignore = "runs Prometheus: tests/run"]
fn promtool_complains_about_names_that_stay_and_nothing_else() {
    let server = TestServer::with_dev_config("");
    let url = format!("https://localhost:{}/v1/metrics", server.address().port());
    let metrics = curl_as("app", &["--header", "Accept: text/plain", &url]).expect("an answer").body;
    let mut promtool = Command::new(program("promtool", "prometheus"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs");
    promtool.stdin.take().expect("piped").write_all(metrics.as_bytes()).expect("promtool reads");
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let mut said: Vec<_> = said.lines().collect();
    said.sort_unstable();
    assert_eq!(said, COMPLAINTS);
}
