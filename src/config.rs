//! The config file: joins the `Config` of every part, and checks the rules that span several.
//!
//! `docs/configuration.md` and `kes-config.example.yml` show every setting.

mod document;
mod env;
mod finding;
pub mod kms;
mod old;
mod path;
mod read;
mod rules;
#[cfg(test)]
mod tests;
mod yaml;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path as FilePath;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use self::document::{Document, Lookup};
use self::path::{Path, Step};
use self::read::Problem;
use crate::api::operations::SKIP_AUTH;
use crate::auth::{Identity, policy};
use crate::name::{KeyName, PolicyName};
use crate::server::route::RouteConfig;
use crate::server::tls::{self, Setting, Tls};
use crate::telemetry::log::{self, Level};
use crate::{cache, duration, keystore, setting};

pub use self::document::SectionId;
pub use self::finding::{Finding, Place};

/// Where the server listens when the file does not say it.
const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 7373);

/// The section below `keystore:` that is no key store.
const ENCRYPT: &str = "encrypt";

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Of the log on standard error.
    #[serde(deserialize_with = "level")]
    pub error: Option<Level>,
    /// Of audit events on standard output.
    #[serde(deserialize_with = "level")]
    pub audit: Option<Level>,
}

impl Default for Log {
    fn default() -> Self {
        Self { error: Some(Level(0)), audit: Some(Level(0)) }
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

impl Config {
    /// Loads a file; returns the config and what is odd about it.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(file: &FilePath) -> Result<(Self, Vec<Finding>), Finding> {
        Self::parse(file, read_file(file)?, &env::get)
    }

    /// Loads only the `keystore:` section of a file; nothing else need be there, or be valid.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load_keystore(file: &FilePath) -> Result<(keystore::Section, Vec<Finding>), Finding> {
        Self::parse_keystore(file, read_file(file)?, &env::get)
    }

    fn parse(file: &FilePath, text: Zeroizing<String>, lookup: Lookup<'_>) -> Result<(Self, Vec<Finding>), Finding> {
        let mut source = Source::parse(file, text)?;
        source.expand(&Path::default(), lookup)?;
        let mut warnings = source.drop_ignored();
        let encrypt = source.take_encrypt();
        let read = Self::deserialize(&source.document.root).map_err(advise);
        let read = read.and_then(|config| rules::check(&config).map(|()| config));
        let sealed = source.read_encrypt(encrypt);
        let mut config = read.map_err(|problem| source.finding(problem))?;
        config.keystore.encrypt = sealed?;
        warnings.extend(rules::odd(&source.document.root).into_iter().map(|problem| source.finding(problem)));
        config.note_places(&source);
        Ok((config, warnings))
    }

    fn parse_keystore(
        file: &FilePath,
        text: Zeroizing<String>,
        lookup: Lookup<'_>,
    ) -> Result<(keystore::Section, Vec<Finding>), Finding> {
        let mut source = Source::parse(file, text)?;
        source.expand(&Path::of("keystore"), lookup)?;
        let warnings = source.drop_ignored();
        let encrypt = source.take_encrypt();
        let read = match source.document.root.entry("keystore").filter(|section| !section.value.is_null()) {
            Some(section) => keystore_section(&section.value),
            None => Err(Problem::at(Path::default(), read::MISSING)),
        };
        let read = read.map_err(|problem| advise(problem.inside(Step::Key("keystore".into()))));
        let sealed = source.read_encrypt(encrypt);
        let mut keystore = read.map_err(|problem| source.finding(problem))?;
        keystore.encrypt = sealed?;
        Ok((keystore, warnings))
    }

    /// Loads every file that the `tls:` section names.
    ///
    /// # Errors
    /// When one cannot be used: the key that names it, and why.
    pub fn load_tls(&self) -> Result<Tls, Finding> {
        let client_optional = SKIP_AUTH.iter().any(|path| self.api.get(*path).is_some_and(|api| api.skip_auth));
        Tls::load(&self.tls, client_optional).map_err(|error| {
            let key = match error.setting() {
                Setting::Key(_) => "tls.key",
                Setting::Cert(_) => "tls.cert",
                Setting::Ca => "tls.ca",
                Setting::ProxyHeader => "tls.proxy.header.cert",
            };
            Finding { place: self.place(key), message: log::causes(&error) }
        })
    }

    /// Looks at the files that the `keystore:` section names. Their content is the key store's business.
    ///
    /// # Errors
    /// When one is not there, or is of another kind: the key that names it, and why.
    pub fn check_keystore_files(&self) -> Result<(), Finding> {
        for (key, path) in self.keystore_files() {
            if let Err(error) = std::fs::metadata(path) {
                let message =
                    format!("the file cannot be read; a relative path begins at the working directory: {error}");
                return Err(Finding { place: self.keystore_place(&key), message });
            }
        }
        match &self.keystore.store {
            keystore::Config::Fs(fs) if fs.path.exists() && !fs.path.is_dir() => {
                let message = "there is something at this path that is not a directory".into();
                Err(Finding { place: self.keystore_place("path"), message })
            }
            _ => Ok(()),
        }
    }

