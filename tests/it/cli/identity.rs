//! `identity`: keys and certificates, made and looked at.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::fixture::Fixture;
use crate::support::program::Program;
use crate::support::server::{TestServer, fixture_config};
use crate::support::testdata;

/// Checks the files `new.key` and `new.crt` that a recorded call made.
pub fn check_made(fixture: &Fixture, subject: Option<&str>, made: &Value) {
    let (key, certificate) = (fixture.directory().join("new.key"), fixture.directory().join("new.crt"));
    let mode = |path: &std::path::Path| {
        format!("0o{:o}", std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777)
    };
    let text = std::fs::read_to_string(&certificate).expect("a certificate");
    let pem = pem::parse(text).expect("PEM");
    let (_, parsed) = X509Certificate::from_der(pem.contents()).expect("a certificate");
    let common_name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    let common_name = format!("CN={}", common_name.expect("a common name"));
    let validity = parsed.validity();
    let hours = (validity.not_after.timestamp() - validity.not_before.timestamp()) as f64 / 3600.0;
    assert_eq!(made["valid_hours"], hours);
    if made["subject_is_the_identity"] == true {
        let identity = fixture.kes().run(&["identity", "of", "new.crt"]).ok();
        assert_eq!(common_name, format!("CN={identity}"));
        return;
    }
    assert_eq!(subject.map(|subject| format!("CN={subject}")).as_ref(), Some(&common_name));
    assert_eq!(made["subject"], common_name);
    assert_eq!((&made["key_mode"], &made["cert_mode"]), (&mode(&key).into(), &mode(&certificate).into()));
    let key = std::fs::read_to_string(&key).expect("a key");
    assert_eq!(made["key_pem"].as_str(), key.lines().next());
    check_extensions(&parsed, made);
}

fn check_extensions(certificate: &X509Certificate<'_>, made: &Value) {
    let names = certificate.subject_alternative_name().expect("readable").expect("there are some");
    let (mut dns, mut ip) = (Vec::new(), Vec::new());
    for name in &names.value.general_names {
        match name {
            GeneralName::DNSName(name) => dns.push((*name).to_owned()),
            GeneralName::IPAddress([a, b, c, d]) => ip.push(format!("{a}.{b}.{c}.{d}")),
            other => panic!("nobody asked for {other:?}"),
        }
    }
    assert_eq!((&made["dns"], &made["ip"]), (&serde_json::json!(dns), &serde_json::json!(ip)));
    let usage = certificate.extended_key_usage().expect("readable").expect("there is one");
    assert!(usage.value.client_auth && usage.value.server_auth && !usage.critical);
    let usage = certificate.key_usage().expect("readable").expect("there is one");
    assert!(usage.critical && usage.value.digital_signature() && usage.value.flags == 1, "{usage:?}");
    let constraints = certificate.basic_constraints().expect("readable").expect("there are some");
    assert!(constraints.critical && !constraints.value.ca);
    assert_eq!(certificate.extensions().len(), 4);
}

/// A server whose only policy lets its members read the status, with one member.
fn server_for(identity: &str) -> TestServer {
    TestServer::with_config(&fixture_config(|config| {
        let (before, after) = config.split_once("policy:\n").expect("policies");
        format!("{before}policy:\n  made:\n    allow: [ /v1/status ]\n    identities: [ {identity} ]\n{after}")
    }))
}

/// The program, as the owner of a key and a certificate file.
fn owner(server: &TestServer, directory: &std::path::Path, name: &str) -> Program {
    Program::named("kes", directory)
        .env("MINIO_KES_SERVER", server.address().to_string())
        .env("MINIO_KES_KEY_FILE", format!("{name}.key"))
        .env("MINIO_KES_CERT_FILE", format!("{name}.crt"))
}

/// What `identity new` says with `--json`.
fn made(directory: &std::path::Path, args: &[&str]) -> Value {
    let program = Program::named("kes", directory).env("CLAVIGER_KEY_PASSWORD", "correct horse");
    let args: Vec<_> = ["identity", "new", "--json"].iter().chain(args).collect();
    serde_json::from_str(&program.run(&args).ok()).expect("JSON")
}

#[test]
fn what_is_made_opens_the_server() {
    let directory = tempfile::tempdir().expect("a directory");
    let made = made(directory.path(), &["--key", "a.key", "--cert", "a.crt"]);
    let (identity, key) = (made["identity"].as_str().expect("text"), made["api_key"].as_str().expect("text"));
    let server = server_for(identity);
    owner(&server, directory.path(), "a").run(&["status", "-k", "-s"]).ok();
    let program = Program::named("kes", directory.path()).env("MINIO_KES_SERVER", server.address().to_string());
    program.run_with_input(&["status", "-k", "-s", "--api-key-file", "-"], key.as_bytes()).ok();
    assert_eq!(program.run(&["identity", "of", "a.crt"]).ok(), identity);
    assert_eq!(program.run(&["identity", key]).ok(), identity);
    assert_eq!(program.run(&["identity", "a.key"]).ok(), key);
    let stranger = program.env("MINIO_KES_API_KEY", super::fixture::APP).run(&["status", "-k", "-s"]);
    assert_eq!(stranger.exit, Some(1), "{stranger:?}");
}

