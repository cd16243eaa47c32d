//! TLS of a client: which server certificates it trusts, and the certificate that it shows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::ResolvesClientCert;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use time::OffsetDateTime;

use crate::auth::Identity;
use crate::auth::api_key::ApiKey;
use crate::auth::certificate::Certificate;
use crate::auth::enclave;
use crate::certificates;
use crate::http::trust::{Verifier, system_authorities};

/// Which server certificates a client trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Certificates of the system's authorities, or of those in a PEM file.
    System {
        /// More authorities, or the server's own certificate.
        also: Option<PathBuf>,
    },
    /// Any certificate. Then anybody between client and server can pose as the server.
    Anybody,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file with authorities cannot be read.
    #[error("failed to read the certificates in '{0}'")]
    Roots(PathBuf, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// The client's certificate is invalid.
    #[error("the client certificate cannot be used")]
    Certificate(#[source] crate::auth::certificate::Error),
    /// The client's key is of no known kind.
    #[error("the client's private key cannot be used")]
    Key(#[source] rustls::Error),
    /// Key and certificate do not belong together.
    #[error("the private key does not belong to the certificate")]
    NoPair,
    /// The API key's certificate could not be made.
    #[error("failed to make a certificate of the API key")]
    ApiKey(#[source] rcgen::Error),
}

/// Settings of a client's TLS. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tls {
    pub(super) config: Arc<ClientConfig>,
    pub(super) identity: Option<Identity>,
}

impl Tls {
    /// A client with the identity of an API key.
    pub fn with_api_key(key: &ApiKey, trust: &Trust, now: OffsetDateTime) -> Result<Self, Error> {
        let certificate = key.certificate(now).map_err(Error::ApiKey)?;
        Self::with_certificate(vec![certificate], &key.private_key(), trust)
    }

    /// The same with an API key of the key manager.
    pub fn with_enclave_key(key: &enclave::ApiKey, trust: &Trust, now: OffsetDateTime) -> Result<Self, Error> {
        let certificate = key.certificate(now).map_err(Error::ApiKey)?;
        Self::with_certificate(vec![certificate], &key.private_key(), trust)
    }

    /// A client with the identity of a certificate. The chain may include its authorities.
    pub fn with_certificate(
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'static>,
        trust: &Trust,
    ) -> Result<Self, Error> {
        let leaf = chain.first().ok_or(Error::Certificate(crate::auth::certificate::Error))?;
        let leaf = Certificate::parse(leaf).map_err(Error::Certificate)?;
        let identity = leaf.identity();
        let key = aws_lc_rs::sign::any_supported_type(key).map_err(Error::Key)?;
        if key.public_key().is_some_and(|public| public.as_ref() != leaf.public_key_info()) {
            return Err(Error::NoPair);
        }
        // Not through the builder, which takes no X.509 v1 certificates: servers take them.
        let resolver = Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)));
        Ok(Self { config: config(trust, Some(resolver))?, identity: Some(identity) })
    }

    /// A client without an identity.
    pub fn anonymous(trust: &Trust) -> Result<Self, Error> {
        Ok(Self { config: config(trust, None)?, identity: None })
    }
}

fn config(trust: &Trust, client: Option<Arc<dyn ResolvesClientCert>>) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(rustls::DEFAULT_VERSIONS)
        .expect("the provider has what the default versions need")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier(trust, provider)?));
    let mut config = match client {
        Some(client) => builder.with_client_cert_resolver(client),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn verifier(trust: &Trust, provider: Arc<CryptoProvider>) -> Result<Verifier, Error> {
    let Trust::System { also } = trust else { return Ok(Verifier::anybody(provider)) };
    let mut trusted = also.as_deref().map(load_file).transpose()?.unwrap_or_default();
    trusted.extend(system_authorities());
    Ok(Verifier::known(trusted, provider))
}

fn load_file(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    certificates::load(path).map_err(|error| match error {
        certificates::Error::Read(path, error) => Error::Roots(path, error.into()),
        certificates::Error::Pem(path, error) => Error::Roots(path, error.into()),
    })
}
