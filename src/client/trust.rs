//! Which certificates of servers a client believes.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::tls::{Error, Trust};
use crate::auth::certificate::Certificate;

/// Believes servers that hold the key of a certificate which is good enough.
#[derive(Debug)]
pub(super) struct Verifier {
    /// Which certificates are; none: any.
    known: Option<Known>,
    provider: Arc<CryptoProvider>,
}

/// Certificates of known authorities, and those that are known themselves.
#[derive(Debug)]
struct Known {
    /// None when there is no authority at all.
    authorities: Option<Arc<WebPkiServerVerifier>>,
    /// Certificates that were given, not found: they may be a server's own.
    given: Vec<CertificateDer<'static>>,
}

impl Verifier {
    /// What `trust` says.
    pub(super) fn new(trust: &Trust, provider: Arc<CryptoProvider>) -> Result<Self, Error> {
        let known = match trust {
            Trust::Anybody => None,
            Trust::System { also } => Some(Known::load(also.as_deref(), &provider)?),
        };
        Ok(Self { known, provider })
    }
}

impl Known {
    /// The system's authorities, and the certificates of a PEM file.
    fn load(also: Option<&Path>, provider: &Arc<CryptoProvider>) -> Result<Self, Error> {
        let given = also.map(load_file).transpose()?.unwrap_or_default();
        let mut roots = RootCertStore::empty();
        // What the system holds beside usable ones is no business of ours.
        roots.add_parsable_certificates(system_authorities());
        roots.add_parsable_certificates(given.iter().cloned());
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        Ok(Self { authorities: builder.build().ok(), given })
    }

    /// Whether the certificate is one that was given, and valid for this server now. Such a one need not be
    /// fit for anything else: what `openssl req -x509` makes calls itself an authority.
    fn is_given(&self, certificate: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> bool {
        self.given.iter().any(|given| given == certificate)
            && Certificate::parse(certificate).is_ok_and(|certificate| certificate.is_valid_at(now.as_secs()))
            && ParsedCertificate::try_from(certificate)
                .is_ok_and(|parsed| rustls::client::verify_server_name(&parsed, name).is_ok())
    }
}

/// The system's authorities. The library, told of a file by `SSL_CERT_FILE`, would look nowhere else.
fn system_authorities() -> Vec<CertificateDer<'static>> {
    let mut found = rustls_native_certs::load_native_certs().certs;
    if !openssl_probe::has_ssl_cert_env_vars() {
        return found;
    }
    for directory in openssl_probe::candidate_cert_dirs() {
        found.extend(rustls_native_certs::load_certs_from_paths(None, Some(directory)).certs);
    }
    found
}

fn load_file(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let file = std::fs::read(path).map_err(|error| Error::Roots(path.into(), error.into()))?;
    crate::crypto::pem::certificates(&file).map_err(|error| Error::Roots(path.into(), error.into()))
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
            Some(known) if known.is_given(certificate, name, now) => Ok(ServerCertVerified::assertion()),
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
