//! The transit engine: encrypts values under a key that never leaves the Vault.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::api::Answer;
use super::config::TransitOnly;
use super::{Connection, rights};
use crate::crypto::buffer::to_json;
use crate::crypto::{Blob, base64};
use crate::keystore::{Access, Error};

/// The first bytes of every wrapped value. The version of the wrapping key follows.
pub(super) const MARK: &[u8] = b"vault:v";

/// A key of the transit engine.
#[derive(Debug)]
pub struct Transit {
    pub(super) connection: Connection,
    pub(super) engine: String,
    pub(super) key: String,
}

impl Transit {
    /// Connects to the Vault of the transit key, and logs in.
    pub async fn connect(config: &TransitOnly) -> Result<Self, Error> {
        let TransitOnly { endpoint, namespace, transit, login, tls } = config;
        let engine = transit.engine.trim_matches('/').to_owned();
        let tls = tls.for_http("the 'tls.ca' beside its 'endpoint'");
        let connection = Connection::open(endpoint, tls, namespace.as_deref(), login, &engine)?;
        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
        Ok(Self { connection, engine, key: transit.key.clone() })
    }

    /// The path of the key in its Vault.
    pub fn path(&self) -> String {
        format!("{}/{}", self.engine, self.key)
    }

    /// Checks that the Vault answers.
    pub async fn status(&self) -> Result<(), Error> {
        self.connection.api.health::<IgnoredAny>().await.map(drop)
    }

    /// Checks that the token has every right that `access` needs.
    pub async fn check(&self, access: Access) -> Result<(), Error> {
        self.status().await?;
        rights::check(&self.connection, self.needs(access), &self.policy()).await
    }

    /// How old the token in use is.
    pub fn token_age(&self) -> Option<Duration> {
        self.connection.session.age()
    }

    /// Encrypts `value`.
    pub async fn wrap(&self, value: &Blob) -> Result<SecretString, Error> {
        #[derive(Serialize)]
        struct Request<'a> {
            plaintext: &'a str,
        }
        #[derive(Deserialize)]
        struct Response {
            ciphertext: SecretString,
        }
        let path = format!("{}/encrypt/{}", self.engine, self.key);
        let body = to_json(&Request { plaintext: &base64::encode(value.expose()) }, 1024);
        let ask = self.connection.ask("POST", &path, Some(&body));
        let mut answer = self.connection.send::<Response>(ask).await?;
        match answer.data.take().map(|data| data.ciphertext) {
            Some(wrapped) if wrapped.expose_secret().as_bytes().starts_with(MARK) => Ok(wrapped),
            _ => Err(ask.failed(self.refusal(&answer))),
        }
    }

    /// Decrypts a wrapped value. Any version of the key may have wrapped it.
    pub async fn unwrap(&self, wrapped: &Blob) -> Result<Blob, Error> {
        #[derive(Serialize)]
        struct Request<'a> {
            ciphertext: &'a str,
        }
        #[derive(Deserialize)]
        struct Response {
            plaintext: SecretString,
        }
        let path = format!("{}/decrypt/{}", self.engine, self.key);
        let unwrapped = || {
            self.connection.ask("POST", &path, None).failed(
                "the stored value is not wrapped by a transit key, although the config says so; remove \
                 'transit', or wrap the value",
            )
        };
        let text = wrapped.expose();
        let text = std::str::from_utf8(text).ok().filter(|_| text.starts_with(MARK)).ok_or_else(unwrapped)?;
        let body = to_json(&Request { ciphertext: text }, 1024);
        let ask = self.connection.ask("POST", &path, Some(&body));
        let mut answer = self.connection.send::<Response>(ask).await?;
        let plaintext = answer.data.take();
        let plaintext = plaintext.and_then(|data| base64::decode(data.plaintext.expose_secret().as_bytes()));
        match plaintext {
            Some(plaintext) if !plaintext.is_empty() => Ok(plaintext.into()),
            _ => Err(ask.failed(self.refusal(&answer))),
        }
    }

    /// The rights that `access` needs, by path.
    pub(super) fn needs(&self, access: Access) -> Vec<(String, Vec<&'static str>)> {
        let decrypt = (format!("{}/decrypt/{}", self.engine, self.key), vec!["update"]);
        match access {
            Access::Read => vec![decrypt],
            Access::Create | Access::Serve | Access::Replace => {
                vec![decrypt, (format!("{}/encrypt/{}", self.engine, self.key), vec!["update"])]
            }
        }
    }

    /// The policy that gives the server the rights it needs, for the operator to paste.
    pub(super) fn policy(&self) -> String {
        let rule = |what| format!("path \"{}/{what}/{}\" {{ capabilities = [\"update\"] }}", self.engine, self.key);
        format!("{}\n{}", rule("encrypt"), rule("decrypt"))
    }

    fn refusal<D>(&self, answer: &Answer<D>) -> String {
        let errors = answer.errors.join("; ");
        match answer.status {
            403 if answer.token_is_bad => super::BAD_TOKEN.into(),
            403 => {
                format!("the right 'update' is missing ({errors}); the server needs this policy:\n{}", self.policy())
            }
            404 => format!("there is no transit engine at '{}' ({errors})", self.engine),
            status => format!("HTTP {status}: {errors}"),
        }
    }
}
