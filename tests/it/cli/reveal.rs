//! `key reveal`: the way out, for a server that takes one raw key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::support::door::{self, ENCLAVE, door_config, root};
use crate::support::program::Program;
use crate::support::server::{copy_fixture, fixture_config};
use crate::support::terminal::{Terminal, plain};
use crate::support::{Client, TestServer, block_on, eventually};

fn program(directory: &std::path::Path) -> Program {
    Program::named("claviger", directory)
}

/// A directory with the fixture's keys, and a config that has nothing but their store.
fn store() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    copy_fixture(directory.path());
    std::fs::write(directory.path().join("store.yml"), "keystore: { fs: { path: keys } }\n").expect("written");
    directory
}

const REVEAL: [&str; 7] = ["key", "reveal", "my-key", "--config", "store.yml", "--as", "static"];

#[test]
fn a_revealed_key_decrypts_what_the_key_has_encrypted() {
    let directory = store();
    let shown = program(directory.path()).run(&[&REVEAL[..], &["--yes"]].concat());
    assert_eq!(shown.exit, Some(0), "{shown:?}");
    let (said, key) = (&shown.stderr, shown.stdout.trim_end());
    assert!(said.contains("\"command\":\"key reveal\"") && said.contains("\"key\":\"my-key\""), "{said}");
    assert!(said.contains("Warning: the key's HMAC key stays here"), "{said}");
    let (name, bytes) = key.split_once(':').expect("a name and a key");
    assert_eq!(name, "my-key");
    assert!(!said.contains(bytes), "the key is on standard output only");
    assert_eq!(STANDARD.decode(bytes).expect("base64").len(), 32);
    let bare = program(directory.path()).run(&[&REVEAL[..6], &["rustfs", "--yes"]].concat());
    assert_eq!(bare.stdout.trim_end(), bytes);
    // The proof: a server with the key in its config.
    let whole = TestServer::fixture();
    let alone = TestServer::with_config(&fixture_config(|config| {
        config.replace("keystore:\n  fs:\n    path: keys", &format!("keystore:\n  static:\n    key: {key}"))
    }));
    block_on(async {
        let (whole, alone) = (Client::fixture(whole.address(), "admin"), Client::fixture(alone.address(), "admin"));
        let made = whole.put_json("/v1/key/generate/my-key", &json!({ "context": "YQ==" })).await.json();
        let body = json!({ "ciphertext": made["ciphertext"], "context": "YQ==" });
        assert_eq!(alone.put_json("/v1/key/decrypt/my-key", &body).await.json()["plaintext"], made["plaintext"]);
    });
}

#[test]
fn a_key_of_an_enclave_is_revealed_to_a_system_administrator() {
    let server = door::empty(&door_config(|config| config));
    block_on(door::fill(&server, &server.keys()));
    let certificate = server.directory().join("data/server.crt");
    let section = json!({ "keystore": { "kms": {
        "endpoint": [server.key_manager_address().to_string()],
        "enclave": ENCLAVE,
        "api_key": root().expose(),
        "tls": { "ca": certificate },
    } } });
    let directory = store();
    std::fs::write(directory.path().join("enclave.yml"), section.to_string()).expect("written");
    let of_store = program(directory.path()).run(&[&REVEAL[..], &["--yes"]].concat()).ok();
    let of_enclave =
        program(directory.path()).run(&["key", "reveal", "my-key", "--config", "enclave.yml", "--as", "static", "-y"]);
    assert_eq!(of_enclave.stdout, of_store, "{of_enclave:?}");
    let exported = || server.stdout().contains("KEY:EXPORT");
    eventually("the key manager's audit log has it", exported);
}

#[test]
fn without_a_terminal_or_a_flag_or_with_another_name_nothing_is_revealed() {
    let directory = store();
    let refused = program(directory.path()).run(&REVEAL);
    assert_eq!((refused.exit, refused.stdout.as_str()), (Some(1), ""), "{refused:?}");
    assert!(refused.stderr.contains("say '--yes'"), "{}", refused.stderr);
    let missing = program(directory.path()).run(&[
        "key",
        "reveal",
        "nowhere",
        "--config",
        "store.yml",
        "--as",
        "static",
        "--yes",
    ]);
    assert!(missing.stderr.contains("failed to read key \"nowhere\""), "{missing:?}");
    let versions = program(directory.path()).run(&[&REVEAL[..], &["--yes", "--version", "3"]].concat());
    assert!(versions.stderr.contains("has no version 3"), "{versions:?}");
    for (answer, status) in [("y", 1), ("my-key", 0)] {
        let line: Vec<_> = REVEAL.iter().map(|word| (*word).to_owned()).collect();
        let program = program(directory.path());
        let mut terminal = Terminal::start(&program, &line);
        eventually("it asks", || terminal.output().contains("Type the name of the key"));
        terminal.type_keys(&format!("{answer}\n"));
        let (output, exit) = terminal.wait();
        assert_eq!(exit, Some(status), "{}", plain(&output));
        assert_eq!(plain(&output).contains("my-key:"), status == 0, "{}", plain(&output));
    }
}
