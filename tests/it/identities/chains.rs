//! `tls.auth: on`: the kinds of `testdata/identities/certificates.json`, made anew since those expire.

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose};
use time::{Duration, OffsetDateTime};

use super::{TARGET, TOO_MANY, ask, config, transports};
use crate::support::certificates::{Authority, authority, identity_of, leaf, self_signed};
use crate::support::client::Request;
use crate::support::{Client, Identity, TestServer, block_on, testdata};

/// What becomes of a client.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Outcome {
    Served,
    Answer(u16, &'static str),
    HandshakeFails,
}

fn with(mut params: CertificateParams, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    change(&mut params);
    params
}

fn followed_by(mut identity: Identity, further: &[&Authority]) -> Identity {
    identity.chain.extend(further.iter().map(|authority| authority.certificate()));
    identity
}

/// The names and outcomes are those of the recordings.
fn kinds(root: &Authority) -> Vec<(&'static str, Identity, Outcome)> {
    use Outcome::{Answer, HandshakeFails, Served};
    let intermediate = root.intermediate("intermediate");
    let now = OffsetDateTime::now_utc();
    let server_auth = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    let expired = |params: &mut CertificateParams| params.not_after = now - Duration::MINUTE;
    let not_yet = |params: &mut CertificateParams| params.not_before = now + Duration::MINUTE;
    let mut two_leaves = root.issue(leaf("one"));
    two_leaves.chain.extend(root.issue(leaf("two")).chain);
    let mut twice = self_signed(leaf("twice"));
    twice.chain.extend_from_within(..);
    vec![
        ("leaf-only", root.issue(leaf("a")), Served),
        ("leaf-root", followed_by(root.issue(leaf("b")), &[root]), Served),
        ("chain", followed_by(intermediate.issue(leaf("c")), &[&intermediate, root]), Served),
        ("chain without root", followed_by(intermediate.issue(leaf("d")), &[&intermediate]), Served),
        ("leaf-no-eku", root.issue(with(leaf("e"), |params| params.extended_key_usages.clear())), Served),
        ("two-leaves", two_leaves, Answer(400, TOO_MANY)),
        ("chain-without-intermediate", intermediate.issue(leaf("f")), HandshakeFails),
        ("leaf-server-auth", root.issue(with(leaf("g"), server_auth)), HandshakeFails),
        ("leaf-expired", root.issue(with(leaf("h"), expired)), HandshakeFails),
        ("leaf not yet valid", root.issue(with(leaf("i"), not_yet)), HandshakeFails),
        ("self-signed", self_signed(leaf("j")), HandshakeFails),
        ("ca-true", self_signed(authority("k")), HandshakeFails),
        ("ca-true, signed by the CA", root.issue(authority("l")), HandshakeFails),
        ("same-key-twice", twice, HandshakeFails),
        ("of another CA of the same name", Authority::new("root").issue(leaf("m")), HandshakeFails),
        ("v1", Identity::load(testdata("identities/certs/v1-p256.crt"), testdata("identities/keys/v1-p256.key")), {
            HandshakeFails
        }),
    ]
}

#[test]
fn chains_are_verified_when_auth_is_on() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = Authority::new("root");
    root.write(directory.path().join("ca.crt"));
    let kinds = kinds(&root);
    let identities: Vec<_> = kinds.iter().map(|(_, identity, _)| identity_of(identity)).collect();
    let ca = format!("  auth: on\n  ca: {}\n", directory.path().join("ca.crt").display());
    let server = TestServer::with_config(&config(&identities, &ca));
    for (name, identity, outcome) in &kinds {
        for (protocol, version) in transports() {
            let what = format!("{name} {protocol:?} {version:?}");
            let answer = block_on(ask(&server, Some(copy(identity)), protocol, version));
            let seen = match &answer {
                Err(_) => Outcome::HandshakeFails,
                Ok(answer) if answer.status == 200 => Outcome::Served,
                Ok(answer) => {
                    assert_eq!(*outcome, Outcome::Answer(answer.status, TOO_MANY), "{what}");
                    assert_eq!(answer.message(), TOO_MANY, "{what}");
                    *outcome
                }
            };
            assert_eq!(seen, *outcome, "{what}");
        }
    }
}

fn copy(identity: &Identity) -> Identity {
    Identity { chain: identity.chain.clone(), key: identity.key.clone_key() }
}

#[test]
fn without_a_certificate_the_handshake_fails_when_auth_is_on() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    Authority::new("root").write(directory.path().join("ca.crt"));
    let ca = format!("  auth: on\n  ca: {}\n", directory.path().join("ca.crt").display());
    let server = TestServer::with_config(&config(&[], &ca));
    for (protocol, version) in transports() {
        let client = Client::with_tls(server.address(), super::tls(None, protocol, version), protocol);
        for target in ["/version", TARGET] {
            let answer = block_on(client.send(Request::new("GET", target)));
            assert!(answer.is_err(), "{target} {protocol:?} {version:?}");
        }
    }
}

/// One path that needs no certificate makes it optional in the handshake, and for that path only. Who shows
/// one must show a good one.
#[test]
fn with_skip_auth_a_certificate_is_optional_when_auth_is_on() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = Authority::new("root");
    root.write(directory.path().join("ca.crt"));
    let ca = format!("  auth: on\n  ca: {}\n", directory.path().join("ca.crt").display());
    let member = root.issue(leaf("member"));
    let config = config(&[identity_of(&member)], &ca);
    let server = TestServer::with_config(&format!("{config}api:\n  /v1/ready:\n    skip_auth: true\n"));
    for (protocol, version) in transports() {
        let what = format!("{protocol:?} {version:?}");
        let stranger = Client::with_tls(server.address(), super::tls(None, protocol, version), protocol);
        assert_eq!(block_on(stranger.get("/v1/ready")).status, 200, "{what}");
        assert_eq!(block_on(stranger.get("/version")).status, 200, "{what}");
        for target in [TARGET, "/v1/status", "/v1/identity/self/describe"] {
            let answer = block_on(stranger.get(target));
            assert_eq!((answer.status, answer.message().as_str()), (400, super::NEEDED), "{what} {target}");
        }
        let answer = block_on(ask(&server, Some(copy(&member)), protocol, version)).expect(&what);
        assert_eq!(answer.status, 200, "{what}");
        let unknown = super::tls(Some(self_signed(leaf("unknown"))), protocol, version);
        let unknown = Client::with_tls(server.address(), unknown, protocol);
        assert!(block_on(unknown.send(Request::new("GET", "/v1/ready"))).is_err(), "{what}");
    }
}

/// The recorded answers are those of our list, so that a new recording cannot be forgotten.
#[test]
fn every_recorded_outcome_is_among_them() {
    let text = std::fs::read(testdata("identities/certificates.json")).expect("readable");
    let recorded: serde_json::Value = serde_json::from_slice(&text).expect("valid");
    let kinds = kinds(&Authority::new("root"));
    for case in recorded["cases"].as_array().expect("cases") {
        let name = case["name"].as_str().expect("a name");
        let outcome = match (&case["auth_on"]["status"], &case["auth_on"]["message"]) {
            (status, message) if status == 400 && message == TOO_MANY => Outcome::Answer(400, TOO_MANY),
            (status, _) if status == 200 => Outcome::Served,
            _ => Outcome::HandshakeFails,
        };
        match kinds.iter().find(|(kind, ..)| *kind == name) {
            Some((.., ours)) => assert_eq!(*ours, outcome, "{name}"),
            // Self-signed ones of all kinds, which no chain leads to.
            None => assert_eq!(outcome, Outcome::HandshakeFails, "{name}"),
        }
    }
}
