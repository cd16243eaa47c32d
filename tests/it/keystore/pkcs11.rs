//! `keystore.encrypt.pkcs11` and `hsm: { NAME: { pkcs11: … } }`: keys that never leave a token. The token is the real
//! SoftHSM.

use std::path::Path;
use std::process::Command;

use claviger::auth::enclave::ApiKey;
use claviger::client::kms::Commands;
use claviger::kms::Action;
use claviger::kms::wire::HsmRequest;
use serde_json::{Value, json};

use super::{admin, ask, wait_for_log};
use crate::kms::{HSM, client, create_enclave, create_key, keys, root};
use crate::support::program::Program;
use crate::support::server::{PROGRAM, dev_config};
use crate::support::softhsm::{MODULE, PIN, SoftHsm};
use crate::support::{TestServer, block_on};

/// Logs the calls of a module, and passes them on.
const SPY: &str = "/usr/lib/x86_64-linux-gnu/pkcs11/pkcs11-spy.so";

/// A config of a server that forgets keys at once.
fn config(keys: &Path, encrypt: &Value) -> String {
    let store = json!({ "fs": { "path": keys }, "encrypt": encrypt });
    let text = dev_config("").replace("{ fs: { path: keys } }", &store.to_string());
    format!("cache: {{ expiry: {{ any: 1ms, unused: 1ms }} }}\n{text}")
}

fn command(hsm: &SoftHsm) -> Command {
    let mut command = Command::new(PROGRAM);
    let (name, value) = hsm.env();
    command.env(name, value);
    command
}

fn serve(hsm: &SoftHsm, keys: &Path, encrypt: &Value) -> TestServer {
    let directory = tempfile::tempdir().expect("a directory");
    TestServer::start_under(command(hsm), directory, &config(keys, encrypt))
}

/// What `doctor` says, and whether it is content.
fn doctor(hsm: &SoftHsm, config: &str) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("config.yml"), config).expect("written");
    let (name, value) = hsm.env();
    let program = Program::named("claviger", directory.path()).env(name, value);
    let outcome = program.run(&["doctor", "--config", "config.yml"]);
    assert!(!format!("{outcome:?}").contains("hunter"), "{outcome:?}");
    (outcome.exit, outcome.stdout)
}

fn with(key: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut section = SoftHsm::section(key);
    change(&mut section["pkcs11"]);
    section
}

#[test]
#[ignore = "runs SoftHSM: tests/run"]
fn a_key_that_never_leaves_its_token_seals_the_keys_of_a_store() {
    let hsm = SoftHsm::new();
    hsm.key("seal", "AES:32", &["--sensitive"]);
    hsm.key("other", "AES:32", &["--sensitive"]);
    let keys = tempfile::tempdir().expect("a directory");
    let server = serve(&hsm, keys.path(), &SoftHsm::section("seal"));
    assert!(!server.stderr().contains("extractable"), "{}", server.stderr());
    block_on(async {
        let session = admin(&server).session().await.expect("connects");
        let create = |index: usize| {
            let session = session.another();
            async move { ask(&session, "PUT", &format!("/v1/key/create/key-{index}")).await }
        };
        // More at a time than the token has sessions for us.
        let made = futures_util::future::join_all((0..40).map(create)).await;
        assert!(made.iter().all(|answer| answer.0 == 200), "{made:?}");
        assert_eq!(ask(&session, "GET", "/v1/key/describe/key-7").await.0, 200);
    });
    let stored = std::fs::read_to_string(keys.path().join("key-7")).expect("a sealed key");
    assert!(stored.contains("\"provider\":\"pkcs11\",\"key\":\"seal\""), "{stored}");
    // A value is bound to its name.
    std::fs::copy(keys.path().join("key-7"), keys.path().join("moved")).expect("copied");
    block_on(async {
        let session = admin(&server).session().await.expect("connects");
        assert_eq!(ask(&session, "GET", "/v1/key/describe/moved").await.0, 502);
        assert_eq!(ask(&session, "GET", "/v1/key/describe/key-7").await.0, 200);
    });
    wait_for_log(&server, &["not authentic"]);
    std::fs::remove_file(keys.path().join("moved")).expect("removed");
    assert!(server.stop().success());

    let (exit, said) = doctor(&hsm, &config(keys.path(), &SoftHsm::section("seal")));
    assert!(said.contains("40 keys, all sealed by the pkcs11 key seal"), "{exit:?} {said}");
    assert!(!said.contains("seal.risk"), "{said}");

    // By the number of its slot, and with the PIN in a file.
    let file = keys.path().parent().expect("a directory").join(format!("pin-{}", std::process::id()));
    std::fs::write(&file, format!("{PIN}\n")).expect("written");
    let by_slot = with("seal", |section| {
        section.as_object_mut().expect("a section").remove("token");
        section["slot"] = json!(hsm.slot());
        section["pin"] = json!({ "file": file });
    });
    let server = serve(&hsm, keys.path(), &by_slot);
    block_on(async {
        let session = admin(&server).session().await.expect("connects");
        assert_eq!(ask(&session, "GET", "/v1/key/describe/key-7").await.0, 200);
    });
    std::fs::remove_file(&file).expect("removed");

    // Another key of the same token opens nothing.
    let server = serve(&hsm, keys.path(), &SoftHsm::section("other"));
    block_on(async {
        let session = admin(&server).session().await.expect("connects");
        assert_eq!(ask(&session, "GET", "/v1/key/describe/key-7").await.0, 502);
    });
    wait_for_log(&server, &["sealed by the pkcs11 key seal"]);
}

