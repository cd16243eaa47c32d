//! The `keystore.postgres` section of the config file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use secrecy::SecretString;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::Store;
use crate::keystore::{Backend, Error, KeyStore};
use crate::setting::{self, ClientTls};

/// The port where PostgreSQL listens unless it is told otherwise.
const PORT: u16 = 5432;

/// The `keystore.postgres:` section of the config file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The servers of one cluster: a primary and its standbys.
    #[serde(deserialize_with = "hosts")]
    pub hosts: Vec<Host>,
    /// The database.
    #[serde(deserialize_with = "setting::text")]
    pub database: String,
    /// The role.
    #[serde(deserialize_with = "setting::text")]
    pub user: String,
    /// Its password; none: it logs in by client certificate, or is trusted.
    pub password: Option<SecretString>,
    /// The table of the keys. Default `claviger_keys`.
    #[serde(default, deserialize_with = "setting::or_default")]
    pub table: Table,
    /// Certificates.
    #[serde(default, deserialize_with = "setting::or_default")]
    pub tls: ClientTls,
}

#[async_trait]
impl Backend for Config {
    async fn connect(&self) -> Result<Arc<dyn KeyStore>, Error> {
        Ok(Arc::new(Store::connect(self).await?))
    }

    fn files(&self) -> Vec<(&'static str, &Path)> {
        self.tls.files()
    }
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// Over the network, with TLS.
    Tcp {
        /// The name or the address, which its certificate must have.
        host: String,
        /// The port.
        port: u16,
    },
    /// On this machine: the socket in this directory.
    Unix(PathBuf),
}

impl Host {
    fn parse(text: &str) -> Option<Self> {
        if text.starts_with('/') {
            let (directory, port) = match text.rsplit_once(':') {
                Some((directory, port)) => (directory, port.parse().ok()?),
                None => (text, PORT),
            };
            return Some(Self::Unix(Path::new(directory).join(format!(".s.PGSQL.{port}"))));
        }
        let (host, port) = match text.rsplit_once(':') {
            // An address of IPv6 without a port has colons, too.
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().ok()?),
            _ => (text, PORT),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
        let is_host = !host.is_empty() && host.bytes().all(is_valid);
        is_host.then(|| Self::Tcp { host: host.into(), port })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(socket) => write!(f, "{}", socket.display()),
        }
    }
}

/// The name of a table, perhaps with its schema: lower-case letters, digits and underscores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table(String);

impl Table {
    /// The name as SQL.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let is_name = |name: &str| {
            let starts = name.starts_with(|char: char| char.is_ascii_lowercase() || char == '_');
            let is_valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            starts && name.len() <= 63 && name.bytes().all(is_valid)
        };
        let parts: Vec<_> = text.split('.').collect();
        (parts.len() <= 2 && parts.iter().all(|part| is_name(part))).then(|| Self(text.into()))
    }
}

impl Default for Table {
    fn default() -> Self {
        Self("claviger_keys".into())
    }
}

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let advice = "not the name of a table; write 'table' or 'schema.table' with lower-case letters, digits and '_'";
        Self::parse(&String::deserialize(deserializer)?).ok_or_else(|| D::Error::custom(advice))
    }
}

/// Reads where servers listen.
fn hosts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Host>, D::Error> {
    let advice = "not a server; write 'host:5432', or the directory of a Unix socket, such as '/run/postgresql:5432'";
    let texts = Vec::<String>::deserialize(deserializer)?;
    if texts.is_empty() {
        return Err(D::Error::custom("must name at least one server: 'host:5432'"));
    }
    texts.iter().map(|text| Host::parse(text).ok_or_else(|| D::Error::custom(advice))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_a_port_or_is_a_directory() {
        let tcp = |host: &str, port| Some(Host::Tcp { host: host.into(), port });
        for (text, host) in [
            ("db1.example.com:5433", tcp("db1.example.com", 5433)),
            ("db1", tcp("db1", 5432)),
            ("10.0.0.1:1", tcp("10.0.0.1", 1)),
            ("[::1]:5433", tcp("::1", 5433)),
            ("::1", tcp("::1", 5432)),
            ("/run/postgresql", Some(Host::Unix("/run/postgresql/.s.PGSQL.5432".into()))),
            ("/run/postgresql:6432", Some(Host::Unix("/run/postgresql/.s.PGSQL.6432".into()))),
            ("", None),
            ("host=/run/postgresql", None),
            ("/run/postgresql:x", None),
            ("db:", None),
            ("db:port", None),
            ("user@db", None),
            ("postgres://db", None),
        ] {
            assert_eq!(Host::parse(text), host, "{text}");
        }
        assert_eq!(Host::parse("[::1]:1").expect("valid").to_string(), "[::1]:1");
    }

    #[test]
    fn a_table_is_a_name_that_needs_no_quotes() {
        for good in ["claviger_keys", "keys.claviger", "_k1"] {
            assert_eq!(Table::parse(good).expect(good).as_str(), good);
        }
        for bad in ["", "Keys", "a.b.c", "a b", "a;b", "\"a\"", "1a", ".a", "a.", "a-b", &"a".repeat(64)] {
            assert_eq!(Table::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_section_has_defaults_and_hides_the_password() {
        let text = "{ hosts: [ db ], database: d, user: u, password: hunter2 }";
        let config: Config = serde_yaml::from_str(text).expect("valid");
        assert_eq!(config.table, Table::default());
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(serde_yaml::from_str::<Config>("{ hosts: [], database: d, user: u }").is_err());
    }
}
