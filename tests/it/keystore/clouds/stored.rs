//! What the archived server kept there.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use claviger::crypto::Key;

use super::super::admin;
use super::{VENDORS, Vendor, name};
use crate::support::clouds::Clouds;
use crate::support::{block_on, testdata};

fn recorded(vendor: &str) -> Value {
    let text = std::fs::read(testdata(format!("clouds/{vendor}.json"))).expect("readable");
    serde_json::from_slice(&text).expect("JSON")
}

/// The stored keys of a recording, by name, as a directory would hold them.
fn stored_keys(vendor: &str) -> Vec<(String, String)> {
    let recorded = recorded(vendor);
    let entries = recorded["stored"].as_object().expect("an object");
    let text = |entry: &Value| entry.as_str().expect("a text").to_owned();
    let value = |entry: &Value| match vendor {
        "gcp" | "azure" => text(&entry["versions"][0]["value"]),
        "gemalto" => text(entry),
        _ => String::from_utf8(STANDARD.decode(text(entry)).expect("base64")).expect("text"),
    };
    entries.iter().map(|(name, entry)| (name.clone(), value(entry))).collect()
}

/// The answer to `dek my-key`.
fn data_key(vendor: &str) -> Value {
    let recorded = recorded(vendor);
    let actions = recorded["cases"][0]["actions"].as_array().expect("a list");
    let action = actions.iter().find(|action| action["action"] == "dek my-key").expect("it is there");
    serde_json::from_str(action["says"].as_str().expect("a text")).expect("JSON")
}

#[test]
fn every_key_loads_and_data_keys_decrypt() {
    for vendor in ["gcp", "azure", "fortanix", "gemalto", "entrust"] {
        let keys = stored_keys(vendor);
        assert!(keys.len() >= 3, "{vendor}");
        for (name, value) in &keys {
            let key = Key::parse(&value.clone().into_bytes().into()).unwrap_or_else(|e| panic!("{vendor} {name}: {e}"));
            if name == "my-key" {
                let [plaintext, ciphertext] = ["plaintext", "ciphertext"]
                    .map(|field| STANDARD.decode(data_key(vendor)[field].as_str().expect("a text")).expect("base64"));
                assert_eq!(*key.decrypt(&ciphertext, b"").expect("authentic"), plaintext, "{vendor}");
            }
        }
    }
}

/// An entry of the stub's state, without what is different each time.
fn without_times(mut entry: Value) -> Value {
    for version in entry.get_mut("versions").and_then(Value::as_array_mut).into_iter().flatten() {
        let fields = version.as_object_mut().expect("an object");
        ["created", "version"].iter().for_each(|field| drop(fields.remove(*field)));
    }
    entry
}

/// Our own creates make the same entries, so either server reads what the other one has written.
#[test]
#[ignore = "runs the stub of tests/peers/clouds: tests/run"]
fn entries_are_those_of_the_archived_server() {
    for vendor in VENDORS {
        let clouds = Clouds::start();
        let keys = stored_keys(vendor.name);
        block_on(async {
            let store = vendor.connect(&clouds).await;
            for (key, value) in &keys {
                store.create(&name(key), &value.clone().into_bytes().into()).await.expect("created");
            }
        });
        let stored: serde_json::Map<_, _> =
            clouds.stored(vendor.name).into_iter().map(|(name, entry)| (name, without_times(entry))).collect();
        let recorded = recorded(vendor.name)["stored"].as_object().expect("an object").clone();
        let recorded: serde_json::Map<_, _> =
            recorded.into_iter().map(|(name, entry)| (name, without_times(entry))).collect();
        assert_eq!(Value::Object(stored), Value::Object(recorded), "{}", vendor.name);
        decrypts(vendor, &clouds);
    }
}

fn decrypts(vendor: &Vendor, clouds: &Clouds) {
    let server = vendor.serve(clouds, "{}");
    block_on(async {
        let client = admin(&server);
        let DataKey { plaintext, ciphertext } = DataKey::of(vendor.name);
        let answer = client.put_json("/v1/key/decrypt/my-key", &json!({ "ciphertext": ciphertext })).await;
        assert_eq!(answer.json(), json!({ "plaintext": plaintext }), "{}", vendor.name);
    });
}

struct DataKey {
    plaintext: Value,
    ciphertext: Value,
}

impl DataKey {
    fn of(vendor: &str) -> Self {
        let mut recorded = data_key(vendor);
        Self { plaintext: recorded["plaintext"].take(), ciphertext: recorded["ciphertext"].take() }
    }
}
