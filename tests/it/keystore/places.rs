//! Every kind of key store: each at its real peer, or at the stub where nobody can have the peer.

use std::fmt;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};

use claviger::keystore::KeyStore;

use super::clouds::{VENDORS, Vendor, connect};
use crate::support::clouds::Clouds;
use crate::support::dynamodb;
use crate::support::etcd;
use crate::support::moto::{Moto, REGION};
use crate::support::openbao::{OpenBao, unique};
use crate::support::postgres;

/// A kind of key store.
#[derive(Clone, Copy)]
pub enum Kind {
    Directory,
    /// With this version of the engine.
    Vault(u8),
    SecretsManager,
    Etcd,
    Postgres,
    DynamoDb,
    /// One that the stub plays.
    Vendor(&'static Vendor),
}

use Kind::{Directory, DynamoDb, Etcd, Postgres, SecretsManager, Vault};

impl Kind {
    /// All of them.
    pub fn all() -> Vec<Self> {
        let real = [Directory, Vault(1), Vault(2), SecretsManager, Etcd, Postgres, DynamoDb];
        real.into_iter().chain(VENDORS.iter().map(Self::Vendor)).collect()
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Directory => f.write_str("fs"),
            Vault(version) => write!(f, "vault v{version}"),
            SecretsManager => f.write_str("aws"),
            Etcd => f.write_str("etcd"),
            Postgres => f.write_str("postgres"),
            DynamoDb => f.write_str("dynamodb"),
            Self::Vendor(vendor) => f.write_str(vendor.name),
        }
    }
}

/// The servers of other programs.
pub struct Peers {
    pub bao: Arc<OpenBao>,
    pub moto: Arc<Moto>,
    pub etcd: Arc<etcd::Etcd>,
    pub postgres: Arc<postgres::Postgres>,
}

impl Peers {
    pub fn shared() -> Self {
        Self {
            bao: OpenBao::shared(),
            moto: Moto::shared(),
            etcd: etcd::Etcd::shared(),
            postgres: postgres::Postgres::shared(),
        }
    }

    /// Where one of them answers; none: the stub plays it, or there is no server.
    pub fn address(&self, kind: Kind) -> Option<SocketAddr> {
        match kind {
            Vault(_) => Some(self.bao.address()),
            SecretsManager | DynamoDb => Some(self.moto.address()),
            Etcd => Some(self.etcd.address(0)),
            Postgres => Some(self.postgres.address(0)),
            Directory | Kind::Vendor(_) => None,
        }
    }
}

/// An empty store of a kind.
pub struct Place {
    pub kind: Kind,
    /// The section below `keystore:`.
    pub section: Value,
    /// What a program with this section must have in its environment.
    pub variables: Vec<(&'static str, String)>,
    _stub: Option<Clouds>,
    _directory: Option<tempfile::TempDir>,
}

impl Place {
    pub fn new(kind: Kind, peers: &Peers) -> Self {
        let (mut stub, mut directory, mut variables) = (None, None, Vec::new());
        let section = match kind {
            Directory => {
                let made = tempfile::tempdir().expect("a directory");
                let section = json!({ "fs": { "path": made.path() } });
                directory = Some(made);
                section
            }
            Vault(version) => json!({ "vault": vault(&peers.bao, version) }),
            SecretsManager => {
                let credentials = json!({ "accesskey": "anybody", "secretkey": "whatever" });
                json!({ "aws": { "secretsmanager": {
                    "endpoint": peers.moto.endpoint(), "region": REGION, "prefix": format!("{}/", unique("place")),
                    "credentials": credentials,
                } } })
            }
            Etcd => json!({ "etcd": peers.etcd.section(&format!("{}/", unique("place"))) }),
            Postgres => {
                let table = peers.postgres.table("SELECT, INSERT, UPDATE, DELETE");
                json!({ "postgres": peers.postgres.section(&table) })
            }
            DynamoDb => json!({ "dynamodb": dynamodb::DynamoDb::new(peers.moto.clone()).section("place") }),
            Kind::Vendor(vendor) => {
                let clouds = Clouds::start();
                let section = vendor.section(&clouds);
                variables = vendor.variables(&clouds);
                stub = Some(clouds);
                section
            }
        };
        Self { kind, section, variables, _stub: stub, _directory: directory }
    }

    /// The store, as a server uses it but for retries.
    pub async fn connect(&self) -> Arc<dyn KeyStore> {
        let connected = connect(&self.section, &self.variables).await;
        connected.unwrap_or_else(|error| panic!("{}: {error:?}", self.kind))
    }

    /// Gives a program what it must have in its environment.
    pub fn prepare(&self, command: &mut Command) {
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
    }
}

/// A section with the least rights that a migration needs.
fn vault(bao: &OpenBao, version: u8) -> Value {
    let engine = bao.kv(None, version);
    let policy = match version {
        1 => format!(r#"path "{engine}/*" {{ capabilities = ["create", "read", "delete", "list"] }}"#),
        _ => format!(
            "path \"{engine}/data/*\" {{ capabilities = [\"create\", \"read\"] }}\n\
             path \"{engine}/metadata/*\" {{ capabilities = [\"delete\", \"list\"] }}"
        ),
    };
    let ((id, secret), _) = bao.role(None, &policy, json!({}));
    json!({
        "endpoint": bao.endpoint(), "engine": engine, "version": format!("v{version}"),
        "approle": { "id": id, "secret": secret },
    })
}
