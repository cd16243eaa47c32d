//! The directory of a key server.

use anyhow::Context as _;

use super::directory::Directory;
use super::unit;
use super::{Host, Made, Wish};
use crate::auth::api_key::ApiKey;
use crate::clock;
use crate::crypto::{Algorithm, Key};
use crate::keystore::{KeyStore as _, fs};

/// What the object store's identity may do.
const ALLOWED: [&str; 5] =
    ["/v1/key/create/*", "/v1/key/generate/*", "/v1/key/decrypt/*", "/v1/key/list/*", "/v1/status"];

pub(super) fn make(wish: &Wish, directory: &Directory) -> anyhow::Result<Made> {
    wish.certify(directory)?;
    let (admin, store) = (ApiKey::generate()?, ApiKey::generate()?);
    directory.secret("admin.api-key", format!("{}\n", *admin.expose()).as_bytes())?;
    directory.secret("object-store.api-key", format!("{}\n", *store.expose()).as_bytes())?;
    let (admin, store) = (admin.identity().to_string(), store.identity().to_string());
    create_key(wish, directory, &admin)?;
    directory.file("claviger.service", unit::server(directory)?.as_bytes())?;
    directory.secret("config.yml", config(wish, directory, &admin, &store).as_bytes())?;
    Ok(made(wish, directory))
}

/// The first key. Without one, nobody could tell a new place from one whose keys are lost.
fn create_key(wish: &Wish, directory: &Directory, admin: &str) -> anyhow::Result<()> {
    let key = Key::generate(Algorithm::preferred(), clock::now(), admin)?;
    let config = fs::Config { path: directory.path("keys") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let create = async {
        let store = fs::Store::open(&config).await?;
        store.create(&wish.key, &key.encode()).await
    };
    runtime.block_on(create).with_context(|| format!("failed to create the key '{}'", wish.key))
}

fn config(wish: &Wish, directory: &Directory, admin: &str, store: &str) -> String {
    let path = directory.shown();
    let renew = wish.hosts.iter().map(|host| match host {
        Host::Name(name) => format!(" --dns {name}"),
        Host::Ip(ip) => format!(" --ip {ip}"),
    });
    let renew: String = renew.collect();
    let allowed: String = ALLOWED.iter().map(|path| format!("    - {path}\n")).collect();
    format!(
        "\
# A key server for object stores. docs/configuration.md explains every setting. After a change, SIGHUP loads this file.

# Where the server listens.
address: {address}

# Who may do everything. The API key is in admin.api-key.
admin:
  identity: {admin}

# The server's certificate, for {hosts}. It is valid for a year. This makes another, which the server takes up by itself:
#   claviger identity new --force --key {path}/server.key --cert {path}/server.crt{renew}
tls:
  key: {path}/server.key
  cert: {path}/server.crt

# Everybody may ask whether the server is ready: health checks have no identity.
api:
  /v1/ready:
    skip_auth: true

# What the object store may do. Its API key is in object-store.api-key.
policy:
  object-store:
    allow:
{allowed}    identities:
    - {store}

# How long keys that are in memory serve while the key store does not answer.
cache:
  expiry:
    offline: 24h

# Where keys are kept: a directory with a file for each. Back it up: without it nothing can be decrypted.
# docs/keystores.md has other places, such as Vault and AWS Secrets Manager.
keystore:
  fs:
    path: {path}/keys
",
        address = wish.address,
        hosts = wish.hosts(),
    )
}

fn made(wish: &Wish, directory: &Directory) -> Made {
    let (endpoint, at) = (wish.endpoint(), |name| directory.at(name));
    let files = [
        ("config.yml".to_owned(), "the config, with comments"),
        ("server.crt, server.key".to_owned(), "the server's certificate, valid for a year, and its key"),
        ("admin.api-key".to_owned(), "the API key of the administrator"),
        ("object-store.api-key".to_owned(), "the API key of the object store"),
        (format!("keys/{}", wish.key), "the key that the object store encrypts with"),
        ("claviger.service".to_owned(), "a unit for systemd"),
    ];
    Made {
        files: files.into(),
        keep: "Back up the directory 'keys', now and after each new key: without it nothing can be decrypted.",
        steps: vec![
            ("Start the server", vec![format!("claviger server --config {}", at("config.yml"))]),
            (
                "Look at it as the administrator",
                vec![
                    format!("export MINIO_KES_SERVER={endpoint} SSL_CERT_FILE={}", at("server.crt")),
                    format!("claviger status --api-key-file {}", at("admin.api-key")),
                ],
            ),
            (
                "The environment of the object store",
                vec![
                    format!("export MINIO_KMS_KES_ENDPOINT=https://{endpoint}"),
                    format!("export MINIO_KMS_KES_API_KEY=$(cat {})", at("object-store.api-key")),
                    format!("export MINIO_KMS_KES_KEY_NAME={}", wish.key),
                    format!("export MINIO_KMS_KES_CAPATH={}", at("server.crt")),
                ],
            ),
        ],
    }
}
