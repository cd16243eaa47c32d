//! The `keystore.vault` section of the config file. The backend is not built yet.

use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;

use crate::setting::{self, Url};

/// The `keystore.vault:` section of the config file.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Section")]
pub struct Config {
    /// Where Vault answers.
    pub endpoint: Url,
    /// The path of the K/V engine. Default "kv".
    pub engine: String,
    /// The version of the K/V engine's API.
    pub version: Version,
    /// The namespace of the K/V engine; none: the root namespace.
    pub namespace: Option<String>,
    /// What the names of all keys begin with inside the engine; none: nothing.
    pub prefix: Option<String>,
    /// Encrypts the values before they are stored; none: they are stored as they are.
    pub transit: Option<Transit>,
    /// How to log in.
    pub login: Login,
    /// Certificates.
    pub tls: Tls,
    /// How often Vault is asked for a sign of life. Default 10 seconds.
    pub ping: Duration,
}

/// The version of the K/V engine's API.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// One value a key.
    #[default]
    V1,
    /// Keeps older values.
    V2,
}

/// The `keystore.vault.transit:` section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transit {
    /// The path of the transit engine. Default "transit".
    #[serde(default = "transit", deserialize_with = "transit_unless_set")]
    pub engine: String,
    /// The name of the transit key.
    #[serde(deserialize_with = "setting::text")]
    pub key: String,
}

/// How to log in: exactly one way.
#[derive(Debug)]
pub enum Login {
    /// With the id and the secret of a role.
    AppRole(AppRole),
    /// With the token of a Kubernetes service account.
    Kubernetes(Kubernetes),
}

/// The `keystore.vault.approle:` section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppRole {
    /// The namespace of the auth method; none: that of the K/V engine.
    pub namespace: Option<String>,
    /// The path of the auth method. Default "approle".
    #[serde(default = "approle", deserialize_with = "approle_unless_set")]
    pub engine: String,
    /// The role's id.
    #[serde(deserialize_with = "setting::text")]
    pub id: String,
    /// The role's secret id.
    #[serde(deserialize_with = "setting::secret")]
    pub secret: SecretString,
}

/// The `keystore.vault.kubernetes:` section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kubernetes {
    /// The namespace of the auth method; none: that of the K/V engine.
    pub namespace: Option<String>,
    /// The path of the auth method. Default "kubernetes".
    #[serde(default = "kubernetes", deserialize_with = "kubernetes_unless_set")]
    pub engine: String,
    /// The role; empty: Vault decides.
    #[serde(default)]
    pub role: String,
    /// The service account's token.
    pub jwt: Jwt,
}

/// The token of a service account.
#[derive(Debug)]
pub enum Jwt {
    /// The token itself.
    Token(SecretString),
    /// The file that holds it, read again at every login.
    File(PathBuf),
}

/// The `keystore.vault.tls:` section.
#[derive(Debug, Default)]
pub struct Tls {
    /// PEM files with the private key and the certificate of the client; none: it shows no certificate.
    pub client: Option<(PathBuf, PathBuf)>,
    /// PEM file, or directory of such, with the CAs of Vault; none: the system's.
    pub ca: Option<PathBuf>,
}

impl Config {
    /// The files that the section names, and the keys that name them.
    pub fn files(&self) -> Vec<(&'static str, &Path)> {
        let mut files = Vec::new();
        if let Some((key, certificate)) = &self.tls.client {
            files.extend([("tls.key", key.as_path()), ("tls.cert", certificate)]);
        }
        files.extend(self.tls.ca.iter().map(|ca| ("tls.ca", ca.as_path())));
        if let Login::Kubernetes(Kubernetes { jwt: Jwt::File(path), .. }) = &self.login {
            files.push(("kubernetes.jwt", path));
        }
        files
    }
}

/// The section as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    endpoint: Url,
    engine: Option<String>,
    #[serde(default, deserialize_with = "setting::or_default")]
    version: Version,
    namespace: Option<String>,
    prefix: Option<String>,
    transit: Option<Transit>,
    approle: Option<AppRole>,
    kubernetes: Option<Kubernetes>,
    #[serde(default)]
    tls: Tls,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Status {
    #[serde(deserialize_with = "crate::duration::deserialize")]
    ping: Duration,
}

impl Default for Status {
    fn default() -> Self {
        Self { ping: Duration::from_secs(10) }
    }
}

impl TryFrom<Section> for Config {
    type Error = &'static str;

    fn try_from(section: Section) -> Result<Self, Self::Error> {
        let login = match (section.approle, section.kubernetes) {
            (Some(approle), None) => Login::AppRole(approle),
            (None, Some(kubernetes)) => Login::Kubernetes(kubernetes),
            (None, None) => return Err("names no way to log in; add a section 'approle' or 'kubernetes'"),
            (Some(_), Some(_)) => return Err("names two ways to log in; remove the section 'approle' or 'kubernetes'"),
        };
        Ok(Self {
            endpoint: section.endpoint,
            engine: section.engine.unwrap_or_else(|| "kv".into()),
            version: section.version,
            namespace: section.namespace,
            prefix: section.prefix,
            transit: section.transit,
            login,
            tls: section.tls,
            ping: section.status.ping,
        })
    }
}

impl<'de> Deserialize<'de> for Jwt {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use secrecy::ExposeSecret as _;
        let secret = setting::secret(deserializer)?;
        // No token contains a slash: it is base64url with dots.
        let is_path = secret.expose_secret().contains('/');
        Ok(if is_path { Self::File(secret.expose_secret().into()) } else { Self::Token(secret) })
    }
}

impl<'de> Deserialize<'de> for Tls {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Section {
            key: Option<PathBuf>,
            cert: Option<PathBuf>,
            ca: Option<PathBuf>,
        }
        let section = Section::deserialize(deserializer)?;
        let client = match (section.key, section.cert) {
            (Some(key), Some(cert)) => Some((key, cert)),
            (None, None) => None,
            (Some(_), None) => return Err(serde::de::Error::custom("has 'key' and no 'cert'; give both or neither")),
            (None, Some(_)) => return Err(serde::de::Error::custom("has 'cert' and no 'key'; give both or neither")),
        };
        Ok(Self { client, ca: section.ca })
    }
}

fn transit() -> String {
    "transit".into()
}

fn transit_unless_set<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    setting::text_or(transit, deserializer)
}

fn approle() -> String {
    "approle".into()
}

fn approle_unless_set<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    setting::text_or(approle, deserializer)
}

fn kubernetes() -> String {
    "kubernetes".into()
}

fn kubernetes_unless_set<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    setting::text_or(kubernetes, deserializer)
}
