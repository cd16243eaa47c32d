//! Who asks: an API key that is sent as a token, a session, or a client certificate.

use std::collections::HashMap;
use std::fmt;
use std::sync::{PoisonError, RwLock};

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::session::{self, Hash, Session};
use crate::auth::enclave::{self, ApiKey};
use crate::auth::{Identity, peer};
use crate::crypto::Sealer;

/// How many tokens are remembered. Each belongs to a user of an enclave.
const MOST: usize = 10_000;

/// The longest token that is looked at, in bytes.
const LONGEST: usize = 512;

/// What stands in the place of a token where the certificate counts.
const CERTIFICATE: &str = "certificate";

/// Who asks, and what shows it.
#[derive(Debug, Clone)]
pub(super) struct Credential {
    /// As the server logs it.
    pub(super) identity: Identity,
    /// As the key manager knows it.
    pub(super) caller: enclave::Identity,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// With the hash of the token.
    ApiKey(Hash),
    Session(Session, Token),
    Certificate,
}

/// A token that is answered again.
#[derive(Clone)]
struct Token(Zeroizing<String>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

impl Credential {
    /// What the audit event says of it.
    pub(super) fn role(&self) -> &'static str {
        match self.kind {
            Kind::ApiKey(_) => "by key",
            Kind::Session(..) => "by session",
            Kind::Certificate => "by certificate",
        }
    }

    /// The session, if it is one.
    pub(super) fn session(&self) -> Option<&Session> {
        if let Kind::Session(session, _) = &self.kind { Some(session) } else { None }
    }

    /// The token of a session, which a renewal answers with.
    pub(super) fn token(&self) -> Option<&str> {
        if let Kind::Session(_, token) = &self.kind { Some(&token.0) } else { None }
    }
}

/// The identities of tokens that were admitted, so that no public key is computed for every request. They are looked up
/// by hash: the time says nothing of how much of a token is right.
#[derive(Debug, Default)]
pub(super) struct Tokens(RwLock<HashMap<Hash, (Identity, enclave::Identity)>>);

impl Tokens {
    /// Who sends a request with these headers over a connection with this certificate.
    ///
    /// # Errors
    /// When nothing says who; the text is for the log.
    pub(super) fn credential(
        &self,
        headers: &HeaderMap,
        peer: &Result<Identity, peer::Error>,
        sessions: &Sealer,
    ) -> Result<Credential, &'static str> {
        match token(headers)? {
            "" | CERTIFICATE => by_certificate(peer),
            token if token.starts_with(session::PREFIX) => by_session(token, sessions),
            token => self.by_token(token),
        }
    }

    fn by_token(&self, token: &str) -> Result<Credential, &'static str> {
        if token.len() > LONGEST {
            return Err("this server did not issue the token");
        }
        let hash = Hash::from(Sha256::digest(token));
        let kind = Kind::ApiKey(hash);
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&hash).cloned();
        if let Some((identity, caller)) = known {
            return Ok(Credential { identity, caller, kind });
        }
        let key = ApiKey::parse(token).map_err(|_| "this server did not issue the token")?;
        let caller = key.identity();
        let identity = Identity::parse(&caller.to_hex()).map_err(|_| "this server did not issue the token")?;
        Ok(Credential { identity, caller, kind })
    }

    /// Remembers the token of a user that was admitted. What anybody else sends is not kept.
    pub(super) fn remember(&self, credential: &Credential) {
        let Kind::ApiKey(hash) = credential.kind else { return };
        if self.0.read().unwrap_or_else(PoisonError::into_inner).contains_key(&hash) {
            return;
        }
        let mut tokens = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= MOST {
            tokens.clear();
        }
        tokens.insert(hash, (credential.identity.clone(), credential.caller));
    }
}

/// The token of a request; empty: none. It may come twice, then the first counts.
fn token(headers: &HeaderMap) -> Result<&str, &'static str> {
    let unreadable = "the token is not text";
    let token = headers.get("X-Vault-Token").map_or(Ok(""), |value| value.to_str().map_err(|_| unreadable))?;
    if !token.is_empty() {
        return Ok(token);
    }
    let header = headers.get(AUTHORIZATION).map_or(Ok(""), |value| value.to_str().map_err(|_| unreadable))?;
    Ok(header.strip_prefix("Bearer ").unwrap_or_default())
}

fn by_session(token: &str, sessions: &Sealer) -> Result<Credential, &'static str> {
    let session = Session::of(sessions, token).ok_or("this server did not open the session")?;
    let identity = Identity::parse(&session.identity.to_hex()).map_err(|_| "this server did not open the session")?;
    let token = Token(Zeroizing::new(token.to_owned()));
    Ok(Credential { identity, caller: session.identity, kind: Kind::Session(session, token) })
}

fn by_certificate(peer: &Result<Identity, peer::Error>) -> Result<Credential, &'static str> {
    let identity = peer.clone().map_err(|_| "it has neither a token nor a client certificate that can be used")?;
    let caller = enclave::Identity::of(&identity).ok_or("the certificate has no identity")?;
    Ok(Credential { identity, caller, kind: Kind::Certificate })
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).expect("a value"));
        }
        headers
    }

    #[test]
    fn a_token_counts_before_a_certificate_and_the_first_token_before_others() {
        let key = ApiKey::generate().expect("random bytes");
        let other = Identity::parse(&ApiKey::generate().expect("random bytes").identity().to_hex()).expect("a hash");
        let tokens = Tokens::default();
        let sealer = Sealer::new(crate::crypto::SecretKey::random().expect("random bytes"));
        let bearer = format!("Bearer {}", key.expose());
        for pairs in [
            &[("x-vault-token", key.expose())][..],
            &[("x-vault-token", key.expose()), ("x-vault-token", "other")],
            &[("x-vault-token", ""), ("authorization", &bearer)],
            &[("authorization", &bearer)],
        ] {
            for _ in 0..2 {
                let found = tokens.credential(&headers(pairs), &Ok(other.clone()), &sealer).expect("an identity");
                assert_eq!((found.caller, found.role()), (key.identity(), "by key"));
                tokens.remember(&found);
            }
        }
        for pairs in [&[][..], &[("x-vault-token", "")], &[("x-vault-token", "certificate")]] {
            let found = tokens.credential(&headers(pairs), &Ok(other.clone()), &sealer).expect("an identity");
            assert_eq!((&found.identity, found.role()), (&other, "by certificate"));
            assert!(tokens.credential(&headers(pairs), &Err(peer::Error::Missing), &sealer).is_err());
        }
        for wrong in ["root", "hvs.abc", "k1:", "k1:AAAA", "cvs.AAAA", "bearer x", &"k1:A".repeat(200)] {
            assert!(
                tokens.credential(&headers(&[("x-vault-token", wrong)]), &Ok(other.clone()), &sealer).is_err(),
                "{wrong}"
            );
        }
    }
}
