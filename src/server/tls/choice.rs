//! Chooses which of the server's certificates a client sees.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;

use super::{Error, Pair, Setting, load_certificates, read};
use crate::auth::certificate::Certificate;
use crate::crypto::pem;

/// A certificate with its key, ready for handshakes, and the names that it is valid for.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) key: Arc<CertifiedKey>,
    /// Its DNS names, some with a `*` in the place of the first label, and its IP addresses.
    pub(super) names: Vec<String>,
    pub(super) not_after: OffsetDateTime,
}

impl Named {
    /// Loads the files of a pair.
    pub(super) fn load(index: usize, pair: &Pair, provider: &CryptoProvider) -> Result<Self, Error> {
        let chain = load_certificates(&pair.cert, Setting::Cert(index))?;
        let leaf = chain.first().and_then(|leaf| Certificate::parse(leaf).ok()).filter(Certificate::has_san);
        let leaf = leaf.ok_or_else(|| Error::NoSan { index, path: pair.cert.clone() })?;
        let (names, not_after) = (leaf.hosts(), leaf.not_after());
        let key = read(&pair.key, Setting::Key(index))?;
        let key = pem::private_key(key.expose(), Some(&pair.password)).map_err(|source| Error::Key {
            index,
            path: pair.key.clone(),
            source,
        })?;
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|source| match source {
            rustls::Error::InconsistentKeys(_) => {
                Error::Mismatch { index, key: pair.key.clone(), cert: pair.cert.clone() }
            }
            source => Error::Unsupported { index, key: pair.key.clone(), source },
        })?;
        Ok(Self { key: Arc::new(key), names, not_after })
    }

    fn is_for(&self, name: &str) -> bool {
        let parent = name.split_once('.').map(|(_, parent)| parent);
        self.names.iter().any(|own| match own.strip_prefix("*.") {
            Some(own) => parent.is_some_and(|parent| own.eq_ignore_ascii_case(parent)),
            None => own.eq_ignore_ascii_case(name),
        })
    }
}

/// Chooses by the host name that a client asks for: the first certificate that is valid for it and whose signature
/// scheme the client supports. Without a name, or without a match, it is the first certificate.
#[derive(Debug)]
pub(super) struct ByName(pub(super) Vec<Named>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |named: &&Named| client.server_name().is_some_and(|name| named.is_for(name));
        let is_understood = |named: &&Named| named.key.key.choose_scheme(client.signature_schemes()).is_some();
        let mut understood = self.0.iter().filter(is_understood);
        let first = understood.clone().next();
        let chosen = understood.find(fits).or(first).or(self.0.first());
        chosen.map(|named| named.key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::enclave::ApiKey;

    #[test]
    fn a_star_stands_for_one_label() {
        let key = ApiKey::generate().expect("random bytes");
        let certificate = key.certificate(OffsetDateTime::UNIX_EPOCH).expect("made");
        let key = CertifiedKey::from_der(vec![certificate], key.private_key(), &super::super::provider());
        let names = ["kms.example", "*.KMS.example", "10.0.0.1"].map(str::to_owned).to_vec();
        let key = Arc::new(key.expect("a key"));
        let named = Named { key, names, not_after: OffsetDateTime::UNIX_EPOCH };
        for (name, is_for) in [
            ("kms.example", true),
            ("KMS.Example", true),
            ("a.kms.example", true),
            ("a.b.kms.example", false),
            ("example", false),
            ("akms.example", false),
            ("*.kms.example", true),
            ("other", false),
        ] {
            assert_eq!(named.is_for(name), is_for, "{name}");
        }
    }
}
