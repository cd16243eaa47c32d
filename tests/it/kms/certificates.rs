//! The server's certificates: which of several a client sees, and how they are replaced.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SignatureAlgorithm};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, SignatureScheme};

use super::start::refusal;
use super::{HSM, root};
use crate::support::client::{AnyServer, Request, Tls};
use crate::support::{Client, Identity, Protocol, TestServer, block_on, eventually};

/// Writes a certificate for these names, and its key; returns the certificate.
fn make(
    directory: &Path,
    file: &str,
    names: &[&str],
    algorithm: &'static SignatureAlgorithm,
) -> CertificateDer<'static> {
    let key = KeyPair::generate_for(algorithm).expect("a key");
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate = CertificateParams::new(names).expect("names").self_signed(&key).expect("a certificate");
    std::fs::write(directory.join(format!("{file}.key")), key.serialize_pem()).expect("written");
    std::fs::write(directory.join(format!("{file}.crt")), certificate.pem()).expect("written");
    certificate.der().clone()
}

fn config(directory: &Path, files: &[&str]) -> String {
    let at = |file: &&str| format!("{{ key: {0}/{file}.key, cert: {0}/{file}.crt }}", directory.display());
    let pairs: Vec<_> = files.iter().map(at).collect();
    let path = directory.join("kms.yml");
    std::fs::write(&path, format!("version: v1\ntls:\n  certs:\n  - {}\n", pairs.join("\n  - "))).expect("written");
    path.to_str().expect("text").to_owned()
}

const ECDSA: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;
const RSA: SignatureScheme = SignatureScheme::RSA_PSS_SHA256;

/// The certificate that a client sees who asks for this name and understands these signatures; none: no handshake.
fn shown(address: SocketAddr, name: &str, schemes: &[SignatureScheme]) -> Option<CertificateDer<'static>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(AnyServer::new(provider.clone()).understanding(schemes));
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions").dangerous().with_custom_certificate_verifier(verifier);
    let config = Arc::new(config.with_no_client_auth());
    block_on(async {
        let socket = tokio::net::TcpStream::connect(address).await.expect("a connection");
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let tls = tokio_rustls::TlsConnector::from(config).connect(name, socket).await.ok()?;
        Some(tls.get_ref().1.peer_certificates().expect("a certificate")[0].clone())
    })
}

#[test]
fn a_client_sees_the_first_certificate_for_the_name_that_it_asks_for() {
    let data = tempfile::tempdir().expect("a directory");
    let make = |file, names: &[&str], algorithm| make(data.path(), file, names, algorithm);
    let first = make("first", &["kms.example", "10.0.0.1"], &PKCS_ECDSA_P256_SHA256);
    let star = make("star", &["*.kms.example", "kms.example"], &PKCS_ECDSA_P256_SHA256);
    let inner = make("inner", &["a.kms.example", "other.example"], &PKCS_ECDSA_P256_SHA256);
    let rsa = make("rsa", &["kms.example"], &PKCS_RSA_SHA256);
    let config = config(data.path(), &["first", "star", "inner", "rsa"]);
    let server = TestServer::key_manager(data.path(), HSM, &["--config", &config]);
    for (name, schemes, wanted) in [
        ("kms.example", &[ECDSA, RSA][..], Some(&first)),
        ("KMS.example", &[ECDSA], Some(&first)),
        ("a.kms.example", &[ECDSA], Some(&star)),
        ("a.b.kms.example", &[ECDSA], Some(&first)),
        ("other.example", &[ECDSA], Some(&inner)),
        ("nobody.example", &[ECDSA], Some(&first)),
        ("127.0.0.1", &[ECDSA], Some(&first)),
        ("kms.example", &[RSA], Some(&rsa)),
        ("a.kms.example", &[RSA], Some(&rsa)),
        ("kms.example", &[SignatureScheme::ED448], None),
    ] {
        assert_eq!(shown(server.address(), name, schemes).as_ref(), wanted, "{name} {schemes:?}");
    }
}

