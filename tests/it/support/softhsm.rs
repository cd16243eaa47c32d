//! SoftHSM, a token in files that speaks PKCS#11 like a hardware module.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::peer::program;

/// The module.
pub const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
pub const TOKEN: &str = "claviger";
pub const PIN: &str = "hunter2hunter2";

/// The variable that says where the tokens are.
const CONFIG: &str = "SOFTHSM2_CONF";

/// A token in a directory of its own.
pub struct SoftHsm {
    directory: tempfile::TempDir,
}

impl SoftHsm {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let hsm = Self { directory };
        std::fs::create_dir(hsm.tokens()).expect("a directory");
        let config = format!("directories.tokendir = {}\nobjectstore.backend = file\n", hsm.tokens().display());
        std::fs::write(hsm.config(), config).expect("its config");
        let init = ["--init-token", "--free", "--label", TOKEN, "--so-pin", "12345678", "--pin", PIN];
        hsm.run(&program("softhsm2-util", "softhsm2"), &init);
        hsm
    }

    /// Where the token is. Without it there is none.
    pub fn tokens(&self) -> PathBuf {
        self.directory.path().join("tokens")
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("softhsm2.conf")
    }

    /// What a process needs in its environment to see the token.
    pub fn env(&self) -> (&'static str, String) {
        (CONFIG, self.config().display().to_string())
    }

    /// Makes an AES key; `more` are attributes.
    pub fn key(&self, label: &str, kind: &str, more: &[&str]) {
        let args =
            ["--module", MODULE, "--token-label", TOKEN, "--login", "--pin", PIN, "--keygen", "--key-type", kind];
        let args = [&args[..], &["--label", label, "--private"], more].concat();
        self.run(&program("pkcs11-tool", "opensc"), &args);
    }

    /// The number of its slot, which SoftHSM chooses.
    pub fn slot(&self) -> u64 {
        let listed = self.run(&program("pkcs11-tool", "opensc"), &["--module", MODULE, "--list-token-slots"]);
        let number = listed.split_once("(0x").and_then(|(_, rest)| rest.split_once(')'));
        let (number, _) = number.unwrap_or_else(|| panic!("no slot in {listed}"));
        u64::from_str_radix(number, 16).expect("a number")
    }

    fn run(&self, program: &Path, args: &[&str]) -> String {
        let (name, value) = self.env();
        let output = Command::new(program).args(args).env(name, value).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", program.display());
        String::from_utf8(output.stdout).expect("text")
    }

    /// The section of a seal with this key.
    pub fn section(key: &str) -> Value {
        json!({ "pkcs11": { "module": MODULE, "token": TOKEN, "key": key, "pin": { "value": PIN } } })
    }
}
