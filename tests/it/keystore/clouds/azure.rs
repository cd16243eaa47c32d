//! Azure Key Vault.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use claviger::crypto::Blob;
use claviger::keystore::{Access, Error};
use claviger::telemetry::log::causes;

use super::{Vendor, connect, name};
use crate::support::clouds::Clouds;
use crate::support::program::Program;
use crate::support::server::dev_config;
use crate::support::{block_on, testdata};

pub const VENDOR: Vendor = Vendor {
    name: "azure",
    section: |clouds, endpoint| section(clouds, endpoint, ""),
    variables,
    create: ("PUT", "/secrets/"),
    read: ("GET", "/versions?"),
    list: ("GET", "/secrets?"),
    delete: ("DELETE", "/secrets/"),
    bare: &[],
    charges: Some(("Azure Key Vault", 13)),
    longest: 25_000,
    expires: true,
};

/// The resource of the stub, whose own name is that of production.
fn variables(clouds: &Clouds) -> Vec<(&'static str, String)> {
    vec![("AZURE_AUTHORITY_HOST", clouds.secure().to_owned())]
}

/// With the secret of an application in the config.
fn section(clouds: &Clouds, endpoint: &str, prefix: &str) -> Value {
    let mut section = bare(clouds, endpoint);
    section["azure"]["keyvault"]["prefix"] = prefix.into();
    section["azure"]["keyvault"]["credentials"] = json!({
        "tenant_id": clouds.fact("AZURE_TENANT_ID"),
        "client_id": clouds.fact("AZURE_CLIENT_ID"),
        "client_secret": clouds.fact("AZURE_CLIENT_SECRET"),
    });
    section
}

/// Without credentials.
fn bare(clouds: &Clouds, endpoint: &str) -> Value {
    json!({ "azure": { "keyvault": { "endpoint": endpoint }, "tls": { "ca": clouds.ca() } } })
}

fn blob(text: &str) -> Blob {
    text.as_bytes().to_vec().into()
}

/// A version that somebody else adds.
fn put(clouds: &Clouds, id: &str, body: &Value) {
    let added = clouds.as_azure("PUT", &format!("/secrets/{id}"), body);
    assert_eq!(added.status, 200, "{added:?}");
}

#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn the_oldest_of_many_versions_counts() {
    let clouds = Clouds::start();
    put(&clouds, "key", &json!({ "value": "oldest" }));
    clouds.advance(3);
    for n in 0..30 {
        put(&clouds, "key", &json!({ "value": format!("later {n}") }));
    }
    clouds.advance(6);
    block_on(async {
        let store = VENDOR.connect(&clouds).await;
        assert!(store.get(&name("key")).await.expect("there").is_same(&blob("oldest")));
        let created = store.create(&name("key"), &blob("value")).await;
        assert!(matches!(created, Err(Error::Exists)), "{created:?}");
    });
}

#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn what_may_not_be_used_is_no_missing_key() {
    let clouds = Clouds::start();
    put(&clouds, "disabled", &json!({ "value": "v", "attributes": { "enabled": false } }));
    put(&clouds, "early", &json!({ "value": "v", "attributes": { "nbf": 4_000_000_000_u64 } }));
    put(&clouds, "late", &json!({ "value": "v", "attributes": { "exp": 1_000_000_000 } }));
    put(&clouds, "deleted", &json!({ "value": "v" }));
    assert_eq!(clouds.as_azure("DELETE", "/secrets/deleted", &Value::Null).status, 200);
    block_on(async {
        let store = VENDOR.connect(&clouds).await;
        for (key, says) in
            [("disabled", "disabled"), ("early", "nbf"), ("late", "expired"), ("deleted", "az keyvault secret recover")]
        {
            let error = store.get(&name(key)).await.expect_err(key);
            assert!(matches!(error, Error::Failed(_)) && causes(&error).contains(says), "{key}: {error:?}");
            match store.create(&name(key), &blob("value")).await {
                Err(Error::Exists) => assert_ne!(key, "deleted"),
                // What can be recovered is never destroyed by a create.
                Err(error @ Error::Failed(_)) => {
                    assert!(causes(&error).contains("az keyvault secret purge"), "{error:?}")
                }
                other => panic!("{key}: {other:?}"),
            }
        }
        // An explicit delete frees the name.
        store.delete(&name("deleted")).await.expect("purged");
        store.create(&name("deleted"), &blob("value")).await.expect("created");
    });
}

