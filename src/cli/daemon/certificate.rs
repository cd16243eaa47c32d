//! Makes self-signed server certificates at start.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use rustls::pki_types::PrivateKeyDer;
use time::OffsetDateTime;

use super::message::local_addresses;
use crate::server::tls::Tls;

/// The lifetime of a development server's certificate.
const VALID: time::Duration = time::Duration::days(90);

/// A self-signed server certificate.
pub(in crate::cli) struct Made {
    pub(in crate::cli) certificate: rcgen::Certificate,
    pub(in crate::cli) key: PrivateKeyDer<'static>,
    expires: OffsetDateTime,
}

/// Makes a server certificate of this common name, for all addresses of this machine and for `host`.
pub(in crate::cli) fn make(
    common_name: &str,
    host: Option<&str>,
    now: OffsetDateTime,
    valid: time::Duration,
) -> anyhow::Result<Made> {
    let key = KeyPair::generate()?;
    let names: Vec<_> = ["localhost"].into_iter().chain(host).map(str::to_owned).collect();
    let mut params = CertificateParams::new(names)?;
    params.subject_alt_names.extend(local_addresses().into_iter().map(SanType::IpAddress));
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = now - time::Duration::minutes(5);
    params.not_after = now + valid;
    let certificate = params.self_signed(&key)?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    Ok(Made { certificate, key, expires: now + valid })
}

/// TLS of a development server. Its certificate exists only while the server runs.
#[derive(Clone)]
pub(in crate::cli) struct Ephemeral {
    pub(in crate::cli) tls: Tls,
    pem: String,
}

impl Ephemeral {
    /// Makes the certificate, also for `host`.
    pub(in crate::cli) fn make(host: Option<&str>, now: OffsetDateTime) -> anyhow::Result<Self> {
        let Made { certificate, key, expires } = make("claviger development server", host, now, VALID)?;
        Ok(Self { tls: Tls::ephemeral(certificate.der().clone(), key, expires)?, pem: certificate.pem() })
    }

    /// Writes the certificate to a file that clients can read.
    pub(in crate::cli) fn file(&self, address: SocketAddr) -> anyhow::Result<CertificateFile> {
        CertificateFile::create(address, &self.pem)
    }
}

/// The file with a development server's certificate. It is removed on drop.
pub(in crate::cli) struct CertificateFile(PathBuf);

impl CertificateFile {
    fn create(address: SocketAddr, pem: &str) -> anyhow::Result<Self> {
        let name = format!("claviger-dev-{}-{}.crt", address.port(), std::process::id());
        let path = std::env::temp_dir().join(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let written = file.and_then(|mut file| file.write_all(pem.as_bytes()));
        written.with_context(|| format!("failed to write the certificate to {}", path.display()))?;
        Ok(Self(path))
    }

    pub(in crate::cli) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for CertificateFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
