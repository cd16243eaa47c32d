//! The certificates of `testdata/identities`, with `tls.auth: off`: their dates do not matter.

use serde::Deserialize;

use super::{NEEDED, ask, config, transports};
use crate::support::client::Request;
use crate::support::{Client, Identity, TestServer, block_on, testdata};

#[derive(Deserialize)]
struct File {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    certificate: String,
    key: String,
    sent: usize,
    spki_sha256: String,
    auth_off: Answer,
}

#[derive(Deserialize)]
struct Answer {
    status: u16,
    message: Option<String>,
}

fn cases() -> Vec<Case> {
    let text = std::fs::read(testdata("identities/certificates.json")).expect("readable");
    serde_json::from_slice::<File>(&text).expect("valid").cases
}

#[test]
fn every_recorded_certificate_is_taken_or_refused_as_by_the_archived_server() {
    let cases = cases();
    assert_eq!(cases.len(), 24);
    let mut identities: Vec<_> = cases.iter().map(|case| case.spki_sha256.clone()).collect();
    identities.sort();
    identities.dedup();
    let server = TestServer::with_config(&config(&identities, ""));
    for case in &cases {
        for (protocol, version) in transports() {
            let what = format!("{} {protocol:?} {version:?}", case.name);
            let folder = testdata("identities");
            let identity = Identity::load(folder.join(&case.certificate), folder.join(&case.key));
            assert_eq!(identity.chain.len(), case.sent, "{what}");
            let answer = block_on(ask(&server, Some(identity), protocol, version)).expect(&what);
            assert_eq!(answer.status, case.auth_off.status, "{what}: {}", answer.text());
            match &case.auth_off.message {
                Some(message) => assert_eq!(answer.message(), *message, "{what}"),
                None => assert_eq!(answer.json()["names"], serde_json::json!(["x_y"]), "{what}"),
            }
        }
    }
    // People lose hours on what 'openssl req -x509' makes.
    server.says("basicConstraints=critical,CA:FALSE");
}

#[test]
fn without_a_certificate_only_the_version_is_told() {
    let server = TestServer::fixture();
    for (protocol, version) in transports() {
        let client = Client::with_tls(server.address(), super::tls(None, protocol, version), protocol);
        block_on(async {
            assert_eq!(client.get("/version").await.status, 200);
            assert_eq!(client.get("/nope").await.status, 404);
            for target in [super::TARGET, "/v1/ready", "/v1/identity/self/describe", "/v1/log/audit"] {
                let answer = client.get(target).await;
                assert_eq!((answer.status, answer.message().as_str()), (400, NEEDED), "{target} {protocol:?}");
            }
        });
    }
}

#[test]
fn a_certificate_needs_its_key() {
    let server = TestServer::fixture();
    for (protocol, version) in transports() {
        let mut stolen = Identity::fixture("admin");
        stolen.key = Identity::fixture("nobody").key;
        assert!(block_on(ask(&server, Some(stolen), protocol, version)).is_err(), "{protocol:?} {version:?}");
    }
    let admin = Client::fixture(server.address(), "admin");
    assert_eq!(block_on(admin.send(Request::new("GET", super::TARGET))).expect("an answer").status, 200);
}
