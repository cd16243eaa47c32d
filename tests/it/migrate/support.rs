//! Two directories of keys, their configs, and the program run on them.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::testdata;

/// A directory with `src.yml` for the keys in `src`, and `dst.yml` for those in `dst`.
pub struct Stores(tempfile::TempDir);

/// What a run has said, and its exit code.
#[derive(Debug)]
pub struct Run {
    pub stdout: String,
    pub stderr: String,
    pub code: Option<i32>,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
            code: output.status.code(),
        }
    }
}

impl Run {
    /// Fails, with all that was said, unless the exit code is this one.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "--- stdout\n{}--- stderr\n{}", self.stdout, self.stderr);
        self
    }
}

impl Stores {
    /// Both directories, empty.
    pub fn empty() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let stores = Self(directory);
        for side in ["src", "dst"] {
            std::fs::create_dir(stores.path(side)).expect("a directory");
            stores.write(&format!("{side}.yml"), &format!("keystore:\n  fs:\n    path: {side}\n"));
        }
        stores
    }

    /// A source with keys `key-00000` and so on, and an empty target.
    pub fn with_keys(count: usize) -> Self {
        let stores = Self::empty();
        for n in 0..count {
            stores.write(&format!("src/key-{n:05}"), &key(n));
        }
        stores
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("written");
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// `claviger migrate --from src.yml --to dst.yml` and these arguments.
    pub fn migrate(&self, args: &[&str]) -> Run {
        self.run(&[&["migrate", "--from", "src.yml", "--to", "dst.yml"], args].concat())
    }

    /// `claviger verify --from src.yml --to dst.yml` and these arguments.
    pub fn verify(&self, args: &[&str]) -> Run {
        self.run(&[&["verify", "--from", "src.yml", "--to", "dst.yml"], args].concat())
    }

    pub fn run(&self, args: &[&str]) -> Run {
        self.command(args).output().expect("the program runs").into()
    }

    /// Starts `claviger migrate` and does not wait for it.
    pub fn start(&self, args: &[&str]) -> Child {
        let args = [&["migrate", "--from", "src.yml", "--to", "dst.yml"], args].concat();
        self.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
    }

    /// `CLAVIGER_BINARY` in the environment is a program of another build, to be measured.
    pub fn command(&self, args: &[&str]) -> Command {
        let program = std::env::var_os("CLAVIGER_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_claviger").into());
        let mut command = Command::new(program);
        command.args(args).current_dir(self.0.path()).stdin(Stdio::null());
        command
    }

    /// The names in a directory and what they hold, those of dot files left out.
    pub fn keys(&self, side: &str) -> BTreeMap<String, Vec<u8>> {
        let mut keys = BTreeMap::new();
        for entry in std::fs::read_dir(self.path(side)).expect("readable") {
            let entry = entry.expect("readable");
            let name = entry.file_name().into_string().expect("UTF-8");
            if !name.starts_with('.') && entry.path().is_file() {
                keys.insert(name, std::fs::read(entry.path()).expect("readable"));
            }
        }
        keys
    }

    /// Everything about a directory that a careless reader could change.
    pub fn snapshot(&self, side: &str) -> Snapshot {
        let mut entries = BTreeMap::new();
        let path = self.path(side);
        entries.insert(String::new(), Facts::of(&path));
        for entry in std::fs::read_dir(path).expect("readable") {
            let entry = entry.expect("readable");
            entries.insert(entry.file_name().into_string().expect("UTF-8"), Facts::of(&entry.path()));
        }
        Snapshot(entries)
    }
}

/// A directory at a moment: names, bytes, times, inodes, modes.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<String, Facts>);

#[derive(Debug, PartialEq, Eq)]
struct Facts {
    inode: u64,
    mode: u32,
    modified: (i64, i64),
    changed: (i64, i64),
    bytes: Vec<u8>,
}

impl Facts {
    fn of(path: &Path) -> Self {
        let meta = std::fs::symlink_metadata(path).expect("there");
        let bytes = if meta.is_file() { std::fs::read(path).expect("readable") } else { Vec::new() };
        Self {
            inode: meta.ino(),
            mode: meta.mode(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            bytes,
        }
    }
}

/// The 32 bytes of a test key.
pub fn secret(n: usize) -> [u8; 32] {
    std::array::from_fn(|i| (n >> (8 * (i % 4))) as u8 ^ (i as u8).wrapping_mul(37) ^ 0x5a)
}

/// A stored key; another one for each number.
pub fn key(n: usize) -> String {
    let bytes = STANDARD.encode(secret(n));
    format!(r#"{{"bytes":"{bytes}","algorithm":"AES256","created_at":"2023-01-02T03:04:05Z","created_by":"tests"}}"#)
}

/// A key as a server wrote it: its value, and the base64 of its bytes.
pub fn stored_key(kes: &str) -> (String, String) {
    let entry = manifest(kes);
    let file = testdata("stored-keys").join(entry["file"].as_str().expect("a file"));
    let secret = unhex(entry["key"].as_str().expect("hex"));
    (std::fs::read_to_string(file).expect("readable"), STANDARD.encode(secret))
}

/// The secrets of that key: its bytes and its HMAC key.
pub fn stored_secrets(kes: &str) -> Vec<Vec<u8>> {
    let entry = manifest(kes);
    ["key", "hmac_key"].map(|field| unhex(entry[field].as_str().expect("hex"))).into()
}

fn manifest(kes: &str) -> serde_json::Value {
    let text = std::fs::read_to_string(testdata("stored-keys/manifest.json")).expect("readable");
    let entries: Vec<serde_json::Value> = serde_json::from_str(&text).expect("valid");
    let wanted = |entry: &serde_json::Value| entry["kes"] == kes && entry["algorithm"] == "AES256";
    entries.into_iter().find(wanted).expect("a key of that version")
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16));
    digits.collect::<Result<_, _>>().expect("hex")
}

/// A file system that is mounted until it is dropped. Needs root, as the tests have it.
pub struct Mount(PathBuf);

impl Mount {
    /// An empty file system in memory.
    pub fn tmpfs(at: &Path, options: &str) -> Self {
        Self::new(&["-t", "tmpfs", "-o", options, "tmpfs"], at)
    }

    /// The same directory at a second place.
    pub fn bind(from: &Path, at: &Path) -> Self {
        Self::new(&["--bind", from.to_str().expect("UTF-8")], at)
    }

    fn new(args: &[&str], at: &Path) -> Self {
        mount(args, at);
        Self(at.into())
    }

    /// Changes its options.
    pub fn remount(&self, options: &str) {
        mount(&["-o", &format!("remount,{options}")], &self.0);
    }
}

fn mount(args: &[&str], at: &Path) {
    let status = Command::new("mount").args(args).arg(at).status().expect("'mount' of the package mount");
    assert!(status.success(), "cannot mount {}: the tests run as root and may mount", at.display());
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
