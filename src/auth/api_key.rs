//! API keys: the private key of an identity as one line of text.

use std::net::IpAddr;

use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PublicKeyData as _, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::Identity;
use crate::crypto::{NoRandom, SecretKey, base64};

/// The prefix of an API key.
pub const HEADER: &str = "kes:v1:";

/// The type byte of an Ed25519 seed.
const ED25519: u8 = 0;

/// Ed25519 (RFC 8410).
const ED25519_OID: pkcs8::ObjectIdentifier = pkcs8::ObjectIdentifier::new_unwrap("1.3.101.112");

/// The extension that says whether a certificate is an authority's (RFC 5280, 4.2.1.9).
const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];

/// An empty sequence: the certificate is not an authority's.
const NO_CA: [u8; 2] = [0x30, 0x00];

/// A DER PKCS#8 document up to the Ed25519 seed (RFC 8410).
const PKCS8: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

/// How long a client certificate made from an API key lasts.
const VALID: time::Duration = time::Duration::days(90);

/// Why a text is not an API key. It quotes nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not base64, behind the header.
    #[error("invalid API key: it is not 'kes:v1:' followed by base64")]
    Encoding,
    /// Of the wrong length.
    #[error("invalid API key: invalid length")]
    Length,
    /// Of an unknown kind.
    #[error("invalid API key: unsupported type")]
    Type,
}

/// The fields of a certificate besides its key.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Empty: the identity.
    pub common_name: String,
    /// DNS names of a server.
    pub dns: Vec<String>,
    /// Addresses of a server.
    pub ip: Vec<IpAddr>,
    /// How long it lasts.
    pub valid: time::Duration,
}

/// The private key of an identity: an Ed25519 seed.
#[derive(Debug)]
pub struct ApiKey(SecretKey);

impl ApiKey {
    /// A new random key.
    pub fn generate() -> Result<Self, NoRandom> {
        SecretKey::random().map(Self)
    }

    /// The key of an Ed25519 seed.
    pub fn from_seed(seed: SecretKey) -> Self {
        Self(seed)
    }

    /// Parses `kes:v1:` and the base64 of a type byte and the seed; the header may be missing.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bytes = base64::decode(text.strip_prefix(HEADER).unwrap_or(text).as_bytes()).ok_or(Error::Encoding)?;
        match bytes.split_first() {
            Some((_, seed)) if seed.len() != 32 => Err(Error::Length),
            Some((&ED25519, seed)) => Ok(Self(SecretKey::from_slice(seed).ok_or(Error::Length)?)),
            Some(_) => Err(Error::Type),
            None => Err(Error::Length),
        }
    }

    /// The key in a PKCS#8 document; `None` when it holds another kind of key.
    pub fn from_pkcs8(der: &[u8]) -> Option<Self> {
        let info = pkcs8::PrivateKeyInfoRef::try_from(der).ok()?;
        // The seed is an octet string inside of one (RFC 8410, section 7).
        let seed = info.private_key.as_bytes().strip_prefix(b"\x04\x20")?;
        (info.algorithm.oid == ED25519_OID).then(|| SecretKey::from_slice(seed).map(Self)).flatten()
    }

    /// The key as text. Every call is a place to review.
    pub fn expose(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([ED25519; 33]);
        bytes[1..].copy_from_slice(self.0.expose());
        let encoded = base64::encode(&*bytes);
        let mut text = Zeroizing::new(String::with_capacity(HEADER.len() + encoded.len()));
        text.push_str(HEADER);
        text.push_str(&encoded);
        text
    }

    /// The identity of this key.
    pub fn identity(&self) -> Identity {
        Identity::of_public_key(&self.key_pair().subject_public_key_info())
    }

    /// The private key for TLS libraries.
    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        let mut der = Vec::with_capacity(PKCS8.len() + 32);
        der.extend_from_slice(&PKCS8);
        der.extend_from_slice(self.0.expose());
        PrivatePkcs8KeyDer::from(der).into()
    }

    /// A client certificate of the identity, self-signed, valid for 90 days from `now`.
    pub fn certificate(&self, now: OffsetDateTime) -> Result<CertificateDer<'static>, rcgen::Error> {
        client_certificate(&self.key_pair(), self.identity().as_str(), now)
    }

    /// A self-signed certificate for a file: for a client, and for a server if it names hosts.
    pub fn certificate_for(
        &self,
        subject: &Subject,
        now: OffsetDateTime,
    ) -> Result<CertificateDer<'static>, rcgen::Error> {
        let mut params = CertificateParams::new(&*subject.dns)?;
        params.subject_alt_names.extend(subject.ip.iter().copied().map(SanType::IpAddress));
        let usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = self.key_pair();
        let identity = self.identity();
        let common_name = if subject.common_name.is_empty() { identity.as_str() } else { &subject.common_name };
        sign(&key, params, common_name, usages, now, subject.valid)
    }

    fn key_pair(&self) -> KeyPair {
        KeyPair::try_from(&self.private_key()).expect("every 32 bytes are an Ed25519 seed")
    }
}

