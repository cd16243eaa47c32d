//! TLS: the server certificate, and whom the server takes a client for.

mod trust;
mod verifier;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::SecretString;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use time::OffsetDateTime;

use self::verifier::Verifier;
use crate::auth::Identity;
use crate::auth::certificate::Certificate;
use crate::crypto::{Blob, pem};
use crate::setting;

pub(super) use self::trust::Trust;

/// The `tls:` section of the config file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// PEM file with the private key.
    #[serde(deserialize_with = "setting::path")]
    pub key: PathBuf,
    /// PEM file with the certificate chain, leaf first.
    #[serde(deserialize_with = "setting::path")]
    pub cert: PathBuf,
    /// Decrypts `key`; ignored when that is not encrypted.
    #[serde(default)]
    pub password: SecretString,
    /// Whether client certificates are verified against `ca`.
    #[serde(default, deserialize_with = "setting::or_default")]
    pub auth: ClientAuth,
    /// PEM file, or directory of such, with the CAs of client certificates; none: the system's roots.
    pub ca: Option<PathBuf>,
    /// TLS proxies that may speak for their clients.
    #[serde(default)]
    pub proxy: Proxy,
}

/// Whether the chain of a client certificate is verified. Its signature always is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// Any certificate will do, a self-signed one too.
    #[default]
    Off,
    /// The chain must lead to a known CA.
    On,
}

impl Config {
    /// The certificates that `cert` names, leaf first.
    ///
    /// # Errors
    /// When the file cannot be read, or holds no certificate.
    pub fn chain(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        load_certificates(&self.cert, "cert")
    }

    /// The CA certificates that `ca` names; none when it names nothing.
    ///
    /// # Errors
    /// When a file cannot be read, or holds something else.
    pub fn authorities(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        self.ca.as_deref().map_or(Ok(Vec::new()), trust::load_roots)
    }
}

/// The `tls.proxy:` section.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Proxy {
    /// Who may forward client certificates.
    #[serde(deserialize_with = "proxies")]
    pub identities: Vec<Identity>,
    /// Where they put them.
    pub header: ProxyHeader,
}

/// The `tls.proxy.header:` section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProxyHeader {
    /// The name of the header with the percent-encoded PEM certificate.
    #[serde(deserialize_with = "header")]
    pub cert: String,
}

impl Default for ProxyHeader {
    fn default() -> Self {
        Self { cert: "X-Tls-Client-Cert".into() }
    }
}

impl<'de> Deserialize<'de> for ClientAuth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.to_ascii_lowercase().as_str() {
            "off" => Ok(Self::Off),
            "on" => Ok(Self::On),
            _ => Err(D::Error::custom("must be 'on' or 'off'")),
        }
    }
}

/// Reads a list of identities in which empty texts count for nothing.
fn proxies<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Identity>, D::Error> {
    let identities = Vec::<Option<Identity>>::deserialize(deserializer)?;
    Ok(identities.into_iter().flatten().collect())
}

fn header<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    setting::text_or(|| ProxyHeader::default().cert, deserializer)
}

/// Why the `tls:` section cannot be used. It shows the paths of files that there are. A path that leads nowhere may
/// be something else in the wrong place: the content of a file, for example.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("the file cannot be read; a relative path begins at the working directory")]
    Read {
        /// The setting that names it.
        setting: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The private key cannot be used.
    #[error("'{path}' cannot be used as private key")]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// A certificate cannot be used.
    #[error("'{path}' cannot be used as certificate")]
    Certificate {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// The certificate names no host.
    #[error(
        "'{0}' contains no DNS name or IP address as SAN; \
         make one with 'claviger identity new --ip … --dns …'"
    )]
    NoSan(PathBuf),
    /// Key and certificate do not belong together, or rustls knows neither.
    #[error("the private key '{key}' does not match the certificate '{cert}', or is of an unsupported kind")]
    Mismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        cert: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// No CA for client certificates.
    #[error("no CA certificate is in it, or in the system's store when it is empty; 'tls.auth: on' needs one")]
    NoCa,
    /// A CA certificate cannot be used.
    #[error("a CA certificate cannot be used")]
    Ca(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The header's name is none.
    #[error("not the name of a header; write one like 'X-Tls-Client-Cert'")]
    Header,
}

