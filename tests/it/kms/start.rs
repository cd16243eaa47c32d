//! Starts that succeed, and starts that must not.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use claviger::auth::enclave::ApiKey;
use claviger::kms::seal::HsmKey;

use super::{HSM, client, create_enclave, create_key, keys, root};
use crate::support::program::Program;
use crate::support::server::PROGRAM;
use crate::support::{TestServer, block_on, eventually};

/// What the program says when it refuses to start.
pub(super) fn refusal(data: &Path, hsm_key: Option<&str>, args: &[&str]) -> String {
    let mut command = Command::new("timeout");
    command.args(["30", PROGRAM, "kms", "server"]).arg(data).args(["--address", "127.0.0.1:0"]).args(args);
    match hsm_key {
        Some(key) => command.env("MINIO_KMS_HSM_KEY", key),
        None => command.env_remove("MINIO_KMS_HSM_KEY"),
    };
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).expect("text")
}

/// A directory with data in it.
fn filled() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let server = TestServer::key_manager(directory.path(), HSM, &[]);
    block_on(async {
        let client = client(&server, &root());
        create_enclave(&client).await;
        create_key(&client, "my-key", false).await.expect("created");
    });
    assert!(server.stop().success());
    directory
}

pub(super) fn file(data: &Path) -> Vec<u8> {
    std::fs::read(data.join("claviger.kms")).expect("readable")
}

#[test]
fn data_is_there_again_after_a_restart_and_the_root_key_is_the_same() {
    let data = filled();
    let server = TestServer::key_manager(data.path(), HSM, &[]);
    assert_eq!(block_on(keys(&client(&server, &root()))), [("my-key".to_owned(), 1)]);
    let (said, audited) = (server.stderr(), server.stdout());
    assert!(said.contains(&format!("Admin       {}\n", root().identity())), "{said}");
    assert!(said.contains("'claviger kms identity --admin' shows its API key"), "{said}");
    assert!(!said.contains(root().expose()), "only a development server shows keys");
    assert!(audited.lines().all(|line| line.starts_with('{')), "standard output is for audit events alone: {audited}");
}

#[test]
fn the_administrators_api_key_is_shown_to_who_has_the_hsm_key() {
    let directory = tempfile::tempdir().expect("a directory");
    let shown = Program::named("minkms", directory.path()).env("MINIO_KMS_HSM_KEY", HSM).run(&["identity", "--admin"]);
    assert!(shown.stdout.contains(root().expose()), "{shown:?}");
    let refused = Program::named("minkms", directory.path()).run(&["identity", "--admin"]);
    assert!(refused.stderr.contains("MINIO_KMS_HSM_KEY is not set"), "{refused:?}");
}

#[test]
fn the_wrong_hsm_key_is_refused_and_nothing_is_touched() {
    let data = filled();
    let before = file(data.path());
    let other = HsmKey::generate().expect("random bytes").expose();
    let said = refusal(data.path(), Some(&other), &[]);
    assert!(said.contains("the HSM key in MINIO_KMS_HSM_KEY is not the one that sealed it"), "{said}");
    assert!(file(data.path()) == before, "the file was changed");
    TestServer::key_manager(data.path(), HSM, &[]);
}

#[test]
fn the_wrong_hsm_key_changes_no_byte_also_after_a_crash() {
    let data = tempfile::tempdir().expect("a directory");
    let server = TestServer::key_manager(data.path(), HSM, &[]);
    block_on(async {
        let client = client(&server, &root());
        create_enclave(&client).await;
        create_key(&client, "my-key", false).await.expect("created");
    });
    server.kill();
    let before = file(data.path());
    let other = HsmKey::generate().expect("random bytes").expose();
    for _ in 0..2 {
        let said = refusal(data.path(), Some(&other), &[]);
        assert!(said.contains("the HSM key in MINIO_KMS_HSM_KEY is not the one that sealed it"), "{said}");
        assert!(file(data.path()) == before, "the file was changed");
    }
    let server = TestServer::key_manager(data.path(), HSM, &[]);
    assert_eq!(block_on(keys(&client(&server, &root()))).len(), 1);
}

#[test]
fn an_empty_file_is_no_new_beginning() {
    let data = filled();
    std::fs::write(data.path().join("claviger.kms"), b"").expect("written");
    let said = refusal(data.path(), Some(HSM), &[]);
    assert!(said.contains("is damaged: it is empty") && said.contains("claviger kms restore FILE"), "{said}");
    assert_eq!(file(data.path()), b"");
}

#[test]
fn without_an_hsm_key_nothing_is_made() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    for (key, text) in [(None, "no HSM key: set MINIO_KMS_HSM_KEY"), (Some("hsm:aes256:x"), "not an HSM key")] {
        let said = refusal(&data, key, &[]);
        assert!(said.contains(text) && !said.contains("hsm:aes256:x"), "{said}");
        assert!(!data.exists());
    }
}

