//! A key manager that serves the KES API, too.

use std::path::Path;

use claviger::auth::enclave::ApiKey;
use claviger::client::kms::Commands;
use claviger::client::{Client, Endpoint, Tls, Trust};
use claviger::kms::Action;
use claviger::kms::seal::HsmKey;
use claviger::kms::wire::{ImportKeyRequest, NameRequest, StoredVersion};

use super::server::{copy_fixture, fixture_config};
use super::{TestServer, block_on};

/// The HSM key of these key managers.
pub const HSM: &str = "hsm:aes256:KioqKioqKioqKioqKioqKioqKioqKioqKioqKioqKio=";

/// The enclave that is served.
pub const ENCLAVE: &str = "prod";

/// A key manager with the fixture's keys in an enclave, which it serves as the fixture's config says. Its address is
/// that of the KES API.
pub fn fixture() -> TestServer {
    let server = empty(&door_config(|config| config));
    block_on(fill(&server, &server.keys()));
    server
}

/// The fixture's config with an enclave in the place of its key store, and `change` applied to its text.
pub fn door_config(change: impl FnOnce(String) -> String) -> String {
    fixture_config(|config| {
        let (store, enclave) =
            ("keystore:\n  fs:\n    path: keys", format!("keystore:\n  enclave:\n    name: {ENCLAVE}"));
        let (address, any_port) = ("address: 127.0.0.1:7373", "address: 127.0.0.1:0");
        assert!(config.contains(store) && config.contains(address), "{config}");
        change(config.replace(store, &enclave).replace(address, any_port))
    })
}

/// A key manager without any enclave, and this config for the KES API.
pub fn empty(config: &str) -> TestServer {
    let directory = tempfile::tempdir().expect("a temporary directory");
    copy_fixture(directory.path());
    TestServer::key_manager_with_door(directory, HSM, config)
}

/// The administrator's key.
pub fn root() -> ApiKey {
    HsmKey::parse(HSM).expect("a key").root_api_key()
}

/// A client of the key manager's own protocol.
pub fn client(server: &TestServer, key: &ApiKey) -> Client {
    let tls = Tls::with_enclave_key(key, &Trust::Anybody, claviger::clock::now()).expect("usable");
    Client::new(vec![Endpoint::parse(&server.key_manager_address().to_string()).expect("an address")], tls)
}

/// Makes the enclave, with the keys in a directory. What is no key there is another one here: an enclave has only keys.
pub async fn fill(server: &TestServer, keys: &Path) {
    let client = client(server, &root());
    client.change("", Commands::one(Action::EnclaveCreate, &NameRequest { name: ENCLAVE.into() })).await.expect("made");
    let read = |name: &str| std::fs::read(keys.join(name)).expect("readable");
    for entry in std::fs::read_dir(keys).expect("readable") {
        let name = entry.expect("readable").file_name().into_string().expect("text");
        let key = if name == "broken" { read("my-key") } else { read(&name) };
        import(&client, &name, key).await;
    }
}

/// Imports a key as a KES stores it.
pub async fn import(client: &Client, name: &str, key: Vec<u8>) {
    import_into(ENCLAVE, client, name, key).await;
}

/// The same, into another enclave.
pub async fn import_into(enclave: &str, client: &Client, name: &str, key: Vec<u8>) {
    let version = StoredVersion { number: 1, key, imported: false };
    let request = ImportKeyRequest::whole(name.into(), vec![version], 2);
    client.change(enclave, Commands::one(Action::KeyImport, &request)).await.expect("imported");
}