impl Error {
    /// The setting below `tls:` that it is about.
    pub fn setting(&self) -> &'static str {
        match self {
            Self::Read { setting, .. } | Self::Certificate { setting, .. } => setting,
            Self::Key { .. } | Self::Mismatch { .. } => "key",
            Self::NoSan(_) => "cert",
            Self::NoCa | Self::Ca(_) => "ca",
            Self::Header => "proxy.header.cert",
        }
    }
}

/// The `tls:` section, loaded.
#[derive(Debug, Clone)]
pub struct Tls {
    /// What rustls needs.
    pub(super) config: Arc<ServerConfig>,
    /// Whom to believe.
    pub(super) trust: Arc<Trust>,
    /// When the server certificate expires.
    pub not_after: OffsetDateTime,
}

impl Tls {
    /// Loads every file that `config` names. `client_optional` is set when some route needs no client
    /// certificate.
    pub fn load(config: &Config, client_optional: bool) -> Result<Self, Error> {
        let (chain, not_after) = load_chain(config)?;
        let key_pem = read(&config.key, "key")?;
        let key = pem::private_key(key_pem.expose(), Some(&config.password))
            .map_err(|source| Error::Key { path: config.key.clone(), source })?;
        let trust = Trust::load(config, &Arc::new(provider()))?;
        assemble(chain, key, trust, client_optional, not_after).map_err(|source| Error::Mismatch {
            key: config.key.clone(),
            cert: config.cert.clone(),
            source,
        })
    }

    /// TLS with a certificate that is in no file, and any client certificate.
    pub fn ephemeral(
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
        not_after: OffsetDateTime,
    ) -> Result<Self, rustls::Error> {
        assemble(vec![certificate], key, Trust::anybody(), true, not_after)
    }

    /// This with the trust (and so the session tickets) of `older`, where that is the same.
    #[must_use]
    pub fn keeping_sessions_of(self, older: &Self) -> Self {
        if !self.trust.is_same(&older.trust) {
            return self;
        }
        let mut config = ServerConfig::clone(&self.config);
        config.ticketer = older.config.ticketer.clone();
        Self { config: Arc::new(config), trust: older.trust.clone(), ..self }
    }
}

fn assemble(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    trust: Trust,
    client_optional: bool,
    not_after: OffsetDateTime,
) -> Result<Tls, rustls::Error> {
    let provider = Arc::new(provider());
    let verifier = Verifier::new(&provider, trust.verifier(), client_optional);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ignore_client_order = true;
    // Tickets keep sessions with the clients: no table of them here, and one ticket is enough.
    config.send_tls13_tickets = 1;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    Ok(Tls { config: Arc::new(config), trust: Arc::new(trust), not_after })
}

/// What tells one version of the TLS files from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(Vec<Option<(u64, u64, u64, SystemTime)>>);

/// How the files that `config` names are now; changes when one of them does.
pub fn fingerprint(config: &Config) -> Fingerprint {
    use std::os::unix::fs::MetadataExt as _;
    let in_directory = config.ca.iter().filter_map(|ca| std::fs::read_dir(ca).ok()).flatten();
    let mut in_directory: Vec<_> = in_directory.filter_map(|entry| Some(entry.ok()?.path())).collect();
    in_directory.sort();
    let files = [&config.key, &config.cert].into_iter().chain(&config.ca).chain(&in_directory);
    let version = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.dev(), metadata.ino(), metadata.len(), metadata.modified().ok()?))
    };
    Fingerprint(files.map(version).collect())
}

/// AES-128 first: a full handshake then costs a tenth less, and a request the same.
fn provider() -> CryptoProvider {
    use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| *suite != TLS13_AES_128_GCM_SHA256);
    provider
}

fn read(path: &Path, setting: &'static str) -> Result<Blob, Error> {
    std::fs::read(path).map(Into::into).map_err(|source| Error::Read { setting, source })
}

fn load_certificates(path: &Path, setting: &'static str) -> Result<Vec<CertificateDer<'static>>, Error> {
    pem::certificates(read(path, setting)?.expose()).map_err(|source| Error::Certificate {
        setting,
        path: path.into(),
        source,
    })
}

fn load_chain(config: &Config) -> Result<(Vec<CertificateDer<'static>>, OffsetDateTime), Error> {
    let chain = config.chain()?;
    let leaf = chain.first().and_then(|leaf| Certificate::parse(leaf).ok());
    let leaf = leaf.filter(Certificate::has_san).ok_or_else(|| Error::NoSan(config.cert.clone()))?;
    let not_after = leaf.not_after();
    Ok((chain, not_after))
}
