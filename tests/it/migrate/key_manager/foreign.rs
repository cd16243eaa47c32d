//! A key manager that is not ours: it knows none of our extensions. A gate before one of ours keeps them secret, and fails
//! on whoever uses them all the same.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use claviger::auth::enclave::ApiKey;
use claviger::kms::Action;
use claviger::kms::wire::{ImportKeyRequest, VersionResponse, frames};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;

use super::{Desk, KeyManager, report};
use crate::support::client::Request;
use crate::support::{Client, Identity, Protocol};

/// A gate before the key manager; whoever passes it is its administrator.
fn gate(manager: &KeyManager) -> SocketAddr {
    let certificate = CertificateDer::from_pem_file(manager.certificate()).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(manager.certificate().replace(".crt", ".key")).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a pair");
    let root = ApiKey::parse(&manager.root).expect("a key");
    let chain = vec![root.certificate(claviger::clock::now()).expect("made")];
    let identity = Identity { chain, key: root.private_key() };
    let behind = Arc::new(Client::new(manager.server.address(), Some(identity), Protocol::H1));
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.set_nonblocking(true).expect("a socket of ours");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || crate::support::block_on(serve(listener, config, behind)));
    address
}

async fn serve(listener: std::net::TcpListener, config: rustls::ServerConfig, behind: Arc<Client>) {
    let listener = TcpListener::from_std(listener).expect("a socket");
    let tls = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    while let Ok((socket, _)) = listener.accept().await {
        let (tls, behind) = (tls.clone(), behind.clone());
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(socket).await else { return };
            let pass = service_fn(|request| pass(request, behind.clone()));
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), pass).await;
        });
    }
}

async fn pass(
    request: hyper::Request<Incoming>,
    behind: Arc<Client>,
) -> Result<hyper::Response<Full<Bytes>>, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("a whole request").to_bytes();
    for frame in frames(&body).map(|frame| frame.expect("whole")) {
        let action = Action::of_number(frame.command).expect("a command of the protocol");
        assert_ne!(action, Action::KeyExport, "it knows no such command");
        assert_ne!(action, Action::KeyMac, "imported keys have no HMAC key there");
        if action == Action::KeyImport {
            let import = ImportKeyRequest::decode(frame.message).expect("a message");
            assert!(import.versions.is_empty() && import.key.len() == 32, "it takes bytes and a type");
        }
    }
    let path = head.uri.path();
    let forwarded = Request::new(head.method.as_str(), path).header("Accept", "application/octet-stream").body(body);
    let answer = behind.send(forwarded).await?;
    let body = match path {
        "/version" => {
            let version = VersionResponse::decode(answer.body.clone()).expect("a version");
            VersionResponse { extensions: Vec::new(), ..version }.encode_to_vec().into()
        }
        _ => answer.body.clone(),
    };
    let reply = hyper::Response::builder().status(answer.status).header("Content-Type", "application/octet-stream");
    Ok(reply.body(Full::new(body)).expect("a response"))
}

#[test]
fn what_it_cannot_take_is_said_before_anything_is_written() {
    let (manager, desk) = (KeyManager::start(), Desk::with_stored_keys());
    let server = gate(&manager).to_string();
    let count = desk.keys("src").len();
    let dry = desk.run(&manager, &["migrate", "--from", "src.yml", "--server", &server, "--dry-run"]);
    assert_eq!(dry.exit, Some(0), "{dry:?}");
    assert!(dry.stderr.contains("head-create-noaes, … and 2 more: creation time, HMAC key, owner"), "{dry:?}");
    assert_eq!(manager.keys(), 0);
    let run = desk.run(&manager, &["migrate", "--from", "src.yml", "--server", &server, "--json"]);
    assert_eq!(run.exit, Some(0), "{run:?}");
    let report = report(&run);
    let lost = |name: &str| {
        let keys = report["keys"].as_array().expect("a list");
        keys.iter().find(|key| key["name"] == name).expect("there")["lost"].clone()
    };
    assert_eq!(lost("head-create"), serde_json::json!(["creation time", "HMAC key", "owner"]));
    assert_eq!(lost("v0_10_1-create"), serde_json::json!(["that it names no algorithm"]));
    assert_eq!(manager.keys(), count);
    let verified = desk.run(&manager, &["verify", "--from", "src.yml", "--server", &server]).ok();
    assert!(verified.starts_with(&format!("Verified {count} keys")), "{verified}");
    // Through the front door it shows what was lost.
    let verified = desk.run(&manager, &["verify", "--from", "src.yml", "head-create"]);
    assert!(verified.exit == Some(3) && verified.stdout.contains("different: head-create"), "{verified:?}");
}

#[test]
fn it_hands_no_keys_out_and_takes_no_versions() {
    let (manager, desk) = (KeyManager::start(), Desk::with_keys(0));
    manager.minkms(&["add-key", "rotated"]).ok();
    manager.minkms(&["add-key", "rotated", "--version"]).ok();
    let mut section = manager.section();
    desk.write("kms.yml", &section.to_string());
    let foreign = KeyManager::number(1);
    let server = gate(&foreign).to_string();
    section["keystore"]["kms"]["endpoint"] = serde_json::json!([gate(&manager).to_string()]);
    desk.write("closed.yml", &section.to_string());
    let run = desk.run(&manager, &["migrate", "--from", "closed.yml", "--to", "dst.yml"]);
    assert!(run.exit == Some(1) && run.stderr.contains("hands no keys out"), "{run:?}");
    let run = desk.run(&foreign, &["migrate", "--from", "kms.yml", "--server", &server]);
    assert!(
        run.exit == Some(1) && run.stderr.contains("it has versions 1, 2, and this key manager takes one"),
        "{run:?}"
    );
    let one = ["migrate", "--from", "kms.yml", "--server", &server, "--only-version", "0"];
    let run = desk.run(&foreign, &one);
    assert!(run.exit == Some(0) && run.stderr.contains("of rotated: version 1, creation time, HMAC key"), "{run:?}");
    assert_eq!(foreign.keys(), 1);
}
