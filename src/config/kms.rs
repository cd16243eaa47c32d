//! The config file of the key manager.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use secrecy::SecretString;
use serde::Deserialize;

use crate::auth::enclave::Identity;
use crate::kms::seal::ENVIRONMENT;
use crate::server::tls;

/// The file. Everything may be left out but the version.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    version: Version,
    /// Who may do everything.
    #[serde(default)]
    pub admin: Admin,
    #[serde(default)]
    tls: Tls,
    /// What is logged: standard error and the audit events on standard output, both unless it says otherwise.
    #[serde(default)]
    pub log: super::Log,
    /// What else the root key may be sealed with, by name.
    #[serde(default)]
    pub hsm: BTreeMap<String, Hsm>,
}

/// The version of the file's format.
#[derive(Debug, Default, Deserialize)]
enum Version {
    #[default]
    #[serde(rename = "v1")]
    V1,
}

/// The `admin:` section.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// None: worked out from the HSM key.
    pub identity: Option<Identity>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Tls {
    certs: Vec<Certificate>,
    auth: tls::ClientAuth,
    ca: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Certificate {
    key: PathBuf,
    cert: PathBuf,
    #[serde(default)]
    password: SecretString,
}

/// What takes the place of an HSM: a file with a key that '--soft-hsm' made.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hsm {
    /// The file.
    pub file: PathBuf,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or is none.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("failed to read '{}'", path.display()))?;
        Self::parse(&text).with_context(|| format!("'{}' is no config of a key manager", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let config: Self = serde_yaml::from_str(text)?;
        let Version::V1 = config.version;
        ensure!(config.tls.certs.len() <= 1, "tls.certs: a server has one certificate; put all its names into that");
        ensure!(
            !config.hsm.contains_key(ENVIRONMENT),
            "hsm.{ENVIRONMENT}: this name is that of MINIO_KMS_HSM_KEY; choose another"
        );
        Ok(config)
    }

    /// The `tls:` section as the server takes it; none where it names no certificate.
    pub fn tls(&self) -> Option<tls::Config> {
        let certificate = self.tls.certs.first()?;
        Some(tls::Config {
            key: certificate.key.clone(),
            cert: certificate.cert.clone(),
            password: certificate.password.clone(),
            auth: self.tls.auth,
            ca: self.tls.ca.clone(),
            proxy: tls::Proxy::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::log::Level;

    #[test]
    fn every_setting_is_read() {
        let config = Config::parse(
            "version: v1\n\
             admin: { identity: h1:l4AoVm6xKAVGsfo8J_ttCOC6Odgq3GJLHg5NtAdOAr0 }\n\
             tls: { certs: [ { key: server.key, cert: server.crt } ], auth: on, ca: clients.crt }\n\
             log: { error: warn, audit: off }\n\
             hsm: { second: { file: second.hsm } }\n",
        );
        let config = config.expect("a config");
        let tls = config.tls().expect("a certificate");
        assert_eq!((tls.key, tls.cert, tls.ca), ("server.key".into(), "server.crt".into(), Some("clients.crt".into())));
        assert!(config.admin.identity.is_some() && config.hsm.contains_key("second"));
        assert_eq!(config.log, crate::config::Log { error: Some(Level(4)), audit: None });
        let config = Config::parse("version: v1").expect("a config");
        assert!(config.tls().is_none() && config.admin.identity.is_none());
        assert_eq!(config.log, crate::config::Log::default());
    }

    #[test]
    fn what_is_no_config_is_refused() {
        let two = "{ key: a, cert: b }, { key: c, cert: d }";
        for bad in [
            "",
            "version: v2",
            "version: v1\nadmn: {}",
            "version: v1\nadmin: { identity: kes:v1:AD9E7FSY }",
            "version: v1\nhsm: { env: { file: x } }",
            &format!("version: v1\ntls: {{ certs: [ {two} ] }}"),
        ] {
            let error = Config::parse(bad).expect_err(bad);
            assert!(!format!("{error:#}").contains("AD9E7FSY"), "{error:#}");
        }
    }
}
