//! The config file: joins the `Config` of every part, and checks the rules that span several.
//!
//! `docs/configuration.md` and `kes-config.example.yml` show every setting.

mod any;
mod document;
mod env;
mod finding;
mod hash;
mod kes;
pub mod kms;
mod odd;
mod old;
mod path;
mod read;
mod rules;
mod source;
#[cfg(test)]
mod tests;
mod yaml;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use self::document::Lookup;
use self::path::{Path, Step};
use self::read::Problem;
use self::source::Source;
use self::yaml::Node;
use crate::api::operations::SKIP_AUTH;
use crate::auth::{Identity, policy};
use crate::keystore::vault;
use crate::migrate::enclave;
use crate::name::{KeyName, PolicyName};
use crate::server::route::RouteConfig;
use crate::server::tls::{self, Setting, Tls};
use crate::telemetry::log::{self, Level};
use crate::{cache, duration, keystore, setting};

pub use self::any::Any;
pub use self::document::SectionId;
pub use self::finding::{Errors, Finding, Place};

/// Where the server listens when the file does not say it.
const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 7373);

/// The section below `keystore:` that is no key store.
const ENCRYPT: &str = "encrypt";

/// The section below `keystore:` that names an enclave of a key manager.
const ENCLAVE: &str = "kms";
/// The section of a transit engine, which is no key store either.
const TRANSIT: &str = "transit";

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// A config file that was read and found valid.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(rename = "version", default, deserialize_with = "setting::or_default")]
    _version: Version,
    /// Where to listen.
    #[serde(default = "default_address", deserialize_with = "read_address")]
    pub address: SocketAddr,
    /// The identity that may do everything. A value that is not a hash turns the admin off.
    #[serde(deserialize_with = "admin")]
    pub admin: Identity,
    /// Certificates, and whom to take clients for.
    pub tls: tls::Config,
    /// How long keys are kept in memory.
    #[serde(default)]
    pub cache: cache::Config,
    /// Settings of single paths of the API.
    #[serde(default)]
    pub api: BTreeMap<String, RouteConfig>,
    /// The policies.
    #[serde(default)]
    pub policy: BTreeMap<PolicyName, policy::Config>,
    /// Which events are written.
    #[serde(default)]
    pub log: Log,
    /// Keys to create at the start.
    #[serde(default, deserialize_with = "keys")]
    pub keys: Vec<KeyName>,
    /// Limits of the server.
    #[serde(default)]
    pub limits: Limits,
    /// Where keys are kept, and who seals them there.
    #[serde(deserialize_with = "keystore_section")]
    pub keystore: keystore::Section,
    /// Tells one `keystore:` section from another.
    #[serde(skip)]
    pub keystore_id: SectionId,
    #[serde(skip)]
    places: BTreeMap<String, Place>,
}

#[derive(Debug, Default, Deserialize)]
enum Version {
    #[default]
    #[serde(rename = "v1")]
    V1,
}

/// The `log:` section: the least level that is written; none: nothing.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Of the log on standard error.
    #[serde(deserialize_with = "level")]
    pub error: Option<Level>,
    /// Of audit events on standard output.
    #[serde(deserialize_with = "level")]
    pub audit: Option<Level>,
    /// A file to which audit events are appended, too, whatever goes to standard output.
    pub audit_file: Option<PathBuf>,
}

impl Log {
    /// What is wrong with the file of audit events, as far as it can be seen without opening it.
    fn check(&self) -> Option<String> {
        let directory = self.audit_file.as_ref()?.parent().filter(|parent| *parent != FilePath::new(""))?;
        let message =
            || format!("the directory '{}' is not there; make it, for the server's user", directory.display());
        (!directory.is_dir()).then(message)
    }
}

/// `error=INFO audit=INFO`
impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = |level: Option<Level>| level.map_or("off".into(), |level| level.to_string());
        write!(f, "error={} audit={}", level(self.error), level(self.audit))?;
        self.audit_file.iter().try_for_each(|file| write!(f, " audit_file={}", file.display()))
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { error: Some(Level(0)), audit: Some(Level(0)), audit_file: None }
    }
}

/// The `limits:` section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The most connections at a time. Default 10,000.
    #[serde(deserialize_with = "setting::count")]
    pub connections: usize,
    /// How long running requests may take after the server was told to stop. Default 10 seconds.
    #[serde(deserialize_with = "duration::deserialize")]
    pub shutdown: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 10_000, shutdown: Duration::from_secs(10) }
    }
}

