//! The root key, sealed by those who seal for key stores: the real OpenBao, and moto, which answers like AWS.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use claviger::auth::enclave::ApiKey;
use claviger::client::kms::Commands;
use claviger::client::{Client, Error};
use claviger::kms::Action;
use claviger::kms::wire::{ClusterStatusResponse, HsmRequest};
use serde_json::{Value, json};

use super::start::{file, refusal};
use super::{HSM, client, create_enclave, create_key, keys, root};
use crate::support::moto::{Moto, REGION};
use crate::support::openbao::{OpenBao, unique};
use crate::support::{TestServer, block_on};

/// What a config calls the other provider.
const OTHER: &str = "other";

struct Providers {
    bao: Arc<OpenBao>,
    moto: Arc<Moto>,
}

impl Providers {
    fn start() -> Self {
        Self { bao: OpenBao::shared(), moto: Moto::shared() }
    }

    fn all(&self) -> [Value; 3] {
        let local = json!({ "local": { "key": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=" } });
        [local, self.transit(&self.bao.endpoint()), self.kms()]
    }

    fn transit(&self, endpoint: &str) -> Value {
        let engine = unique("transit");
        self.bao.ask("POST", &format!("sys/mounts/{engine}"), json!({ "type": "transit" }));
        self.bao.ask("POST", &format!("{engine}/keys/seal"), Value::Null);
        json!({ "openbao": {
            "endpoint": endpoint, "engine": engine, "key": "seal", "token": { "value": self.bao.token },
        } })
    }

    fn kms(&self) -> Value {
        json!({ "aws": {
            "endpoint": self.moto.endpoint(), "region": REGION, "key": self.moto.kms_key(),
            "credentials": { "accesskey": "anybody", "secretkey": "whatever" },
        } })
    }
}

/// Writes a config with this provider. JSON is YAML.
fn config(directory: &Path, provider: &Value, admin: Option<&ApiKey>) -> PathBuf {
    let path = directory.join("kms.yml");
    let mut config = json!({ "version": "v1", "hsm": { OTHER: provider } });
    if let Some(admin) = admin {
        config["admin"] = json!({ "identity": admin.identity().to_string() });
    }
    std::fs::write(&path, config.to_string()).expect("written");
    path
}

async fn change_seal(client: &Client, action: Action, name: &str) -> Result<(), Error> {
    let request = HsmRequest { name: name.into(), overwrite: false };
    client.change("", Commands::one(action, &request)).await
}

async fn seals(client: &Client) -> Vec<String> {
    let request = claviger::kms::wire::NameRequest::default();
    let status: ClusterStatusResponse = client.ask("", Action::ClusterStatus, &request).await.expect("a status");
    status.nodes_up[&0].hsms.clone()
}

fn status(refused: Result<(), Error>) -> Option<u16> {
    refused.expect_err("refused").status().map(|status| status.as_u16())
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn whoever_seals_for_key_stores_takes_the_place_of_the_hsm_key() {
    let providers = Providers::start();
    for provider in providers.all() {
        let data = tempfile::tempdir().expect("a directory");
        let config_file = config(data.path(), &provider, None);
        let args = ["--config", config_file.to_str().expect("text")];

        // As long as the administrator is worked out of the HSM key, that stays.
        let server = TestServer::key_manager(&data.path().join("data"), HSM, &[]);
        block_on(create_enclave(&client(&server, &root())));
        assert!(server.stop().success());
        let server = TestServer::key_manager(&data.path().join("data"), HSM, &args);
        block_on(async {
            let client = client(&server, &root());
            create_key(&client, "before", false).await.expect("created");
            change_seal(&client, Action::ClusterAddHsm, OTHER).await.expect("sealed");
            assert_eq!(status(change_seal(&client, Action::ClusterAddHsm, OTHER).await), Some(409), "it has a seal");
            assert_eq!(status(change_seal(&client, Action::ClusterRemoveHsm, "env").await), Some(409), "{provider}");
            assert_eq!(seals(&client).await, ["env", OTHER]);
        });
        assert!(server.stop().success());

        let admin = ApiKey::generate().expect("random bytes");
        config(data.path(), &provider, Some(&admin));
        let server = TestServer::key_manager(&data.path().join("data"), HSM, &args);
        block_on(async {
            let client = client(&server, &admin);
            change_seal(&client, Action::ClusterRemoveHsm, "env").await.expect("removed");
            assert_eq!(status(change_seal(&client, Action::ClusterRemoveHsm, OTHER).await), Some(409), "the last one");
            create_key(&client, "after", false).await.expect("goes on");
        });
        assert!(server.stop().success());

        let said = refusal(&data.path().join("data"), Some(HSM), &[]);
        assert!(said.contains("It was sealed with 'other'"), "{said}");
        let server = TestServer::key_manager(&data.path().join("data"), "", &args);
        let found = block_on(keys(&client(&server, &admin)));
        assert_eq!(found, [("after".to_owned(), 1), ("before".to_owned(), 1)], "{provider}");
        assert!(server.stop().success());
    }
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn data_can_be_made_with_such_a_provider_alone_when_there_is_an_administrator() {
    let providers = Providers::start();
    for provider in providers.all() {
        let directory = tempfile::tempdir().expect("a directory");
        let data = directory.path().join("data");
        let config_file = config(directory.path(), &provider, None);
        let args = ["--config", config_file.to_str().expect("text")];
        let said = refusal(&data, None, &args);
        assert!(said.contains("no administrator: name 'admin.identity' in the config") && !data.exists(), "{said}");
        let admin = ApiKey::generate().expect("random bytes");
        config(directory.path(), &provider, Some(&admin));
        for _ in 0..2 {
            let server = TestServer::key_manager(&data, "", &args);
            assert_eq!(block_on(seals(&client(&server, &admin))), [OTHER]);
            assert!(server.stop().success());
        }
    }
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn a_provider_that_does_not_answer_is_missed_only_where_no_other_seal_opens() {
    let providers = Providers::start();
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    let admin = ApiKey::generate().expect("random bytes");
    let provider = providers.transit(&providers.bao.endpoint());
    let config_file = config(directory.path(), &provider, Some(&admin));
    let args = ["--config", config_file.to_str().expect("text")];
    assert!(TestServer::key_manager(&data, HSM, &args).stop().success());

    let mut gone = provider.clone();
    gone["openbao"]["endpoint"] = json!("https://127.0.0.1:1");
    config(directory.path(), &gone, Some(&admin));
    let before = file(&data);
    let said = refusal(&data, None, &args);
    assert!(said.contains("the HSM 'other' does not open it: ") && said.contains("of that time and 'other'"), "{said}");
    assert!(file(&data) == before, "nothing is touched");
    let server = TestServer::key_manager(&data, HSM, &args);
    block_on(async {
        let client = client(&server, &admin);
        create_enclave(&client).await;
        let request = HsmRequest { name: OTHER.into(), overwrite: true };
        let refused = client.change("", Commands::one(Action::ClusterAddHsm, &request)).await;
        assert_eq!(status(refused), Some(503));
        create_key(&client, "goes-on", false).await.expect("created");
    });
}
