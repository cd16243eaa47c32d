//! The yardstick: the least that a key server does for a request, and no other feature.
//!
//! mTLS, HTTP by hyper on one thread, a policy, a table of keys, JSON, HMAC for the subkey, AES-256-GCM.
//! Options: `listen=127.0.0.1:7443 certs=DIR`, where DIR holds `server.crt`, `server.key` and
//! `client.crt`, whose owner may use the keys.

mod request;

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::crypto::aws_lc_rs::{self, Ticketer, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use yardstick::{Options, read_pem};

use self::request::{App, Identity};

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let options = Options::of_process();
    let certs = options.text("certs", "certs");
    let tls = TlsAcceptor::from(Arc::new(tls(&certs)));
    let app = Arc::new(App::for_member(request::identity(&read_pem(&format!("{certs}/client.crt")))));
    let listener = TcpListener::bind(options.text("listen", "127.0.0.1:7443")).await.expect("the address is free");
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        tokio::spawn(connection(app.clone(), tls.clone(), socket));
    }
}

/// AES-128 and X25519 only, one stateless ticket.
fn tls(certs: &str) -> ServerConfig {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![cipher_suite::TLS13_AES_128_GCM_SHA256];
    provider.kx_groups = vec![kx_group::X25519];
    let provider = Arc::new(provider);
    let certificate = CertificateDer::from(read_pem(&format!("{certs}/server.crt")));
    let key = PrivateKeyDer::Pkcs8(read_pem(&format!("{certs}/server.key")).into());
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider knows TLS 1.3")
        .with_client_cert_verifier(Arc::new(AnyCertificate(provider)))
        .with_single_cert(vec![certificate], key)
        .expect("key and certificate belong together");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.send_tls13_tickets = 1;
    config.ticketer = Ticketer::new().expect("randomness");
    config
}

/// Any certificate will do whose key signed the handshake.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

type Verified = rustls::client::danger::HandshakeSignatureValid;

impl ClientCertVerifier for AnyCertificate {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<Verified, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<Verified, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

async fn connection(app: Arc<App>, tls: TlsAcceptor, socket: TcpStream) {
    let _ = socket.set_nodelay(true);
    let Ok(stream) = tls.accept(socket).await else { return };
    let session = stream.get_ref().1;
    let Some(certificate) = session.peer_certificates().and_then(<[_]>::first) else { return };
    let identity = request::identity(certificate);
    let is_http2 = session.alpn_protocol() == Some(b"h2");
    let io = TokioIo::new(stream);
    let service = service_fn(move |request| answer(app.clone(), identity, request));
    // How a connection fails is the client's business.
    if is_http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        let _ = builder.timer(TokioTimer::new()).serve_connection(io, service).await;
    } else {
        let mut builder = http1::Builder::new();
        let _ = builder.header_read_timeout(None).serve_connection(io, service).await;
    }
}

async fn answer(
    app: Arc<App>,
    identity: Identity,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, 1 << 20).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let (status, reply) = app.answer(&identity, head.uri.path(), &body);
    let mut response = Response::new(Full::new(reply.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
