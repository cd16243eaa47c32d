//! Keys of a transit engine go to an enclave, and back.

use claviger::client::kms::Commands;
use claviger::kms::Action;
use claviger::kms::wire::CreateIdentityRequest;
use serde_json::{Value, json};

use crate::kms::{HSM, root};
use crate::support::openbao::{Admin, OpenBao, unique};
use crate::support::program::{Outcome, Program};
use crate::support::{block_on, certs};
use crate::vault::door::{ALL, Door, ENCLAVE};

/// "my context" in base64.
const CONTEXT: &str = "bXkgY29udGV4dA==";

/// A Vault with an engine, a key manager, and a directory with a config for each.
struct Sides {
    bao: std::sync::Arc<OpenBao>,
    engine: String,
    door: Door,
    user: Admin,
    directory: tempfile::TempDir,
}

impl Sides {
    fn start() -> Self {
        let (bao, engine, door) = (OpenBao::shared(), unique("moved"), Door::start(""));
        mount(&bao, &engine);
        let user = door.with_token(door.user("all", ALL, "*").expose());
        let sides = Self { bao, engine, door, user, directory: tempfile::tempdir().expect("a directory") };
        sides.write("vault.yml", &sides.section(&sides.engine));
        sides.write("kms.yml", &sides.enclave(root().expose()));
        sides
    }

    fn write(&self, name: &str, section: &Value) {
        std::fs::write(self.directory.path().join(name), section.to_string()).expect("written");
    }

    fn section(&self, engine: &str) -> Value {
        let (endpoint, token) = (self.bao.endpoint(), json!({ "value": "root" }));
        json!({ "keystore": { "transit": { "endpoint": endpoint, "engine": engine, "token": token } } })
    }

    fn enclave(&self, api_key: &str) -> Value {
        json!({ "keystore": { "kms": {
            "endpoint": [self.door.server.address().to_string()],
            "enclave": ENCLAVE,
            "api_key": api_key,
            "tls": { "ca": certs("ca.crt") },
        } } })
    }

    fn migrate(&self, args: &[&str]) -> Outcome {
        Program::named("claviger", self.directory.path()).run(&[&["migrate"], args].concat())
    }

    /// From the engine to the enclave.
    fn bring(&self, args: &[&str]) -> Outcome {
        self.migrate(&[&["--from", "vault.yml", "--to", "kms.yml"], args].concat())
    }

    fn describe(&self, key: &str) -> Value {
        self.bao.ask("GET", &format!("{}/keys/{key}", self.engine), Value::Null)["data"].clone()
    }

    fn in_enclave(&self) -> Vec<String> {
        let (status, answer) =
            self.user.send("LIST", "transit/keys", None, &self.user.token, &Value::Null).expect("an answer");
        let names = answer["data"]["keys"].as_array().cloned().unwrap_or_default();
        assert_eq!(status, if names.is_empty() { 404 } else { 200 });
        names.iter().map(|name| name.as_str().expect("a text").to_owned()).collect()
    }
}

fn mount(bao: &Admin, engine: &str) {
    bao.ask("POST", &format!("sys/mounts/{engine}"), json!({ "type": "transit" }));
}

/// A key with three versions; returns a ciphertext of each.
fn key(vault: &Admin, engine: &str, name: &str, settings: &Value) -> Vec<String> {
    vault.ask("POST", &format!("{engine}/keys/{name}"), settings.clone());
    let version = |number: usize| {
        let body = json!({ "plaintext": "bWVzc2FnZQ==", "context": CONTEXT });
        let answer = vault.ask("POST", &format!("{engine}/encrypt/{name}"), body);
        if number < 3 {
            vault.ask("POST", &format!("{engine}/keys/{name}/rotate"), json!({}));
        }
        answer["data"]["ciphertext"].as_str().expect("a text").to_owned()
    };
    (1..=3).map(version).collect()
}

/// The status of an answer to a request to decrypt; 200 means that the message was the right one.
fn opens(vault: &Admin, engine: &str, name: &str, ciphertext: &str) -> u16 {
    let body = json!({ "ciphertext": ciphertext, "context": CONTEXT });
    let answer = vault.send("POST", &format!("{engine}/decrypt/{name}"), None, &vault.token, &body);
    let (status, answer) = answer.expect("an answer");
    assert!(status != 200 || answer["data"]["plaintext"] == "bWVzc2FnZQ==", "{answer}");
    status
}

