//! The dashboard and the alert rules of `monitoring/`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use claviger::auth::enclave;
use serde_json::{Value, json};

use super::ask;
use crate::support::curl::curl;
use crate::support::etcd::{Etcd, tls};
use crate::support::openbao::{OpenBao, unique};
use crate::support::peer::{Peer, program, template};
use crate::support::server::dev_config;
use crate::support::{Identity, TestServer, certs, eventually};

const HSM: &str = "hsm:aes256:KioqKioqKioqKioqKioqKioqKioqKioqKioqKioqKio=";

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(file(path)).expect("a file of the repository")
}

fn yaml(path: &str) -> Value {
    serde_yaml::from_str(&read(path)).expect("YAML")
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} in {value}"))
}

/// The alert rules.
fn rules() -> Vec<Value> {
    let rules = yaml("monitoring/prometheus/claviger.rules.yml");
    list(&rules, "groups").iter().flat_map(|group| list(group, "rules").to_vec()).collect()
}

/// The dashboard.
fn dashboard() -> Value {
    serde_json::from_str(&read("monitoring/grafana/claviger.json")).expect("JSON")
}

fn promtool(args: &[&str]) {
    let output = Command::new(program("promtool", "prometheus"))
        .args(args)
        .current_dir(file("monitoring/prometheus"))
        .output()
        .expect("promtool runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "promtool {args:?}:\n{said}");
}

#[test]
#[ignore = "runs Prometheus: tests/run"]
fn promtool_finds_the_rules_right_and_that_each_alert_fires_and_ends() {
    promtool(&["check", "rules", "claviger.rules.yml"]);
    promtool(&["test", "rules", "claviger.test.yml"]);
}

/// What promtool tries out is all there is, and each alert leads to a section that says what to do.
#[test]
fn every_alert_is_tried_out_and_explained() {
    let tests = yaml("monitoring/prometheus/claviger.test.yml");
    // For each alert: whether some case wants it to fire, and whether a later one of the same series does not.
    let mut tried: BTreeMap<String, (bool, bool)> = BTreeMap::new();
    for case in list(&tests, "tests").iter().flat_map(|test| list(test, "alert_rule_test")) {
        let (fires, ends) = tried.entry(text(case, "alertname").into()).or_default();
        // The one alert that another server keeps firing ends for the first: its tests name both.
        let alerts = list(case, "exp_alerts").len();
        *ends |= *fires && alerts < 2;
        *fires |= alerts > 0;
    }
    let guide = read("docs/operation.md");
    let mut names = BTreeSet::new();
    for rule in rules() {
        let name = text(&rule, "alert");
        names.insert(name.to_owned());
        assert_eq!(tried.get(name), Some(&(true, true)), "{name} fires and ends in claviger.test.yml");
        let (document, section) = text(&rule["annotations"], "runbook").split_once('#').expect("a section");
        assert_eq!(document, "docs/operation.md");
        let mut headings = guide.lines().filter_map(|line| line.strip_prefix("### "));
        assert!(headings.any(|heading| heading.to_lowercase() == section), "docs/operation.md has no '{section}'");
        assert!(["critical", "warning"].contains(&text(&rule["labels"], "severity")), "{name}");
    }
    assert_eq!(tried.into_keys().collect::<BTreeSet<_>>(), names);
}

/// What Grafana itself brings, every data source a variable, and nothing on top of something else.
#[test]
fn the_dashboard_needs_no_plugin_and_no_certain_data_source() {
    let dashboard = dashboard();
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in list(&dashboard, "panels") {
        let title = text(panel, "title");
        assert!(["row", "stat", "timeseries"].contains(&text(panel, "type")), "{title}");
        assert!(ids.insert(panel["id"].as_u64()), "{title} has a number of its own");
        let at = |name: &str| panel["gridPos"][name].as_u64().expect("a place");
        for x in at("x")..at("x") + at("w") {
            assert!(x < 24, "{title} is too wide");
            for y in at("y")..at("y") + at("h") {
                assert!(taken.insert((x, y)), "{title} covers another panel");
            }
        }
        for target in list(panel, "targets") {
            assert_eq!(text(&target["datasource"], "uid"), "${datasource}", "{title}");
        }
    }
}

/// Every expression of dashboard and rules, with variables filled in, so that servers in good health have a series.
fn expressions() -> Vec<String> {
    let dashboard = dashboard();
    let panels = list(&dashboard, "panels").iter().flat_map(|panel| list(panel, "targets"));
    let shown = panels.map(|target| {
        let expression = text(target, "expr");
        expression.replace("$job", ".*").replace("$instance", ".*").replace("$__rate_interval", "1m")
    });
    let variables = list(&dashboard["templating"], "list").iter().filter(|variable| variable["type"] == "query");
    let chosen = variables.map(|variable| {
        let query = text(variable, "query").strip_prefix("label_values(").expect("all are");
        query.rsplit_once(", ").expect("two arguments").0.replace("$job", ".*")
    });
    // What holds for no server now has no series: what it compares has. And nobody has been up for an hour.
    let alerts = rules().into_iter().map(|rule| {
        let expression = text(&rule, "expr").replace(" offset 5m", "");
        [" == ", " < ", " > "]
            .iter()
            .fold(expression, |text, compare| text.replace(compare, &format!("{compare}bool ")))
    });
    let all: Vec<_> = shown.chain(chosen).chain(alerts).collect();
    assert!(all.iter().all(|expression| !expression.contains('$')), "a variable is left: {all:?}");
    all
}

/// How many series an expression has.
fn series(prometheus: &Peer, expression: &str) -> usize {
    let (url, query) = (format!("http://{}/api/v1/query", prometheus.address()), format!("query={expression}"));
    let answer = curl(&["--get", "--data-urlencode", &query, &url]).expect("Prometheus answers");
    assert!(answer.status == 200 || answer.status == 503, "{expression}: {}", answer.body);
    if answer.status == 200 { list(&answer.json()["data"], "result").len() } else { 0 }
}

/// A key server whose key store gives tokens.
fn key_server(bao: &OpenBao) -> TestServer {
    let engine = bao.kv(None, 2);
    let rights = format!(r#"path "{engine}/*" {{ capabilities = ["create", "read", "delete", "list"] }}"#);
    let ((id, secret), _) = bao.role(None, &rights, json!({}));
    let login = json!({ "id": id, "secret": secret });
    let vault = json!({ "endpoint": bao.endpoint, "engine": engine, "version": "v2", "approle": login });
    let config = dev_config("").replace("{ fs: { path: keys } }", &json!({ "vault": vault }).to_string());
    TestServer::start_in(tempfile::tempdir().expect("a directory"), &config)
}

/// A key manager with a certificate of the development CA, whose administrator is "app": the one member of a cluster, so
/// that it has all metrics.
fn key_manager(data: &Path, etcd: &Etcd) -> TestServer {
    let identity = enclave_identity("app");
    let pair = json!({ "cert": certs("server.crt"), "key": certs("server.key") });
    let section = json!({ "endpoints": etcd.endpoints(), "prefix": format!("{}/", unique("kms")), "tls": tls("app") });
    let config = json!({
        "version": "v1",
        "admin": { "identity": identity },
        "tls": { "certs": [pair] },
        "cluster": { "etcd": section },
    });
    let path = data.join("kms.yml");
    std::fs::write(&path, config.to_string()).expect("written");
    TestServer::key_manager(&data.join("data"), HSM, &["--host", "kms:7373", "--config", path.to_str().expect("text")])
}

/// What a key manager calls a client of `certs/`.
fn enclave_identity(name: &str) -> String {
    let identity = claviger::auth::Identity::parse(&Identity::dev(name).hash()).expect("a hash");
    enclave::Identity::of(&identity).expect("a hash").as_str().to_owned()
}

#[test]
#[ignore = "runs Prometheus: tests/run"]
fn every_expression_of_dashboard_and_rules_has_a_series() {
    let (bao, etcd, data) = (OpenBao::shared(), Etcd::shared(), tempfile::tempdir().expect("a directory"));
    let (server, manager) = (key_server(&bao), key_manager(data.path(), &etcd));
    let prometheus = Peer::start(&program("prometheus", "prometheus"), |directory, address| {
        let rules = file("monitoring/prometheus/claviger.rules.yml").display().to_string();
        let (certs, server, manager) =
            (certs("").display().to_string(), server.address().to_string(), manager.address().to_string());
        let values = [("RULES", &*rules), ("CERTS", &*certs), ("SERVER", &*server), ("KEY_MANAGER", &*manager)];
        std::fs::write(directory.join("prometheus.yml"), template("prometheus-both.yml", &values)).expect("its config");
        let listen = format!("--web.listen-address={address}");
        ["--config.file=prometheus.yml", "--storage.tsdb.path=data", &listen].map(Into::into).into()
    });
    eventually("both servers are scraped", || series(&prometheus, "up == 1") == 2);
    for expression in expressions() {
        eventually(&format!("a series of {expression}"), || series(&prometheus, &expression) > 0);
    }
    // What both have is there twice.
    for metric in ["claviger_tls_certificate_expiry_timestamp_seconds", "claviger_denials_total", "claviger_build_info"]
    {
        assert_eq!(series(&prometheus, metric), 2, "{metric}");
    }
    eventually("Prometheus has evaluated the rules", || {
        let groups = ask(&prometheus, "rules");
        let rules = list(&groups, "groups").iter().flat_map(|group| list(group, "rules"));
        let health: Vec<_> = rules.map(|rule| text(rule, "health")).collect();
        assert!(!health.contains(&"err"), "{groups}");
        !health.is_empty() && health.iter().all(|health| *health == "ok")
    });
    let alerts = ask(&prometheus, "alerts");
    assert_eq!(list(&alerts, "alerts"), [] as [Value; 0], "nothing is wrong with either server");
}
