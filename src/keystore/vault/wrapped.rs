//! Secret ids that come wrapped: behind a token that can be exchanged for the secret id once.
//!
//! Whoever exchanges it first has the secret id, and everybody after that is told that the token is unknown. So a token
//! that is used up is a sign that somebody else may have the secret id.

use std::sync::{Mutex, PoisonError};

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::api::{Answer, Ask, Namespace};
use super::config::AppRole;
use super::login::Login;
use crate::crypto::buffer::to_json;
use crate::foreign::printable;
use crate::keystore::Error;

/// Why a token cannot be exchanged.
const USED: &str = "the wrapping token of 'approle.wrapped' is unknown, expired or used up. If this server has not used \
                    it before, somebody else may have the secret id now: destroy the secret ids of the role and find out \
                    who had the token. Then give the server a new wrapped secret id; each start needs one";

/// Secret ids by the SHA-256 of their tokens. They belong to the process: a token cannot be used again when the config
/// is read again, or when the server tries again to connect.
static UNWRAPPED: Mutex<Vec<([u8; 32], SecretString)>> = Mutex::new(Vec::new());

impl Login {
    /// The secret id behind the token.
    pub(super) async fn unwrapped(&self, way: &AppRole, token: SecretString) -> Result<SecretString, Error> {
        let hash: [u8; 32] = Sha256::digest(token.expose_secret()).into();
        let known = |known: &(_, SecretString)| (known.0 == hash).then(|| known.1.clone());
        if let Some(secret) = UNWRAPPED.lock().unwrap_or_else(PoisonError::into_inner).iter().find_map(known) {
            return Ok(secret);
        }
        let namespace = self.namespace_of(way.namespace.as_deref())?;
        self.check_origin(way, &token, &namespace).await?;
        let secret = self.unwrap(&token, &namespace).await?;
        UNWRAPPED.lock().unwrap_or_else(PoisonError::into_inner).push((hash, secret.clone()));
        Ok(secret)
    }

    /// Checks that a secret id of this auth method is behind the token. Somebody who has used the real token could hand
    /// on another one, with a secret id of their own.
    async fn check_origin(&self, way: &AppRole, token: &SecretString, namespace: &Namespace) -> Result<(), Error> {
        #[derive(Serialize)]
        struct Request<'a> {
            token: &'a str,
        }
        #[derive(Deserialize)]
        struct LookedUp {
            creation_path: String,
        }
        let body = to_json(&Request { token: token.expose_secret() }, 1024);
        let path = "sys/wrapping/lookup";
        let ask = Ask { method: "POST", path, namespace, token: None, body: Some(&body) };
        let answer = self.api.send::<LookedUp>(ask).await?;
        let LookedUp { creation_path: origin } = data(ask, answer)?;
        if is_secret_id(&origin, &way.engine) {
            return Ok(());
        }
        let (origin, engine) = (printable(&origin), &way.engine);
        Err(ask.failed(format!(
            "the wrapping token of 'approle.wrapped' was made for '{origin}', which is no secret id of the auth method \
             '{engine}': it was not used. Somebody may have put it there; give the server a wrapped secret id"
        )))
    }

    /// Exchanges the token for what is behind it.
    async fn unwrap(&self, token: &SecretString, namespace: &Namespace) -> Result<SecretString, Error> {
        #[derive(Deserialize)]
        struct Unwrapped {
            secret_id: SecretString,
        }
        let path = "sys/wrapping/unwrap";
        let ask = Ask { method: "POST", path, namespace, token: Some(token), body: None };
        let answer = self.api.send::<Unwrapped>(ask).await?;
        Ok(data(ask, answer)?.secret_id)
    }
}

/// What an answer about a token holds.
fn data<D>(ask: Ask<'_>, answer: Answer<D>) -> Result<D, Error> {
    match answer.data {
        Some(data) if answer.status == 200 => Ok(data),
        // This is how unknown tokens are refused; nothing else is wrong with such a request.
        _ if matches!(answer.status, 400 | 403 | 404) => Err(ask.failed(USED)),
        _ => Err(ask.failed(format!("the token was not exchanged (HTTP {})", answer.status))),
    }
}

/// Whether this is where the auth method makes secret ids. The path may begin with a namespace.
fn is_secret_id(path: &str, engine: &str) -> bool {
    let path = path.trim_matches('/');
    let role = ["/secret-id", "/custom-secret-id"].into_iter().find_map(|end| path.strip_suffix(end));
    let method = role.and_then(|role| role.rsplit_once("/role/")).map(|(method, _)| method);
    let own = format!("auth/{}", engine.trim_matches('/'));
    method.and_then(|method| method.strip_suffix(&own)).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_must_come_from_the_auth_method() {
        for good in ["auth/approle/role/kes/secret-id", "ns/auth/approle/role/kes/custom-secret-id"] {
            assert!(is_secret_id(good, "approle"), "{good}");
        }
        assert!(is_secret_id("auth/team/a/role/kes/secret-id", "/team/a/"));
        for bad in [
            "",
            "auth/approle/role/kes",
            "auth/approle/secret-id",
            "auth/other/role/kes/secret-id",
            "xauth/approle/role/kes/secret-id",
            "sys/wrapping/wrap",
            "auth/approle/role/kes/secret-id/lookup",
        ] {
            assert!(!is_secret_id(bad, "approle"), "{bad}");
        }
    }
}
