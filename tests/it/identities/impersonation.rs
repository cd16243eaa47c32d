//! A certificate of one's own followed by somebody else's, which is public, must not make one that somebody.
//! The archived server takes "the one non-CA certificate" of the list, and so lets anybody be the admin.

use std::sync::Arc;

use rustls::{ClientConfig, HandshakeKind};

use super::{NEEDED, TARGET, TOO_MANY, config, tls, transports};
use crate::support::certificates::{Authority, authority, leaf, self_signed};
use crate::support::client::{Request, Session};
use crate::support::{Client, Identity, Protocol, TestServer, block_on};

/// Somebody's own certificate and key, and behind it the admin's certificate.
fn followed_by_the_admins(mut own: Identity) -> Identity {
    own.chain.extend(Identity::fixture("admin").chain);
    own
}

/// Asks twice; the second connection resumes the session of the first.
async fn ask_twice(server: &TestServer, tls: Arc<ClientConfig>, protocol: Protocol) -> Vec<(u16, String)> {
    let client = Client::with_tls(server.address(), tls, protocol);
    let mut answers = Vec::new();
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let connection = client.connect().await.expect("a handshake");
        let mut session = Session::over(connection, protocol).await.expect("a session");
        let answer = session.send(Request::new("GET", TARGET)).await.expect("an answer");
        answers.push((answer.status, answer.message()));
        assert_eq!(session.handshake_kind(), Some(kind), "{protocol:?}");
    }
    answers
}

#[test]
fn a_ca_certificate_and_the_admins_are_nobody() {
    let server = TestServer::fixture();
    for (protocol, version) in transports() {
        let attacker = followed_by_the_admins(self_signed(authority("attacker")));
        let answers = block_on(ask_twice(&server, tls(Some(attacker), protocol, version), protocol));
        assert_eq!(answers, vec![(400, NEEDED.to_owned()); 2], "{protocol:?} {version:?}");
    }
}

#[test]
fn a_client_certificate_and_the_admins_are_one_too_many() {
    let server = TestServer::fixture();
    for (protocol, version) in transports() {
        let attacker = followed_by_the_admins(self_signed(leaf("attacker")));
        let answers = block_on(ask_twice(&server, tls(Some(attacker), protocol, version), protocol));
        assert_eq!(answers, vec![(400, TOO_MANY.to_owned()); 2], "{protocol:?} {version:?}");
    }
}

#[test]
fn the_admins_certificate_first_needs_the_admins_key() {
    let server = TestServer::fixture();
    for (protocol, version) in transports() {
        let own = self_signed(authority("attacker"));
        let mut chain = Identity::fixture("admin").chain;
        chain.extend(own.chain);
        let client = Client::with_tls(
            server.address(),
            tls(Some(Identity { chain, key: own.key }), protocol, version),
            protocol,
        );
        assert!(block_on(client.send(Request::new("GET", TARGET))).is_err(), "{protocol:?} {version:?}");
    }
}

/// The same with verified chains: neither a CA below ours nor a client of ours can be the admin.
#[test]
fn a_verified_chain_does_not_lend_an_identity() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = Authority::new("root");
    root.write(directory.path().join("ca.crt"));
    let ca = format!("  auth: on\n  ca: {}\n", directory.path().join("ca.crt").display());
    let server = TestServer::with_config(&config(&[], &ca));
    for (protocol, version) in transports() {
        for own in [root.issue(authority("attacker")), root.issue(leaf("attacker"))] {
            let client =
                Client::with_tls(server.address(), tls(Some(followed_by_the_admins(own)), protocol, version), protocol);
            // The first fails in the handshake, the second has one certificate too many.
            if let Ok(answer) = block_on(client.send(Request::new("GET", TARGET))) {
                assert_eq!(answer.status, 400, "{protocol:?} {version:?}: {}", answer.text());
            }
        }
    }
}