#[test]
#[ignore = "needs OpenBao"]
fn every_version_opens_in_the_enclave_afterwards_and_at_another_vault_again() {
    let sides = Sides::start();
    let mut all = Vec::new();
    for kind in ["aes256-gcm96", "aes128-gcm96", "chacha20-poly1305"] {
        for derived in [false, true] {
            let name = format!("{kind}.{derived}");
            let settings = json!({ "type": kind, "derived": derived });
            all.push((name.clone(), key(&sides.bao, &sides.engine, &name, &settings)));
        }
    }
    // One of which the Vault itself opens the first version no more, and one that was trimmed.
    let closed = json!({ "min_decryption_version": 2, "min_encryption_version": 3, "deletion_allowed": true });
    for name in ["aes256-gcm96.true", "aes128-gcm96.false"] {
        sides.bao.ask("POST", &format!("{}/keys/{name}/config", sides.engine), closed.clone());
    }
    let trim = format!("{}/keys/aes128-gcm96.false/trim", sides.engine);
    sides.bao.ask("POST", &trim, json!({ "min_available_version": 2 }));

    let report = sides.directory.path().join("report.json");
    let run = sides.bring(&["--yes", "--report", report.to_str().expect("text")]).ok();
    assert!(run.contains("Copied 6 keys, each proven"), "{run}");
    let report: Value = serde_json::from_slice(&std::fs::read(&report).expect("written")).expect("JSON");
    assert_eq!((&report["verdict"], report["keys"].as_array().map(Vec::len)), (&json!("complete"), Some(6)));
    for (name, ciphertexts) in &all {
        let is_closed = ["aes256-gcm96.true", "aes128-gcm96.false"].contains(&name.as_str());
        for (number, ciphertext) in (1..).zip(ciphertexts) {
            let status = opens(&sides.user, "transit", name, ciphertext);
            assert_eq!(status, if is_closed && number == 1 { 400 } else { 200 }, "{name} {number}");
            assert_eq!(status, opens(&sides.bao, &sides.engine, name, ciphertext), "{name} {number}");
        }
    }
    // What was closed and not trimmed is there still.
    let open = json!({ "min_decryption_version": 1, "min_encryption_version": 0 });
    sides.user.ask("POST", "transit/keys/aes256-gcm96.true/config", open);
    assert_eq!(opens(&sides.user, "transit", "aes256-gcm96.true", &all[1].1[0]), 200);
    let shown = sides.user.ask("GET", "transit/keys/aes128-gcm96.false", Value::Null);
    assert_eq!(
        (&shown["data"]["min_available_version"], &shown["data"]["deletion_allowed"]),
        (&json!(2), &json!(true))
    );

    // The way back.
    let back = unique("back");
    mount(&sides.bao, &back);
    sides.write("back.yml", &sides.section(&back));
    let run = sides.migrate(&["--from", "kms.yml", "--to", "back.yml"]);
    assert!(run.exit == Some(1) && run.stderr.contains("say '--yes'"), "{run:?}");
    let run = sides.migrate(&["--from", "kms.yml", "--to", "back.yml", "--yes"]).ok();
    assert!(run.contains("Copied 6 keys, each proven"), "{run}");
    for (name, ciphertexts) in &all {
        assert_eq!(opens(&sides.bao, &back, name, &ciphertexts[2]), 200, "{name}");
    }
    assert_eq!(opens(&sides.bao, &back, "aes256-gcm96.true", &all[1].1[0]), 200);
}

#[test]
#[ignore = "needs OpenBao"]
fn nothing_becomes_exportable_before_somebody_has_agreed() {
    let sides = Sides::start();
    key(&sides.bao, &sides.engine, "a", &json!({}));
    key(&sides.bao, &sides.engine, "b", &json!({ "exportable": true, "allow_plaintext_backup": true }));
    let closed = |sides: &Sides| sides.describe("a")["exportable"] == false && sides.in_enclave().is_empty();
    let run = sides.bring(&[]);
    assert_eq!(run.exit, Some(1), "{run:?}");
    for text in ["1 key will be EXPORTABLE", ": a\n", "say '--yes'"] {
        assert!(run.stderr.contains(text), "{text}: {run:?}");
    }
    assert!(closed(&sides));
    let run = sides.bring(&["--dry-run"]);
    assert!(run.exit == Some(0) && run.stderr.contains("1 key will be EXPORTABLE"), "{run:?}");
    assert!(run.stdout.contains("nothing was written, and no key was made exportable"), "{run:?}");
    assert!(closed(&sides));
    // One that is exportable already is asked nothing for.
    sides.bring(&["b"]).ok();
    assert_eq!(sides.in_enclave(), ["b"]);
    assert_eq!(sides.describe("a")["exportable"], false);
    for option in ["--force", "--no-verify"] {
        assert_eq!(sides.bring(&[option, "--yes"]).exit, Some(1), "{option}");
    }
    let verify =
        Program::named("claviger", sides.directory.path()).run(&["verify", "--from", "vault.yml", "--to", "kms.yml"]);
    assert!(verify.exit == Some(1) && verify.stderr.contains("by 'claviger migrate' only"), "{verify:?}");
}

