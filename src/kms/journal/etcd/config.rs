//! The `cluster` section of the key manager's config.

use std::path::Path;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::duration;
use crate::etcd::{self, Credentials, Prefix};
use crate::setting::{ClientTls, Url};

/// How long one member may take.
const ATTEMPT: Duration = Duration::from_secs(1);

/// What etcd allows in a transaction, unless it is told otherwise; and the least that is of any use.
const OPERATIONS: usize = 128;
const LEAST: usize = 8;

/// How long a node that hears of nobody answers reads, unless the config says otherwise.
const STALE_READS: Duration = Duration::from_secs(24 * 3_600);

/// The `cluster:` section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// What keeps the journal.
    pub etcd: Config,
    /// How long a node that hears of nobody answers reads; none: for ever.
    #[serde(default = "default_stale_reads", deserialize_with = "stale_reads")]
    pub stale_reads: Option<Duration>,
}

/// The `cluster.etcd:` section.
#[derive(Debug, Deserialize)]
#[serde(from = "Section")]
pub struct Config {
    /// The cluster.
    pub etcd: etcd::Config,
    /// What keys begin with.
    pub prefix: Prefix,
    /// The most operations of a transaction.
    pub operations: usize,
}

impl Config {
    /// The files that it names, each with its setting.
    pub fn files(&self) -> Vec<(&'static str, &Path)> {
        self.etcd.tls.files()
    }
}

/// The section as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    #[serde(deserialize_with = "etcd::config::endpoints")]
    endpoints: Vec<Url>,
    #[serde(default = "default_prefix")]
    prefix: Prefix,
    #[serde(default)]
    tls: ClientTls,
    #[serde(default, deserialize_with = "etcd::config::credentials")]
    credentials: Option<Credentials>,
    #[serde(default = "default_operations", deserialize_with = "operations")]
    operations: usize,
}

impl From<Section> for Config {
    fn from(Section { endpoints, prefix, tls, credentials, operations }: Section) -> Self {
        let etcd = etcd::Config { endpoints, credentials, tls, setting: "cluster.etcd.tls.ca", attempt: ATTEMPT };
        Self { etcd, prefix, operations }
    }
}

fn default_prefix() -> Prefix {
    Prefix::new("claviger-kms/")
}

fn default_operations() -> usize {
    OPERATIONS
}

fn operations<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    match u32::deserialize(deserializer)? as usize {
        few if few < LEAST => {
            Err(D::Error::custom("must be at least 8: it is etcd's --max-txn-ops, which is 128 by default"))
        }
        operations => Ok(operations),
    }
}

fn default_stale_reads() -> Option<Duration> {
    Some(STALE_READS)
}

fn stale_reads<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let age = duration::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)?;
    Ok((!age.is_zero()).then_some(age))
}
