//! The config file of the key manager.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path as FilePath, PathBuf};

use serde::de::{EnumAccess, Error as _, VariantAccess as _, Visitor};
use serde::{Deserialize, Deserializer};

use super::document::Lookup;
use super::path::Path;
use super::read::Problem;
use super::source::Source;
use super::{Errors, Examined, Finding, Log, Place, env, missing};
use crate::auth::enclave::Identity;
use crate::foreign::printable;
use crate::keystore::seal::{self, ProviderConfig};
use crate::kms::RotationRules;
use crate::kms::etcd::Cluster;
use crate::kms::seal::ENVIRONMENT;
use crate::server::tls::{self, Pair, Setting, Tls};
use crate::telemetry::log;
use crate::vault;

/// The file. Everything may be left out but the version.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    version: Version,
    /// Who may do everything.
    #[serde(default)]
    pub admin: Admin,
    #[serde(default)]
    tls: Section,
    /// What is logged: to standard error, and the audit events to standard output, both unless it says otherwise.
    #[serde(default)]
    pub log: Log,
    /// The listener of the Vault-compatible API; none: there is none.
    #[serde(default)]
    pub vault: Option<vault::Config>,
    /// What else the root key may be sealed with, by name.
    #[serde(default)]
    pub hsm: BTreeMap<String, Hsm>,
    /// At which age keys get a new version by themselves; none: at no age.
    #[serde(default)]
    pub rotation: RotationRules,
    /// The servers that this one shares its keys with; none: it is alone.
    #[serde(default)]
    pub cluster: Option<Cluster>,
    /// Where the settings of `tls` stand.
    #[serde(skip)]
    places: BTreeMap<Setting, Place>,
    #[serde(skip)]
    cluster_place: Option<Place>,
    #[serde(skip)]
    admin_place: Option<Place>,
    /// Where each of `hsm` stands.
    #[serde(skip)]
    hsm_places: BTreeMap<String, Place>,
    #[serde(skip)]
    log_place: Option<Place>,
}

/// The version of the file's format.
#[derive(Debug, Default, Deserialize)]
enum Version {
    #[default]
    #[serde(rename = "v1")]
    V1,
}

/// The `admin:` section.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// None: worked out from the HSM key.
    pub identity: Option<Identity>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Section {
    certs: Vec<Pair>,
    auth: tls::ClientAuth,
    ca: Option<PathBuf>,
}

/// The files of the `tls:` section.
#[derive(Debug)]
pub struct TlsFiles {
    /// What the section says; it may name no certificate.
    pub config: tls::Config,
    places: BTreeMap<Setting, Place>,
}

impl TlsFiles {
    /// Adds a certificate that the section does not name.
    pub fn add(&mut self, pair: Pair) {
        let index = self.config.certs.len();
        for (setting, file) in [(Setting::Key(index), &pair.key), (Setting::Cert(index), &pair.cert)] {
            self.places.insert(setting, Place::of(file));
        }
        self.config.certs.push(pair);
    }

    /// Loads every file. Clients need no certificate.
    ///
    /// # Errors
    /// The first file that cannot be used: what names it, and why.
    pub fn load(&self) -> Result<Tls, Finding> {
        Tls::load(&self.config, true).map_err(|error| self.finding(&error))
    }

    /// Everything that is wrong with them.
    pub fn check(&self) -> Vec<Finding> {
        self.config.errors().iter().map(|error| self.finding(error)).collect()
    }

    fn finding(&self, error: &tls::Error) -> Finding {
        Finding::new(self.place(error.setting()), log::causes(error))
    }

    /// Where a setting stands.
    pub fn place(&self, setting: Setting) -> Place {
        self.places.get(&setting).cloned().expect("noted when the file was read")
    }
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
const HSMS: &[&str] = &["file", "local", "vault", "openbao", "aws", "pkcs11"];

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
            "pkcs11" => ProviderConfig::Pkcs11(section.newtype_variant()?),
            other => return Err(A::Error::unknown_variant(other, HSMS)),
        };
        Ok(Hsm::Provider(Box::new(seal::Config { provider, also: Vec::new(), allow_plaintext: false })))
    }
}