#[test]
#[ignore = "runs openssl: tests/run"]
fn an_encrypted_key_opens_the_server_with_its_password_only() {
    let directory = tempfile::tempdir().expect("a directory");
    let made = made(directory.path(), &["--key", "a.key", "--cert", "a.crt", "--encrypt"]);
    assert!(made.get("api_key").is_none(), "the key is not shown: {made}");
    let server = server_for(made["identity"].as_str().expect("text"));
    let program = |password| owner(&server, directory.path(), "a").env("CLAVIGER_KEY_PASSWORD", password);
    program("correct horse").run(&["status", "-k", "-s"]).ok();
    let wrong = program("wrong").run(&["status", "-k", "-s"]);
    assert!(wrong.stderr.contains("the password of the private key is wrong"), "{wrong:?}");
    // Tools of others read it, too.
    let openssl = crate::support::peer::program("openssl", "openssl");
    let args = ["pkey", "-in", "a.key", "-passin", "pass:correct horse", "-noout"];
    let read = std::process::Command::new(openssl).args(args).current_dir(directory.path()).output();
    let read = read.expect("openssl runs");
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
}

#[test]
fn a_made_certificate_serves_and_is_trusted_when_named() {
    let directory = tempfile::tempdir().expect("a directory");
    made(directory.path(), &["--key", "server.key", "--cert", "server.crt", "--ip", "127.0.0.1", "--dns", "localhost"]);
    let admin = made(directory.path(), &["--key", "a.key", "--cert", "a.crt"]);
    std::fs::create_dir(directory.path().join("keys")).expect("a directory for keys");
    let config = format!(
        "admin: {{ identity: {} }}\ntls: {{ key: server.key, cert: server.crt }}\nkeystore: {{ fs: {{ path: keys }} }}\n",
        admin["identity"].as_str().expect("text")
    );
    let server = TestServer::start_in(directory, &config);
    let program = |address: String| owner(&server, server.directory(), "a").env("MINIO_KES_SERVER", address);
    let (by_ip, port) = (server.address().to_string(), server.address().port());
    for address in [by_ip.clone(), format!("localhost:{port}")] {
        program(address).env("SSL_CERT_FILE", "server.crt").run(&["status", "-s"]).ok();
    }
    let untrusted = program(by_ip.clone()).run(&["status", "-s"]);
    assert!(untrusted.stderr.contains("SSL_CERT_FILE"), "{untrusted:?}");
    let other = program(by_ip).env("SSL_CERT_FILE", "a.crt").run(&["status", "-s"]);
    assert!(other.stderr.contains("not trusted"), "{other:?}");
}

#[test]
fn recorded_certificates_and_keys_are_whose_they_are() {
    let text = std::fs::read(testdata("identities/certificates.json")).expect("the certificates");
    let cases: Value = serde_json::from_slice(&text).expect("the certificates");
    let program = Program::named("kes", &testdata("identities"));
    let cases = cases["cases"].as_array().expect("cases");
    assert!(cases.len() > 20);
    for case in cases {
        let file = |what: &str| case[what].as_str().expect("a file").to_owned();
        for command in [vec!["identity".to_owned()], vec!["identity".to_owned(), "of".to_owned()]] {
            let args: Vec<_> = command.into_iter().chain([file("certificate")]).collect();
            assert_eq!(program.run(&args).ok(), case["identity_of"], "{}", case["name"]);
        }
        let key = program.run(&["identity".to_owned(), file("key")]);
        match case["identity_of_key_file"].as_str() {
            Some(api_key) => assert_eq!(key.ok(), api_key, "{}", case["name"]),
            None => assert!(key.exit == Some(1) && key.stderr.contains("only Ed25519 keys can"), "{key:?}"),
        }
    }
}

#[test]
fn a_private_key_of_every_kind_is_whose_it_is() {
    let text = std::fs::read(testdata("identities/certificates.json")).expect("the certificates");
    let cases: Value = serde_json::from_slice(&text).expect("the certificates");
    let program = Program::named("kes", &testdata("identities"));
    let mut kinds = 0;
    for case in cases["cases"].as_array().expect("cases") {
        let (certificate, key) = (case["certificate"].as_str().expect("a file"), case["key"].as_str().expect("a file"));
        let whose = program.run(&["identity", "of", key]);
        assert_eq!(whose.exit, Some(0), "{key}: {whose:?}");
        assert_eq!(whose.ok(), program.run(&["identity", "of", certificate]).ok(), "{key}");
        kinds += usize::from(case["identity_of_key_file"].is_object());
    }
    assert!(kinds > 3, "not only Ed25519");
}

#[test]
fn an_api_key_in_the_wrong_place_is_neither_sent_nor_repeated() {
    let server = TestServer::with_config(&fixture_config(|config| config));
    let config = server.directory().join("config.yml");
    let program = Program::named("kes", server.directory())
        .env("MINIO_KES_SERVER", server.address().to_string())
        .env("MINIO_KES_API_KEY", super::fixture::ADMIN);
    let (key, config) = (super::fixture::APP, config.to_str().expect("text"));
    let secret = &key[7..];
    let whose = program.run(&["identity", "of", key]).ok();
    let explained = program.run(&["explain", key, "GET", "/version", "--config", config]);
    assert!(!explained.stderr.contains(secret) && !explained.stdout.contains(secret), "{explained:?}");
    let explained = explained.ok();
    assert!(explained.contains(&whose), "{explained}");
    let broken = &key[..key.len() - 1];
    for args in [
        &["explain", broken, "GET", "/version", "--config", config][..],
        &["policy", "show", key, "-k"],
        &["policy", "info", key, "-k"],
        &["identity", "info", key, "-k"],
        &["key", "info", key, "-k"],
        &["key", "create", key, "-k"],
        &["ls", key, "-k"],
        &["kms", "stat-key", key],
        &["migrate", "--from", key, "--target", "x.yml"],
        &["nonsense", key],
        &[key],
    ] {
        let said = program.run(args);
        assert!(matches!(said.exit, Some(1 | 2)), "{args:?}: {said:?}");
        assert!(!said.stderr.contains(&secret[..40]) && !said.stdout.contains(&secret[..40]), "{args:?}: {said:?}");
    }
    assert!(server.stop().success());
}