#[test]
#[ignore = "runs SoftHSM: tests/run"]
fn what_is_wrong_with_a_token_is_said_with_its_place() {
    let hsm = SoftHsm::new();
    hsm.key("seal", "AES:32", &["--sensitive"]);
    hsm.key("twice", "AES:32", &["--sensitive"]);
    hsm.key("twice", "AES:32", &["--sensitive"]);
    hsm.key("no-aes", "GENERIC:32", &["--sensitive"]);
    let keys = tempfile::tempdir().expect("a directory");
    let no_module = keys.path().join("config.yml");
    let cases: [(Value, &str); 8] = [
        (with("seal", |section| section["token"] = json!("nowhere")), "there is no such token; plug it in"),
        (with("seal", |section| section["token"] = json!("nowhere")), "There is 'claviger' in slot"),
        (
            with("seal", |section| {
                section.as_object_mut().expect("a section").remove("token");
                section["slot"] = json!(999_999);
            }),
            "token in slot 999999, key 'seal': there is no such token",
        ),
        (with("missing", |_| {}), "key 'missing': there is no secret key with this label"),
        (with("twice", |_| {}), "the token has 2 secret keys with this label"),
        (with("no-aes", |_| {}), "the key is no AES key"),
        (with("seal", |section| section["module"] = json!("/usr/lib/nowhere.so")), "the module cannot be read"),
        (with("seal", |section| section["module"] = json!("/etc/passwd")), "the module cannot be used"),
    ];
    std::fs::write(&no_module, "").expect("written");
    for (section, expected) in cases {
        let (exit, said) = doctor(&hsm, &config(keys.path(), &section));
        assert!(exit != Some(0) && said.contains(expected), "{expected}: {said}");
        assert!(said.contains("PKCS#11 module '") || said.contains("module"), "{said}");
    }
}

#[test]
#[ignore = "runs SoftHSM: tests/run"]
fn a_wrong_pin_is_tried_once() {
    let hsm = SoftHsm::new();
    hsm.key("seal", "AES:32", &["--sensitive"]);
    let directory = tempfile::tempdir().expect("a directory");
    let wrong = with("seal", |section| {
        section["pin"] = json!({ "value": "hunter3hunter3" });
        section["module"] = json!(SPY);
    });
    let calls = directory.path().join("calls");
    std::fs::write(directory.path().join("config.yml"), config(directory.path(), &wrong)).expect("written");
    let (name, value) = hsm.env();
    let program = Program::named("claviger", directory.path()).env(name, value).env("PKCS11SPY", MODULE);
    let program = program.env("PKCS11SPY_OUTPUT", calls.display().to_string());
    let logins = || std::fs::read_to_string(&calls).expect("the calls").matches("C_Login\n").count();

    let outcome = program.run(&["server", "--config", "config.yml", "--addr", "127.0.0.1:0"]);
    assert!(outcome.exit.is_some_and(|exit| exit != 0), "{outcome:?}");
    let said = &outcome.stderr;
    assert!(said.contains("key 'seal': the token refuses the PIN") && said.contains("is not tried again"), "{said}");
    assert!(!said.contains("hunter"), "{said}");
    assert_eq!(logins(), 1, "{}", std::fs::read_to_string(&calls).expect("the calls"));

    // `doctor` opens the store, and then looks at its seals.
    let outcome = program.run(&["doctor", "--config", "config.yml"]);
    assert!(outcome.stdout.contains("the token refuses the PIN"), "{outcome:?}");
    assert_eq!(logins(), 2);

    // A key manager starts with another key, and says what is wrong with this one.
    let config = json!({ "version": "v1", "hsm": { "first": wrong, "second": wrong } });
    std::fs::write(directory.path().join("kms.yml"), config.to_string()).expect("written");
    let outcome = program.run(&["doctor", "--config", "kms.yml"]);
    assert!(
        outcome.stdout.contains("hsm.first: ") && outcome.stdout.contains("has refused this PIN before"),
        "{outcome:?}"
    );
    assert_eq!(logins(), 3);
}

