//! The directory of a key manager.

use super::directory::Directory;
use super::{Made, Wish, unit};
use crate::auth::enclave::ApiKey;
use crate::kms::seal::HsmKey;

pub(super) fn make(wish: &Wish, directory: &Directory) -> anyhow::Result<Made> {
    wish.certify(directory)?;
    directory.secret("hsm.key", format!("{}\n", *HsmKey::generate()?.expose()).as_bytes())?;
    let admin = ApiKey::generate()?;
    directory.secret("admin.api-key", format!("{}\n", admin.expose()).as_bytes())?;
    directory.file("claviger-kms.service", unit::key_manager(directory, &arguments(wish))?.as_bytes())?;
    directory.secret("kms.yml", config(wish, directory, &admin.identity().to_string()).as_bytes())?;
    Ok(made(wish, directory))
}

/// What the config of a key manager does not say.
fn arguments(wish: &Wish) -> String {
    format!("--address {} --host {}", wish.address, wish.endpoint())
}

fn config(wish: &Wish, directory: &Directory, admin: &str) -> String {
    format!(
        "\
# A key manager for object stores. docs/key-manager.md explains every setting. After a change, SIGHUP loads this file.
version: v1

# Who may do everything. The API key is in admin.api-key.
admin:
  identity: {admin}

# The server's certificate, for {hosts}. It is valid for a year.
tls:
  certs:
  - key: {path}/server.key
    cert: {path}/server.crt

# The key that seals all data. Keep a copy of it apart from this machine: without it the data is lost.
hsm:
  host:
    file: {path}/hsm.key
",
        hosts = wish.hosts(),
        path = directory.shown(),
    )
}

fn made(wish: &Wish, directory: &Directory) -> Made {
    let at = |name| directory.at(name);
    let files = [
        ("kms.yml", "the config, with comments"),
        ("server.crt, server.key", "the server's certificate, valid for a year, and its key"),
        ("hsm.key", "the key that seals all data"),
        ("admin.api-key", "the API key of the administrator"),
        ("claviger-kms.service", "a unit for systemd"),
    ];
    let start = format!("claviger kms server {} --config {} {}", at("data"), at("kms.yml"), arguments(wish));
    Made {
        files: files.map(|(file, what)| (file.to_owned(), what)).into(),
        keep: "Keep a copy of 'hsm.key' apart from this machine: without it the data cannot be read.",
        steps: vec![
            ("Start the server", vec![start]),
            (
                "Make an enclave and a key for the object store, and its environment",
                vec![
                    format!("export MINIO_KMS_SERVER={} SSL_CERT_FILE={}", wish.endpoint(), at("server.crt")),
                    format!("export MINIO_KMS_API_KEY=$(cat {})", at("admin.api-key")),
                    format!("claviger kms env {}", wish.key),
                ],
            ),
        ],
    }
}
