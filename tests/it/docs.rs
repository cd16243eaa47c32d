//! The examples in `docs/` are run: each document in a directory of its own, beside a development server.

use std::path::Path;
use std::sync::Arc;

use crate::support::TestServer;
use crate::support::certs;
use crate::support::console;
use crate::support::dynamodb::DynamoDb;
use crate::support::etcd::Etcd;
use crate::support::moto::Moto;
use crate::support::openbao::{OpenBao, unique};
use crate::support::server::PROGRAM;

#[test]
fn cli() {
    run("docs/cli.md");
}

#[test]
fn kes_clients() {
    run("docs/kes-clients.md");
}

#[test]
#[ignore = "runs nginx and HAProxy: tests/run"]
fn connecting_an_object_store() {
    run("docs/connect.md");
}

/// The picture of the README is what the program prints.
#[test]
fn the_picture_is_drawn_from_the_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let drawn = std::process::Command::new(root.join("docs/terminal")).arg(PROGRAM).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    assert!(drawn.status.success(), "{}", text(drawn.stderr));
    let file = root.join("docs/terminal.svg");
    let (drawn, kept) = (text(drawn.stdout), std::fs::read_to_string(&file).expect("the picture"));
    assert!(
        drawn == kept,
        "docs/terminal.svg differs; 'docs/terminal PROGRAM >docs/terminal.svg' draws it anew:\n{drawn}"
    );
}

#[test]
#[ignore = "runs etcd: tests/run"]
fn cluster() {
    let etcd = Etcd::start(3, &[]);
    let [first, second, third] = etcd.endpoints().try_into().expect("three members");
    let file = |name| certs(name).display().to_string();
    let variables = [
        ("MINIO_KMS_HSM_KEY", crate::kms::HSM.to_owned()),
        ("ETCDCTL_API", "3".into()),
        ("ETCDCTL_ENDPOINTS", etcd.endpoints().join(",")),
        ("ETCDCTL_CACERT", file("ca.crt")),
        ("ETCDCTL_CERT", file("admin.crt")),
        ("ETCDCTL_KEY", file("admin.key")),
        ("ROOT_PASSWORD", unique("root")),
        ("ETCD_1", first),
        ("ETCD_2", second),
        ("ETCD_3", third),
        ("ETCD_CA", file("ca.crt")),
        ("ETCD_CERT", file("app.crt")),
        ("ETCD_KEY", file("app.key")),
        ("ETCD_PASSWORD", unique("password")),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value)).into();
    run_with_variables("docs/cluster.md", variables);
}

#[test]
#[ignore = "runs openssl: tests/run"]
fn key_manager() {
    let hsm_key = "hsm:aes256:KioqKioqKioqKioqKioqKioqKioqKioqKioqKioqKio=";
    let variables = vec![("MINIO_KMS_HSM_KEY".to_owned(), hsm_key.to_owned())];
    run_beside("docs/key-manager.md", variables, &TestServer::key_manager_dev(hsm_key));
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn migration() {
    run_beside_peers("docs/migration.md");
}

#[test]
#[ignore = "runs curl: tests/run"]
fn vault_clients() {
    let door = crate::vault::door::Door::start(", enclave: main, kv: secret");
    let address = format!("https://{}", door.server.address());
    let ca = crate::support::certs("ca.crt").display().to_string();
    let variables = [
        ("MINIO_KMS_SERVER", address),
        ("MINIO_KMS_API_KEY", crate::kms::root().expose().to_owned()),
        ("SSL_CERT_FILE", ca.clone()),
        ("VAULT_CACERT", ca),
        ("VAULT_ADDR", format!("https://{}", door.address)),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value)).into();
    run_with_variables("docs/vault-clients.md", variables);
}

#[test]
fn operation() {
    run("docs/operation.md");
}

#[test]
fn replacing_a_kes() {
    run("docs/replace-kes.md");
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn sealing() {
    run_beside_peers("docs/sealing.md");
}

/// With a Vault of its own, with AWS, and with etcd.
fn run_beside_peers(document: &str) {
    let (bao, moto, etcd) = (OpenBao::start(), Arc::new(Moto::start()), Etcd::shared());
    let table = DynamoDb::new(moto.clone()).table;
    let [first, second, third] = etcd.endpoints().try_into().expect("three members");
    let file = |name| certs(name).display().to_string();
    let path = format!("{}:{}", OpenBao::directory().display(), std::env::var("PATH").expect("there is one"));
    let variables = [
        ("BAO_ADDR", bao.endpoint()),
        ("BAO_TOKEN", bao.token.clone()),
        ("VAULT_ADDR", bao.endpoint()),
        ("VAULT_TOKEN", bao.token.clone()),
        ("KMS_KEY", moto.kms_key()),
        ("KMS_ENDPOINT", moto.endpoint()),
        ("AWS_ENDPOINT", moto.endpoint()),
        ("AWS_ACCESS_KEY_ID", "anybody".into()),
        ("AWS_SECRET_ACCESS_KEY", "whatever".into()),
        ("DYNAMODB_TABLE", table),
        ("ETCD_1", first),
        ("ETCD_2", second),
        ("ETCD_3", third),
        ("ETCD_PREFIX", format!("{}/", unique("docs"))),
        ("ETCD_CA", file("ca.crt")),
        ("ETCD_CERT", file("app.crt")),
        ("ETCD_KEY", file("app.key")),
        ("PATH", path),
    ];
    run_with(document, variables.map(|(name, value)| (name.to_owned(), value)).into());
}

fn run(document: &str) {
    run_with(document, Vec::new());
}

fn run_with(document: &str, variables: Vec<(String, String)>) {
    run_beside(document, variables, &TestServer::dev());
}

fn run_beside(document: &str, variables: Vec<(String, String)>, server: &TestServer) {
    run_with_variables(document, [exports(server), variables].concat());
}

fn run_with_variables(document: &str, variables: Vec<(String, String)>) {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).expect(document);
    let steps = console::of_markdown(&text);
    assert!(!steps.is_empty(), "{document} has no examples");
    let directory = tempfile::tempdir().expect("a directory");
    for (name, content) in console::files(&text) {
        std::fs::write(directory.path().join(name), content).expect("the file is written");
    }
    let outputs = console::run(&steps, directory.path(), &variables);
    let failures: Vec<_> = steps
        .iter()
        .zip(&outputs)
        .filter(|(step, output)| !console::matches(&step.output, output))
        .map(|(step, output)| format!("$ {}\n{output}--- instead of\n{}", step.command, step.output))
        .collect();
    assert!(
        failures.is_empty(),
        "{document}: {} of {} examples differ:\n{}",
        failures.len(),
        steps.len(),
        failures.join("\n")
    );
}

/// The variables that a development server tells people to set.
fn exports(server: &TestServer) -> Vec<(String, String)> {
    crate::support::eventually("the server says what to set", || server.stderr().contains("export SSL_CERT_FILE="));
    let said = server.stderr();
    let exports = said.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
    exports.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
