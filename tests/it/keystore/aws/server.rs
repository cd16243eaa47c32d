//! The real server on it.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::super::{admin, ask, wait_for_log};
use super::{section, section_of};
use crate::support::certificates;
use crate::support::gate::{Gate, Rule};
use crate::support::metadata;
use crate::support::moto::{Moto, REGION};
use crate::support::program::Program;
use crate::support::server::{PROGRAM, dev_config};
use crate::support::{Session, TestServer, block_on, certs};

/// A server's config with this section and this cache.
pub fn config(section: &Value, cache: &str) -> String {
    let store = json!({ "aws": { "secretsmanager": section } });
    format!("cache: {cache}\n{}", dev_config("").replace("{ fs: { path: keys } }", &store.to_string()))
}

/// A server on such a section; `env` is all of its environment that concerns AWS.
fn serve(section: &Value, env: &[(&str, &str)]) -> TestServer {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new(PROGRAM);
    command.env("HOME", directory.path()).env("AWS_EC2_METADATA_DISABLED", "true").envs(env.iter().copied());
    TestServer::start_under(command, directory, &config(section, "{}"))
}

/// A server with this cache.
pub fn serve_cached(section: &Value, cache: &str) -> TestServer {
    TestServer::start_in(tempfile::tempdir().expect("a temporary directory"), &config(section, cache))
}