/// What came of reading a config file.
#[derive(Debug)]
pub struct Examined<C> {
    /// The config as far as it could be read: whole when there are no errors.
    pub config: Option<C>,
    /// What keeps a server from starting.
    pub errors: Vec<Finding>,
    /// What is odd.
    pub warnings: Vec<Finding>,
}

impl<C> Examined<C> {
    fn failed(error: Finding) -> Self {
        Self { config: None, errors: vec![error], warnings: Vec::new() }
    }

    /// The config, if nothing is wrong with it, and what is odd.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn whole(self) -> Result<(C, Vec<Finding>), Errors> {
        match self.config {
            Some(config) if self.errors.is_empty() => Ok((config, self.warnings)),
            _ => Err(Errors(self.errors)),
        }
    }
}

/// What holds the keys that `migrate` reads or writes.
#[derive(Debug)]
pub enum Holder {
    /// A key store.
    Store(Box<keystore::Section>),
    /// An enclave of a key manager.
    Enclave(enclave::config::Config),
    /// A transit engine of a Vault.
    Transit(Box<vault::EngineOnly>),
}

/// The `keystore:` section that names a transit engine.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TransitSection {
    transit: vault::EngineOnly,
}

/// The `keystore:` section that names an enclave.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EnclaveSection {
    kms: enclave::config::Config,
}

