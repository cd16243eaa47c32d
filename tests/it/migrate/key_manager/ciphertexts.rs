//! What was encrypted before, read after.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{Desk, KeyManager};
use crate::support::testdata;

/// The procedure that operators follow, step by step, in the form that is published for the archived program.
#[tokio::test]
async fn every_ciphertext_decrypts_in_the_enclave_after_the_published_procedure() {
    let (manager, desk) = (KeyManager::start(), Desk::with_stored_keys());
    let made = manager.program("minkms", desk.path(), "").run(&["identity", "--json"]).ok();
    let made: Value = serde_json::from_str(&made).expect("JSON");
    let (api_key, identity) = (made["api_key"].as_str().expect("text"), made["identity"].as_str().expect("text"));
    manager.minkms(&["add-enclave", "objects"]).ok();
    manager.minkms(&["add-identity", identity, "--enclave", "objects", "--admin"]).ok();
    let server = manager.server.address().to_string();
    let kes = crate::support::program::Program::named("kes", desk.path());
    let args =
        ["migrate", "--from", "src.yml", "--server", &server, "--enclave", "objects", "--api-key", api_key, "-k"];
    let run = kes.run(&args).ok();
    let count = desk.keys("src").len();
    assert_eq!(run, format!("Starting key migration:\n\nMigrated {count:6} keys successfully!\n"));
    let admin = manager.program("minkms", desk.path(), api_key).env("MINIO_KMS_ENCLAVE", "objects");
    let listed: Vec<String> = serde_json::from_str(&admin.run(&["ls-key", "--json"]).ok()).expect("JSON");
    assert_eq!(listed.len(), count);

    let key = claviger::auth::enclave::ApiKey::parse(api_key).expect("a key");
    let tls = claviger::client::Tls::with_enclave_key(&key, &claviger::client::Trust::Anybody, claviger::clock::now());
    let endpoint = claviger::client::Endpoint::parse(&server).expect("an address");
    let client = claviger::client::Client::new(vec![endpoint], tls.expect("usable"));
    assert_eq!(decrypt_all(&client).await, 341 + 18 + 24);
}

/// Decrypts every ciphertext that there is, without naming a version.
async fn decrypt_all(client: &claviger::client::Client) -> usize {
    use claviger::kms::Action;
    use claviger::kms::wire::{DecryptRequest, DecryptResponse};
    let mut decrypted = 0;
    for case in cases() {
        let bytes = |name: &str| STANDARD.decode(case[name].as_str().unwrap_or_default()).expect("base64");
        let request = DecryptRequest {
            name: case["key"].as_str().expect("text").to_owned(),
            version: 0,
            ciphertext: bytes("ciphertext"),
            associated_data: bytes("context"),
        };
        let response: DecryptResponse = client
            .ask("objects", Action::KeyDecrypt, &request)
            .await
            .unwrap_or_else(|error| panic!("{}: {error}", case["id"]));
        assert_eq!(response.plaintext, bytes("plaintext"), "{}", case["id"]);
        decrypted += 1;
    }
    decrypted
}

/// The ciphertexts of thirteen versions, those that one version made and another read, and those that begin oddly.
fn cases() -> Vec<Value> {
    let mut cases = Vec::new();
    let left_out = ["negative.json", "large.json", "variants.json"];
    for file in std::fs::read_dir(testdata("ciphertexts")).expect("readable") {
        let file = file.expect("readable");
        let name = file.file_name().into_string().expect("text");
        if !name.ends_with(".json") || left_out.contains(&name.as_str()) {
            continue;
        }
        let text = std::fs::read(file.path()).expect("readable");
        let content: Value = serde_json::from_slice(&text).expect("JSON");
        let list = content.as_array().or_else(|| content["cases"].as_array()).expect("a list of cases");
        cases.extend(list.iter().cloned());
    }
    cases
}