#[test]
fn a_changed_file_is_refused() {
    let data = filled();
    let path = data.path().join("claviger.kms");
    let whole = file(data.path());
    // Wherever the bytes of records are: each change is noticed, or was in a part of the file that is not in use.
    let mut refused = 0;
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        let mut changed = whole.clone();
        changed[at..whole.len().min(at + 64)].iter_mut().for_each(|byte| *byte ^= 0x55);
        if changed == whole {
            continue;
        }
        std::fs::write(&path, &changed).expect("written");
        refused += u32::from(!starts(data.path()));
    }
    assert!(refused > 0, "no change hit a record");
}

/// Whether a server starts with this data; when not, it must say why.
fn starts(data: &Path) -> bool {
    let mut command = Command::new(PROGRAM);
    command.args(["kms", "server"]).arg(data).args(["--address", "127.0.0.1:0"]).env("MINIO_KMS_HSM_KEY", HSM);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let mut said = Vec::new();
    for line in BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok) {
        if line.starts_with("=> Server is up") {
            child.kill().expect("it runs");
            child.wait().expect("our child");
            return true;
        }
        said.push(line);
    }
    let status = child.wait().expect("it ends");
    assert!(status.code() == Some(1) && said.iter().any(|line| line.starts_with("Error: ")), "{said:?}");
    false
}

#[test]
fn two_servers_do_not_share_data() {
    let data = tempfile::tempdir().expect("a directory");
    let _first = TestServer::key_manager(data.path(), HSM, &[]);
    let said = refusal(data.path(), Some(HSM), &[]);
    assert!(said.contains("another process has it open"), "{said}");
}

#[test]
fn an_administrator_of_the_config_takes_the_place_of_the_root_key() {
    let data = filled();
    let config = data.path().join("kms.yml");
    let admin = ApiKey::generate().expect("random bytes");
    std::fs::write(&config, format!("version: v1\nadmin: {{ identity: {} }}\n", admin.identity())).expect("written");
    let server = TestServer::key_manager(data.path(), HSM, &["--config", config.to_str().expect("text")]);
    assert!(!server.stderr().contains("API key"), "{}", server.stderr());
    block_on(async {
        assert_eq!(keys(&client(&server, &admin)).await.len(), 1);
        let refused = create_key(&client(&server, &root()), "x", false).await;
        assert_eq!(refused.expect_err("no longer").status().map(|status| status.as_u16()), Some(403));
    });
}

#[test]
fn a_second_hsm_key_takes_the_place_of_the_first() {
    let data = filled();
    let second = HsmKey::generate().expect("random bytes").expose();
    let admin = ApiKey::generate().expect("random bytes");
    std::fs::write(data.path().join("second.hsm"), second.as_bytes()).expect("written");
    let config = data.path().join("kms.yml");
    let key_file = data.path().join("second.hsm");
    let text = format!(
        "version: v1\nadmin: {{ identity: {} }}\nhsm: {{ second: {{ file: {} }} }}\n",
        admin.identity(),
        key_file.display()
    );
    std::fs::write(&config, text).expect("written");
    let args = ["--config", config.to_str().expect("text")];
    let server = TestServer::key_manager(data.path(), HSM, &args);
    block_on(async {
        let client = client(&server, &admin);
        for (action, name) in
            [(claviger::kms::Action::ClusterAddHsm, "second"), (claviger::kms::Action::ClusterRemoveHsm, "env")]
        {
            let request = claviger::kms::wire::HsmRequest { name: name.into(), overwrite: false };
            client.change("", claviger::client::kms::Commands::one(action, &request)).await.expect(name);
        }
    });
    assert!(server.stop().success());
    let said = refusal(data.path(), Some(HSM), &[]);
    assert!(said.contains("sealed with 'second'"), "{said}");
    // An empty variable is none: the second key alone.
    let server = TestServer::key_manager(data.path(), "", &args);
    assert_eq!(block_on(keys(&client(&server, &admin))).len(), 1);
}

#[test]
fn a_certificate_is_made_once_and_a_new_one_taken_up() {
    let data = tempfile::tempdir().expect("a directory");
    let server = TestServer::key_manager(data.path(), HSM, &["--host", "kms.example:7373"]);
    let certificate = std::fs::read(data.path().join("server.crt")).expect("made");
    server.says("Host        https://kms.example:7373\n");
    std::fs::copy(crate::support::certs("server.key"), data.path().join("server.key")).expect("copied");
    std::fs::copy(crate::support::certs("server.crt"), data.path().join("server.crt")).expect("copied");
    eventually("the certificate is loaded", || server.stderr().contains("TLS files changed and were loaded"));
    assert!(server.stop().success());
    std::fs::write(data.path().join("server.crt"), &certificate).expect("written");
    assert!(refusal(data.path(), Some(HSM), &[]).contains("does not match the certificate"));
}
