//! The real server on it.

use std::process::Command;

use serde_json::{Value, json};

use super::super::{admin, ask, wait_for_log};
use super::{section, section_of};
use crate::support::moto::{Moto, REGION};
use crate::support::server::{PROGRAM, dev_config};
use crate::support::{TestServer, block_on, certs};

/// A server on such a section; `env` is all of its environment that concerns AWS.
fn serve(section: &Value, env: &[(&str, &str)]) -> TestServer {
    let keystore = format!("keystore: {}\n", json!({ "aws": { "secretsmanager": section } }));
    let config = dev_config("").replace("keystore: { fs: { path: keys } }\n", &keystore);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new(PROGRAM);
    command.env("HOME", directory.path()).env("AWS_EC2_METADATA_DISABLED", "true").envs(env.iter().copied());
    TestServer::start_under(command, directory, &config)
}

/// All that a client can do with a key.
fn a_key_lives_and_dies(server: &TestServer, moto: &Moto, secret: &str) {
    block_on(async {
        let client = admin(server);
        let session = client.session().await.expect("connects");
        assert_eq!(client.get("/v1/ready").await.status, 200);
        assert_eq!(ask(&session, "PUT", "/v1/key/create/app-key").await, (200, String::new()));
        assert_eq!(ask(&session, "PUT", "/v1/key/create/app-key").await, (400, "key already exists".into()));
        assert!(moto.value(secret).len() > 100, "the stored key");
        assert_eq!(ask(&session, "GET", "/v1/key/describe/app-key").await, (200, String::new()));
        let sealed = client.put_json("/v1/key/encrypt/app-key", &json!({ "plaintext": "aGVsbG8=" })).await.json();
        let opened = client.put_json("/v1/key/decrypt/app-key", &sealed).await.json();
        assert_eq!(opened, json!({ "plaintext": "aGVsbG8=" }));
        assert_eq!(client.get("/v1/key/list/*").await.json(), json!({ "names": ["app-key"] }));
        assert_eq!(ask(&session, "DELETE", "/v1/key/delete/app-key").await, (200, String::new()));
        assert_eq!(ask(&session, "GET", "/v1/key/describe/app-key").await, (404, "key does not exist".into()));
    });
    assert!(!moto.names().contains(&secret.to_owned()));
}

#[test]
fn serves_keys_over_tls_with_rights_that_just_suffice() {
    let moto = Moto::start_tls();
    let actions = ["CreateSecret", "GetSecretValue", "DeleteSecret", "ListSecrets"];
    let actions = actions.map(|action| format!("secretsmanager:{action}"));
    let user = moto.user("server", &json!([{ "Effect": "Allow", "Action": actions, "Resource": "*" }]));
    moto.enforce(true);
    let ca = certs("ca.crt").display().to_string();
    let server = serve(&section_of(&user, &moto, "kes/"), &[("SSL_CERT_FILE", &ca)]);
    block_on(async { assert_eq!(admin(&server).get("/v1/ready").await.status, 200) });
    moto.enforce(false);
    a_key_lives_and_dies(&server, &moto, "kes/app-key");
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_no_store() {
    let moto = Moto::start_tls();
    let server = serve(&section(&moto.endpoint(), ""), &[]);
    block_on(async {
        let ready = admin(&server).get("/v1/ready").await;
        assert_eq!((ready.status, ready.message().as_str()), (504, "key store is not reachable"));
    });
    wait_for_log(&server, &["the key store does not answer", "UnknownIssuer"]);
}

#[test]
fn finds_credentials_where_aws_keeps_them() {
    let moto = Moto::start();
    let actions = ["CreateSecret", "GetSecretValue", "DeleteSecret", "ListSecrets"];
    let actions = actions.map(|action| format!("secretsmanager:{action}"));
    let user = moto.user("server", &json!([{ "Effect": "Allow", "Action": actions, "Resource": "*" }]));
    let section = json!({ "endpoint": moto.endpoint(), "region": REGION });
    let file = tempfile::NamedTempFile::new().expect("a file");
    let text = format!("[keys]\naws_access_key_id={}\naws_secret_access_key={}\n", user.access_key, user.secret_key);
    std::fs::write(file.path(), text).expect("written");
    let file = file.path().to_str().expect("UTF-8");
    let sources: [&[(&str, &str)]; 2] = [
        &[("AWS_ACCESS_KEY_ID", &user.access_key), ("AWS_SECRET_ACCESS_KEY", &user.secret_key)],
        &[("AWS_SHARED_CREDENTIALS_FILE", file), ("AWS_PROFILE", "keys")],
    ];
    for env in sources {
        let server = serve(&section, env);
        moto.enforce(true);
        block_on(async {
            let session = admin(&server).session().await.expect("connects");
            assert_eq!(ask(&session, "PUT", "/v1/key/create/key").await, (200, String::new()));
            assert_eq!(ask(&session, "DELETE", "/v1/key/delete/key").await, (200, String::new()));
        });
        moto.enforce(false);
    }
    let server = serve(&section, &[]);
    block_on(async {
        let session = admin(&server).session().await.expect("connects");
        assert_eq!(ask(&session, "GET", "/v1/key/describe/key").await, (502, "failed to read key".into()));
    });
    wait_for_log(&server, &["failed to read key", "no credentials: give them in the config file"]);
}
