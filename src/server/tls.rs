//! TLS: the server's certificates, and which client certificates it trusts.

mod choice;
mod trust;
mod verifier;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use secrecy::SecretString;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use time::OffsetDateTime;

use self::choice::{ByName, Named};
use self::verifier::Verifier;
use crate::auth::Identity;
use crate::certificates;
use crate::crypto::{Blob, pem};
use crate::server::proxy::Form;
use crate::setting;

pub use crate::certificates::Fingerprint;

pub(super) use self::trust::Trust;

/// The `tls:` section of a config file.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "Section")]
pub struct Config {
    /// The server's keys and certificates, at least one. A client sees the first one that is valid for the host name it
    /// asks for, or else the first of all.
    pub certs: Vec<Pair>,
    /// Whether client certificates are verified against `ca`.
    pub auth: ClientAuth,
    /// A PEM file, or a directory of PEM files, with the CAs of client certificates; none: the system's roots.
    pub ca: Option<PathBuf>,
    /// TLS proxies that may speak for their clients.
    pub proxy: Proxy,
}

/// A private key and its certificate.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// PEM file with the private key.
    #[serde(deserialize_with = "setting::path")]
    pub key: PathBuf,
    /// PEM file with the certificate chain, leaf first.
    #[serde(deserialize_with = "setting::path")]
    pub cert: PathBuf,
    /// The password of `key`; ignored when `key` is not encrypted.
    #[serde(default)]
    pub password: SecretString,
}

/// The `tls:` section of the KES config file, with one key and its certificate.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    #[serde(deserialize_with = "setting::path")]
    key: PathBuf,
    #[serde(deserialize_with = "setting::path")]
    cert: PathBuf,
    #[serde(default)]
    password: SecretString,
    #[serde(default, deserialize_with = "setting::or_default")]
    auth: ClientAuth,
    ca: Option<PathBuf>,
    #[serde(default)]
    proxy: Proxy,
}

impl From<Section> for Config {
    fn from(section: Section) -> Self {
        let Section { key, cert, password, auth, ca, proxy } = section;
        Self { certs: vec![Pair { key, cert, password }], auth, ca, proxy }
    }
}

/// A setting of a `tls:` section that an error can be about. Keys and certificates are counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setting {
    /// The key of this pair.
    Key(usize),
    /// The certificate of this pair.
    Cert(usize),
    /// The CAs of clients.
    Ca,
    /// The name of the proxies' header.
    ProxyHeader,
}

/// Whether the chain of a client certificate is verified. Its signature always is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// Any certificate is accepted, also a self-signed one.
    #[default]
    Off,
    /// The chain must lead to a known CA.
    On,
}

impl Config {
    /// The certificates that each `cert` names, leaf first.
    ///
    /// # Errors
    /// When a file cannot be read, or holds no certificate.
    pub fn chains(&self) -> Result<Vec<Vec<CertificateDer<'static>>>, Error> {
        let chain = |(index, pair): (usize, &Pair)| load_certificates(&pair.cert, Setting::Cert(index));
        self.certs.iter().enumerate().map(chain).collect()
    }

    /// Everything that is wrong with the files that this names: of each setting the first.
    pub fn errors(&self) -> Vec<Error> {
        let provider = provider();
        let mut errors = Vec::new();
        for (index, pair) in self.certs.iter().enumerate() {
            let cert = load_certificates(&pair.cert, Setting::Cert(index)).err();
            let both = Named::load(index, pair, &provider).err();
            let is_new = |error: &Error| cert.as_ref().is_none_or(|cert| cert.setting() != error.setting());
            let both = both.filter(is_new);
            errors.extend(both.into_iter().chain(cert));
        }
        errors.extend(Trust::load(self, &Arc::new(provider)).err());
        errors
    }

    /// The CA certificates that `ca` names; none when it names nothing.
    ///
    /// # Errors
    /// When a file cannot be read, or holds anything but certificates.
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
    /// The header that holds the certificate.
    pub header: ProxyHeader,
}

/// The `tls.proxy.header:` section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "HeaderSection")]
pub struct ProxyHeader {
    /// The name of the header with the certificate. The default is that of the form.
    pub cert: String,
    /// How the certificate is written.
    pub form: Form,
}

/// The section as it is written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HeaderSection {
    cert: Option<String>,
    #[serde(deserialize_with = "setting::or_default")]
    form: Form,
}

impl From<HeaderSection> for ProxyHeader {
    fn from(HeaderSection { cert, form }: HeaderSection) -> Self {
        Self { cert: cert.unwrap_or_else(|| form.header().into()), form }
    }
}