#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn one_name_has_one_spelling() {
    let clouds = Clouds::start();
    block_on(async {
        let store = VENDOR.connect(&clouds).await;
        store.create(&name("Key"), &blob("value")).await.expect("created");
        assert!(store.get(&name("Key")).await.expect("there").is_same(&blob("value")));
        for other in ["key", "KEY"] {
            let error = store.get(&name(other)).await.expect_err(other);
            assert!(matches!(error, Error::Failed(_)), "{error:?}");
            assert!(causes(&error).contains("is stored as 'Key'"), "{error:?}");
            let created = store.create(&name(other), &blob("value")).await;
            assert!(matches!(created, Err(Error::Failed(_))), "{created:?}");
            let deleted = store.delete(&name(other)).await;
            assert!(matches!(deleted, Err(Error::Failed(_))), "{deleted:?}");
        }
        for call in [store.get(&name("with_line")).await.map(drop), store.create(&name("with_line"), &blob("v")).await]
        {
            let error = call.expect_err("no such name");
            assert!(causes(&error).contains("write '-'"), "{error:?}");
        }
        assert_eq!(store.list("").await.expect("listed").names, [name("Key")]);
    });
}

/// Names that do not fit are told before anything is written: by the doctor, and by a migration.
#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn names_that_do_not_fit_are_told_beforehand() {
    let clouds = Clouds::start();
    let directory = tempfile::tempdir().expect("a directory");
    let section = section(&clouds, clouds.secure(), "");
    let config = dev_config("").replace("{ fs: { path: keys } }", &section.to_string());
    std::fs::write(directory.path().join("config.yml"), format!("{config}keys: [ {{ name: with_line }} ]\n"))
        .expect("written");
    std::fs::write(directory.path().join("dst.yml"), json!({ "keystore": section }).to_string()).expect("written");
    std::fs::write(directory.path().join("src.yml"), "keystore: { fs: { path: keys } }").expect("written");
    std::fs::create_dir(directory.path().join("keys")).expect("made");
    let key = std::fs::read(testdata("http/fixture/keys/my-key")).expect("readable");
    for name in ["with_line", "key", "Key", "KEY"] {
        std::fs::write(directory.path().join("keys").join(name), &key).expect("written");
    }
    let program = Program::named("claviger", directory.path()).env("AZURE_AUTHORITY_HOST", clouds.secure());
    let said = program.run(&["doctor", "--config", "config.yml"]).stdout;
    assert!(said.contains("keystore.names") && said.contains("cannot have 'with_line'"), "{said}");
    let said = program.run(&["migrate", "--from", "src.yml", "--to", "dst.yml"]).stderr;
    assert!(said.contains("'with_line' on the source: the target cannot have it"), "{said}");
    assert_eq!(said.matches("to the target it is the same name as").count(), 2, "{said}");
    assert!(clouds.stored("azure").is_empty());
}

#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn a_part_of_a_vault_sees_nothing_else() {
    let clouds = Clouds::start();
    block_on(async {
        put(&clouds, "password", &json!({ "value": "hunter2" }));
        let store = connect(&section(&clouds, clouds.secure(), "kes-"), &variables(&clouds)).await.expect("connects");
        let names: Vec<_> = (0..60).map(|n| name(&format!("key-{n:02}"))).collect();
        let value = blob("value");
        join_all(names.iter().map(|name| store.create(name, &value)))
            .await
            .into_iter()
            .for_each(|c| c.expect("created"));
        assert_eq!(store.list("").await.expect("listed").names, names, "page by page");
        assert_eq!(store.list("key-1").await.expect("listed").names, names[10..20]);
        assert!(matches!(store.get(&name("password")).await, Err(Error::NotFound)));

        // The token does not go to other servers, and no page is its own successor.
        for (link, says) in [("https://127.0.0.1:1/secrets", "another server"), (clouds.secure(), "has no end")] {
            let page = json!({ "value": [], "nextLink": format!("{link}/secrets?x=y") }).to_string();
            clouds.fault("GET", "/secrets?", 100, &json!({ "status": 200, "body": page }));
            let error = store.list("").await.expect_err("no end");
            assert!(matches!(error, Error::Failed(_)) && causes(&error).contains(says), "{error:?}");
            clouds.reset();
        }
    });
}

