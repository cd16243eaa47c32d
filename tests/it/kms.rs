//! The key manager, seen from outside: its socket, its data and its command line.

mod certificates;
mod cluster;
mod command_line;
mod crash;
mod damage;
mod doctor;
mod hostile;
mod kes;
mod log;
mod policies;
mod records;
mod rotation;
mod scale;
mod seal;
mod start;
mod terminal;
mod transport;

use claviger::auth::enclave::ApiKey;
use claviger::client::kms::Commands;
use claviger::client::{Client, Endpoint, Tls, Trust};
use claviger::kms::Action;
use claviger::kms::seal::HsmKey;
use claviger::kms::wire::{CreateKeyRequest, ListKeysResponse, ListRequest, NameRequest};

use crate::support::TestServer;

/// The HSM key of all tests.
pub const HSM: &str = "hsm:aes256:KioqKioqKioqKioqKioqKioqKioqKioqKioqKioqKio=";

/// The enclave of all tests.
const ENCLAVE: &str = "tenant";

/// The administrator's key.
pub fn root() -> ApiKey {
    HsmKey::parse(HSM).expect("a key").root_api_key()
}

/// A client of a key manager.
pub fn client(server: &TestServer, key: &ApiKey) -> Client {
    let tls = Tls::with_enclave_key(key, &Trust::Anybody, claviger::clock::now()).expect("usable");
    Client::new(vec![Endpoint::parse(&server.address().to_string()).expect("an address")], tls)
}

/// Creates the enclave.
pub async fn create_enclave(client: &Client) {
    let request = NameRequest { name: ENCLAVE.into() };
    client.change("", Commands::one(Action::EnclaveCreate, &request)).await.expect("created");
}

/// Creates a key, or a version of one.
pub async fn create_key(client: &Client, name: &str, add_version: bool) -> Result<(), claviger::client::Error> {
    let request = CreateKeyRequest { name: name.into(), add_version, ..CreateKeyRequest::default() };
    client.change(ENCLAVE, Commands::one(Action::KeyCreate, &request)).await
}

/// All keys with their latest versions.
pub async fn keys(client: &Client) -> Vec<(String, u32)> {
    let mut keys = Vec::new();
    let mut request = ListRequest::default();
    loop {
        let page: ListKeysResponse = client.ask(ENCLAVE, Action::KeyList, &request).await.expect("listed");
        keys.extend(page.keys.into_iter().map(|key| (key.name, key.version)));
        request.continue_at = page.continue_at;
        if request.continue_at.is_empty() {
            return keys;
        }
    }
}