impl Config {
    /// Loads a file; returns the config and what is odd about it.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn load(file: &FilePath) -> Result<(Self, Vec<Finding>), Errors> {
        Self::examine(file).whole()
    }

    /// A hash of the settings, without secrets and without what differs from machine to machine.
    pub fn hash(&self) -> setting::Hash {
        hash::of(self)
    }

    /// Reads a file, behind errors too.
    pub fn examine(file: &FilePath) -> Examined<Self> {
        match Source::open(file) {
            Ok(source) => Self::examine_source(source, &env::get),
            Err(error) => Examined::failed(error),
        }
    }

    /// What the archived server does not know in a file; nothing of one that cannot be read. It is a danger where that
    /// server would not start, or not find keys.
    pub fn unknown_to_kes(file: &FilePath) -> Vec<Finding> {
        Source::open(file).map_or_else(|_| Vec::new(), |source| kes::unknown(&source))
    }

    /// Loads only the `keystore:` section of a file; nothing else need be there, or be valid.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn load_keystore(file: &FilePath) -> Result<(keystore::Section, Vec<Finding>), Errors> {
        Self::examine_keystore(Source::open(file)?, &env::get).whole()
    }

    /// Loads the `keystore:` section of a file for `migrate`, where it may also name an enclave of a key manager.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn load_holder(file: &FilePath) -> Result<(Holder, Vec<Finding>), Errors> {
        let source = Source::open(file)?;
        if source.names_transit() {
            let (engine, warnings) = Self::examine_transit(source, &env::get).whole()?;
            return Ok((Holder::Transit(Box::new(engine)), warnings));
        }
        Ok(match source.names_enclave() {
            true => {
                let (enclave, warnings) = Self::examine_enclave(source, &env::get).whole()?;
                (Holder::Enclave(enclave), warnings)
            }
            false => {
                let (section, warnings) = Self::examine_keystore(source, &env::get).whole()?;
                (Holder::Store(Box::new(section)), warnings)
            }
        })
    }

    fn examine_source(mut source: Source<'_>, lookup: Lookup<'_>) -> Examined<Self> {
        source.refuse_old();
        source.refuse_enclave();
        source.expand(&Path::default(), lookup);
        let mut warnings = source.drop_ignored();
        warnings.extend(odd::odd(&source.document.root).into_iter().map(|problem| source.finding(problem)));
        let encrypt = source.take_encrypt();
        let mut config = source.read(|root| Self::deserialize(root));
        let sealed = source.read_encrypt(encrypt);
        if let Some(config) = &mut config {
            config.keystore.encrypt = sealed;
            // Where an item of a list is gone, the others are not where they are counted to be.
            if !source.noted.iter().any(|noted| noted.path.is_in_list()) {
                rules::check(config).into_iter().for_each(|problem| source.note(problem));
            }
            config.note_places(&source);
        }
        Examined { config, errors: source.into_errors(), warnings }
    }

    fn examine_keystore(mut source: Source<'_>, lookup: Lookup<'_>) -> Examined<keystore::Section> {
        source.refuse_old();
        source.refuse_enclave();
        source.expand(&Path::of("keystore"), lookup);
        let warnings = source.drop_ignored();
        let encrypt = source.take_encrypt();
        let keystore = source.read(|root| below_keystore(root, |section| keystore_section(section)));
        let sealed = source.read_encrypt(encrypt);
        let config = keystore.map(|keystore| keystore::Section { encrypt: sealed, ..keystore });
        Examined { config, errors: source.into_errors(), warnings }
    }

    fn examine_enclave(mut source: Source<'_>, lookup: Lookup<'_>) -> Examined<enclave::config::Config> {
        source.refuse_old();
        source.refuse_encrypt();
        source.expand(&Path::of("keystore"), lookup);
        let warnings = source.drop_ignored();
        let config = source.read(|root| below_keystore(root, |section| EnclaveSection::deserialize(section)));
        Examined { config: config.map(|section| section.kms), errors: source.into_errors(), warnings }
    }

    fn examine_transit(mut source: Source<'_>, lookup: Lookup<'_>) -> Examined<vault::EngineOnly> {
        source.refuse_old();
        source.refuse_encrypt();
        source.expand(&Path::of("keystore"), lookup);
        let warnings = source.drop_ignored();
        let config = source.read(|root| below_keystore(root, |section| TransitSection::deserialize(section)));
        Examined { config: config.map(|section| section.transit), errors: source.into_errors(), warnings }
    }

    /// Loads every file that the `tls:` section names.
    ///
    /// # Errors
    /// When one cannot be used: the key that names it, and why.
    pub fn load_tls(&self) -> Result<Tls, Finding> {
        let client_optional = SKIP_AUTH.iter().any(|path| self.api.get(*path).is_some_and(|api| api.skip_auth));
        Tls::load(&self.tls, client_optional).map_err(|error| self.tls_finding(&error))
    }

    /// Everything that is wrong with the files that the `tls:` section names.
    pub fn check_tls_files(&self) -> Vec<Finding> {
        self.tls.errors().iter().map(|error| self.tls_finding(error)).collect()
    }

    fn tls_finding(&self, error: &tls::Error) -> Finding {
        Finding::new(self.tls_place(error.setting()), log::causes(error))
    }

    /// Where a setting of the `tls:` section stands.
    pub fn tls_place(&self, setting: Setting) -> Place {
        self.place(match setting {
            Setting::Key(_) => "tls.key",
            Setting::Cert(_) => "tls.cert",
            Setting::Ca => "tls.ca",
            Setting::ProxyHeader => "tls.proxy.header.cert",
        })
    }

    /// Where the admin is named.
    pub fn admin_place(&self) -> Place {
        self.place("admin.identity")
    }

    /// What is wrong with the file that the `log:` section names.
    pub fn check_log(&self) -> Option<Finding> {
        self.log.check().map(|message| Finding::new(self.place("log.audit_file"), message))
    }

    /// Looks at the files that the `keystore:` section names: those that are not there, or are of another kind. Their
    /// content is the key store's business.
    pub fn check_keystore_files(&self) -> Vec<Finding> {
        let files = self.keystore_files();
        let mut findings: Vec<_> =
            files.iter().filter_map(|(key, path)| missing(path, || self.keystore_place(key))).collect();
        if let keystore::Config::Fs(fs) = &self.keystore.store
            && fs.path.exists()
            && !fs.path.is_dir()
        {
            let message = "there is something at this path that is not a directory";
            findings.push(Finding::new(self.keystore_place("path"), message));
        }
        findings
    }

    /// The files that the `keystore:` section names, and the keys that name them: below the store's section, or below
    /// `keystore`.
    pub fn keystore_files(&self) -> Vec<(String, &FilePath)> {
        let store = self.keystore.store.files().into_iter().map(|(key, file)| (key.to_owned(), file));
        let encrypt = self.keystore.encrypt.iter().flat_map(keystore::seal::Config::files);
        store.chain(encrypt.map(|(key, file)| (format!("encrypt.{key}"), file))).collect()
    }

    /// Where the section of the key store stands, or a key of it that names a file.
    pub fn keystore_place(&self, key: &str) -> Place {
        self.place(&format!("keystore.{key}"))
    }

    fn place(&self, key: &str) -> Place {
        self.places.get(key).cloned().expect("noted when the file was read")
    }

    /// Keeps the places of what is looked at later: the key store, and the keys that name files.
    fn note_places(&mut self, source: &Source<'_>) {
        for key in ["admin.identity", "log.audit_file", "tls.key", "tls.cert", "tls.ca", "tls.proxy.header.cert"] {
            self.places.insert(key.into(), source.place(&Problem::at(Path::of(key), "")));
        }
        let Some(section) = source.document.root.entry("keystore") else { return };
        self.keystore_id = SectionId::of(&section.value);
        let is_store = |entry: &&yaml::Entry| !entry.value.is_null() && entry.key != ENCRYPT;
        let Some(store) = section.value.entries().iter().find(is_store) else { return };
        let path = Path::of("keystore").key(&*store.key);
        self.places.insert("keystore.".into(), source.place(&Problem::at_key(path, "")));
        let keys: Vec<_> = self.keystore_files().into_iter().map(|(key, _)| key).chain(["path".into()]).collect();
        for key in keys {
            let path = match key.starts_with(ENCRYPT) {
                true => format!("keystore.{key}"),
                false => format!("keystore.{}.{key}", store.key),
            };
            self.places.insert(format!("keystore.{key}"), source.place(&Problem::at(Path::of(&path), "")));
        }
    }
}