impl Default for ProxyHeader {
    fn default() -> Self {
        HeaderSection::default().into()
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

/// Reads a list of identities. Empty texts are skipped.
fn proxies<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Identity>, D::Error> {
    let identities = Vec::<Option<Identity>>::deserialize(deserializer)?;
    Ok(identities.into_iter().flatten().collect())
}

/// Why the `tls:` section cannot be used. It shows only paths of files that exist, because another value may be a
/// secret in the wrong place, such as the content of a key file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("the file cannot be read; a relative path begins at the working directory")]
    Read {
        /// The setting that names it.
        setting: Setting,
        /// Why.
        source: std::io::Error,
    },
    /// A private key cannot be used.
    #[error("'{path}' cannot be used as private key")]
    Key {
        /// Which pair's.
        index: usize,
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// A certificate cannot be used.
    #[error("'{path}' cannot be used as certificate")]
    Certificate {
        /// The setting that names it.
        setting: Setting,
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// A certificate names no host.
    #[error(
        "'{path}' contains no DNS name or IP address as SAN; \
         make one with 'claviger identity new --ip … --dns …'"
    )]
    NoSan {
        /// Which pair's.
        index: usize,
        /// The file.
        path: PathBuf,
    },
    /// Key and certificate do not belong together.
    #[error(
        "the private key '{key}' does not match the certificate '{cert}'; name the two files that were made together"
    )]
    Mismatch {
        /// Which pair.
        index: usize,
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        cert: PathBuf,
    },
    /// No handshake can be made with a key of this kind.
    #[error(
        "the private key '{key}' is of a kind or size that is not supported; use Ed25519, ECDSA with P-256, P-384 or \
         P-521, or RSA with 2048 to 8192 bits"
    )]
    Unsupported {
        /// Which pair.
        index: usize,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// TLS cannot be set up at all.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
    /// No CA for client certificates.
    #[error("no CA certificate is in it, or in the system's store when it is empty; 'tls.auth: on' needs one")]
    NoCa,
    /// A CA certificate cannot be used.
    #[error("a CA certificate cannot be used")]
    Ca(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The name is not a valid header name.
    #[error("not the name of a header; write one like 'X-Tls-Client-Cert'")]
    Header,
}

impl Error {
    /// Of a file of certificates that a setting names.
    fn of(error: certificates::Error, setting: Setting) -> Self {
        match error {
            certificates::Error::Read(_, source) => Self::Read { setting, source },
            certificates::Error::Pem(path, source) => Self::Certificate { setting, path, source },
        }
    }

    /// The setting that it is about.
    pub fn setting(&self) -> Setting {
        match self {
            Self::Read { setting, .. } | Self::Certificate { setting, .. } => *setting,
            Self::Key { index, .. } | Self::Mismatch { index, .. } | Self::Unsupported { index, .. } => {
                Setting::Key(*index)
            }
            Self::NoSan { index, .. } => Setting::Cert(*index),
            Self::Setup(_) => Setting::Key(0),
            Self::NoCa | Self::Ca(_) => Setting::Ca,
            Self::Header => Setting::ProxyHeader,
        }
    }
}

/// The `tls:` section, loaded.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The config for rustls.
    pub(super) config: Arc<ServerConfig>,
    /// Which client certificates to trust.
    pub(super) trust: Arc<Trust>,
    /// When the first of the server's certificates expires.
    pub not_after: OffsetDateTime,
    /// A fingerprint of the files, taken before they were loaded.
    pub files: Fingerprint,
}

impl Tls {
    /// Loads every file that `config` names. `client_optional` is set when some route needs no client
    /// certificate.
    pub fn load(config: &Config, client_optional: bool) -> Result<Self, Error> {
        // Taken before the files are read, so that no later change is missed.
        let files = fingerprint(config);
        let provider = provider();
        let pairs = config.certs.iter().enumerate();
        let pairs = pairs.map(|(index, pair)| Named::load(index, pair, &provider)).collect::<Result<_, _>>()?;
        let trust = Trust::load(config, &Arc::new(provider.clone()))?;
        let tls = assemble(pairs, provider, trust, client_optional).map_err(Error::Setup)?;
        Ok(Self { files, ..tls })
    }

    /// TLS with a certificate in memory, and without verification of client certificates' chains.
    pub fn ephemeral(
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
        not_after: OffsetDateTime,
    ) -> Result<Self, rustls::Error> {
        let provider = provider();
        let key = CertifiedKey::from_der(vec![certificate], key, &provider)?;
        let named = Named { key: Arc::new(key), names: Vec::new(), not_after };
        assemble(vec![named], provider, Trust::anybody(), true)
    }

    /// Takes over the trust of `older`, and with it the session tickets, when the settings are the same.
    pub(super) fn keeping_sessions_of(self, older: &Self) -> Self {
        if !self.trust.is_same(&older.trust) {
            return self;
        }
        let mut config = ServerConfig::clone(&self.config);
        config.ticketer = older.config.ticketer.clone();
        Self { config: Arc::new(config), trust: older.trust.clone(), ..self }
    }
}

fn assemble(
    certificates: Vec<Named>,
    provider: CryptoProvider,
    trust: Trust,
    client_optional: bool,
) -> Result<Tls, rustls::Error> {
    let not_after = certificates.iter().map(|certificate| certificate.not_after).min();
    let not_after = not_after.ok_or(rustls::Error::NoCertificatesPresented)?;
    let provider = Arc::new(provider);
    let verifier = Verifier::new(&provider, trust.verifier(), client_optional);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(ByName(certificates)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ignore_client_order = true;
    // Session tickets are kept by the clients, so that the server needs no table. One ticket is enough.
    config.send_tls13_tickets = 1;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    Ok(Tls { config: Arc::new(config), trust: Arc::new(trust), not_after, files: Fingerprint::default() })
}

/// A fingerprint of the files that `config` names.
pub fn fingerprint(config: &Config) -> Fingerprint {
    let pairs = config.certs.iter().flat_map(|pair| [&pair.key, &pair.cert]);
    Fingerprint::of(pairs.chain(&config.ca).map(PathBuf::as_path))
}

/// AES-128 first: a full handshake then costs a tenth less, and a request the same.
fn provider() -> CryptoProvider {
    use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| *suite != TLS13_AES_128_GCM_SHA256);
    provider
}

fn read(path: &Path, setting: Setting) -> Result<Blob, Error> {
    std::fs::read(path).map(Into::into).map_err(|source| Error::Read { setting, source })
}

fn load_certificates(path: &Path, setting: Setting) -> Result<Vec<CertificateDer<'static>>, Error> {
    certificates::load(path).map_err(|error| Error::of(error, setting))
}
