//! Verifies client certificates in the handshake: the signature always, the chain where configured.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use crate::auth::certificate::Certificate;

/// Verifies signatures with the certificate's public key alone. The library's own verifier refuses X.509 v1
/// certificates, which are fine when no chain is verified.
#[derive(Debug)]
pub(super) struct Verifier {
    algorithms: WebPkiSupportedAlgorithms,
    chain: Option<Arc<dyn ClientCertVerifier>>,
    optional: bool,
}

impl Verifier {
    /// A verifier that checks chains with `chain`, if there is one. `optional` admits clients without a certificate;
    /// without `chain` they are always admitted.
    pub(super) fn new(provider: &CryptoProvider, chain: Option<Arc<dyn ClientCertVerifier>>, optional: bool) -> Self {
        let optional = optional || chain.is_none();
        Self { algorithms: provider.signature_verification_algorithms, chain, optional }
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        !self.optional
    }

    /// Names no CA, so that clients send whatever certificate they have.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match &self.chain {
            Some(chain) => chain.verify_client_cert(end_entity, intermediates, now),
            None => Ok(ClientCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let certificate = Certificate::parse(certificate).map_err(|_| CertificateError::BadEncoding)?;
        let schemes = self.algorithms.mapping.iter().find(|(scheme, _)| *scheme == signature.scheme);
        let (_, candidates) = schemes.ok_or(CertificateError::BadSignature)?;
        let (algorithm, key) = certificate.public_key().ok_or(CertificateError::BadEncoding)?;
        for candidate in candidates.iter().filter(|c| c.public_key_alg_id().as_ref() == algorithm) {
            if candidate.verify_signature(key, message, signature.signature()).is_ok() {
                return Ok(HandshakeSignatureValid::assertion());
            }
        }
        Err(CertificateError::BadSignature.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let certificate = Certificate::parse(certificate).map_err(|_| CertificateError::BadEncoding)?;
        let key = SubjectPublicKeyInfoDer::from(certificate.public_key_info());
        rustls::crypto::verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