#[test]
#[ignore = "needs OpenBao"]
fn keys_that_an_enclave_cannot_have_are_named_before_anything_is_written() {
    let sides = Sides::start();
    key(&sides.bao, &sides.engine, "good", &json!({}));
    let make = |name: &str, settings: Value| {
        sides.bao.ask("POST", &format!("{}/keys/{name}", sides.engine), settings);
    };
    make("signs", json!({ "type": "ed25519" }));
    make("wide", json!({ "type": "xchacha20-poly1305" }));
    make("same", json!({ "derived": true, "convergent_encryption": true }));
    make(&"n".repeat(81), json!({}));
    let run = sides.bring(&["--yes"]);
    assert_eq!(run.exit, Some(1), "{run:?}");
    for text in ["4 entries cannot be used", "'signs'", "ed25519", "'wide'", "'same'", "convergent", "up to 80"] {
        assert!(run.stderr.contains(text), "{text}: {run:?}");
    }
    assert!(sides.in_enclave().is_empty() && sides.describe("good")["exportable"] == false);
    sides.bring(&["--yes", "good"]).ok();
    assert_eq!(sides.in_enclave(), ["good"]);
    let excluded = ["signs", "wide", "same", "n*"].into_iter().flat_map(|name| ["--exclude", name]);
    let again: Vec<_> = ["--yes", "--merge"].into_iter().chain(excluded).collect();
    let run = sides.bring(&again).ok();
    assert!(run.contains("Copied 0 keys"), "{run}");
}

#[test]
#[ignore = "needs OpenBao"]
fn a_key_that_is_there_already_is_never_replaced() {
    let sides = Sides::start();
    let old = key(&sides.bao, &sides.engine, "same", &json!({}));
    key(&sides.bao, &sides.engine, "other", &json!({}));
    key(&sides.bao, &sides.engine, "new", &json!({}));
    sides.bring(&["--yes", "same"]).ok();
    sides.user.ask("POST", "transit/keys/other", json!({}));
    let run = sides.bring(&["--yes"]);
    assert!(run.exit == Some(1) && run.stderr.contains("other, same\nUse --merge"), "{run:?}");
    assert_eq!(sides.describe("new")["exportable"], false);
    let run = sides.bring(&["--yes", "--merge"]);
    assert_eq!(run.exit, Some(3), "{run:?}");
    assert!(run.stdout.contains("Copied 1 key,") && run.stderr.contains("1 key NOT copied"), "{run:?}");
    assert_eq!(sides.in_enclave(), ["new", "other", "same"]);
    assert_eq!(opens(&sides.user, "transit", "same", &old[0]), 200);
    // A key of the key manager's own kind stands in the way.
    let minkms = Program::named("minkms", sides.directory.path())
        .env("MINIO_KMS_SERVER", sides.door.server.address().to_string())
        .env("MINIO_KMS_API_KEY", root().expose())
        .env("MINIO_KMS_HSM_KEY", HSM)
        .env("MINIO_KMS_ENCLAVE", ENCLAVE);
    minkms.run(&["add-key", "own", "-k"]).ok();
    key(&sides.bao, &sides.engine, "own", &json!({}));
    let run = sides.bring(&["--yes", "own"]);
    assert!(run.exit == Some(1) && run.stderr.contains("not a transit key"), "{run:?}");
}

#[test]
#[ignore = "needs OpenBao"]
fn who_may_not_take_keys_out_of_the_enclave_is_told_before_anything_is_written() {
    let sides = Sides::start();
    key(&sides.bao, &sides.engine, "a", &json!({}));
    let admin = claviger::auth::enclave::ApiKey::generate().expect("random bytes");
    let request = CreateIdentityRequest {
        identity: admin.identity().to_string(),
        privilege: "Admin".into(),
        ..CreateIdentityRequest::default()
    };
    block_on(sides.door.root().change(ENCLAVE, Commands::one(Action::IdentityCreate, &request))).expect("made");
    sides.write("admin.yml", &sides.enclave(admin.expose()));
    let run = sides.migrate(&["--from", "vault.yml", "--to", "admin.yml", "--yes"]);
    assert!(run.exit == Some(1) && run.stderr.contains("only a system administrator may"), "{run:?}");
    assert_eq!(sides.describe("a")["exportable"], false);
    // A token without the rights is told which policy it needs.
    let token = sides.bao.ask("POST", "auth/token/create", json!({ "policies": ["default"] }));
    let mut section = sides.section(&sides.engine);
    section["keystore"]["transit"]["token"]["value"] = token["auth"]["client_token"].clone();
    sides.write("poor.yml", &section);
    let run = sides.migrate(&["--from", "poor.yml", "--to", "kms.yml", "--yes"]);
    assert!(run.exit == Some(1) && run.stderr.contains("it needs this policy"), "{run:?}");
}
