//! The config file. A first sketch.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use crate::auth::{Identity, policy};
use crate::name::{KeyName, PolicyName};
use crate::server::route::RouteConfig;
use crate::server::tls;
use crate::telemetry::log::Level;
use crate::{cache, keystore};

/// Which events the log and the audit log have; none: off.
#[derive(Debug, Clone, Copy)]
pub struct Log {
    /// The log on standard error.
    pub error: Option<Level>,
    /// Audit events on standard output.
    pub audit: Option<Level>,
}

/// Limits of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections.
    pub connections: usize,
    /// The time to finish running requests at the end.
    pub shutdown: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 10_000, shutdown: Duration::from_secs(10) }
    }
}

/// A config file.
#[derive(Debug)]
pub struct Config {
    /// Where to listen.
    pub address: SocketAddr,
    /// Who may do everything.
    pub admin: Identity,
    /// The `tls:` section.
    pub tls: tls::Config,
    /// The `cache:` section.
    pub cache: cache::Config,
    /// The `api:` section.
    pub api: BTreeMap<String, RouteConfig>,
    /// The `policy:` section.
    pub policy: BTreeMap<PolicyName, policy::Config>,
    /// The `log:` section.
    pub log: Log,
    /// Keys to create.
    pub keys: Vec<KeyName>,
    /// The `keystore:` section.
    pub keystore: keystore::Config,
    /// Tells one `keystore:` section from another.
    pub keystore_id: [u8; 32],
    /// Limits.
    pub limits: Limits,
}

impl Config {
    /// Loads a file.
    pub fn load(path: &Path) -> anyhow::Result<(Self, Vec<String>)> {
        #[derive(serde::Deserialize)]
        struct Admin {
            identity: Identity,
        }
        #[derive(serde::Deserialize)]
        struct File {
            address: Option<String>,
            admin: Admin,
            tls: tls::Config,
            #[serde(default)]
            policy: BTreeMap<String, policy::Config>,
            #[serde(with = "serde_yaml::with::singleton_map")]
            keystore: keystore::Config,
        }
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let file: File = serde_yaml::from_str(&text)?;
        let policy = file.policy.into_iter().map(|(name, policy)| Ok((PolicyName::parse(&name)?, policy)));
        let config = Self {
            address: address(file.address.as_deref().unwrap_or("0.0.0.0:7373"))?,
            admin: file.admin.identity,
            tls: file.tls,
            cache: cache::Config::default(),
            api: BTreeMap::new(),
            policy: policy.collect::<anyhow::Result<_>>()?,
            log: Log { error: Some(Level(0)), audit: Some(Level(0)) },
            keys: Vec::new(),
            keystore: file.keystore,
            keystore_id: [0; 32],
            limits: Limits::default(),
        };
        Ok((config, Vec::new()))
    }
}

/// Loads the `keystore:` section of a file. The rest, if any, is not looked at: a migration needs none of it.
pub fn load_keystore(path: &Path) -> anyhow::Result<keystore::Config> {
    #[derive(serde::Deserialize)]
    struct File {
        #[serde(with = "serde_yaml::with::singleton_map")]
        keystore: keystore::Config,
    }
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let file: File = serde_yaml::from_str(&text).with_context(|| path.display().to_string())?;
    Ok(file.keystore)
}

/// Parses `ip:port` or `:port`.
pub fn address(text: &str) -> Result<SocketAddr, anyhow::Error> {
    let text = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    text.parse().context("write ip:port or :port")
}
