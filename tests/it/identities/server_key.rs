//! The server's own key, encrypted in every recorded way.

use serde::Deserialize;

use crate::support::server::{copy_fixture, fixture_config};
use crate::support::{Client, Protocol, TestServer, block_on, testdata};

#[derive(Deserialize)]
struct File {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    key: String,
    server_certificate: String,
    password: String,
}

impl Case {
    fn is_encrypted(&self) -> bool {
        !self.name.starts_with("plain-")
    }

    fn config(&self, password: Option<&str>) -> String {
        let folder = testdata("identities");
        let key = folder.join(&self.key).display().to_string();
        let certificate = folder.join(&self.server_certificate).display().to_string();
        let password = password.map(|password| format!("  password: {password}\n")).unwrap_or_default();
        fixture_config(|config| {
            config
                .replace("key: server.key", &format!("key: {key}"))
                .replace("cert: server.crt", &format!("cert: {certificate}"))
                .replace("tls:\n", &format!("tls:\n{password}"))
        })
    }
}

fn cases() -> Vec<Case> {
    let text = std::fs::read(testdata("identities/encrypted-keys.json")).expect("readable");
    serde_json::from_slice::<File>(&text).expect("valid").cases
}

/// Those that the archived server refuses, encrypted PKCS#8, too: it is what openssl writes.
#[test]
fn a_server_starts_with_the_password_of_its_key() {
    let cases = cases();
    assert_eq!(cases.len(), 16);
    for case in cases {
        // PBES1 is broken and known to no library of ours: the error says how to convert the key.
        if case.name == "pkcs8-pbes1" {
            let error = refuses(&case, Some(&case.password));
            assert!(error.contains("openssl pkcs8 -topk8 -v2 aes-256-cbc"), "{}: {error}", case.name);
            continue;
        }
        let server = TestServer::with_config(&case.config(Some(&case.password)));
        let client = Client::new(server.address(), None, Protocol::H2);
        assert_eq!(block_on(client.get("/version")).status, 200, "{}", case.name);
        assert!(!server.stderr().contains(&case.password) && !server.stdout().contains(&case.password));
    }
}

#[test]
fn without_the_password_or_with_a_wrong_one_the_error_says_so() {
    for case in cases().iter().filter(|case| case.is_encrypted() && case.name != "pkcs8-pbes1") {
        let error = refuses(case, None);
        assert!(error.contains("is encrypted and needs a password"), "{}: {error}", case.name);
        let error = refuses(case, Some("not the password"));
        assert!(error.contains("the password of the private key is wrong"), "{}: {error}", case.name);
        assert!(error.contains(&case.key), "{}: the error names the file: {error}", case.name);
        assert!(!error.contains("not the password"), "{}: {error}", case.name);
    }
}

#[test]
fn a_key_that_is_not_encrypted_needs_no_password() {
    for case in cases().iter().filter(|case| !case.is_encrypted()) {
        for password in [None, Some("whatever")] {
            drop(TestServer::with_config(&case.config(password)));
        }
    }
}

fn refuses(case: &Case, password: Option<&str>) -> String {
    let directory = tempfile::tempdir().expect("a temporary directory");
    copy_fixture(directory.path());
    TestServer::refuses(directory.path(), &case.config(password))
}
