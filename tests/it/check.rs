//! `claviger config check`, and what a server says of the same file.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;
use time::{Duration, OffsetDateTime};

use crate::support::program::{Outcome, Program};
use crate::support::server::TestServer;
use crate::support::{eventually, testdata};

const MEMBER: &str = "0000000000000000000000000000000000000000000000000000000000000001";

/// A directory with a certificate that is valid from one day until another, both counted from now.
fn directory(from: i64, until: i64) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let mut params = CertificateParams::new(vec!["keys.example.com".into()]).expect("a name");
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now + Duration::days(from), now + Duration::days(until));
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    fs::write(directory.path().join("server.key"), key.serialize_pem()).expect("written");
    fs::write(directory.path().join("server.crt"), certificate.pem()).expect("written");
    directory
}

fn config(more: &str) -> String {
    format!(
        "admin: {{ identity: disabled }}\ntls: {{ key: server.key, cert: server.crt }}\n\
         keystore: {{ fs: {{ path: keys }} }}\n{more}"
    )
}

fn check(directory: &Path, config: &str, args: &[&str]) -> Outcome {
    fs::write(directory.join("config.yml"), config).expect("written");
    let args = [&["config", "check", "config.yml"], args].concat();
    Program::named("claviger", directory).run(&args)
}

#[test]
fn all_errors_are_told_at_once_and_stop_the_server_too() {
    let directory = directory(-1, 90);
    let text = config("cashe: {}\nlimits: { shutdown: 5 }\n").replace("server.key", "none.key");
    let outcome = check(directory.path(), &text, &[]);
    assert_eq!((outcome.exit, outcome.stdout.as_str()), (Some(1), ""));
    let lines: Vec<_> = outcome.stderr.lines().collect();
    for (line, start) in lines.iter().zip([
        "Error: config.yml:4:1: cashe",
        "config.yml:5:21: limits.shutdown",
        "config.yml:2:13: tls.key",
    ]) {
        assert!(line.starts_with(start), "{line} instead of {start}");
    }
    assert_eq!(lines.len(), 3, "{lines:#?}");
    let said = TestServer::refuses(directory.path(), &text);
    assert!(said.contains("cashe") && said.contains("limits.shutdown"), "{said}");
}

#[test]
fn certificates_are_looked_at() {
    for (from, until, says) in [
        (-9, -1, "Warning: config.yml:2:31: tls.cert: 'CN=rcgen self signed cert' has expired on "),
        (1, 90, "' is not valid before "),
        (-1, 10, "Warning: config.yml:2:31: tls.cert: 'CN=rcgen self signed cert' expires in "),
        (-1, 90, "config.yml: ok"),
    ] {
        let said = check(directory(from, until).path(), &config(""), &[]).ok();
        assert!(said.contains(says), "{says}: {said}");
        assert_eq!(said.contains("Warning"), until != 90 || from == 1, "{said}");
    }
}

#[test]
fn a_deny_rule_that_denies_nothing_fails_the_check_and_warns_at_the_start() {
    let directory = directory(-1, 90);
    let policy = |deny: &str| {
        config(&format!(
            "policy:\n  p:\n    allow: [ /v1/key/* ]\n    deny: [ {deny} ]\n    identities: [ {MEMBER} ]\n"
        ))
    };
    let outcome = check(directory.path(), &policy("/v1/key/delete"), &[]);
    assert_eq!(outcome.exit, Some(1), "{outcome:?}");
    let says = "config.yml:7:13: policy.p.deny[0]: matches no request, so nothing is denied by it; \
                did you mean '/v1/key/delete/…'?";
    assert_eq!(outcome.stderr, format!("Error: {says}\n"));
    assert_eq!(check(directory.path(), &policy("/v1/key/delete/*"), &[]).exit, Some(0));
    let server = TestServer::start_in(directory, &policy("/v1/key/delete"));
    eventually("the warning is logged", || server.stderr().contains(says));
}

#[test]
fn json_is_for_machines() {
    let directory = directory(-1, 90);
    let outcome = check(directory.path(), &config("cashe: {}\nroot: disabled\n"), &["--json"]);
    let said: Value = serde_json::from_str(&outcome.stdout).expect("one JSON value");
    let expected = serde_json::json!({
        "ok": false,
        "kind": "kes",
        "errors": [{
            "file": "config.yml", "line": 4, "column": 1, "key": "cashe",
            "message": "unknown key; did you mean 'cache'?",
        }],
        "warnings": [{
            "file": "config.yml", "line": 5, "column": 1, "key": "root",
            "message": "ignored: admin.identity says who the admin is; remove it",
        }],
    });
    assert_eq!((outcome.exit, said), (Some(1), expected), "{}", outcome.stderr);
    let outcome = check(directory.path(), &config(""), &["--json"]);
    let said: Value = serde_json::from_str(&outcome.stdout).expect("one JSON value");
    assert_eq!((outcome.exit, &said["ok"], &said["errors"]), (Some(0), &Value::Bool(true), &Value::Array(vec![])));
}

