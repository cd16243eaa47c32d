//! The config file of the key manager.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path as FilePath, PathBuf};

use secrecy::SecretString;
use serde::de::{EnumAccess, Error as _, VariantAccess as _, Visitor};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use super::document::Lookup;
use super::path::Path;
use super::read::Problem;
use super::{Finding, Log, Source, env, read_file};
use crate::auth::enclave::Identity;
use crate::keystore::seal::{self, ProviderConfig};
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
    pub log: Log,
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

/// What takes the place of an HSM.
#[derive(Debug)]
pub enum Hsm {
    /// A file with a key that '--soft-hsm' made.
    File(PathBuf),
    /// Somebody who seals for key stores, too.
    Provider(Box<seal::Config>),
}

impl<'de> Deserialize<'de> for Hsm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_enum("Hsm", HSMS, AnyHsm)
    }
}

/// The sections that an HSM may have: one of its own, and those of `keystore.encrypt`.
const HSMS: &[&str] = &["file", "local", "vault", "openbao", "aws"];

struct AnyHsm;

impl<'de> Visitor<'de> for AnyHsm {
    type Value = Hsm;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a section: one of {}", HSMS.join(", "))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Hsm, A::Error> {
        let (kind, section) = access.variant::<String>()?;
        let provider = match kind.as_str() {
            "file" => return section.newtype_variant().map(Hsm::File),
            "local" => ProviderConfig::Local(section.newtype_variant()?),
            "vault" | "openbao" => ProviderConfig::Vault(section.newtype_variant()?),
            "aws" => ProviderConfig::Aws(section.newtype_variant()?),
            other => return Err(A::Error::unknown_variant(other, HSMS)),
        };
        Ok(Hsm::Provider(Box::new(seal::Config { provider, also: Vec::new(), allow_plaintext: false })))
    }
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(file: &FilePath) -> Result<Self, Finding> {
        Self::parse(file, read_file(file)?, &env::get)
    }

    fn parse(file: &FilePath, text: Zeroizing<String>, lookup: Lookup<'_>) -> Result<Self, Finding> {
        let mut source = Source::parse(file, text)?;
        source.expand(&Path::default(), lookup)?;
        let config = Self::deserialize(&source.document.root).and_then(|config| config.check());
        config.map_err(|problem| source.finding(problem))
    }

    fn check(self) -> Result<Self, Problem> {
        let Version::V1 = self.version;
        if self.tls.certs.len() > 1 {
            let message = "a server has one certificate; put all its names into that";
            return Err(Problem::at(Path::of("tls.certs"), message));
        }
        if self.hsm.contains_key(ENVIRONMENT) {
            let message = "this name is that of MINIO_KMS_HSM_KEY; choose another";
            return Err(Problem::at_key(Path::of("hsm").key(ENVIRONMENT), message));
        }
        Ok(self)
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

    fn parse(text: &str) -> Result<Config, Finding> {
        let lookup =
            |name: &str| if name == "TOKEN" { Ok("s.token".to_owned().into()) } else { Err(env::Error::Unset) };
        Config::parse(FilePath::new("kms.yml"), Zeroizing::new(text.to_owned()), &lookup)
    }

    #[test]
    fn every_setting_is_read() {
        let config = parse(
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
        let config = parse("version: v1").expect("a config");
        assert!(config.tls().is_none() && config.admin.identity.is_none());
        assert_eq!(config.log, crate::config::Log::default());
    }

    #[test]
    fn hsms_may_be_those_who_seal_for_key_stores() {
        let config = parse(
            "version: v1\n\
             hsm:\n  a: { local: { file: seal.key } }\n  \
             b: { openbao: { endpoint: 'https://vault:8200', key: k, token: { value: '${TOKEN}' } } }\n  \
             c: { aws: { region: r, key: k } }\n",
        );
        let kinds = config.expect("a config").hsm.into_values().map(|hsm| match hsm {
            Hsm::Provider(config) => format!("{:?}", config.provider),
            Hsm::File(_) => panic!("no file"),
        });
        let kinds: Vec<_> = kinds.collect();
        for (kind, start) in kinds.iter().zip(["Local(", "Vault(", "Aws("]) {
            assert!(kind.starts_with(start) && !kind.contains("s.token"), "{kind}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let error = parse("version: v1\nhsm:\n  second: { fil: x }\n").expect_err("no such section");
        assert!(error.to_string().starts_with("kms.yml:3:13: hsm.second.fil: "), "{error}");
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
            "version: v1\nhsm: { x: {} }",
            "version: v1\nhsm: { x: { file: a, local: { file: b } } }",
            "version: v1\nhsm: { x: { pkcs11: {} } }",
            "version: v1\nhsm: { x: { vault: { endpoint: 'https://v', key: k, token: { value: '${NONE}' } } } }",
            &format!("version: v1\ntls: {{ certs: [ {two} ] }}"),
        ] {
            let error = parse(bad).expect_err(bad);
            assert!(!error.to_string().contains("AD9E7FSY"), "{error}");
        }
    }
}
