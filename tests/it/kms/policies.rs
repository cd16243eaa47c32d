//! `kms policies`: clients of a KES do the same over the key manager's own protocol.

use claviger::auth::enclave::ApiKey;
use claviger::client::kms::Commands;
use claviger::kms::Action;
use claviger::kms::wire::{CreateKeyRequest, DecryptRequest, KeyStatus, KeyVersionRequest};

use super::root;
use crate::support::door::{self, ENCLAVE, door_config};
use crate::support::program::{Outcome, Program};
use crate::support::{TestServer, block_on};

/// Its members are an API key of a key manager, in hexadecimal, and a name that no client can have.
fn config(key: &ApiKey) -> String {
    let policy = format!(
        "  mine:\n    allow: [ '/v1/key/create/mine*', '/v1/key/de*', '/v1/status', '/v1/identity/describe/*' ]\n    \
         deny: [ '/v1/key/describe/mine-secret', '/v1/key/delete/*', '/v1/identity/describe/61*' ]\n    \
         identities: [ {}, somebody ]\n",
        key.identity().to_hex()
    );
    door_config(|config| config.replace("policy:\n", &format!("policy:\n{policy}")))
}

fn policies(server: &TestServer, args: &[&str]) -> Outcome {
    let program = Program::named("claviger", server.directory())
        .env("MINIO_KMS_SERVER", server.key_manager_address().to_string())
        .env("MINIO_KMS_API_KEY", root().expose())
        .env("MINIO_KMS_ENCLAVE", ENCLAVE);
    program.run(&[&["kms", "policies", "--from", "config.yml"], args].concat())
}

#[test]
fn policies_of_a_kes_are_printed_and_applied_and_what_is_lost_is_named() {
    let key = ApiKey::generate().expect("random bytes");
    let server = door::empty(&config(&key));
    block_on(door::fill(&server, &server.keys()));
    let printed = policies(&server, &[]);
    assert_eq!(printed.exit, Some(0), "{printed:?}");
    for line in [
        "claviger kms add-policy --enclave prod mine - <<'END'\n\
         {\"allow\":{\"KEY:CREATE\":[\"mine*\"],\"KEY:DELETE\":[\"*\"],\"KEY:STATUS\":[\"*\"],\"KEY:DECRYPT\":[\"*\"]},\
         \"deny\":{\"KEY:DELETE\":[\"*\"],\"KEY:STATUS\":[\"mine-secret\"]}}\nEND\n"
            .to_owned(),
        format!("claviger kms add-identity --enclave prod {}\n", key.identity()),
        format!("claviger kms assign-policy --enclave prod mine {}\n", key.identity()),
        "claviger kms add-identity --enclave prod --admin h1:".to_owned(),
    ] {
        assert!(printed.stdout.contains(&line), "{line}\nin\n{}", printed.stdout);
    }
    for line in [
        "Not in the enclave: policy 'mine': allow '/v1/status': '/v1/status': the status is for system administrators\n",
        "Not in the enclave: policy 'mine': deny '/v1/identity/describe/61*': IDENTITY:STATUS: the beginning of an identity \
         is another one there, where it is written as h1:…; so the policy does not allow IDENTITY:STATUS\n",
        "Not in the enclave: policy 'mine': the identity 'somebody', which no client can have\n",
        "Not in the enclave: policy 'mine': the right to create a key is there the right to rotate it, too\n",
    ] {
        assert!(printed.stderr.contains(line), "{line}\nin\n{}", printed.stderr);
    }
    policies(&server, &["--apply", "-k"]).ok();
    policies(&server, &["--apply", "-k"]).ok();
    let client = door::client(&server, &key);
    block_on(async {
        let create = |name: &str| {
            let request = CreateKeyRequest { name: name.into(), ..CreateKeyRequest::default() };
            client.change(ENCLAVE, Commands::one(Action::KeyCreate, &request))
        };
        create("mine-1").await.expect("allowed");
        create("mine-secret").await.expect("allowed");
        assert!(create("other").await.is_err());
        let status = |name: &str| {
            let request = KeyVersionRequest { name: name.into(), ..KeyVersionRequest::default() };
            let client = &client;
            async move { client.ask::<KeyStatus>(ENCLAVE, Action::KeyStatus, &request).await.is_ok() }
        };
        assert!(status("my-key").await && !status("mine-secret").await);
        let request = DecryptRequest { name: "my-key".into(), ..DecryptRequest::default() };
        let refused = client.ask::<claviger::kms::wire::DecryptResponse>(ENCLAVE, Action::KeyDecrypt, &request).await;
        assert!(refused.expect_err("no ciphertext").to_string().contains("invalid ciphertext"), "it may ask");
    });
}
