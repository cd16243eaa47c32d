//! The server's certificates: of the config, made once beside the data, or made on the spot.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use time::OffsetDateTime;

use crate::auth::enclave::ApiKey;
use crate::cli::identity::files::{self, OnConflict};
use crate::cli::server::dev::{self, CertificateFile};
use crate::config::kms::{Config, TlsFiles};
use crate::crypto::pem;
use crate::server::tls::{self, Fingerprint, Pair, Tls};

/// How long a certificate lasts that is made beside the data: nobody is there to renew it.
const VALID: time::Duration = time::Duration::days(3_650);

/// Where the certificates come from.
pub(super) enum Source {
    /// From files that the config names, or from a pair that this made.
    Files { files: TlsFiles, is_ours: bool },
    /// From nowhere; gone with the server.
    Memory { tls: Tls, pem: String },
}

impl Source {
    /// The certificates that the config names; else one beside the data, or in memory where there is no directory.
    pub(super) fn new(
        config: &Config,
        directory: Option<&Path>,
        host: Option<&str>,
        now: OffsetDateTime,
    ) -> anyhow::Result<Self> {
        let host = host.map(name_of);
        let mut files = config.tls();
        if !files.config.certs.is_empty() {
            return Ok(Self::Files { files, is_ours: false });
        }
        match directory {
            Some(directory) => {
                let pair = pair_in(directory);
                if !pair.cert.exists() {
                    make(&pair, host.as_deref(), now)?;
                }
                files.add(pair);
                Ok(Self::Files { files, is_ours: true })
            }
            None => {
                let (certificate, key, expires) = dev::certificate(now, host.as_deref(), dev::VALID)?;
                let tls = Tls::ephemeral(certificate.der().clone(), key, expires)?;
                Ok(Self::Memory { tls, pem: certificate.pem() })
            }
        }
    }

    /// The certificates as they are now.
    pub(super) fn load(&self) -> anyhow::Result<Tls> {
        match self {
            Self::Memory { tls, .. } => Ok(tls.clone()),
            Self::Files { files, .. } => Ok(files.load()?),
        }
    }

    /// Changes when a file does.
    pub(super) fn fingerprint(&self) -> Option<Fingerprint> {
        match self {
            Self::Memory { .. } => None,
            Self::Files { files, .. } => Some(tls::fingerprint(&files.config)),
        }
    }

    /// A file with the certificate, where clients need one to trust it; for as long as the returned value lives.
    pub(super) fn file(&self, address: SocketAddr) -> anyhow::Result<Option<(PathBuf, Option<CertificateFile>)>> {
        match self {
            Self::Files { files, is_ours } => {
                let ours = files.config.certs.first().filter(|_| *is_ours);
                Ok(ours.map(|pair| (pair.cert.clone(), None)))
            }
            Self::Memory { pem, .. } => {
                let file = CertificateFile::create(address, pem)?;
                Ok(Some((file.path().to_owned(), Some(file))))
            }
        }
    }
}

fn pair_in(directory: &Path) -> Pair {
    let (key, cert) = (directory.join("server.key"), directory.join("server.crt"));
    Pair { key, cert, password: String::new().into() }
}

/// Makes a key and a certificate: the key first, which alone is of no use to anybody.
fn make(pair: &Pair, host: Option<&str>, now: OffsetDateTime) -> anyhow::Result<()> {
    let (certificate, key, _) = dev::certificate(now, host, VALID).context("failed to make a certificate")?;
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

/// What the server says when it has started.
pub(super) struct Message<'a> {
    pub(super) data: String,
    pub(super) host: &'a str,
    pub(super) address: SocketAddr,
    pub(super) admin: String,
    /// Of the administrator, where it is worked out from the HSM key.
    pub(super) api_key: Option<&'a ApiKey>,
    pub(super) certificate: Option<&'a Path>,
    /// Whether to say what to paste into another terminal.
    pub(super) exports: bool,
}

impl Message<'_> {
    /// Prints it to standard output.
    pub(super) fn print(&self) -> std::io::Result<()> {
        use std::io::Write as _;
        let mut text = Vec::new();
        writeln!(text, "{:<12}{}", "Version", env!("CARGO_PKG_VERSION"))?;
        writeln!(text, "{:<12}{}", "License", env!("CARGO_PKG_LICENSE"))?;
        writeln!(text, "{:<12}{}", "Data", self.data)?;
        writeln!(text, "{:<12}https://{}", "Host", self.host)?;
        if self.host != self.address.to_string() {
            writeln!(text, "{:<12}https://{}", "Address", self.address)?;
        }
        writeln!(text, "{:<12}{}", "Admin", self.admin)?;
        if let Some(key) = self.api_key {
            writeln!(text, "{:<12}{}", "API key", key.expose())?;
        }
        if let Some(path) = self.certificate {
            writeln!(text, "{:<12}{}", "Certificate", path.display())?;
        }
        if self.exports {
            let local =
                if self.address.ip().is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { self.address.ip() };
            writeln!(text, "\nexport MINIO_KMS_SERVER=https://{}", SocketAddr::new(local, self.address.port()))?;
            if let Some(key) = self.api_key {
                writeln!(text, "export MINIO_KMS_API_KEY={}", key.expose())?;
            }
            if let Some(path) = self.certificate {
                writeln!(text, "export SSL_CERT_FILE={}", path.display())?;
            }
        }
        writeln!(text, "\n=> Server is up and running...\n")?;
        std::io::stdout().write_all(&text)
    }
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
