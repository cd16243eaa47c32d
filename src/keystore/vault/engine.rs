//! A transit engine whose keys are moved: to an enclave of a key manager, and back.

use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::api::{Answer, Ask, LIST};
use super::config::EngineOnly;
use super::{BAD_TOKEN, Connection};
use crate::crypto::base64;
use crate::crypto::buffer::to_json;
use crate::keystore::Error;
use crate::name::TransitName;

/// A transit engine.
#[derive(Debug)]
pub struct Engine {
    connection: Connection,
    path: String,
}

/// What a Vault says of a transit key.
#[derive(Debug, Clone, Deserialize)]
pub struct Described {
    /// What it encrypts or signs with.
    #[serde(rename = "type")]
    pub kind: String,
    /// The number of the latest version.
    #[serde(default)]
    pub latest_version: u32,
    #[serde(default)]
    derived: bool,
    #[serde(default)]
    exportable: bool,
    #[serde(default)]
    allow_plaintext_backup: bool,
    #[serde(default)]
    convergent_encryption: bool,
    #[serde(default)]
    soft_deleted: bool,
    #[serde(default)]
    kdf: String,
}

impl Described {
    /// Whether its backup can be had.
    pub fn is_open(&self) -> bool {
        self.exportable && self.allow_plaintext_backup
    }

    /// Why an enclave cannot have it; none: it can.
    pub fn refusal(&self, is_known: impl Fn(&str) -> bool) -> Option<String> {
        let setting = [
            (self.convergent_encryption, "convergent encryption"),
            (self.soft_deleted, "been deleted, softly"),
            (self.derived && !matches!(self.kdf.as_str(), "" | "hkdf_sha256"), "an old way of key derivation"),
        ];
        if !is_known(&self.kind) {
            return Some(format!("keys of type {} are not supported; leave it in the Vault", self.kind));
        }
        let (_, what) = setting.into_iter().find(|(is_set, _)| *is_set)?;
        Some(format!("it has {what}, which is not supported; leave it in the Vault"))
    }
}

#[derive(Deserialize)]
struct Names {
    keys: Vec<String>,
}

#[derive(Deserialize)]
struct BackedUp {
    backup: SecretString,
}

#[derive(Serialize)]
struct Restored<'a> {
    backup: &'a str,
}

#[derive(Serialize)]
struct Opened {
    exportable: bool,
    allow_plaintext_backup: bool,
}

#[derive(Serialize)]
struct ToEncrypt<'a> {
    plaintext: &'a str,
    context: Option<&'a str>,
    key_version: u32,
}

#[derive(Deserialize)]
struct Encrypted {
    ciphertext: String,
}

#[derive(Serialize)]
struct ToDecrypt<'a> {
    ciphertext: &'a str,
    context: Option<&'a str>,
}

#[derive(Deserialize)]
struct Decrypted {
    plaintext: SecretString,
}

impl Engine {
    /// Starts to log in, in the background.
    ///
    /// # Errors
    /// When a file of the config cannot be used.
    pub fn open(config: &EngineOnly) -> Result<Self, Error> {
        let EngineOnly { endpoint, namespace, engine, login, tls } = config;
        let path = engine.trim_matches('/').to_owned();
        let tls = tls.for_http("keystore.transit.tls.ca");
        let connection = Connection::open(endpoint, tls, namespace.as_deref(), login, &path)?;
        Ok(Self { connection, path })
    }