#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn a_slow_delete_is_waited_for_and_a_protected_vault_keeps_its_keys() {
    let clouds = Clouds::start();
    block_on(async {
        let store = VENDOR.connect(&clouds).await;
        store.create(&name("key"), &blob("value")).await.expect("created");
        clouds.set("azure_deleting", "1500ms");
        store.delete(&name("key")).await.expect("deleted and purged");
        assert!(matches!(store.get(&name("key")).await, Err(Error::NotFound)));
        store.create(&name("key"), &blob("again")).await.expect("as soon as the name is free");
        clouds.set("azure_deleting", "0s");

        clouds.set("azure_purge_protection", "on");
        let refused =
            [store.delete(&name("key")).await, store.replace(&name("key"), &blob("again"), &blob("new")).await];
        for error in refused.map(|refused| refused.expect_err("protected")) {
            assert!(matches!(error, Error::Failed(_)), "{error:?}");
            assert!(causes(&error).contains("protects deleted secrets"), "{error:?}");
        }
        assert!(store.get(&name("key")).await.expect("still there").is_same(&blob("again")));
    });
}

/// The time between the write and the proof is that of the vault's clock, not of ours.
#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn a_young_key_is_read_when_it_is_settled() {
    let clouds = Clouds::start();
    block_on(async {
        let store = VENDOR.connect(&clouds).await;
        put(&clouds, "key", &json!({ "value": "first" }));
        let began = std::time::Instant::now();
        assert!(store.get(&name("key")).await.expect("there").is_same(&blob("first")));
        assert!(began.elapsed() > Duration::from_millis(900), "nobody can add an older version any more");
        let began = std::time::Instant::now();
        store.get(&name("key")).await.expect("there");
        assert!(began.elapsed() < Duration::from_secs(5));
    });
}

#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn every_missing_right_is_named_with_what_gives_it() {
    const RIGHTS: [&str; 5] = ["get", "list", "set", "delete", "purge"];
    let clouds = Clouds::start();
    block_on(async {
        let store = VENDOR.connect(&clouds).await;
        for (access, needed) in [(Access::Read, 2), (Access::Create, 3), (Access::Serve, 5), (Access::Replace, 5)] {
            for (n, right) in RIGHTS.iter().enumerate() {
                clouds.deny(&format!("azure.{right}"));
                let checked = store.check(access).await;
                if n < needed {
                    let error = causes(&checked.expect_err("a right is missing"));
                    assert!(error.contains(&format!("missing rights: {right};")), "{error}");
                    let names = RIGHTS[..needed].join(" ");
                    let command = format!("--spn {} --secret-permissions {names}", clouds.fact("AZURE_CLIENT_ID"));
                    assert!(error.contains(&command), "{error}");
                } else {
                    checked.unwrap_or_else(|error| panic!("{right} is not needed: {error:?}"));
                }
                clouds.reset();
            }
        }
        clouds.set("azure_rbac", "on");
        clouds.deny("azure.get");
        let error =
            causes(&store.get(&name("key")).await.map(drop).and(store.check(Access::Serve).await).expect_err("denied"));
        assert!(error.contains("az role assignment create --role 'Key Vault Secrets Officer'"), "{error}");
        clouds.reset();
        assert!(clouds.stored("azure").is_empty(), "checks change nothing");

        // Without the right to purge nothing is deleted.
        store.create(&name("key"), &blob("value")).await.expect("created");
        clouds.deny("azure.purge");
        let error = store.delete(&name("key")).await.expect_err("a right is missing");
        assert!(causes(&error).contains("the right 'purge' is missing"), "{error:?}");
        clouds.reset();
        store.get(&name("key")).await.expect("still there");
    });
}

