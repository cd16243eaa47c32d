//! The first thing everybody tries: curl, and openssl's client.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::curl::{curl, curl_as};
use crate::support::peer::program;
use crate::support::{TestServer, certs, eventually};

fn url(server: &TestServer, path: &str) -> String {
    format!("https://localhost:{}{path}", server.address().port())
}

#[test]
#[ignore = "runs curl: tests/run"]
fn the_version_needs_no_certificate() {
    let server = TestServer::with_dev_config("");
    let url = url(&server, "/version");
    for (option, http) in [("--http1.1", "1.1"), ("--http2", "2")] {
        for tls in ["1.2", "1.3"] {
            let answer = curl(&[option, &format!("--tlsv{tls}"), "--tls-max", tls, &url]).expect("an answer");
            assert_eq!((answer.status, answer.http.as_str()), (200, http), "TLS {tls}");
            assert_eq!(answer.json()["version"], env!("CARGO_PKG_VERSION"));
            let answer = curl_as("app", &[option, &format!("--tlsv{tls}"), "--tls-max", tls, &url]);
            assert_eq!(answer.expect("an answer").status, 200, "with a certificate, TLS {tls}");
        }
    }
}

/// As the README has it.
#[test]
#[ignore = "runs curl: tests/run"]
fn the_certificate_of_a_development_server_is_all_that_curl_needs() {
    let server = TestServer::dev();
    let exported = |name: &str| {
        let start = format!("export {name}=");
        let find = || server.stderr().lines().find_map(|line| line.strip_prefix(&start).map(str::to_owned));
        eventually("the server says what to export", || find().is_some());
        find().expect("it was there")
    };
    let (address, certificate) = (exported("MINIO_KES_SERVER"), exported("SSL_CERT_FILE"));
    let answer = curl(&["--cacert", &certificate, &format!("{address}/version")]).expect("an answer");
    assert_eq!(answer.json()["version"], env!("CARGO_PKG_VERSION"));
    curl(&[&format!("{address}/version")]).expect_err("nobody else vouches for it");
}

#[test]
#[ignore = "runs curl: tests/run"]
fn everything_else_needs_a_certificate() {
    let server = TestServer::with_dev_config("");
    let status = url(&server, "/v1/status");
    let answer = curl(&[&status]).expect("an answer, and no broken handshake");
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["message"], "tls: client certificate is required");
    for client in ["admin", "app", "stranger"] {
        assert_eq!(curl_as(client, &[&status]).expect("an answer").status, 200, "{client}");
    }
    let answer = curl_as("proxy", &[&status]).expect("an answer");
    assert_eq!(answer.status, 403, "an identity without policy");
}

#[test]
#[ignore = "runs curl: tests/run"]
fn a_key_is_made_and_used() {
    let server = TestServer::with_dev_config("");
    let at = |path| url(&server, path);
    let create = at("/v1/key/create/app-key");
    assert_eq!(curl_as("app", &["--request", "PUT", &create]).expect("an answer").status, 200);
    let data = r#"{"plaintext":"SGVsbG8="}"#;
    let sealed = curl_as("app", &["--request", "PUT", "--data", data, &at("/v1/key/encrypt/app-key")]);
    let sealed = sealed.expect("an answer").body;
    let opened = curl_as("app", &["--request", "POST", "--data", &sealed, &at("/v1/key/decrypt/app-key")]);
    assert_eq!(opened.expect("an answer").json()["plaintext"], "SGVsbG8=");
}

/// A stream that ends while the client still sends is an error to curl, whatever was answered before.
#[test]
#[ignore = "runs curl: tests/run"]
fn a_refusal_arrives_although_the_client_is_still_sending() {
    let server = TestServer::with_dev_config("");
    let file = server.directory().join("body");
    std::fs::write(&file, [b' '; 200_000]).expect("written");
    let send = |client: &str, path: &str| {
        let data = format!("@{}", file.display());
        let answer = curl_as(client, &["--request", "PUT", "--data-binary", &data, &url(&server, path)]);
        answer.map(|answer| answer.status)
    };
    for _ in 0..5 {
        assert_eq!(send("app", "/v1/key/encrypt/other"), Ok(403));
        assert_eq!(send("admin", "/v1/key/encrypt/-"), Ok(400));
        assert_eq!(send("admin", "/v1/key/list/"), Ok(405));
        assert_eq!(send("admin", "/v1/nothing"), Ok(404));
    }
}

#[test]
#[ignore = "runs curl: tests/run"]
fn tls_auth_on_wants_a_certificate_of_the_ca() {
    let server = TestServer::with_dev_config(&format!("auth: on\n  ca: {}", certs("ca.crt").display()));
    let version = url(&server, "/version");
    assert_eq!(curl_as("app", &[&version]).expect("an answer").status, 200);
    curl(&[&version]).expect_err("the handshake itself wants a certificate");
    curl_as("stranger", &[&version]).expect_err("no CA knows it");
}

/// `openssl req -x509`, as everybody types it, makes a CA.
#[test]
#[ignore = "runs openssl: tests/run"]
fn a_ca_is_no_client_and_the_log_says_what_to_do() {
    let server = TestServer::with_dev_config("");
    let (certificate, key) = (server.directory().join("ca.crt"), server.directory().join("ca.key"));
    let made = Command::new(program("openssl", "openssl"))
        .args(["req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=me", "-out"])
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key)
        .output()
        .expect("openssl runs");
    assert!(made.status.success());
    let text = |path: &Path| path.display().to_string();
    let answer = curl(&["--cert", &text(&certificate), "--key", &text(&key), &url(&server, "/v1/status")]);
    let answer = answer.expect("an answer");
    assert_eq!((answer.status, answer.json()["message"].as_str()), (400, Some("tls: client certificate is required")));
    eventually("the log explains it", || server.stderr().contains("basicConstraints=critical,CA:FALSE"));
}

/// What `openssl s_client` says about a handshake.
fn s_client(server: &TestServer, args: &[&str]) -> String {
    let output = Command::new(program("openssl", "openssl"))
        .args(["s_client", "-verify_return_error", "-servername", "localhost", "-CAfile"])
        .arg(certs("ca.crt"))
        .args(["-connect", &server.address().to_string()])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("openssl runs");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
#[ignore = "runs openssl: tests/run"]
fn openssl_agrees_on_protocols() {
    let server = TestServer::with_dev_config("");
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        for protocol in ["h2", "http/1.1"] {
            let said = s_client(&server, &[version, "-alpn", protocol]);
            assert!(said.contains(&format!("New, {name}, Cipher is ")), "{said}");
            assert!(said.contains(&format!("ALPN protocol: {protocol}\n")), "{said}");
            assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
        }
    }
    for version in ["-tls1", "-tls1_1"] {
        let said = s_client(&server, &[version, "-cipher", "DEFAULT@SECLEVEL=0"]);
        assert!(said.contains("Cipher is (NONE)") && said.contains("SSL alert number"), "{version} is history: {said}");
    }
}
