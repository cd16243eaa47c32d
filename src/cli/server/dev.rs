//! `--dev`: a server to try things out, gone when it stops.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use rustls::pki_types::PrivateKeyDer;
use time::OffsetDateTime;

use super::message::{Message, endpoints, local_addresses};
use super::{Setup, Stop};
use crate::auth::Access;
use crate::auth::api_key::ApiKey;
use crate::cache::{self, Keys};
use crate::server::tls::Tls;
use crate::telemetry::log::Level;
use crate::{clock, config, keystore};

/// Where a development server listens unless told otherwise: where nobody else can reach it.
const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7373);

/// How long the certificate lasts.
pub(in crate::cli) const VALID: time::Duration = time::Duration::days(90);

pub(super) async fn run(setup: Setup, address: Option<SocketAddr>) -> anyhow::Result<()> {
    let admin = ApiKey::generate()?;
    let identity = admin.identity();
    let (certificate, key, expires) = certificate(clock::now(), None, VALID)?;
    let tls = Tls::ephemeral(certificate.der().clone(), key, expires)?;
    let store = Arc::new(keystore::mem::Store::default());
    let keys = Keys::new(cache::Config::default(), store, tokio::runtime::Handle::current());
    let access = Access::new(identity.clone(), Vec::new(), clock::now());
    let state = setup.state_of(&BTreeMap::new(), access, &tls, &keys);
    let log = config::Log { error: Some(Level(0)), audit: Some(Level(0)) };
    setup.apply_log(log);
    let server = setup.bind(address.unwrap_or(ADDRESS), config::Limits::default(), state, tls).await?;
    let address = server.address()?;
    let file = CertificateFile::create(address, &certificate.pem())?;
    // Whoever reads the message may stop us at once.
    let stop = Stop::new()?;
    Message { keystore: keys.store(), address, admin: &identity, log, lock: &setup.lock }.print()?;
    print_exports(address, &admin, &file)?;
    super::notify(&[sd_notify::NotifyState::Ready]);
    server.run(stop.requested(), stop.requested()).await?;
    setup.finish(&keys).await
}

/// What to paste into another terminal, so that clients there use this server.
fn print_exports(address: SocketAddr, admin: &ApiKey, file: &CertificateFile) -> std::io::Result<()> {
    let server = endpoints(address).into_iter().next().unwrap_or_default();
    let file = file.path().display();
    // The key is of this server only, which keeps nothing: it may be shown.
    writeln!(
        std::io::stdout(),
        "export MINIO_KES_SERVER={server}\nexport MINIO_KES_API_KEY={}\nexport SSL_CERT_FILE={file}\n",
        admin.expose().as_str()
    )
}

/// A fresh self-signed server certificate for all addresses of this machine, and for `host`.
pub(in crate::cli) fn certificate(
    now: OffsetDateTime,
    host: Option<&str>,
    valid: time::Duration,
) -> anyhow::Result<(rcgen::Certificate, PrivateKeyDer<'static>, OffsetDateTime)> {
    let key = KeyPair::generate()?;
    let mut params =
        CertificateParams::new(["localhost"].into_iter().chain(host).map(str::to_owned).collect::<Vec<_>>())?;
    params.subject_alt_names.extend(local_addresses().into_iter().map(SanType::IpAddress));
    params.distinguished_name.push(DnType::CommonName, "claviger development server");
    params.not_before = now - time::Duration::minutes(5);
    params.not_after = now + valid;
    let certificate = params.self_signed(&key)?;
    let private = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    Ok((certificate, private, now + valid))
}

/// The certificate where clients can read it; removed when the server stops.
pub(in crate::cli) struct CertificateFile(PathBuf);

impl CertificateFile {
    pub(in crate::cli) fn create(address: SocketAddr, pem: &str) -> anyhow::Result<Self> {
        let name = format!("claviger-dev-{}-{}.crt", address.port(), std::process::id());
        let path = std::env::temp_dir().join(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let written = file.and_then(|mut file| file.write_all(pem.as_bytes()));
        written.with_context(|| format!("failed to write the certificate to {}", path.display()))?;
        Ok(Self(path))
    }
}

impl CertificateFile {
    /// Where it is.
    pub(in crate::cli) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for CertificateFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
