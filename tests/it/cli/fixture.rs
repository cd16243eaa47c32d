//! What the recorded command lines met: a server with some keys and policies, and files of its clients.

use std::fs;
use std::path::Path;

use claviger::auth::api_key::ApiKey;
use pem::{EncodeConfig, LineEnding, Pem};

use crate::support::program::Program;
use crate::support::server::TestServer;
use crate::support::testdata;

pub const ADMIN: &str = "kes:v1:APWOEO3b+TgLV0YF4iLYUz77xsFV7hOc68d03sEDNPxo";
pub const APP: &str = "kes:v1:AAZoP+hpzPkhHOCCi5Jbw/6rlzzwM1cXDNVvHQKh494u";

/// The server, whose directory is `<dir>` of the recordings.
pub struct Fixture {
    server: TestServer,
}

impl Fixture {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for file in ["server.key", "server.crt"] {
            fs::copy(testdata("http/fixture").join(file), directory.path().join(file)).expect("the fixture's file");
        }
        write_client(directory.path(), "admin", ADMIN);
        write_client(directory.path(), "app", APP);
        write_keys(&directory.path().join("keys"));
        let server = TestServer::start_in(directory, &config());
        // A second server with this config finds the address taken.
        let with_address = format!("address: {}\n{}", server.address(), config());
        fs::write(server.directory().join("config.yml"), with_address).expect("the config is written");
        Self { server }
    }

    pub fn directory(&self) -> &Path {
        self.server.directory()
    }

    pub fn server(&self) -> &TestServer {
        &self.server
    }

    /// The program as `kes`, that asks the server as its admin without verifying it.
    pub fn kes(&self) -> Program {
        self.program("kes")
    }

    /// The same, under another name.
    pub fn program(&self, name: &str) -> Program {
        Program::named(name, self.directory())
            .env("MINIO_KES_SERVER", self.server.address().to_string())
            .env("MINIO_KES_API_KEY", ADMIN)
    }
}

pub fn identity(api_key: &str) -> String {
    ApiKey::parse(api_key).expect("an API key").identity().to_string()
}

fn config() -> String {
    format!(
        "admin:
  identity: {admin}
tls:
  key: server.key
  cert: server.crt
policy:
  my-app:
    allow: [ /v1/key/create/my-app*, /v1/key/generate/my-app* ]
    deny: [ /v1/key/generate/my-app-internal* ]
    identities: [ {app} ]
  other:
    allow: [ /v1/ready ]
keystore:
  fs:
    path: keys
",
        admin = identity(ADMIN),
        app = identity(APP)
    )
}

fn write_keys(directory: &Path) {
    fs::create_dir(directory).expect("a directory for keys");
    let owner = identity(ADMIN);
    for name in ["my-key", "my-key2", "my-app", "other"] {
        let value = format!(
            r#"{{"bytes":"{}","algorithm":"AES256","created_at":"2023-11-14T22:13:20Z","created_by":"{owner}"}}"#,
            "yPVb5MDJXjyx3pWYxOuA6/oWcobtfDlG5HKAS2v/Kmw="
        );
        fs::write(directory.join(name), value).expect("the key is written");
    }
    let bytes = r#"{"bytes":"p72NMh26+wtMwkmT5VVefK/YOC3WwJH0OL10gc9B2Kg="}"#;
    fs::write(directory.join("old"), bytes).expect("the key is written");
    fs::write(directory.join("broken"), "not a key").expect("the key is written");
}

/// The files `<name>.key` and `<name>.crt` of a client.
pub fn write_client(directory: &Path, name: &str, api_key: &str) {
    let key = ApiKey::parse(api_key).expect("an API key");
    let pem = |tag: &str, der: &[u8]| {
        pem::encode_config(&Pem::new(tag, der), EncodeConfig::new().set_line_ending(LineEnding::LF))
    };
    let certificate = key.certificate(time::OffsetDateTime::now_utc()).expect("a certificate");
    let write = |suffix: &str, text: String| {
        fs::write(directory.join(format!("{name}.{suffix}")), text).expect("the file is written");
    };
    write("key", pem("PRIVATE KEY", key.private_key().secret_der()));
    write("crt", pem("CERTIFICATE", &certificate));
}