impl Config {
    /// Reads a file; returns the config and what is odd about it.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn load(file: &FilePath) -> Result<(Self, Vec<Finding>), Errors> {
        Self::examine_source(Source::open(file)?, &env::get).whole()
    }

    pub(super) fn examine_source(mut source: Source<'_>, lookup: Lookup<'_>) -> Examined<Self> {
        source.expand(&Path::default(), lookup);
        let warnings = source.drop_ignored();
        let mut config = source.read(|root| Self::deserialize(root));
        if let Some(config) = &mut config {
            config.check(&mut source);
            config.note_places(&source);
        }
        Examined { config, errors: source.into_errors(), warnings }
    }

    fn check(&self, source: &mut Source<'_>) {
        let Version::V1 = self.version;
        if self.hsm.contains_key(ENVIRONMENT) {
            let message = "this name is that of MINIO_KMS_HSM_KEY; choose another";
            source.note(Problem::at_key(Path::of("hsm").key(ENVIRONMENT), message));
        }
        if self.vault.as_ref().is_some_and(|vault| vault.kv.as_ref() == Some(&vault.transit)) {
            source.note(Problem::at(Path::of("vault.kv"), "the transit engine has this name; choose another"));
        }
    }

    /// Keeps the places of what is looked at later.
    fn note_places(&mut self, source: &Source<'_>) {
        let mut note = |setting, path| self.places.insert(setting, source.place(&Problem::at(path, "")));
        for index in 0..self.tls.certs.len() {
            let pair = Path::of("tls.certs").index(index);
            note(Setting::Key(index), pair.clone().key("key"));
            note(Setting::Cert(index), pair.key("cert"));
        }
        note(Setting::Ca, Path::of("tls.ca"));
        self.admin_place = Some(source.place(&Problem::at(Path::of("admin.identity"), "")));
        self.cluster_place = Some(source.place(&Problem::at(Path::of("cluster.etcd"), "")));
        self.log_place = Some(source.place(&Problem::at(Path::of("log.audit_file"), "")));
        let place = |name: &String| source.place(&Problem::at_key(Path::of("hsm").key(name), ""));
        self.hsm_places = self.hsm.keys().map(|name| (name.clone(), place(name))).collect();
    }

    /// What is dangerous about those who seal the root key. A server logs it when it connects to them.
    pub fn hsm_warnings(&self) -> Vec<Finding> {
        let of = |(hsm, place): (&Hsm, &Place)| match hsm {
            Hsm::File(_) => Vec::new(),
            Hsm::Provider(seal) => {
                seal.warnings().into_iter().map(|warning| Finding::new(place.clone(), printable(&warning))).collect()
            }
        };
        self.hsms().flat_map(of).collect()
    }

    /// The files that `hsm` names and that are not there.
    pub fn check_hsm_files(&self) -> Vec<Finding> {
        let of = |(hsm, place): (&Hsm, &Place)| {
            let files = match hsm {
                Hsm::File(file) => vec![file.as_path()],
                Hsm::Provider(seal) => seal.files().into_iter().map(|(_, file)| file).collect(),
            };
            files.into_iter().filter_map(|file| missing(file, || place.clone())).collect::<Vec<_>>()
        };
        self.hsms().flat_map(of).collect()
    }

    /// The files that `cluster` names and that are not there.
    pub fn check_cluster_files(&self) -> Vec<Finding> {
        let files = self.cluster.iter().flat_map(|cluster| cluster.etcd.files());
        files.filter_map(|(_, file)| missing(file, || self.cluster_place())).collect()
    }

    /// Where `cluster.etcd` stands.
    pub fn cluster_place(&self) -> Place {
        self.cluster_place.clone().expect("noted when the file was read")
    }

    fn hsms(&self) -> impl Iterator<Item = (&Hsm, &Place)> {
        self.hsm.values().zip(self.hsm_places.values())
    }

    /// Where the admin is named; none: nowhere.
    pub fn admin_place(&self) -> Option<&Place> {
        self.admin_place.as_ref().filter(|_| self.admin.identity.is_some())
    }

    /// What is wrong with the file that the `log:` section names.
    pub fn check_log(&self) -> Option<Finding> {
        let message = self.log.check()?;
        self.log_place.clone().map(|place| Finding::new(place, message))
    }

    /// Whether the `tls:` section names certificates of the server.
    pub fn names_certificates(&self) -> bool {
        !self.tls.certs.is_empty()
    }

    /// The `tls:` section as the server takes it.
    pub fn tls(&self) -> TlsFiles {
        let Section { certs, auth, ca } = &self.tls;
        let config = tls::Config { certs: certs.clone(), auth: *auth, ca: ca.clone(), proxy: tls::Proxy::default() };
        TlsFiles { config, places: self.places.clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::log::Level;

    fn parse(text: &str) -> Result<Config, Errors> {
        let lookup =
            |name: &str| if name == "TOKEN" { Ok("s.token".to_owned().into()) } else { Err(env::Error::Unset) };
        let source = Source::parse(FilePath::new("kms.yml"), text)?;
        Config::examine_source(source, &lookup).whole().map(|(config, _)| config)
    }

    #[test]
    fn every_setting_is_read() {
        let config = parse(
            "version: v1\n\
             admin: { identity: h1:l4AoVm6xKAVGsfo8J_ttCOC6Odgq3GJLHg5NtAdOAr0 }\n\
             tls: { certs: [ { key: server.key, cert: server.crt }, { key: b.key, cert: b.crt, password: p } ], auth: on, ca: clients.crt }\n\
             log: { error: warn, audit: off, audit_file: audit.log }\n\
             vault: { address: '0.0.0.0:8200', enclave: main, transit: keys, kv: secret }\n\
             hsm: { second: { file: second.hsm } }\n\
             rotation: { prod: { after: 2160h, keys: { often: 24h, never: off } } }\n\
             cluster:\n  \
               etcd:\n    \
                 endpoints: [ 'https://e1:2379', 'https://e2:2379' ]\n    \
                 prefix: team/\n    \
                 tls: { ca: ca.crt, key: e.key, cert: e.crt }\n    \
                 credentials: { username: u, password: '${TOKEN}' }\n    \
                 operations: 1000\n  \
               stale_reads: 1h\n",
        );
        let config = config.expect("a config");
        let cluster = config.cluster.as_ref().expect("a cluster");
        assert_eq!((cluster.stale_reads, cluster.etcd.operations), (Some(Duration::from_secs(3_600)), 1_000));
        assert_eq!((cluster.etcd.prefix.as_str(), cluster.etcd.etcd.endpoints.len()), ("team/", 2));
        assert_eq!((cluster.etcd.files().len(), config.check_cluster_files().len()), (3, 3));
        assert!(config.check_cluster_files()[0].to_string().starts_with("kms.yml:10:"));
        let vault = config.vault.as_ref().expect("a listener");
        assert_eq!((vault.address.port(), vault.transit.as_str()), (8200, "keys"));
        assert_eq!(vault.kv.as_deref(), Some("secret"));
        for off in ["", ", kv: off"] {
            let config = parse(&format!("version: v1\nvault: {{ address: '0.0.0.0:8200'{off} }}")).expect("valid");
            assert_eq!(config.vault.expect("a listener").kv, None);
        }
        assert_eq!(vault.enclave.as_ref().map(ToString::to_string).as_deref(), Some("main"));
        let tls = config.tls().config;
        let pairs: Vec<_> = tls.certs.iter().map(|pair| (pair.key.to_str(), pair.cert.to_str())).collect();
        assert_eq!(pairs, [(Some("server.key"), Some("server.crt")), (Some("b.key"), Some("b.crt"))]);
        assert_eq!((tls.auth, tls.ca), (tls::ClientAuth::On, Some("clients.crt".into())));
        assert!(config.admin.identity.is_some() && config.hsm.contains_key("second"));
        assert!(!config.rotation.is_empty());
        assert_eq!(
            config.log,
            crate::config::Log { error: Some(Level(4)), audit: None, audit_file: Some("audit.log".into()) }
        );
        let config = parse("version: v1").expect("a config");
        assert!(config.tls().config.certs.is_empty() && config.admin.identity.is_none());
        assert_eq!(config.log, crate::config::Log::default());
    }

    #[test]
    fn a_cluster_has_defaults_and_what_is_wrong_with_it_is_told_with_its_line() {
        let cluster = |etcd: &str| parse(&format!("version: v1\ncluster:\n  etcd: {{ {etcd} }}\n"));
        let config = cluster("endpoints: [ 'https://e:2379' ]").expect("a config").cluster.expect("a cluster");
        assert_eq!((config.stale_reads, config.etcd.operations), (Some(Duration::from_secs(86_400)), 128));
        assert_eq!(config.etcd.prefix.as_str(), "claviger-kms/");
        for never in ["0", "0s"] {
            let text =
                format!("version: v1\ncluster: {{ etcd: {{ endpoints: [ 'https://e' ] }}, stale_reads: {never} }}");
            assert_eq!(parse(&text).expect("a config").cluster.expect("a cluster").stale_reads, None);
        }
        for (bad, says) in [
            ("endpoints: []", "at least one"),
            ("endpoints: [ 'http://e:2379' ]", "write 'https://host:2379'"),
            ("endpoints: [ 'https://e' ], prefix: team", "end in '/'"),
            ("endpoints: [ 'https://e' ], prefix: ''", "cluster.etcd.prefix"),
            ("endpoints: [ 'https://e' ], operations: 7", "at least 8"),
            ("endpoints: [ 'https://e' ], credentials: { username: u }", "or neither"),
            ("endpoints: [ 'https://e' ], endpoint: x", "cluster.etcd.endpoint"),
            ("prefix: a/", "endpoints"),
        ] {
            let error = cluster(bad).expect_err(bad).to_string();
            assert!(error.contains("kms.yml:3:") && error.contains(says), "{bad}: {error}");
        }
        for bad in [
            "cluster: { etcd: { endpoints: [ 'https://e' ] }, stale_reads: -1h }",
            "cluster: { etcd: { endpoints: [ 'https://e' ] }, stale_reads: 24 }",
            "cluster: {}",
            "cluster: { etcd: { endpoints: [ 'https://e' ] } }\ncluster: { etcd: { endpoints: [ 'https://f' ] } }",
        ] {
            parse(&format!("version: v1\n{bad}")).expect_err(bad);
        }
    }

    #[test]
    fn hsms_may_be_those_who_seal_for_key_stores() {
        let config = parse(
            "version: v1\n\
             hsm:\n  a: { local: { file: seal.key } }\n  \
             b: { openbao: { endpoint: 'https://vault:8200', key: k, token: { value: '${TOKEN}' } } }\n  \
             c: { aws: { region: r, key: k } }\n  \
             d: { pkcs11: { module: /lib/m.so, token: t, key: k, pin: { value: '${TOKEN}' } } }\n",
        );
        let kinds = config.expect("a config").hsm.into_values().map(|hsm| match hsm {
            Hsm::Provider(config) => format!("{:?}", config.provider),
            Hsm::File(_) => panic!("no file"),
        });
        let kinds: Vec<_> = kinds.collect();
        for (kind, start) in kinds.iter().zip(["Local(", "Vault(", "Aws(", "Pkcs11("]) {
            assert!(kind.starts_with(start) && !kind.contains("s.token"), "{kind}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let error = parse("version: v1\nhsm:\n  second: { fil: x }\n").expect_err("no such section");
        assert!(error.to_string().starts_with("kms.yml:3:13: hsm.second.fil: "), "{error}");
    }

    #[test]
    fn a_file_that_cannot_be_used_is_told_with_the_place_that_names_it() {
        let config = parse("version: v1\ntls:\n  certs:\n  - { key: certs/server.key, cert: nowhere/server.crt }\n");
        let error = config.expect("a config").tls().load().expect_err("no such file");
        assert!(error.to_string().starts_with("kms.yml:4:36: tls.certs[0].cert: the file cannot be read; "), "{error}");
        let mut files = Config::default().tls();
        files.add(Pair { key: "nowhere/a.key".into(), cert: "nowhere/a.crt".into(), password: String::new().into() });
        let error = files.load().expect_err("no such file");
        assert!(error.to_string().starts_with("nowhere/a.crt: the file cannot be read; "), "{error}");
    }

    #[test]
    fn what_is_no_config_is_refused() {
        for bad in [
            "",
            "version: v2",
            "version: v1\nadmn: {}",
            "version: v1\nadmin: { identity: kes:v1:AD9E7FSY }",
            "version: v1\nvault: {}",
            "version: v1\nvault: { address: nowhere }",
            "version: v1\nvault: { address: '[::]:8200', transit: sys }",
            "version: v1\nvault: { address: '[::]:8200', transit: a/b }",
            "version: v1\nvault: { address: '[::]:8200', kv: a/b }",
            "version: v1\nvault: { address: '[::]:8200', kv: transit }",
            "version: v1\nhsm: { env: { file: x } }",
            "version: v1\nhsm: { x: {} }",
            "version: v1\nrotation: { prod: { after: 59m } }",
            "version: v1\nrotation: { prod: { after: 30 } }",
            "version: v1\nrotation: { prod: { age: 24h } }",
            "version: v1\nrotation: { 'a b': { after: 24h } }",
            "version: v1\nhsm: { x: { file: a, local: { file: b } } }",
            "version: v1\nhsm: { x: { pkcs11: {} } }",
            "version: v1\nhsm: { x: { vault: { endpoint: 'https://v', key: k, token: { value: '${NONE}' } } } }",
            "version: v1\ntls: { certs: [ { key: a, cert: b }, { key: c } ] }",
            "version: v1\ntls: { certs: [ { key: '', cert: b } ] }",
        ] {
            let error = parse(bad).expect_err(bad);
            assert!(!error.to_string().contains("AD9E7FSY"), "{error}");
        }
    }
}
