//! A resumed TLS session brings back a certificate that nobody verified this time.

use std::sync::Arc;

use rustls::{ClientConfig, HandshakeKind};
use time::{Duration, OffsetDateTime};

use super::{NEEDED, TARGET, config, tls, transports};
use crate::support::certificates::{Authority, identity_of, leaf};
use crate::support::client::{Request, Session};
use crate::support::{Client, Identity, Protocol, Response, TestServer, block_on};

/// Asks on a new connection; tells how its handshake went.
async fn ask(
    server: &TestServer,
    tls: &Arc<ClientConfig>,
    protocol: Protocol,
) -> std::io::Result<(Response, Option<HandshakeKind>)> {
    let client = Client::with_tls(server.address(), tls.clone(), protocol);
    let mut session = Session::over(client.connect().await?, protocol).await?;
    let answer = session.send(Request::new("GET", TARGET)).await?;
    Ok((answer, session.handshake_kind()))
}

#[test]
fn a_session_is_resumed_as_the_same_identity() {
    let server = TestServer::fixture();
    for (protocol, version) in transports() {
        let tls = tls(Some(Identity::fixture("admin")), protocol, version);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
            let (answer, seen) = block_on(ask(&server, &tls, protocol)).expect("an answer");
            assert_eq!((answer.status, seen), (200, Some(kind)), "{protocol:?} {version:?}");
        }
    }
}

/// The certificate ends while the session lives.
#[test]
fn a_resumed_session_does_not_outlive_its_certificate() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = Authority::new("root");
    root.write(directory.path().join("ca.crt"));
    let ca = format!("  auth: on\n  ca: {}\n", directory.path().join("ca.crt").display());
    let mut short = leaf("short");
    let end = OffsetDateTime::now_utc() + Duration::seconds(6);
    short.not_after = end;
    let identity = root.issue(short);
    let server = TestServer::with_config(&config(&[identity_of(&identity)], &ca));
    let clients: Vec<_> = transports()
        .map(|(protocol, version)| {
            let identity = Identity { chain: identity.chain.clone(), key: identity.key.clone_key() };
            (tls(Some(identity), protocol, version), protocol, version)
        })
        .collect();
    for (tls, protocol, version) in &clients {
        let (answer, _) = block_on(ask(&server, tls, *protocol)).expect("an answer");
        assert_eq!(answer.status, 200, "{protocol:?} {version:?}");
    }
    while OffsetDateTime::now_utc() <= end + Duration::SECOND {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    for (tls, protocol, version) in &clients {
        let (answer, kind) = block_on(ask(&server, tls, *protocol)).expect("an answer");
        assert_eq!(kind, Some(HandshakeKind::Resumed), "{protocol:?} {version:?}");
        assert_eq!((answer.status, answer.message().as_str()), (400, NEEDED), "{protocol:?} {version:?}");
    }
}

/// Sessions that were begun when anybody was let in are worth nothing once chains are verified.
#[test]
fn sessions_end_when_trust_changes() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    Authority::new("root").write(directory.path().join("ca.crt"));
    let ca = format!("  auth: on\n  ca: {}\n", directory.path().join("ca.crt").display());
    let server = TestServer::fixture();
    let clients: Vec<_> = transports()
        .map(|(protocol, version)| (tls(Some(Identity::fixture("admin")), protocol, version), protocol, version))
        .collect();
    for (tls, protocol, version) in &clients {
        let (answer, _) = block_on(ask(&server, tls, *protocol)).expect("an answer");
        assert_eq!(answer.status, 200, "{protocol:?} {version:?}");
    }
    server.reload(&config(&[], &ca));
    server.says("config reloaded");
    for (tls, protocol, version) in &clients {
        assert!(block_on(ask(&server, tls, *protocol)).is_err(), "{protocol:?} {version:?}");
    }
}