    /// Names the engine: the same at every address of its cluster.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn identity(&self) -> Result<String, Error> {
        #[derive(Deserialize)]
        struct Health {
            #[serde(default)]
            cluster_id: String,
        }
        let Health { cluster_id } = self.connection.api.health().await?;
        let namespace = self.connection.namespace.as_ref().and_then(|name| name.to_str().ok()).unwrap_or_default();
        Ok(format!("transit: cluster {cluster_id}, namespace '{namespace}', {}", self.path))
    }

    /// The names of all keys.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn names(&self) -> Result<Vec<String>, Error> {
        let path = format!("{}/keys{LIST}", self.path);
        let answer = self.ask::<Names>("GET", &path, None).await?;
        match (answer.status, answer.data) {
            (200, Some(names)) => Ok(names.keys),
            // No keys; where there is no engine, the server says so.
            (404, None) if answer.errors.is_empty() => Ok(Vec::new()),
            (status, _) => Err(self.refused(("GET", &path), status, &answer.errors, answer.token_is_bad)),
        }
    }

    /// What the server says of a key; none: there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn describe(&self, name: &str) -> Result<Option<Described>, Error> {
        // What else is listed is no name that a path could hold.
        let Ok(name) = TransitName::parse(name) else { return Ok(None) };
        let path = format!("{}/keys/{}", self.path, name.as_str());
        let answer = self.ask::<Described>("GET", &path, None).await?;
        match (answer.status, answer.data) {
            (200, Some(described)) => Ok(Some(described)),
            (404, None) if answer.errors.is_empty() => Ok(None),
            (status, _) => Err(self.refused(("GET", &path), status, &answer.errors, answer.token_is_bad)),
        }
    }

    /// Makes a key exportable. That cannot be taken back.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn make_exportable(&self, name: &TransitName) -> Result<(), Error> {
        let body = to_json(&Opened { exportable: true, allow_plaintext_backup: true }, 64);
        let path = format!("{}/keys/{}/config", self.path, name.as_str());
        self.done::<IgnoredAny>("POST", &path, Some(&body)).await.map(drop)
    }

    /// The backup of an exportable key.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn backup(&self, name: &TransitName) -> Result<Zeroizing<Vec<u8>>, Error> {
        let path = format!("{}/backup/{}", self.path, name.as_str());
        let answer = self.done::<BackedUp>("GET", &path, None).await?;
        let backup = answer.ok_or_else(|| self.said_nothing("GET", &path))?.backup;
        Ok(Zeroizing::new(backup.expose_secret().as_bytes().to_vec()))
    }

    /// Makes a key of a backup. There must be none of this name.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn restore(&self, name: &TransitName, backup: &str) -> Result<(), Error> {
        let body = to_json(&Restored { backup }, backup.len() + 32);
        let path = format!("{}/restore/{}", self.path, name.as_str());
        self.done::<IgnoredAny>("POST", &path, Some(&body)).await.map(drop)
    }

    /// Encrypts with a version of a key.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn encrypt(
        &self,
        name: &TransitName,
        key_version: u32,
        context: Option<&[u8]>,
        plaintext: &[u8],
    ) -> Result<String, Error> {
        let (plaintext, context) = (base64::encode(plaintext), context.map(base64::encode));
        let context = context.as_ref().map(|context| context.as_str());
        let body = to_json(&ToEncrypt { plaintext: &plaintext, context, key_version }, 512);
        let path = format!("{}/encrypt/{}", self.path, name.as_str());
        let answer = self.done::<Encrypted>("POST", &path, Some(&body)).await?;
        Ok(answer.ok_or_else(|| self.said_nothing("POST", &path))?.ciphertext)
    }

    /// Decrypts; none when the server says that the ciphertext is not one of this key.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn decrypt(
        &self,
        name: &TransitName,
        ciphertext: &str,
        context: Option<&[u8]>,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
        let context = context.map(base64::encode);
        let context = context.as_ref().map(|context| context.as_str());
        let body = to_json(&ToDecrypt { ciphertext, context }, 512);
        let path = format!("{}/decrypt/{}", self.path, name.as_str());
        let answer = self.ask::<Decrypted>("POST", &path, Some(&body)).await?;
        match (answer.status, answer.data) {
            (200, Some(decrypted)) => Ok(base64::decode(decrypted.plaintext.expose_secret().as_bytes())),
            (400, _) => Ok(None),
            (status, _) => Err(self.refused(("POST", &path), status, &answer.errors, answer.token_is_bad)),
        }
    }

    async fn ask<D: DeserializeOwned>(
        &self,
        method: &'static str,
        path: &str,
        body: Option<&Zeroizing<Vec<u8>>>,
    ) -> Result<Answer<D>, Error> {
        let ask: Ask<'_> = self.connection.ask(method, path, body);
        self.connection.send(ask).await
    }

    /// Sends a request that must succeed.
    async fn done<D: DeserializeOwned>(
        &self,
        method: &'static str,
        path: &str,
        body: Option<&Zeroizing<Vec<u8>>>,
    ) -> Result<Option<D>, Error> {
        let answer = self.ask::<D>(method, path, body).await?;
        match answer.status {
            200..=299 => Ok(answer.data),
            status => Err(self.refused((method, path), status, &answer.errors, answer.token_is_bad)),
        }
    }

    fn said_nothing(&self, method: &'static str, path: &str) -> Error {
        self.connection.ask(method, path, None).failed("the answer does not hold what was asked for")
    }

    fn refused(&self, (method, path): (&'static str, &str), status: u16, errors: &[String], bad_token: bool) -> Error {
        let errors = errors.join("; ");
        let what = match status {
            403 if bad_token => BAD_TOKEN.into(),
            403 => format!("the token may not do this ({errors}); it needs this policy:\n{}", self.policy()),
            404 => format!("there is no transit engine at '{}' ({errors})", self.path),
            status => format!("HTTP {status}: {errors}"),
        };
        self.connection.ask(method, path, None).failed(what)
    }

    /// The policy that gives all rights that moving keys needs, for the operator to paste.
    fn policy(&self) -> String {
        let rules = [
            ("keys", "\"list\""),
            ("keys/*", "\"list\", \"read\", \"update\""),
            ("backup/*", "\"read\""),
            ("restore/*", "\"update\""),
            ("encrypt/*", "\"update\""),
            ("decrypt/*", "\"update\""),
        ];
        let rule = |(what, rights)| format!("path \"{}/{what}\" {{ capabilities = [{rights}] }}", self.path);
        rules.map(rule).join("\n")
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transit: {}/{}", self.connection.api.endpoint(), self.path)
    }
}
