//! Which client certificates the server trusts: the settings `tls.auth`, `tls.ca` and `tls.proxy`.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::HeaderMap;
use hyper::header::HeaderName;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::{ClientAuth, Config, Error, ProxyHeader, Setting};
use crate::auth::{Identity, peer};
use crate::certificates;
use crate::server::proxy;

/// Whom the server takes the other end for: the settings `tls.auth`, `tls.ca` and `tls.proxy`.
#[derive(Debug)]
pub(in crate::server) struct Trust {
    id: u64,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    roots: Vec<CertificateDer<'static>>,
    proxies: HashSet<Identity>,
    header: HeaderName,
    form: proxy::Form,
}

impl Trust {
    /// Trusts every client certificate, and no proxies.
    pub(super) fn anybody() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            verifier: None,
            roots: Vec::new(),
            proxies: HashSet::new(),
            header: HeaderName::from_static("x-tls-client-cert"),
            form: proxy::Form::Pem,
        }
    }

    pub(super) fn load(config: &Config, provider: &Arc<CryptoProvider>) -> Result<Self, Error> {
        let ProxyHeader { cert: header, form } = &config.proxy.header;
        let header = header.parse().map_err(|_| Error::Header)?;
        let (verifier, roots) = match config.auth {
            ClientAuth::Off => {
                // It is not used while `auth` is off, but must not fail on the day that somebody turns it on.
                config.ca.as_deref().map(load_roots).transpose()?;
                (None, Vec::new())
            }
            ClientAuth::On => {
                let (verifier, roots) = chain_verifier(config.ca.as_deref(), provider)?;
                (Some(verifier), roots)
            }
        };
        let proxies = config.proxy.identities.iter().cloned().collect();
        Ok(Self { verifier, roots, proxies, header, form: *form, ..Self::anybody() })
    }

    /// The verifier of chains for the handshake, if chains are verified.
    pub(super) fn verifier(&self) -> Option<Arc<dyn ClientCertVerifier>> {
        self.verifier.clone()
    }

    /// Tells one trust from another.
    pub(in crate::server) fn id(&self) -> u64 {
        self.id
    }

    /// Whether both stand for the same settings.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let settings = |trust: &Self| (trust.verifier.is_some(), trust.header.clone(), trust.form);
        settings(self) == settings(other) && self.roots == other.roots && self.proxies == other.proxies
    }

    /// The identity of a certificate chain, verified where `tls.auth` says so.
    pub(in crate::server) fn identify(&self, chain: &[CertificateDer<'static>]) -> Result<Identity, peer::Error> {
        let identity = peer::identify(chain.iter().map(AsRef::as_ref))?;
        if let (Some(verifier), Some((leaf, rest))) = (&self.verifier, chain.split_first()) {
            let verified = verifier.verify_client_cert(leaf, rest, UnixTime::now());
            verified.map_err(|_| peer::Error::Untrusted)?;
        }
        Ok(identity)
    }

    /// Whether the identity is that of a proxy that speaks for its clients.
    pub(in crate::server) fn is_proxy(&self, identity: &Identity) -> bool {
        !self.proxies.is_empty() && self.proxies.contains(identity)
    }

    /// The identity of the client that a proxy forwards.
    pub(in crate::server) fn forwarded(&self, headers: &HeaderMap) -> Result<Identity, peer::Error> {
        self.identify(&proxy::certificates(headers, &self.header, self.form)?)
    }
}

type Roots = Vec<CertificateDer<'static>>;

fn chain_verifier(
    ca: Option<&Path>,
    provider: &Arc<CryptoProvider>,
) -> Result<(Arc<dyn ClientCertVerifier>, Roots), Error> {
    let certificates = match ca {
        Some(ca) => load_roots(ca)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    if certificates.is_empty() {
        return Err(Error::NoCa);
    }
    let mut roots = rustls::RootCertStore::empty();
    for certificate in &certificates {
        roots.add(certificate.clone()).map_err(|source| Error::Ca(source.into()))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|source| Error::Ca(source.into()))?;
    Ok((verifier, certificates))
}

pub(super) fn load_roots(path: &Path) -> Result<Roots, Error> {
    certificates::load_authorities(path).map_err(|error| Error::of(error, Setting::Ca))
}