#[test]
#[ignore = "runs SoftHSM: tests/run"]
fn a_key_that_could_leave_its_token_is_warned_of() {
    let hsm = SoftHsm::new();
    hsm.key("loose", "AES:16", &["--extractable"]);
    let keys = tempfile::tempdir().expect("a directory");
    let server = serve(&hsm, keys.path(), &SoftHsm::section("loose"));
    for warning in ["'loose' is extractable", "'loose' is not sensitive", "has 128 bits only"] {
        wait_for_log(&server, &[warning]);
    }
    let (_, said) = doctor(&hsm, &config(keys.path(), &SoftHsm::section("loose")));
    assert!(said.contains("seal.risk") && said.contains("'loose' is extractable"), "{said}");
}

#[test]
#[ignore = "runs SoftHSM: tests/run"]
fn a_token_that_is_pulled_is_an_outage_that_ends_when_it_is_back() {
    let hsm = SoftHsm::new();
    hsm.key("seal", "AES:32", &["--sensitive"]);
    let keys = tempfile::tempdir().expect("a directory");
    let away = hsm.tokens().with_extension("away");
    let server = serve(&hsm, keys.path(), &SoftHsm::section("seal"));
    let answer = |target: &str| {
        block_on(async {
            let session = admin(&server).session().await.expect("connects");
            let method = if target.contains("create") { "PUT" } else { "GET" };
            ask(&session, method, target).await
        })
    };
    assert_eq!(answer("/v1/key/create/key").0, 200);
    std::fs::rename(hsm.tokens(), &away).expect("pulled");
    assert_eq!(answer("/v1/key/describe/key").0, 503);
    assert_eq!(answer("/v1/key/create/other").0, 503);
    wait_for_log(&server, &["key 'seal'", "token 'claviger'", MODULE]);
    std::fs::rename(&away, hsm.tokens()).expect("plugged in");
    crate::support::eventually("the token is used again", || answer("/v1/key/describe/key").0 == 200);
    assert_eq!(answer("/v1/key/create/another").0, 200);
}

#[test]
#[ignore = "runs SoftHSM: tests/run"]
fn a_token_seals_the_root_key_of_a_key_manager() {
    let hsm = SoftHsm::new();
    hsm.key("root", "AES:32", &["--sensitive"]);
    let directory = tempfile::tempdir().expect("a directory");
    let (data, file) = (directory.path().join("data"), directory.path().join("kms.yml"));
    let api_key = ApiKey::generate().expect("random bytes");
    let token = json!({ "version": "v1", "hsm": { "token": SoftHsm::section("root") } });
    std::fs::write(&file, token.to_string()).expect("written");
    let start = |hsm_key: Option<&str>| {
        let mut command = command(&hsm);
        command.envs(hsm_key.map(|key| ("MINIO_KMS_HSM_KEY", key)));
        let args = ["kms", "server", data.to_str().expect("UTF-8"), "--address", "127.0.0.1:0", "--config"];
        let args = [&args[..], &[file.to_str().expect("UTF-8")]].concat();
        TestServer::launch_under(command, tempfile::tempdir().expect("a directory"), &args)
    };
    // All that the config names seal a new root key.
    let server = start(Some(HSM));
    block_on(async {
        let client = client(&server, &root());
        create_enclave(&client).await;
        create_key(&client, "before", false).await.expect("created");
    });
    assert!(server.stop().success());

    let mut alone = token.clone();
    alone["admin"] = json!({ "identity": api_key.identity().to_string() });
    std::fs::write(&file, alone.to_string()).expect("written");
    let server = start(Some(HSM));
    block_on(async {
        let request = HsmRequest { name: "env".into(), overwrite: false };
        let client = client(&server, &api_key);
        client.change("", Commands::one(Action::ClusterRemoveHsm, &request)).await.expect("changed");
    });
    assert!(server.stop().success());
    let server = start(None);
    block_on(async { assert_eq!(keys(&client(&server, &api_key)).await, [("before".to_owned(), 1)]) });
    assert!(server.stop().success());

    let (_, said) = doctor(&hsm, &alone.to_string());
    assert!(said.contains("hsm.token") && said.contains("opens what it seals"), "{said}");
    std::fs::rename(hsm.tokens(), hsm.tokens().with_extension("away")).expect("pulled");
    let (exit, said) = doctor(&hsm, &alone.to_string());
    assert!(exit != Some(0) && said.contains("token 'claviger', key 'root'"), "{said}");
}
