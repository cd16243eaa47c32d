//! Fortanix SDKMS, Thales CipherTrust Manager and Entrust KeyControl: first of all, all keys can leave them.

use futures_util::future::join_all;
use serde_json::json;

use claviger::crypto::Blob;
use claviger::keystore::{Error, KeyStore};
use claviger::telemetry::log::causes;

use super::{Vendor, connect, name};
use crate::support::block_on;
use crate::support::clouds::Clouds;

pub const FORTANIX: Vendor = Vendor {
    name: "fortanix",
    section: |clouds, endpoint| {
        let credentials = json!({ "key": clouds.fact("SDKMS_KEY") });
        let tls = json!({ "ca": clouds.ca() });
        json!({ "fortanix": { "sdkms": { "endpoint": endpoint, "credentials": credentials, "tls": tls } } })
    },
    variables: |_| Vec::new(),
    create: ("PUT", "/crypto/v1/keys"),
    read: ("POST", "/crypto/v1/keys/export"),
    list: ("GET", "/crypto/v1/keys?"),
    delete: ("DELETE", "/crypto/v1/keys/"),
    bare: &[("list", "[]")],
    charges: None,
    longest: 65_536,
    expires: true,
};

pub const GEMALTO: Vendor = Vendor {
    name: "gemalto",
    section: |clouds, endpoint| {
        let credentials = json!({ "token": clouds.fact("CIPHERTRUST_TOKEN"), "domain": "a-domain" });
        let tls = json!({ "ca": clouds.ca() });
        json!({ "gemalto": { "keysecure": { "endpoint": endpoint, "credentials": credentials, "tls": tls } } })
    },
    variables: |_| Vec::new(),
    create: ("POST", "/vault/secrets$"),
    read: ("POST", "/export?type=name"),
    list: ("GET", "/vault/secrets?"),
    delete: ("DELETE", "/vault/secrets/"),
    bare: &[],
    charges: None,
    longest: 65_536,
    expires: true,
};

pub const ENTRUST: Vendor = Vendor {
    name: "entrust",
    section: |clouds, endpoint| {
        let [username, password] = ["KEYCONTROL_USER", "KEYCONTROL_PASSWORD"].map(|name| clouds.fact(name));
        json!({ "entrust": { "keycontrol": {
            "endpoint": endpoint,
            "vault_id": clouds.fact("KEYCONTROL_VAULT"),
            "box_id": clouds.fact("KEYCONTROL_BOX"),
            "credentials": { "username": username, "password": password },
            "tls": { "ca": clouds.ca() },
        } } })
    },
    variables: |_| Vec::new(),
    create: ("POST", "/CreateSecret/"),
    read: ("POST", "/CheckoutSecret/"),
    list: ("POST", "/ListSecretIds/"),
    delete: ("POST", "/DeleteSecret/"),
    bare: &[("delete", "{}")],
    charges: None,
    longest: 65_536,
    expires: true,
};

fn blob(text: &str) -> Blob {
    text.as_bytes().to_vec().into()
}

async fn create_all(store: &dyn KeyStore, count: usize) -> Vec<claviger::name::KeyName> {
    let names: Vec<_> = (0..count).map(|n| name(&format!("key-{n:03}"))).collect();
    let value = blob("value");
    join_all(names.iter().map(|name| store.create(name, &value))).await.into_iter().for_each(|c| c.expect("created"));
    names
}

/// The archived server's listings loop for ever (Fortanix), or begin with empty names (Entrust).
#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn listings_end_and_are_complete() {
    for vendor in [&FORTANIX, &GEMALTO, &ENTRUST] {
        let clouds = Clouds::start();
        block_on(async {
            let store = vendor.connect(&clouds).await;
            let names = create_all(&*store, 530).await;
            clouds.forget();
            assert_eq!(store.list("").await.expect("listed").names, names, "{}", vendor.name);
            let asked = clouds.count(vendor.list.0, vendor.list.1);
            assert!(asked < 20, "{}: {asked} requests", vendor.name);
            assert_eq!(store.list("key-1").await.expect("listed").names, names[100..200], "{}", vendor.name);
        });
    }
}

/// A service whose pages begin with the name that they are to follow, or never move on.
#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn a_listing_that_repeats_itself_ends() {
    let clouds = Clouds::start();
    block_on(async {
        let store = FORTANIX.connect(&clouds).await;
        let page = json!([{ "kid": "1", "name": "key", "obj_type": "OPAQUE", "enabled": true },
            { "kid": "2", "name": "other", "obj_type": "AES", "enabled": true }]);
        clouds.fault("GET", "/crypto/v1/keys?", 100, &json!({ "status": 200, "body": page.to_string() }));
        let listed = store.list("").await.expect("listed");
        assert_eq!(listed.names, [name("key")]);
        assert_eq!(listed.foreign.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["other"]);

        let store = ENTRUST.connect(&clouds).await;
        let page = json!({ "Secrets": [], "next_token": "again" }).to_string();
        clouds.fault("POST", "/ListSecretIds/", 100, &json!({ "status": 200, "body": page }));
        let listed = store.list("").await;
        assert!(matches!(listed, Err(Error::Failed(_))), "{listed:?}");

        let store = GEMALTO.connect(&clouds).await;
        let page = json!({ "skip": 0, "limit": 200, "total": 3, "resources": [] }).to_string();
        clouds.fault("GET", "/vault/secrets?", 100, &json!({ "status": 200, "body": page }));
        let listed = store.list("").await;
        assert!(matches!(listed, Err(Error::Failed(_))), "{listed:?}");
    });
}