#[test]
fn the_config_of_a_key_manager_is_told_apart() {
    let directory = directory(-1, 90);
    let text = "version: v1\ntls: { certs: [ { key: server.key, cert: server.crt } ] }\n";
    let said = check(directory.path(), text, &[]).ok();
    assert!(said.starts_with("config.yml: ok\n") && said.contains("key manager"), "{said}");
    let outcome = check(directory.path(), &text.replace("server.crt", "none.crt"), &[]);
    assert!(outcome.exit == Some(1) && outcome.stderr.contains("tls.certs[0].cert: "), "{outcome:?}");
}

#[test]
fn an_empty_file_is_called_empty() {
    let directory = directory(-1, 90);
    for text in ["", "# nothing\n", "---\n", "\n\n"] {
        let outcome = check(directory.path(), text, &[]);
        assert!(outcome.exit == Some(1) && outcome.stderr.contains("the file has no content"), "{text:?}: {outcome:?}");
    }
}

#[test]
fn a_key_that_is_too_small_is_called_so() {
    let directory = directory(-1, 90);
    for name in ["server.key", "server.crt"] {
        let file = testdata("rsa1024").join(name);
        fs::copy(&file, directory.path().join(name)).expect("copied");
    }
    let outcome = check(directory.path(), &config(""), &[]);
    assert!(outcome.stderr.contains("RSA with 2048 to 8192 bits"), "{outcome:?}");
}

/// A call without the variable that lets servers of tests have such administrators.
fn without_leave(directory: &Path, args: &[&str], hsm_key: Option<&str>) -> Outcome {
    let program = Program::named("claviger", directory).env("CLAVIGER_ALLOW_PUBLISHED_ADMIN", "");
    // A server that starts all the same is a failure, and must not run for ever.
    let mut command = Command::new("timeout");
    command.arg("60").arg(program.path()).args(args).stdin(Stdio::null());
    program.prepare(&mut command);
    command.env("PATH", "/usr/bin:/bin").envs(hsm_key.map(|key| ("MINIO_KMS_HSM_KEY", key)));
    let output = command.output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Outcome { stdout: text(output.stdout), stderr: text(output.stderr), exit: output.status.code() }
}

#[test]
fn an_administrator_whose_private_key_everybody_knows_is_refused() {
    let directory = directory(-1, 90);
    let says = "everybody knows the private key of this identity";
    let admin = "3ecfcdf38fcbe141ae26a1030f81e96b753365a46760ae6b578698a97c59fd22";
    fs::write(directory.path().join("config.yml"), config("").replace("disabled", admin)).expect("written");
    for args in [
        &["server", "--config", "config.yml", "--addr", "127.0.0.1:0"][..],
        &["config", "check", "config.yml"],
        &["doctor", "--config", "config.yml"],
    ] {
        let outcome = without_leave(directory.path(), args, None);
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(outcome.exit == Some(1) && said.contains(says), "{args:?}: {outcome:?}");
    }
    let server = ["kms", "server", "data", "--address", "127.0.0.1:0"];
    fs::write(
        directory.path().join("kms.yml"),
        "version: v1\nadmin: { identity: h1:Ps_N84_L4UGuJqEDD4Hpa3UzZaRnYK5rV4aYqXxZ_SI }\n",
    )
    .expect("written");
    let args = [&server[..], &["--config", "kms.yml"]].concat();
    let outcome =
        without_leave(directory.path(), &args, Some("hsm:aes256:S0tLS0tLS0tLS0tLS0tLS0tLS0tLS0tLS0tLS0tLS0s="));
    assert!(outcome.exit == Some(1) && outcome.stderr.contains(says), "{outcome:?}");
    assert!(!directory.path().join("data").exists(), "nothing is made");
}