/// What is to be said about a file that is not there.
fn missing(path: &FilePath, place: impl FnOnce() -> Place) -> Option<Finding> {
    let error = std::fs::metadata(path).err()?;
    let message = format!("the file cannot be read; a relative path begins at the working directory: {error}");
    Some(Finding::new(place(), message))
}

/// Reads what is below `keystore:`.
fn below_keystore<T>(root: &Node, read: impl Fn(&Node) -> Result<T, Problem>) -> Result<T, Problem> {
    let read = match root.entry("keystore").filter(|section| !section.value.is_null()) {
        Some(section) => read(&section.value),
        None => Err(Problem::at(Path::default(), read::MISSING)),
    };
    read.map_err(|problem| problem.inside(Step::Key("keystore".into())))
}

fn keystore_section<'de, D: Deserializer<'de>>(deserializer: D) -> Result<keystore::Section, D::Error> {
    keystore::Config::deserialize(deserializer).map(|store| keystore::Section { store, encrypt: None })
}

/// Reads `ip:port` or `:port`.
pub fn address(text: &str) -> Result<SocketAddr, &'static str> {
    let full = if text.starts_with(':') { format!("{}{text}", ADDRESS.ip()) } else { text.to_owned() };
    full.parse().map_err(|_| "must be an IP address and a port, such as '127.0.0.1:7373', '[::1]:7373' or ':7373'")
}

/// Reads a file as text, without a byte order mark.
fn read_file(file: &FilePath) -> Result<Zeroizing<String>, Finding> {
    let finding =
        |message: String, position| Finding::new(Place { file: file.into(), position, key: String::new() }, message);
    let bytes =
        read_limited(file).map_err(|error| finding(format!("the config file cannot be read: {error}"), None))?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.strip_prefix('\u{feff}').unwrap_or(text).to_owned())),
        Err(error) => {
            let position = yaml::Position::after(&bytes[..error.valid_up_to()]);
            Err(finding("not valid UTF-8 here; save the file as UTF-8".into(), Some(position)))
        }
    }
}

fn read_limited(file: &FilePath) -> io::Result<Zeroizing<Vec<u8>>> {
    let size = std::fs::metadata(file)?.len();
    if size > MAX_FILE {
        return Err(io::Error::other("it has more than 16 MiB"));
    }
    std::fs::read(file).map(Zeroizing::new)
}

fn default_address() -> SocketAddr {
    ADDRESS
}

fn read_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    match Option::<String>::deserialize(deserializer)? {
        Some(text) => address(&text).map_err(D::Error::custom),
        None => Ok(ADDRESS),
    }
}

/// Reads the admin's identity. Any text is valid; one that is not an identity turns the admin off.
fn admin<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Identity, D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Admin {
        #[serde(deserialize_with = "setting::text")]
        identity: String,
    }
    let Admin { identity } = Admin::deserialize(deserializer)?;
    Ok(Identity::parse(&identity).unwrap_or_else(|_| Identity::parse("disabled").expect("it follows the rules")))
}

fn keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<KeyName>, D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Key {
        name: KeyName,
    }
    let keys = Vec::<Key>::deserialize(deserializer)?;
    Ok(keys.into_iter().map(|key| key.name).collect())
}

fn level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Level>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.to_ascii_lowercase().as_str() {
        "" | "on" => Ok(Some(Level(0))),
        "off" => Ok(None),
        _ => Level::parse(&text).map(Some).ok_or_else(|| {
            D::Error::custom(
                "must be on, off, or a level: DEBUG, INFO, WARN, ERROR, one of them with a number as in INFO+2",
            )
        }),
    }
}