#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn what_is_disabled_or_expired_is_no_missing_key() {
    let clouds = Clouds::start();
    block_on(async {
        let store = FORTANIX.connect(&clouds).await;
        store.create(&name("key"), &blob("value")).await.expect("created");
        clouds.set("sdkms_disabled", "key");
        let error = store.get(&name("key")).await.expect_err("disabled");
        assert!(matches!(error, Error::Failed(_)) && causes(&error).contains("disabled"), "{error:?}");
        let created = store.create(&name("key"), &blob("value")).await;
        assert!(matches!(created, Err(Error::Exists)), "{created:?}");

        let store = ENTRUST.connect(&clouds).await;
        store.create(&name("key"), &blob("value")).await.expect("created");
        clouds.set("keycontrol_expired", "key");
        let listed = store.list("").await.expect("listed");
        assert_eq!((listed.names.len(), listed.foreign[0].reason), (0, "it has expired"));
    });
}

/// Thales answers 404 to those who lack a right, too.
#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn a_missing_right_is_no_missing_key() {
    let clouds = Clouds::start();
    block_on(async {
        let store = GEMALTO.connect(&clouds).await;
        store.create(&name("key"), &blob("value")).await.expect("created");
        clouds.deny("ciphertrust.delete");
        let error = store.delete(&name("key")).await.expect_err("no right");
        assert!(matches!(error, Error::Failed(_)) && causes(&error).contains("no right to it"), "{error:?}");
        clouds.reset();
        let none = json!({ "status": 404, "body": r#"{"code":6,"codeDesc":"NCERRResourceNotFound"}"# });
        // Once, it was being replaced; whoever has no right gets that answer each time.
        clouds.fault("POST", "/export?type=name", 1, &none);
        assert!(store.get(&name("key")).await.expect("there").is_same(&blob("value")));
        clouds.fault("POST", "/export?type=name", 5, &none);
        let error = store.get(&name("key")).await.expect_err("no right");
        assert!(matches!(error, Error::Failed(_)), "{error:?}");
        // And one that was missing a moment ago is not missing for long.
        assert!(matches!(store.get(&name("new")).await, Err(Error::NotFound)));
        store.create(&name("new"), &blob("value")).await.expect("created");
        clouds.fault("POST", "new/export?type=name", 5, &none);
        let error = store.get(&name("new")).await.expect_err("no right");
        assert!(matches!(error, Error::Failed(_)), "{error:?}");
        store.delete(&name("new")).await.expect("deleted");
        assert!(matches!(store.get(&name("new")).await, Err(Error::NotFound)));
    });
}

/// Of 50 requests that find the token expired one logs in, and one that is due is renewed before.
#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn tokens_are_replaced_by_one_login() {
    for (vendor, login) in [(&GEMALTO, "/auth/tokens"), (&ENTRUST, "/Login/")] {
        let clouds = Clouds::start();
        block_on(async {
            let store = vendor.connect(&clouds).await;
            let key = name("key");
            store.create(&key, &blob("value")).await.expect("created");
            tokio::time::sleep(std::time::Duration::from_secs(5)).await;
            clouds.advance(4_000);
            clouds.forget();
            let got = join_all((0..50).map(|_| store.get(&key))).await;
            assert!(got.iter().all(Result::is_ok), "{}: {got:?}", vendor.name);
            assert_eq!(clouds.count("POST", login), 1, "{}", vendor.name);
        });
    }
    let clouds = Clouds::start();
    clouds.set("keycontrol_lifetime", "3s");
    block_on(async {
        let store = ENTRUST.connect(&clouds).await;
        for _ in 0..50 {
            store.get(&name("key")).await.map(drop).expect_err("missing");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    });
    assert_eq!(clouds.count("POST", "/Login/"), 1, "it is renewed");
    assert!(clouds.count("POST", "/Renew/") >= 1);
}

#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn wrong_credentials_are_said_to_be_so() {
    let clouds = Clouds::start();
    for (vendor, secret, says) in [
        (&FORTANIX, "SDKMS_KEY", "API key is wrong"),
        (&GEMALTO, "CIPHERTRUST_TOKEN", "login refused"),
        (&ENTRUST, "KEYCONTROL_PASSWORD", "login refused"),
    ] {
        let section = vendor.section(&clouds).to_string().replace(clouds.fact(secret), "hunter2");
        let section = serde_json::from_str(&section).expect("JSON");
        let error = block_on(connect(&section, &[])).map(drop).expect_err("refused");
        assert!(matches!(error, Error::Failed(_)), "{}: {error:?}", vendor.name);
        let said = causes(&error);
        assert!(said.contains(says) && !said.contains("hunter2"), "{}: {said}", vendor.name);
    }
}