#[test]
fn all_errors_of_a_seal_are_told() {
    let directory = directory(-1, 90);
    let text = "admin: { identity: disabled }
tls: { key: server.key, cert: server.crt }
keystore:
  fs: { path: keys }
  encrypt:
    vault: { endpoint: nowhere, key: k, tokn: { value: t } }
    also:
    - local: { fil: x }
    - aws: { key: k }
    allow_plaintext: perhaps
cashe: {}
";
    let outcome = check(directory.path(), text, &[]);
    assert_eq!(outcome.exit, Some(1), "{outcome:?}");
    for key in [
        "keystore.encrypt.vault.endpoint: ",
        "keystore.encrypt.vault.tokn: ",
        "keystore.encrypt.also[0].local.fil: ",
        "keystore.encrypt.also[1].aws: has no region; write 'region', or set the environment variable AWS_REGION",
        "keystore.encrypt.allow_plaintext: ",
        "config.yml:11:1: cashe: ",
    ] {
        assert!(outcome.stderr.contains(key), "{key}: {}", outcome.stderr);
    }
}

#[test]
fn an_endpoint_with_the_path_of_the_api_is_hardly_meant() {
    let directory = directory(-1, 90);
    let vault = "{ endpoint: 'https://127.0.0.1:1/v1/', token: { value: t }";
    for keystore in [
        format!("keystore: {{ vault: {vault} }} }}"),
        format!("keystore: {{ openbao: {vault} }} }}"),
        format!("keystore: {{ fs: {{ path: keys }}, encrypt: {{ vault: {vault}, key: k }} }} }}"),
        format!(
            "keystore: {{ fs: {{ path: keys }}, encrypt: {{ aws: {{ region: r, key: k }}, also: [ {{ vault: {vault}, key: k }} }} ] }} }}"
        ),
    ] {
        let text = config("").replace("keystore: { fs: { path: keys } }", &keystore);
        let said = check(directory.path(), &text, &[]).ok();
        assert!(said.contains("ends in '/v1', which is added to every request"), "{keystore}: {said}");
    }
    let text = format!("version: v1\nhsm: {{ far: {{ vault: {vault}, key: k }} }}, near: {{ file: nowhere.key }} }}\n");
    let outcome = check(directory.path(), &text, &[]);
    assert!(outcome.stderr.contains("config.yml:2:") && outcome.stderr.contains("hsm.near: the file cannot be read"));
    let said = check(directory.path(), &text.replace("nowhere.key", "server.key"), &[]).ok();
    assert!(said.contains("hsm.far: the endpoint 'https://127.0.0.1:1/v1' ends in '/v1'"), "{said}");
}

#[test]
fn hints_call_the_program_as_it_was_called() {
    let directory = directory(-1, 90);
    fs::write(
        directory.path().join("config.yml"),
        config("policy: { app: { allow: [ /v1/status ], identities: [ x ] } }\n"),
    )
    .expect("written");
    let kes = Program::named("kes", directory.path());
    let said = kes.run(&["config", "check", "config.yml"]).ok();
    assert!(said.contains("'kes identity of'") && !said.contains("claviger"), "{said}");
    let said = kes.run(&["doctor", "--config", "config.yml"]);
    assert!(said.stdout.contains("'kes identity of'") && !said.stdout.contains("claviger"), "{said:?}");
    let said = kes.run(&["explain", "x", "GET", "/v1/status", "--config", "config.yml"]);
    assert!(said.stderr.contains("'kes identity of'") && !said.stderr.contains("claviger"), "{said:?}");
}

#[test]
fn what_closes_the_way_back_to_kes_fails_a_check_that_asks_for_it() {
    let directory = directory(-1, 90);
    let text = config("limits: { connections: 100 }\n");
    assert!(!check(directory.path(), &text, &[]).ok().contains("KES"));
    let said = check(directory.path(), &text, &["--for-kes"]).ok();
    let says = "config.yml: ok\nWarning: config.yml:4:1: limits: KES does not know this setting and ignores it\n";
    assert!(said.starts_with(says), "{said}");
    let sealed = "fs: { path: keys }, encrypt: { local: { key: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8= } }";
    let outcome = check(directory.path(), &text.replace("fs: { path: keys }", sealed), &["--for-kes"]);
    let says = "Error: config.yml:3:33: keystore.encrypt: KES does not know this setting and cannot read keys that are sealed\n";
    assert_eq!((outcome.exit, outcome.stderr.as_str()), (Some(1), says));
    let outcome = check(directory.path(), "version: v1\nhsm: { a: { file: a.hsm } }\n", &["--for-kes"]);
    assert!(outcome.exit == Some(1) && outcome.stderr.contains("KES is no key manager"), "{outcome:?}");
}
