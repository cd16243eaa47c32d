//! `claviger bench`: measures a real server, and leaves nothing behind.

use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::support::{TestServer, eventually};

/// The program, as a client of `server`.
fn claviger(server: &TestServer, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
    command.args(args).env_clear();
    for line in server.stderr().lines() {
        if let Some((name, value)) = line.strip_prefix("export ").and_then(|line| line.split_once('=')) {
            command.env(name, value);
        }
    }
    command
}

/// A server whose start message is complete.
fn server() -> TestServer {
    let server = TestServer::dev();
    eventually("the server says how to reach it", || server.stderr().contains("export SSL_CERT_FILE"));
    server
}

fn run(server: &TestServer, args: &[&str]) -> Output {
    claviger(server, args).output().expect("the program runs")
}

fn json(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).expect("JSON and nothing else")
}

fn keys(server: &TestServer) -> Value {
    json(&run(server, &["key", "ls", "--json"]))
}

#[test]
fn every_request_is_counted_and_every_key_deleted() {
    let server = server();
    let ways: [&[&str]; 3] = [
        &["-n", "2", "-m", "4", "--keys", "3"],
        &["--http", "1", "-n", "3"],
        &["--mix", "decrypt=3,encrypt", "--size", "5000"],
    ];
    for way in ways {
        let mut args = vec!["bench", "--json", "--warmup", "50ms", "--duration", "60s", "--count", "400"];
        args.extend(way);
        let report = json(&run(&server, &args));
        let operations = report["operations"].as_array().expect("a list");
        let count: u64 = operations.iter().map(|operation| operation["count"].as_u64().expect("a number")).sum();
        assert_eq!(count, 400, "{report}");
        for operation in operations {
            assert_eq!(operation["success_ratio"], 1.0, "{report}");
            let time = |name: &str| operation[name].as_u64().expect("nanoseconds");
            assert!(0 < time("p50_ns") && time("p50_ns") <= time("p95_ns") && time("p95_ns") <= time("p99_ns"));
        }
        assert!(report["client_cpu_us_per_request"].as_f64().is_some_and(|cpu| cpu > 0.0), "{report}");
        assert_eq!(keys(&server), serde_json::json!([]));
    }
}

#[test]
fn an_interrupted_measurement_deletes_its_keys() {
    let server = server();
    let args = ["bench", "--duration", "60s", "--keys", "5"];
    let mut bench = claviger(&server, &args).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts");
    eventually("it has created its keys", || keys(&server).as_array().is_some_and(|keys| keys.len() == 5));
    kill_process(Pid::from_child(&bench), Signal::INT).expect("it runs");
    assert_eq!(bench.wait().expect("it ends").code(), Some(1));
    assert_eq!(keys(&server), serde_json::json!([]));
}

#[test]
fn two_measurements_are_held_against_each_other() {
    let server = server();
    let measure =
        |mix: &str| run(&server, &["bench", "--json", "--count", "200", "--warmup", "0s", "--mix", mix]).stdout;
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str, content: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).expect("written");
        path.into_os_string().into_string().expect("UTF-8")
    };
    let before = file("before.json", &measure("generate,decrypt"));
    let after = file("after.json", &measure("decrypt"));
    let lines = json(&run(&server, &["bench", "compare", "--json", &before, &after]));
    let lines = lines.as_array().expect("a line a figure");
    assert_eq!(lines.len(), 10);
    for line in lines {
        let is_missing = line["op"] == "generate";
        assert_eq!(line["verdict"] == "missing", is_missing, "{line}");
        assert_eq!(line["after"].is_null(), is_missing, "{line}");
    }
    let same = json(&run(&server, &["bench", "compare", "--json", &before, &before]));
    assert!(same.as_array().expect("lines").iter().all(|line| line["verdict"] == "same"), "{same}");
    let nonsense = file("nonsense.json", b"{}");
    let failed = run(&server, &["bench", "compare", &before, &nonsense]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("nonsense.json"));
}

#[test]
fn a_plan_that_cannot_be_is_refused() {
    let server = server();
    for args in [&["bench", "--http", "1", "-m", "2"][..], &["bench", "--mix", "delete"], &["bench", "-n", "0"]] {
        let refused = run(&server, args);
        assert!(!refused.status.success() && refused.stdout.is_empty(), "{args:?}");
    }
    assert_eq!(keys(&server), serde_json::json!([]));
}
