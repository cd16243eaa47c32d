//! From every kind of key store to every other.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::interruption::random;
use super::support::Stores;
use crate::support::dynamodb;
use crate::support::etcd;
use crate::support::moto::{Moto, REGION};
use crate::support::openbao::{OpenBao, unique};
use crate::support::postgres;

/// A kind of key store.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Directory,
    Vault(u8),
    SecretsManager,
    Etcd,
    Postgres,
    DynamoDb,
}

use Kind::{Directory, DynamoDb, Etcd, Postgres, SecretsManager, Vault};

/// Each of the twelve ways between two of four kinds, one after the other.
const WAY: [Kind; 13] = [
    Directory,
    SecretsManager,
    Vault(2),
    Directory,
    Vault(1),
    SecretsManager,
    Vault(1),
    Directory,
    Vault(2),
    Vault(1),
    Vault(2),
    SecretsManager,
    Directory,
];

/// The same for a store that has no peer of its own in that list: to it and from it, a directory and a Vault.
const WAY_BY_ETCD: [Kind; 5] = [Directory, Etcd, Vault(2), Etcd, Directory];
const WAY_BY_DYNAMODB: [Kind; 6] = [Directory, DynamoDb, Vault(2), DynamoDb, Etcd, Directory];
const WAY_BY_POSTGRES: [Kind; 6] = [Directory, Postgres, Vault(2), Postgres, Etcd, Postgres];

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
}

/// A new and empty store of a kind: its section of a config file, and the directory, if it is one.
pub fn place(kind: Kind, Peers { bao, moto, etcd, postgres }: &Peers) -> (Value, Option<String>) {
    match kind {
        DynamoDb => (json!({ "dynamodb": dynamodb::DynamoDb::new(moto.clone()).section("moved") }), None),
        Postgres => (json!({ "postgres": postgres.section(&postgres.table("SELECT, INSERT, UPDATE, DELETE")) }), None),
        Etcd => (json!({ "etcd": etcd.section(&format!("{}/", unique("moved"))) }), None),
        Directory => {
            let directory = unique("keys");
            (json!({ "fs": { "path": directory } }), Some(directory))
        }
        Vault(version) => {
            let engine = bao.kv(None, version);
            let policy = match version {
                1 => format!(r#"path "{engine}/*" {{ capabilities = ["create", "read", "delete", "list"] }}"#),
                _ => format!(
                    "path \"{engine}/data/*\" {{ capabilities = [\"create\", \"read\"] }}\n\
                     path \"{engine}/metadata/*\" {{ capabilities = [\"delete\", \"list\"] }}"
                ),
            };
            let ((id, secret), _) = bao.role(None, &policy, json!({}));
            let login = json!({ "id": id, "secret": secret });
            let version = format!("v{version}");
            let section = json!({
                "endpoint": bao.endpoint(), "engine": engine, "version": version, "approle": login,
            });
            (json!({ "vault": section }), None)
        }
        SecretsManager => {
            let credentials = json!({ "accesskey": "anybody", "secretkey": "whatever" });
            let prefix = format!("{}/", unique("moved"));
            let section = json!({
                "endpoint": moto.endpoint(), "region": REGION, "prefix": prefix, "credentials": credentials,
            });
            (json!({ "aws": { "secretsmanager": section } }), None)
        }
    }
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn keys_go_from_every_store_to_every_other_through_kills_and_are_the_same() {
    go(&WAY);
}

#[test]
#[ignore = "runs etcd: tests/run"]
fn keys_go_to_etcd_and_back_through_kills_and_are_the_same() {
    go(&WAY_BY_ETCD);
}

#[test]
#[ignore = "runs moto: tests/run"]
fn keys_go_to_dynamodb_and_on_to_etcd_through_kills_and_are_the_same() {
    go(&WAY_BY_DYNAMODB);
}

#[test]
#[ignore = "runs PostgreSQL: tests/run"]
fn keys_go_to_postgres_and_back_through_kills_and_are_the_same() {
    go(&WAY_BY_POSTGRES);
}

/// Every run is killed once, at a random moment, and another one goes on. `KEYS` in the environment is how many keys:
/// `docs/measurements.md` has the result of many.
fn go(way: &[Kind]) {
    let keys = std::env::var("KEYS").map_or(100, |keys| keys.parse().expect("KEYS is a number"));
    let peers = Peers::shared();
    let stores = Stores::with_keys(keys);
    let before = stores.keys("src");
    stores.write("0.yml", &json!({ "keystore": { "fs": { "path": "src" } } }).to_string());
    for (step, kind) in way.iter().copied().enumerate().skip(1) {
        let [from, to] = [step - 1, step].map(|step| format!("{step}.yml"));
        let migrate = ["migrate", "--from", &from, "--to", &to, "--merge"];
        let mut patience = Duration::from_millis(keys as u64 * 10).mul_f64(random());
        // A run that was faster tells how much sooner to kill the next one, into a new place.
        let directory = loop {
            let (section, directory) = place(kind, &peers);
            stores.write(&to, &json!({ "keystore": section }).to_string());
            if !ends_within(stores.command(&migrate), patience) {
                break directory;
            }
            patience /= 2;
        };
        let started = Instant::now();
        let run = stores.run(&migrate).expect(0);
        let seconds = started.elapsed().as_secs_f64();
        let rest = run.stdout.lines().last().unwrap_or_default();
        let patience = patience.as_secs_f64();
        eprintln!("{:?} to {kind:?}: killed after {patience:.1} s, then {seconds:.1} s: {rest}", way[step - 1]);
        stores.run(&["verify", "-q", "--from", "0.yml", "--to", &to]).expect(0);
        if let Some(directory) = directory {
            assert!(stores.keys(&directory) == before, "byte for byte in {directory}");
        }
    }
}

/// Whether a run ends in this time. If not, it is killed.
pub fn ends_within(mut command: Command, time: Duration) -> bool {
    let mut child = command.stderr(Stdio::null()).stdout(Stdio::null()).spawn().expect("it starts");
    std::thread::sleep(time);
    let _ = child.kill();
    child.wait().expect("our child").success()
}
