//! Our client: several servers, connections that break, answers that no real server gives.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use claviger::auth::api_key::ApiKey;
use claviger::client::{Client, Endpoint, Error, Lost, Tls, Trust};
use rustix::process::Signal;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::{TestServer, block_on};

/// A client of these servers, whoever they are.
fn client(addresses: &[String]) -> Client {
    let key = ApiKey::parse(super::cli::fixture::ADMIN).expect("an API key");
    let tls = Tls::with_api_key(&key, &Trust::Anybody, time::OffsetDateTime::now_utc()).expect("a client's TLS");
    Client::new(Endpoint::parse_list(&addresses.join(",")).expect("addresses"), tls)
}

/// A server that speaks HTTP/1.1 over TLS, answers every request with the same bytes, and closes the connection.
struct Scripted {
    address: String,
    asked: Arc<AtomicUsize>,
}

impl Scripted {
    async fn start(answer: impl Into<String>) -> Self {
        let answer = answer.into();
        let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let private = PrivateKeyDer::try_from(key.signing_key.serialize_der()).expect("a key");
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(rustls::DEFAULT_VERSIONS)
            .expect("supported versions")
            .with_no_client_auth()
            .with_single_cert(vec![key.cert.der().clone()], private)
            .expect("a pair");
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let asked = Arc::<AtomicUsize>::default();
        let count = asked.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(socket).await else { continue };
                let mut head = Vec::new();
                while !head.windows(4).any(|end| end == b"\r\n\r\n") && stream.read_buf(&mut head).await.is_ok() {}
                count.fetch_add(1, Ordering::Relaxed);
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

/// An answer with this status and body.
fn answer(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn unavailable() -> String {
    answer(503, r#"{"message":"come back later"}"#)
}

#[test]
fn a_server_that_is_down_or_unavailable_is_passed_over_and_the_next_one_is_kept() {
    block_on(async {
        let (unavailable, server) = (Scripted::start(unavailable()).await, Scripted::start(answer(200, "")).await);
        let client = client(&["127.0.0.1:1".into(), unavailable.address.clone(), server.address.clone()]);
        client.ready().await.expect("the third is ready");
        client.ready().await.expect("and is asked first from now on");
        assert_eq!((unavailable.asked(), server.asked()), (1, 2));
        assert_eq!(client.endpoint().authority(), server.address);
    });
}

#[test]
fn a_change_is_sent_once_whatever_comes_of_it() {
    block_on(async {
        let (silent, other) = (Scripted::start("").await, Scripted::start(unavailable()).await);
        let both = [silent.address.clone(), other.address.clone()];
        let error = client(&both).create_key("x").await.expect_err("no answer");
        assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
        assert_eq!((silent.asked(), other.asked()), (1, 0));
        let error = client(&[other.address.clone(), silent.address.clone()]).delete_key("x").await.expect_err("503");
        assert!(
            error.status().is_some_and(|status| status == 503) && error.to_string() == "come back later",
            "{error}"
        );
        assert_eq!((silent.asked(), other.asked()), (1, 1));
        // What changes nothing is asked everywhere.
        let error = client(&both).describe_key("x").await.expect_err("neither knows");
        assert!(matches!(&error, Error::Unreachable(failures) if failures.len() == 2), "{error}");
        assert_eq!((silent.asked(), other.asked()), (2, 2));
    });
}

#[test]
fn answers_that_are_none_are_errors() {
    block_on(async {
        for body in ["<html>", "{}", "[]", ""] {
            let server = Scripted::start(answer(200, body)).await;
            let error = client(&[server.address]).describe_key("x").await.expect_err("no description");
            assert!(matches!(error, Error::Nonsense { .. }), "{body:?}: {error}");
        }
        let cut = Scripted::start("HTTP/1.1 200 x\r\nContent-Length: 99\r\n\r\n{}").await;
        let error = client(&[cut.address]).describe_key("x").await.expect_err("half an answer");
        let broken =
            |error: &Error| matches!(error, Error::Unreachable(all) if matches!(all[0].cause, Lost::Broken(_)));
        assert!(broken(&error), "{error}");
        let rude = Scripted::start(answer(400, r#"{"message":"\u001b[2Jx"}"#)).await;
        let error = client(&[rude.address]).describe_key("x").await.expect_err("a refusal");
        assert_eq!(error.to_string(), " [2Jx", "nothing that moves a cursor comes through");
    });
}

#[test]
fn a_client_outlives_the_connection_it_keeps() {
    let mut server = TestServer::dev();
    let address = server.address();
    block_on(async {
        let client = client(&[address.to_string()]);
        client.version().await.expect("the server answers");
        // Killed while the client does not look: it learns of it when it next asks.
        server.signal(Signal::KILL);
        server.wait_for_exit(Duration::from_secs(20)).expect("the server is gone");
        let error = client.version().await.expect_err("nobody is there");
        assert!(matches!(&error, Error::Unreachable(all) if matches!(all[0].cause, Lost::Connect(_))), "{error}");
        let again = TestServer::dev_at(address);
        client.version().await.expect("the server is back");
        // Our runtime rests while the server stops, so it would wait for us.
        again.signal(Signal::KILL);
    });
}