pub async fn session(server: &TestServer) -> Session {
    admin(server).session().await.expect("connects")
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
#[ignore = "runs moto: tests/run"]
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

/// What `openssl req -x509` makes: a server's own certificate that calls itself an authority.
#[test]
#[ignore = "runs moto: tests/run"]
fn a_self_made_certificate_is_good_enough_when_it_is_the_trusted_one() {
    let files = tempfile::tempdir().expect("a temporary directory");
    let [certificate, key] = ["self.crt", "self.key"].map(|file| files.path().join(file));
    let mut params = certificates::authority("self-made");
    params.subject_alt_names = vec![rcgen::SanType::IpAddress("127.0.0.1".parse().expect("an address"))];
    let made = certificates::self_signed(params);
    let write = |path: &Path, tag: &str, der: &[u8]| {
        std::fs::write(path, pem::encode(&pem::Pem::new(tag, der))).expect("written");
    };
    write(&certificate, "CERTIFICATE", &made.chain[0]);
    write(&key, "PRIVATE KEY", made.key.secret_der());
    let (moto, trusted) = (Moto::start_tls_with(&certificate, &key), certificate.display().to_string());
    let (section, tls) = (section(&moto.endpoint(), "kes/"), json!({ "ca": trusted }));

    let server = serve(&section, &[("SSL_CERT_FILE", &trusted)]);
    block_on(async {
        let session = session(&server).await;
        assert_eq!(ask(&session, "PUT", "/v1/key/create/app-key").await, (200, String::new()));
    });
    let of = |store: Value| dev_config("").replace("{ fs: { path: keys } }", &store.to_string());
    let aws = |tls: &Value| of(json!({ "aws": { "secretsmanager": section, "tls": tls } }));
    let server = TestServer::start_in(tempfile::tempdir().expect("a temporary directory"), &aws(&tls));
    block_on(async {
        let session = session(&server).await;
        assert_eq!(ask(&session, "GET", "/v1/key/describe/app-key").await, (200, String::new()));
    });

    // Where it is not, the setting is named that makes it one.
    let vault =
        |tls: &Value| of(json!({ "vault": { "endpoint": moto.endpoint(), "token": { "value": "t" }, "tls": tls } }));
    for (config, setting) in [(aws(&json!({})), "keystore.aws.tls.ca"), (vault(&json!({})), "keystore.vault.tls.ca")] {
        let said = TestServer::refuses(files.path(), &config);
        assert!(said.contains(&format!("or this very certificate, under {setting}")), "{said}");
    }
    let said = TestServer::refuses(files.path(), &vault(&tls));
    assert!(said.contains("is not what a Vault says"), "it is believed, and no Vault: {said}");
}

#[test]
#[ignore = "runs moto: tests/run"]
fn a_certificate_that_nobody_vouches_for_is_no_store() {
    let moto = Moto::start_tls();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let said = TestServer::refuses(directory.path(), &config(&section(&moto.endpoint(), ""), "{}"));
    assert!(said.contains("keystore.aws") && said.contains("UnknownIssuer"), "{said}");
}

#[test]
#[ignore = "runs moto: tests/run"]
fn a_missing_right_is_in_the_log_with_what_gives_it() {
    let moto = Moto::start();
    let user = moto.user("server", &json!([{ "Effect": "Allow", "Action": ["iam:GetUser"], "Resource": "*" }]));
    moto.enforce(true);
    let server = serve(&section_of(&user, &moto, "kes/"), &[]);
    block_on(async {
        let session = session(&server).await;
        assert_eq!(ask(&session, "PUT", "/v1/key/create/key").await, (502, "failed to create key".into()));
        assert_eq!(ask(&session, "GET", "/v1/key/describe/key").await, (502, "failed to read key".into()));
    });
    for (event, action) in [("failed to create key", "CreateSecret"), ("failed to read key", "GetSecretValue")] {
        let statement = json!({
            "Effect": "Allow",
            "Action": [format!("secretsmanager:{action}")],
            "Resource": "arn:aws:secretsmanager:us-east-1:*:secret:kes/*",
        });
        // It stands in a text of JSON.
        wait_for_log(&server, &[event, &statement.to_string().replace('"', "\\\"")]);
    }
    let said = format!("{}{}", server.stdout(), server.stderr());
    assert!(!said.contains(&user.secret_key));
}

#[test]
#[ignore = "runs moto: tests/run"]
fn finds_credentials_where_aws_keeps_them() {
    let moto = Moto::start();
    let actions = ["CreateSecret", "GetSecretValue", "DeleteSecret", "ListSecrets"];
    let actions = actions.map(|action| format!("secretsmanager:{action}"));
    let user = moto.user("server", &json!([{ "Effect": "Allow", "Action": actions, "Resource": "*" }]));
    // The region is in the environment, too.
    let section = json!({ "endpoint": moto.endpoint() });
    let file = tempfile::NamedTempFile::new().expect("a file");
    let text = format!("[keys]\naws_access_key_id={}\naws_secret_access_key={}\n", user.access_key, user.secret_key);
    std::fs::write(file.path(), text).expect("written");
    let file = file.path().to_str().expect("UTF-8");
    let sources: [&[(&str, &str)]; 2] = [
        &[
            ("AWS_ACCESS_KEY_ID", &user.access_key),
            ("AWS_SECRET_ACCESS_KEY", &user.secret_key),
            ("AWS_REGION", REGION),
            ("AWS_DEFAULT_REGION", "another"),
        ],
        &[("AWS_SHARED_CREDENTIALS_FILE", file), ("AWS_PROFILE", "keys"), ("AWS_DEFAULT_REGION", REGION)],
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
    let server = serve(&section, &[("AWS_REGION", REGION)]);
    block_on(async {
        let session = admin(&server).session().await.expect("connects");
        assert_eq!(ask(&session, "GET", "/v1/key/describe/key").await, (502, "failed to read key".into()));
    });
    wait_for_log(&server, &["failed to read key", "no credentials: give them in the config file"]);
}

/// What containers, service accounts of Kubernetes and instances are told by those who run them; and a session in the config file.
#[test]
#[ignore = "runs moto: tests/run"]
fn finds_the_credentials_of_a_role() {
    let moto = Moto::start();
    let actions = ["CreateSecret", "GetSecretValue", "DeleteSecret", "ListSecrets"];
    let actions = actions.map(|action| format!("secretsmanager:{action}"));
    let allow = json!([{ "Effect": "Allow", "Action": actions, "Resource": "*" }]);
    let role = moto.role("server", &allow);
    let [access_key, secret_key, token] = moto.assume(&role);
    let credentials = json!({
        "AccessKeyId": access_key,
        "SecretAccessKey": secret_key,
        "Token": token,
        "Expiration": "2126-01-01T00:00:00Z",
        "Code": "Success",
        "Type": "AWS-HMAC",
        "LastUpdated": "2026-01-01T00:00:00Z",
    });
    let given = json!({ "accesskey": access_key, "secretkey": secret_key, "token": token });
    let gate = Gate::new(moto.address());
    gate.rule("/container", Rule::Answer(200, credentials.to_string()));
    let container = format!("{}/container", gate.endpoint());
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "a token of the cluster").expect("written");
    let section =
        |credentials: &Value| json!({ "endpoint": moto.endpoint(), "region": REGION, "credentials": credentials });
    let nothing = json!({});
    let container = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", container.as_str())];
    let sts = moto.endpoint();
    let web_identity = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", file.path().to_str().expect("UTF-8")),
        ("AWS_ROLE_ARN", role.as_str()),
        ("AWS_ROLE_SESSION_NAME", "claviger"),
        ("AWS_ENDPOINT_URL_STS", sts.as_str()),
    ];
    let instance = format!("http://{}", metadata::serve(credentials.to_string()));
    let instance = [("AWS_EC2_METADATA_DISABLED", "false"), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", instance.as_str())];
    let sources: [(&Value, &[(&str, &str)]); 4] =
        [(&given, &[]), (&nothing, &container), (&nothing, &web_identity), (&nothing, &instance)];
    for (credentials, env) in sources {
        let server = serve(&section(credentials), env);
        block_on(async {
            let session = admin(&server).session().await.expect("connects");
            // Credentials are fetched. When moto checks signatures, it fails where there is none, as in a web identity's.
            let missing = ask(&session, "GET", "/v1/key/describe/key").await;
            assert_eq!(missing, (404, "key does not exist".into()), "{env:?}");
            moto.enforce(true);
            assert_eq!(ask(&session, "PUT", "/v1/key/create/key").await, (200, String::new()), "{env:?}");
            assert_eq!(ask(&session, "DELETE", "/v1/key/delete/key").await, (200, String::new()), "{env:?}");
        });
        moto.enforce(false);
    }
}

#[test]
#[ignore = "runs moto: tests/run"]
fn the_doctor_knows_rights_and_clock() {
    let moto = Moto::start();
    let actions = ["secretsmanager:ListSecrets", "secretsmanager:GetSecretValue"];
    let user = moto.user("reader", &json!([{ "Effect": "Allow", "Action": actions, "Resource": "*" }]));
    moto.enforce(true);
    let directory = tempfile::tempdir().expect("a directory");
    let config = json!({ "keystore": { "aws": { "secretsmanager": section_of(&user, &moto, "kes/") } } });
    std::fs::write(directory.path().join("config.yml"), config.to_string()).expect("written");
    let doctor = Program::named("claviger", directory.path());
    let examine = |purpose: &str| {
        let said = doctor.run(&["doctor", "--config", "config.yml", "--json", "--for", purpose]).stdout;
        let checks: Vec<Value> = serde_json::from_str(&said).expect("a list");
        let of_store =
            checks.into_iter().filter(|check| check["id"].as_str().expect("a text").starts_with("keystore."));
        of_store
            .map(|check| (check["id"].clone(), check["status"].clone(), check["message"].clone()))
            .collect::<Vec<_>>()
    };
    let checks = examine("migrate-source");
    let ids: Vec<_> = checks.iter().map(|(id, ..)| id.as_str().expect("a text")).collect();
    assert_eq!(ids, ["keystore.reach", "keystore.rights", "keystore.latency", "keystore.clock"]);
    assert!(checks.iter().all(|(_, status, _)| status == "ok"), "{checks:?}");
    let checks = examine("migrate-target");
    let (_, status, message) = checks.iter().find(|(id, ..)| id == "keystore.rights").expect("it is checked");
    assert_eq!(status, "failed");
    assert!(message.as_str().expect("a text").contains("do not allow secretsmanager:CreateSecret"), "{message}");
}