/// The secret of an application, a cluster that vouches for it, App Service, and the metadata service of a machine.
#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn logs_in_in_every_way() {
    let clouds = Clouds::start();
    let fact = |name: &str| clouds.fact(name).to_owned();
    let authority = ("AZURE_AUTHORITY_HOST", clouds.secure().to_owned());
    let application =
        [("AZURE_TENANT_ID", fact("AZURE_TENANT_ID")), ("AZURE_CLIENT_ID", fact("AZURE_CLIENT_ID")), authority];
    let secret = ("AZURE_CLIENT_SECRET", fact("AZURE_CLIENT_SECRET"));
    let file = ("AZURE_FEDERATED_TOKEN_FILE", clouds.file("azure-token"));
    let service = [
        ("IDENTITY_ENDPOINT", format!("{}/msi/token", clouds.plain())),
        ("IDENTITY_HEADER", "an-identity-header".to_owned()),
    ];
    let machine = ("AZURE_POD_IDENTITY_AUTHORITY_HOST", clouds.plain());
    let mut managed = bare(&clouds, clouds.secure());
    managed["azure"]["keyvault"]["managed_identity"] = json!({ "client_id": clouds.fact("AZURE_CLIENT_ID") });
    let default = bare(&clouds, clouds.secure());
    let ways = [
        ("secret", &default, [&application[..], &[secret]].concat()),
        ("federated", &default, [&application[..], &[file]].concat()),
        ("service", &default, service.to_vec()),
        ("machine", &default, vec![machine.clone()]),
        ("managed-service", &managed, service.to_vec()),
        ("managed-machine", &managed, vec![machine]),
    ];
    block_on(async {
        let all = ways.iter().map(async |(key, section, variables)| {
            let store = connect(section, variables).await.unwrap_or_else(|error| panic!("{key}: {}", causes(&error)));
            store.create(&name(key), &blob("value")).await.unwrap_or_else(|error| panic!("{key}: {}", causes(&error)));
            store
        });
        let stores = join_all(all).await;
        // Every token expires: of 50 requests that find out, one logs in.
        tokio::time::sleep(Duration::from_secs(3)).await;
        clouds.advance(4_000);
        clouds.forget();
        let key = name("secret");
        let got = join_all((0..50).map(|_| stores[0].get(&key))).await;
        assert!(got.iter().all(Result::is_ok), "{got:?}");
        assert_eq!(clouds.count("POST", "/oauth2/v2.0/token"), 1);
        for (store, (key, ..)) in stores.iter().zip(&ways).skip(1) {
            store.get(&name(key)).await.unwrap_or_else(|error| panic!("{key}: {}", causes(&error)));
        }
    });
}

#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn credentials_go_to_nobody_else() {
    let clouds = Clouds::start();
    let refused = |section: &Value, variables: &[(&str, String)]| {
        let error = block_on(connect(section, variables)).map(drop).expect_err("no login");
        assert!(matches!(error, Error::Failed(_)), "{error:?}");
        let said = causes(&error);
        assert!(!said.contains(clouds.fact("AZURE_CLIENT_SECRET")), "{said}");
        said
    };
    let good = section(&clouds, clouds.secure(), "");
    let said = refused(&good, &[("AZURE_AUTHORITY_HOST", "http://login.example.com".into())]);
    assert!(said.contains("no https:// address"), "{said}");
    let mut wrong = good.clone();
    wrong["azure"]["keyvault"]["credentials"]["client_secret"] = "wrong".into();
    let said = refused(&wrong, &variables(&clouds));
    assert!(said.contains("login refused") && said.contains("AADSTS7000215"), "{said}");
    // A vault that asks for a token for something else gets none.
    let challenge = r#"Bearer authorization="https://evil.example", resource="https://management.azure.com""#;
    let fault = json!({ "status": 401, "headers": { "WWW-Authenticate": challenge }, "body": "{}" });
    clouds.fault("GET", "/secrets?", 100, &fault);
    clouds.forget();
    let said = refused(&good, &variables(&clouds));
    assert!(said.contains("asks for a token for something else"), "{said}");
    assert_eq!(clouds.count("POST", "/token"), 0);
}
