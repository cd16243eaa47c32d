//! The server's certificates: those of the config, or one made once and kept beside the data, or one made at each
//! start.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use time::OffsetDateTime;

use crate::cli::daemon::certificate::{self, CertificateFile, Ephemeral, Made};
use crate::cli::identity::files::{self, OnConflict};
use crate::config::kms::{Config, TlsFiles};
use crate::crypto::pem;
use crate::server::tls::{self, Fingerprint, Pair, Tls};

/// The lifetime of the certificate that is made beside the data. It is long, because nobody renews it.
const VALID: time::Duration = time::Duration::days(3_650);

/// Where the certificates come from.
pub(super) enum Source {
    /// From files that the config names.
    Config(TlsFiles),
    /// From a pair that was made beside the data, with what else the config says.
    Made { files: TlsFiles, pair: Pair },
    /// From nowhere; gone with the server.
    Memory(Ephemeral),
}

impl Source {
    /// The certificates that the config names, or else one beside the data, or in memory if there is no directory.
    pub(super) fn new(
        config: &Config,
        directory: Option<&Path>,
        host: Option<&str>,
        now: OffsetDateTime,
    ) -> anyhow::Result<Self> {
        let host = host.map(name_of);
        if config.names_certificates() {
            return Ok(Self::Config(config.tls()));
        }
        let Some(directory) = directory else { return Ok(Self::Memory(Ephemeral::make(host.as_deref(), now)?)) };
        let pair = pair_in(directory);
        if !pair.cert.exists() {
            make(&pair, host.as_deref(), now)?;
        }
        Ok(Self::made(config, pair))
    }

    fn made(config: &Config, pair: Pair) -> Self {
        let mut files = config.tls();
        files.add(pair.clone());
        Self::Made { files, pair }
    }

    /// The certificates with another config. A server that made a certificate keeps it until the config names one.
    pub(super) fn with(&self, config: &Config) -> Self {
        match self {
            _ if config.names_certificates() => Self::Config(config.tls()),
            Self::Config(_) => Self::Config(config.tls()),
            Self::Made { pair, .. } => Self::made(config, pair.clone()),
            Self::Memory(ephemeral) => Self::Memory(ephemeral.clone()),
        }
    }

    /// The certificates as they are now.
    pub(super) fn load(&self) -> anyhow::Result<Tls> {
        match self {
            Self::Config(files) | Self::Made { files, .. } => Ok(files.load()?),
            Self::Memory(ephemeral) => Ok(ephemeral.tls.clone()),
        }
    }

    /// Changes when a file does.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        match self {
            Self::Config(files) | Self::Made { files, .. } => tls::fingerprint(&files.config),
            Self::Memory(_) => Fingerprint::default(),
        }
    }

    /// A file with the certificate, where clients need one to trust it; for as long as the returned value lives.
    pub(super) fn file(&self, address: SocketAddr) -> anyhow::Result<Option<(PathBuf, Option<CertificateFile>)>> {
        match self {
            Self::Config(_) => Ok(None),
            Self::Made { pair, .. } => Ok(Some((pair.cert.clone(), None))),
            Self::Memory(ephemeral) => {
                let file = ephemeral.file(address)?;
                Ok(Some((file.path().to_owned(), Some(file))))
            }
        }
    }
}

fn pair_in(directory: &Path) -> Pair {
    let (key, cert) = (directory.join("server.key"), directory.join("server.crt"));
    Pair { key, cert, password: String::new().into() }
}

/// Makes a key and a certificate. It writes the key first, because the key alone does no harm.
fn make(pair: &Pair, host: Option<&str>, now: OffsetDateTime) -> anyhow::Result<()> {
    let made = certificate::make("claviger key manager", host, now, VALID).context("failed to make a certificate")?;
    let Made { certificate, key, .. } = made;
    files::write(&pair.key, 0o600, pem::pkcs8(key.secret_der()).as_bytes(), OnConflict::Replace)?;
    files::write(&pair.cert, 0o644, certificate.pem().as_bytes(), OnConflict::Fail)
}

/// The name in `host:port`.
fn name_of(host: &str) -> String {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    name.trim_start_matches('[').trim_end_matches(']').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_stands_before_the_port() {
        for (host, name) in
            [("kms.example:7373", "kms.example"), ("kms", "kms"), ("10.0.0.1:1", "10.0.0.1"), ("[::1]:7373", "::1")]
        {
            assert_eq!(name_of(host), name);
        }
    }
}
