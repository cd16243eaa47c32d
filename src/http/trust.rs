//! Which server certificates a client trusts.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use x509_parser::prelude::{ASN1Time, FromDer as _, X509Certificate};

/// Believes servers that hold the key of a certificate which is good enough.
#[derive(Debug)]
pub(crate) struct Verifier {
    /// Which certificates are; none: any.
    known: Option<Known>,
    provider: Arc<CryptoProvider>,
}

/// Certificates of known authorities, and those that are known themselves.
#[derive(Debug)]
struct Known {
    /// None when there is no authority at all.
    authorities: Option<Arc<WebPkiServerVerifier>>,
    /// All of them: each may be a server's own.
    trusted: Vec<CertificateDer<'static>>,
}

impl Verifier {
    /// Accepts any server certificate, so anybody in between can pose as the server.
    pub(crate) fn anybody(provider: Arc<CryptoProvider>) -> Self {
        Self { known: None, provider }
    }

    /// Believes servers with one of these certificates, or with one that an authority among them has issued.
    pub(crate) fn known(trusted: Vec<CertificateDer<'static>>, provider: Arc<CryptoProvider>) -> Self {
        let mut roots = RootCertStore::empty();
        // What the system holds beside usable ones is no business of ours.
        roots.add_parsable_certificates(trusted.iter().cloned());
        let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().ok();
        Self { known: Some(Known { authorities, trusted }), provider }
    }
}

impl Known {
    /// Whether the certificate is a trusted one itself, and valid for this server now. Such a one need not be
    /// fit for anything else: what `openssl req -x509` makes calls itself an authority.
    fn is_trusted(&self, certificate: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> bool {
        self.trusted.iter().any(|trusted| trusted == certificate)
            && is_valid_at(certificate, now)
            && ParsedCertificate::try_from(certificate)
                .is_ok_and(|parsed| rustls::client::verify_server_name(&parsed, name).is_ok())
    }
}

/// The system's authorities. The library, told of a file by `SSL_CERT_FILE`, would look nowhere else.
pub(crate) fn system_authorities() -> Vec<CertificateDer<'static>> {
    let mut found = rustls_native_certs::load_native_certs().certs;
    if !openssl_probe::has_ssl_cert_env_vars() {
        return found;
    }
    for directory in openssl_probe::candidate_cert_dirs() {
        found.extend(rustls_native_certs::load_certs_from_paths(None, Some(directory)).certs);
    }
    found
}

fn is_valid_at(certificate: &CertificateDer<'_>, now: UnixTime) -> bool {
    let now = i64::try_from(now.as_secs()).ok().and_then(|now| ASN1Time::from_timestamp(now).ok());
    let parsed = X509Certificate::from_der(certificate);
    parsed.is_ok_and(|(_, parsed)| now.is_some_and(|now| parsed.validity().is_valid_at(now)))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.known {
            None => Ok(ServerCertVerified::assertion()),
            Some(known) if known.is_trusted(certificate, name, now) => Ok(ServerCertVerified::assertion()),
            Some(Known { authorities: Some(authorities), .. }) => {
                authorities.verify_server_cert(certificate, intermediates, name, ocsp, now)
            }
            Some(_) => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