    /// The files that the `keystore:` section names, and the keys that name them: below the store's section, or below
    /// `keystore`.
    fn keystore_files(&self) -> Vec<(String, &FilePath)> {
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
        for key in ["tls.key", "tls.cert", "tls.ca", "tls.proxy.header.cert"] {
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

fn keystore_section<'de, D: Deserializer<'de>>(deserializer: D) -> Result<keystore::Section, D::Error> {
    keystore::Config::deserialize(deserializer).map(|store| keystore::Section { store, encrypt: None })
}

/// Reads `ip:port` or `:port`.
pub fn address(text: &str) -> Result<SocketAddr, &'static str> {
    let full = if text.starts_with(':') { format!("{}{text}", ADDRESS.ip()) } else { text.to_owned() };
    full.parse().map_err(|_| "must be an IP address and a port, such as '127.0.0.1:7373', '[::1]:7373' or ':7373'")
}

/// A file, and the tree that it was parsed into.
struct Source<'f> {
    file: &'f FilePath,
    document: Document,
}

impl<'f> Source<'f> {
    fn parse(file: &'f FilePath, text: Zeroizing<String>) -> Result<Self, Finding> {
        let document = Document::parse(text).map_err(|malformed| {
            let place = Place { file: file.into(), position: malformed.position, key: String::new() };
            Finding { place, message: malformed.message.into() }
        })?;
        let mut source = Self { file, document };
        if source.document.root.is_null() {
            return Err(source.finding(Problem::at(Path::default(), yaml::EMPTY)));
        }
        let merged = source.document.merge().and_then(|()| old::refuse(&source.document.root));
        merged.map_err(|problem| source.finding(problem))?;
        Ok(source)
    }

    /// Replaces every `${NAME}` at and below `path`.
    fn expand(&mut self, path: &Path, lookup: Lookup<'_>) -> Result<(), Finding> {
        let Some(node) = self.document.root.find_mut(path) else { return Ok(()) };
        document::expand(node, path, lookup).map_err(|problem| self.finding(problem))
    }

    /// Takes the section `keystore.encrypt` out: it stands beside the key store, of which there is exactly one.
    fn take_encrypt(&mut self) -> Option<yaml::Entry> {
        self.document.root.find_mut(&Path::of("keystore"))?.take(ENCRYPT)
    }

    /// Reads the section, and puts it back: where it stands is known by the tree.
    fn read_encrypt(&mut self, entry: Option<yaml::Entry>) -> Result<Option<keystore::seal::Config>, Finding> {
        let Some(entry) = entry else { return Ok(None) };
        let read = Option::<keystore::seal::Config>::deserialize(&entry.value);
        if let Some(section) = self.document.root.find_mut(&Path::of("keystore")) {
            section.put(entry);
        }
        let inside = |problem: Problem| problem.inside(Step::Key(ENCRYPT.into())).inside(Step::Key("keystore".into()));
        read.map_err(|problem| self.finding(inside(problem)))
    }

    /// Leaves out what only older versions knew; returns a warning for each, and one for further documents.
    fn drop_ignored(&mut self) -> Vec<Finding> {
        let mut warnings = Vec::new();
        if self.document.has_more {
            let message = "only the first document is read; whatever follows the line '---' is ignored";
            let place = Place { file: self.file.into(), position: None, key: String::new() };
            warnings.push(Finding { place, message: message.into() });
        }
        for (path, why) in old::ignored(&self.document.root) {
            warnings.push(self.finding(Problem::at_key(path.clone(), why)));
            old::remove(&mut self.document.root, &path);
        }
        warnings
    }

    fn place(&self, problem: &Problem) -> Place {
        let position = self.document.position(problem);
        Place { file: self.file.into(), position, key: problem.path.to_string() }
    }

    fn finding(&self, problem: Problem) -> Finding {
        Finding { place: self.place(&problem), message: problem.message }
    }
}

/// Adds what to write where something important is missing.
fn advise(problem: Problem) -> Problem {
    let advice = match problem.path.to_string().as_str() {
        _ if problem.message != read::MISSING => return problem,
        "admin" | "admin.identity" => {
            "; write 'admin: { identity: … }' with the identity of an API key, or 'disabled' for nobody"
        }
        "tls" | "tls.key" | "tls.cert" => {
            "; write 'tls: { key: server.key, cert: server.crt }'; 'claviger identity new' makes such files"
        }
        "keystore" => "; write 'keystore: { fs: { path: … } }', or the section of another key store",
        _ => return problem,
    };
    Problem { message: format!("{}{advice}", problem.message), ..problem }
}

/// Reads a file as text, without a byte order mark.
fn read_file(file: &FilePath) -> Result<Zeroizing<String>, Finding> {
    let finding = |message: String, position| Finding {
        place: Place { file: file.into(), position, key: String::new() },
        message,
    };
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