#[test]
fn each_certificate_is_replaced_while_the_server_runs_and_a_wrong_one_changes_nothing() {
    let data = tempfile::tempdir().expect("a directory");
    let make = |file, names: &[&str]| make(data.path(), file, names, &PKCS_ECDSA_P256_SHA256);
    let (first, second) = (make("first", &["a.example"]), make("second", &["b.example"]));
    let config = config(data.path(), &["first", "second"]);
    let server = TestServer::key_manager(data.path(), HSM, &["--config", &config]);
    let shown = |name| shown(server.address(), name, &[ECDSA]).expect("a handshake");
    assert_eq!((shown("a.example"), shown("b.example")), (first.clone(), second));
    let replaced = make("second", &["b.example", "c.example"]);
    eventually("the new certificate", || shown("c.example") == replaced);
    assert_eq!((shown("a.example"), shown("b.example")), (first, replaced.clone()));
    std::fs::copy(data.path().join("first.key"), data.path().join("second.key")).expect("copied");
    let place = format!("{config}:5:12: tls.certs[1].key: the private key '");
    eventually("the error", || server.stderr().contains(&place));
    assert_eq!(shown("b.example"), replaced);
    assert!(server.stop().success());
    let said = refusal(data.path(), Some(HSM), &["--config", &config]);
    assert!(said.contains(&place) && said.contains("name the two files that were made together"), "{said}");
}

#[test]
fn a_renewed_certificate_costs_no_client_its_session_and_its_end_is_known_at_once() {
    let data = tempfile::tempdir().expect("a directory");
    make(data.path(), "first", &["localhost"], &PKCS_ECDSA_P256_SHA256);
    let config = config(data.path(), &["first"]);
    let server = TestServer::key_manager(data.path(), HSM, &["--config", &config]);
    let tls = Tls::new(Some(Identity::enclave(&root())), Protocol::H2).shared();
    let client = Client::with_tls(server.address(), tls, Protocol::H2);
    let ask = || {
        block_on(async {
            let mut session = client.session().await.expect("a connection");
            let metrics = session.send(Request::new("GET", "/v1/health/metrics")).await.expect("an answer");
            let line = metrics
                .text()
                .lines()
                .find(|line| line.starts_with("claviger_tls_certificate_expiry_timestamp_seconds "));
            (session.handshake_kind(), line.expect("the metric").to_owned())
        })
    };
    let (full, before) = ask();
    assert_eq!((full, ask()), (Some(HandshakeKind::Full), (Some(HandshakeKind::Resumed), before.clone())));
    let mut renewed = CertificateParams::new(vec!["localhost".to_owned()]).expect("names");
    renewed.not_after = rcgen::date_time_ymd(2199, 1, 1);
    let key = KeyPair::generate().expect("a key");
    std::fs::write(data.path().join("first.key"), key.serialize_pem()).expect("written");
    std::fs::write(data.path().join("first.crt"), renewed.self_signed(&key).expect("made").pem()).expect("written");
    eventually("the new certificate", || server.stderr().contains("TLS files changed and were loaded"));
    let (resumed, after) = ask();
    assert_eq!(resumed, Some(HandshakeKind::Resumed), "the session outlives the certificate");
    assert!(after.ends_with(" 7226582400") && after != before, "{before} {after}");
}

#[test]
fn clients_are_verified_whoever_made_the_certificate() {
    let data = tempfile::tempdir().expect("a directory");
    let config = data.path().join("kms.yml");
    crate::support::certificates::Authority::new("CA").write(data.path().join("ca.crt"));
    let text = format!("version: v1\ntls: {{ auth: on, ca: {}/ca.crt }}\n", data.path().display());
    std::fs::write(&config, text).expect("written");
    let server = TestServer::key_manager(data.path(), HSM, &["--config", config.to_str().expect("text")]);
    let refused = block_on(async { super::create_key(&super::client(&server, &super::root()), "k", false).await });
    assert_eq!(refused.expect_err("a self-signed certificate").status(), None, "no answer but an alert");
}
