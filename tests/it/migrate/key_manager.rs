//! Keys on their way into a key manager, and out of it again.

mod ciphertexts;
mod conflicts;
mod foreign;
mod outward;
mod rights;
mod scale;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::TestServer;
use crate::support::program::{Outcome, Program};
use crate::support::testdata;

/// The HSM key of the first key manager, and of the second.
const HSM: [&str; 2] = [
    "hsm:aes256:KioqKioqKioqKioqKioqKioqKioqKioqKioqKioqKio=",
    "hsm:aes256:KysrKysrKysrKysrKysrKysrKysrKysrKysrKysrKys=",
];

/// The enclave of all tests.
const ENCLAVE: &str = "moved";

/// A key manager with an empty enclave.
pub struct KeyManager {
    pub server: TestServer,
    data: tempfile::TempDir,
    pub root: String,
}

impl KeyManager {
    pub fn start() -> Self {
        Self::number(0)
    }

    /// The first, or the second: they have nothing in common.
    pub fn number(number: usize) -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let server = TestServer::key_manager(data.path(), HSM[number], &[]);
        let root = claviger::kms::seal::HsmKey::parse(HSM[number]).expect("a key").root_api_key().expose().to_owned();
        let manager = Self { server, data, root };
        manager.minkms(&["add-enclave", ENCLAVE]).ok();
        manager
    }

    /// The command line in this directory, with the variables for this key manager and its enclave.
    pub fn program(&self, name: &str, directory: &Path, api_key: &str) -> Program {
        Program::named(name, directory)
            .env("MINIO_KMS_SERVER", format!("https://{}", self.server.address()))
            .env("MINIO_KMS_ENCLAVE", ENCLAVE)
            .env("MINIO_KMS_API_KEY", api_key)
            .env("SSL_CERT_FILE", self.certificate())
    }

    pub fn certificate(&self) -> String {
        self.data.path().join("server.crt").to_str().expect("text").to_owned()
    }

    /// A command to it, by its administrator.
    pub fn minkms(&self, args: &[&str]) -> Outcome {
        self.program("minkms", self.data.path(), &self.root).run(args)
    }

    /// The API key of a new identity.
    pub fn add_identity(&self, args: &[&str]) -> String {
        let made = self.minkms(&[&["add-identity", "--json"], args].concat()).ok();
        let made: Value = serde_json::from_str(&made).expect("JSON");
        made["api_key"].as_str().expect("text").to_owned()
    }

    /// The section of a config file that names its enclave.
    pub fn section(&self) -> Value {
        json!({ "keystore": { "kms": {
            "endpoint": [self.server.address().to_string()],
            "enclave": ENCLAVE,
            "api_key": self.root,
            "tls": { "ca": self.certificate() },
        } } })
    }

    /// How many keys its enclave has.
    pub fn keys(&self) -> usize {
        let listed: Vec<String> = serde_json::from_str(&self.minkms(&["ls-key", "--json"]).ok()).expect("JSON");
        listed.len()
    }
}

/// A directory with configs and keys, and the program in it.
pub struct Desk {
    directory: tempfile::TempDir,
}

impl Desk {
    /// Every key that thirteen versions of the archived server stored, in `src`.
    pub fn with_stored_keys() -> Self {
        let desk = Self::empty();
        for directory in std::fs::read_dir(testdata("stored-keys")).expect("readable") {
            let directory = directory.expect("readable").path();
            if !directory.is_dir() {
                continue;
            }
            for key in std::fs::read_dir(directory).expect("readable") {
                let key = key.expect("readable");
                std::fs::copy(key.path(), desk.path().join("src").join(key.file_name())).expect("copied");
            }
        }
        desk
    }

    /// Keys `key-00000` and so on in `src`.
    pub fn with_keys(count: usize) -> Self {
        let desk = Self::empty();
        for n in 0..count {
            desk.write(&format!("src/key-{n:05}"), &super::support::key(n));
        }
        desk
    }

    fn empty() -> Self {
        let desk = Self { directory: tempfile::tempdir().expect("a directory") };
        std::fs::create_dir(desk.path().join("src")).expect("a directory");
        for side in ["src", "dst"] {
            desk.write(&format!("{side}.yml"), &format!("keystore:\n  fs:\n    path: {side}\n"));
        }
        desk
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).expect("written");
    }

    /// Runs the program with the variables of this key manager's administrator.
    pub fn run(&self, manager: &KeyManager, args: &[&str]) -> Outcome {
        manager.program("claviger", self.path(), &manager.root).run(args)
    }

    /// What the files of a directory hold, by their names.
    pub fn keys(&self, side: &str) -> BTreeMap<String, Vec<u8>> {
        let entries =
            std::fs::read_dir(self.path().join(side)).expect("readable").map(|entry| entry.expect("readable"));
        let keys = entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
        let key = |entry: std::fs::DirEntry| {
            (entry.file_name().into_string().expect("text"), std::fs::read(entry.path()).expect("readable"))
        };
        keys.map(key).collect()
    }
}

/// The report that a run wrote with `--json`.
pub fn report(run: &Outcome) -> Value {
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"))
}

#[test]
fn every_stored_key_goes_in_and_comes_out_as_it_was() {
    let (manager, desk) = (KeyManager::start(), Desk::with_stored_keys());
    let count = desk.keys("src").len();
    let dry = desk.run(&manager, &["migrate", "--from", "src.yml", "--dry-run"]);
    assert!(dry.exit == Some(0) && dry.stdout.ends_with("Dry run: nothing was written.\n"), "{dry:?}");
    assert_eq!(manager.keys(), 0);

    let run = desk.run(&manager, &["migrate", "--from", "src.yml"]);
    assert!(run.stdout.ends_with(&format!("Migrated {count:6} keys successfully!\n")), "{run:?}");
    assert!(run.stderr.contains("each proven: each side decrypts what the other encrypts"), "{run:?}");
    assert!(!run.stderr.contains("LOST"), "{run:?}");
    assert_eq!(manager.keys(), count);
    let verified = desk.run(&manager, &["verify", "--from", "src.yml"]).ok();
    assert_eq!(verified, format!("Verified {count} keys: all are on the target and identical.\n"));

    desk.write("kms.yml", &manager.section().to_string());
    let run = desk.run(&manager, &["migrate", "--from", "kms.yml", "--to", "dst.yml"]);
    assert!(run.stdout.ends_with(&format!("Migrated {count:6} keys successfully!\n")), "{run:?}");
    desk.run(&manager, &["verify", "--from", "src.yml", "--to", "dst.yml"]).ok();
    desk.run(&manager, &["verify", "--from", "kms.yml", "--to", "dst.yml"]).ok();
    desk.run(&manager, &["verify", "--from", "dst.yml", "--to", "kms.yml"]).ok();
    let (before, after) = (desk.keys("src"), desk.keys("dst"));
    for (name, value) in &before {
        let [before, after] = [value, &after[name]].map(|value| {
            claviger::crypto::Key::parse(&value.clone().into()).unwrap_or_else(|error| panic!("{name}: {error}"))
        });
        assert!(before.is_same(&after), "{name}");
        assert_eq!(before.created_at(), after.created_at(), "{name}");
        assert_eq!(before.created_by(), after.created_by(), "{name}");
    }
}
