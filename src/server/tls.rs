//! TLS: the server certificate, and who the client at the other end is.

use std::path::PathBuf;

use secrecy::SecretString;
use serde::Deserialize;

use crate::auth::Identity;

/// The `tls:` section of the config file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// PEM file with the private key.
    pub key: PathBuf,
    /// PEM file with the certificate chain, leaf first.
    pub cert: PathBuf,
    /// Decrypts `key`; ignored when that is not encrypted.
    #[serde(default)]
    pub password: SecretString,
    /// Whether client certificates are verified against `ca`.
    #[serde(default)]
    pub auth: ClientAuth,
    /// PEM file, or directory of such, with the CAs of client certificates; none: the system's roots.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// TLS proxies that may speak for their clients.
    #[serde(default)]
    pub proxy: Proxy,
}

/// Whether the chain of a client certificate is verified. Its signature always is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// Any certificate will do, a self-signed one too.
    #[default]
    Off,
    /// The chain must lead to a known CA.
    On,
}

/// The `tls.proxy:` section.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Proxy {
    /// Who may forward client certificates.
    pub identities: Vec<Identity>,
    /// Where they put them.
    pub header: ProxyHeader,
}

/// The `tls.proxy.header:` section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProxyHeader {
    /// The name of the header with the percent-encoded PEM certificate.
    pub cert: String,
}

impl Default for ProxyHeader {
    fn default() -> Self {
        Self { cert: "X-Tls-Client-Cert".into() }
    }
}