/// A self-signed certificate for the client whose key this is, valid for 90 days from `now`.
pub(super) fn client_certificate(
    key: &KeyPair,
    identity: &str,
    now: OffsetDateTime,
) -> Result<CertificateDer<'static>, rcgen::Error> {
    sign(key, CertificateParams::default(), identity, vec![ExtendedKeyUsagePurpose::ClientAuth], now, VALID)
}

fn sign(
    key: &KeyPair,
    mut params: CertificateParams,
    common_name: &str,
    usages: Vec<ExtendedKeyUsagePurpose>,
    now: OffsetDateTime,
    valid: time::Duration,
) -> Result<CertificateDer<'static>, rcgen::Error> {
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages;
    // Not `ExplicitNoCa`, which adds a key identifier that archived clients' certificates have not.
    let mut constraints = CustomExtension::from_oid_content(BASIC_CONSTRAINTS, NO_CA.to_vec());
    constraints.set_criticality(true);
    params.custom_extensions.push(constraints);
    params.not_before = now;
    params.not_after = now + valid;
    Ok(params.self_signed(key)?.der().clone())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::auth::certificate::Certificate;

    #[derive(Deserialize)]
    struct Cases {
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        what: String,
        api_key: String,
        identity_of: Outcome,
        as_client: Outcome,
    }

    #[derive(Deserialize)]
    struct Outcome {
        #[serde(default)]
        stdout: String,
        #[serde(default)]
        stderr: String,
    }

    /// The archived server used a key that it could parse: it then failed to connect, since nobody listened.
    #[test]
    fn keys_parse_as_with_the_archived_server() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/identities/api-keys.json");
        let Cases { cases } = serde_json::from_slice(&std::fs::read(path).expect("readable")).expect("valid");
        assert!(cases.len() > 10);
        for case in cases {
            let parsed = ApiKey::parse(&case.api_key);
            let worked = case.as_client.stderr.contains("connection refused");
            assert_eq!(parsed.is_ok(), worked, "{}: {parsed:?}", case.what);
            let Ok(key) = parsed else { continue };
            if !case.identity_of.stdout.is_empty() {
                assert_eq!(key.identity().as_str(), case.identity_of.stdout, "{}", case.what);
            }
            assert!(key.expose().ends_with(case.api_key.trim_start_matches(HEADER).trim_end()), "{}", case.what);
        }
    }

    #[test]
    fn the_identity_of_the_published_example_is_right() {
        let key = ApiKey::parse("kes:v1:AD9E7FSYWrMD+VjhI6q545cYT9YOyFxZb7UnjEepYDRc").expect("valid");
        assert_eq!(key.identity().as_str(), "3ecfcdf38fcbe141ae26a1030f81e96b753365a46760ae6b578698a97c59fd22");
    }

    #[test]
    fn a_pkcs8_document_holds_its_key() {
        let key = ApiKey::generate().expect("random bytes");
        let again = ApiKey::from_pkcs8(key.private_key().secret_der()).expect("an Ed25519 key");
        assert_eq!(again.expose(), key.expose());
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        assert!(ApiKey::from_pkcs8(&other.serialize_der()).is_none());
        assert!(ApiKey::from_pkcs8(b"").is_none());
    }

    #[test]
    fn its_certificate_is_that_of_a_client() {
        let key = ApiKey::generate().expect("random bytes");
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).expect("in range");
        let der = key.certificate(now).expect("a certificate");
        let certificate = Certificate::parse(&der).expect("valid");
        assert_eq!(certificate.identity(), key.identity());
        assert_eq!(certificate.not_after(), now + VALID);
        assert!(!certificate.is_ca() && !certificate.has_san());
    }
}
