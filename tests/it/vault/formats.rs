//! Keys and ciphertexts of the real OpenBao are read here, and ours are read there.

use claviger::kms::transit::{Key, Refused, backup};
use claviger::name::TransitName;
use serde_json::{Value, json};

use crate::support::openbao::{Admin, OpenBao, unique};

/// "my context" and "bound" in base64.
const CONTEXT: &str = "bXkgY29udGV4dA==";
const BOUND: &str = "Ym91bmQ=";

fn engine(bao: &Admin) -> String {
    let path = unique("transit");
    bao.ask("POST", &format!("sys/mounts/{path}"), json!({ "type": "transit" }));
    path
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// The backup of a key, which becomes exportable for it.
fn exported(bao: &Admin, engine: &str, key: &str) -> Value {
    let open = json!({ "exportable": true, "allow_plaintext_backup": true });
    bao.ask("POST", &format!("{engine}/keys/{key}/config"), open);
    bao.ask("GET", &format!("{engine}/backup/{key}"), Value::Null)
}

fn imported(answer: &Value) -> Key {
    let (name, key) = backup::parse(answer.to_string().as_bytes()).expect("a backup");
    Key::of_message(TransitName::parse(&name).expect("a name"), &key).expect("a key")
}

/// A ciphertext of OpenBao's latest version, with what belongs to the key.
fn encrypted(bao: &Admin, engine: &str, key: &str, is_bound: bool) -> String {
    let mut request = json!({ "plaintext": "bWVzc2FnZQ==", "context": CONTEXT });
    if is_bound {
        request["associated_data"] = json!(BOUND);
    }
    text(&bao.ask("POST", &format!("{engine}/encrypt/{key}"), request)["data"]["ciphertext"])
}

fn associated(is_bound: bool) -> &'static [u8] {
    if is_bound { b"bound" } else { b"" }
}

#[test]
#[ignore = "needs OpenBao"]
fn every_kind_of_key_opens_what_the_other_side_sealed_over_three_versions() {
    let bao = OpenBao::shared();
    let engine = engine(&bao);
    for kind in ["aes256-gcm96", "aes128-gcm96", "chacha20-poly1305"] {
        for derived in [false, true] {
            let name = format!("{kind}-{derived}.1");
            let path = format!("{engine}/keys/{name}");
            bao.ask("POST", &path, json!({ "type": kind, "derived": derived }));
            let mut theirs = Vec::new();
            let mut hmacs = Vec::new();
            for version in 1..=3 {
                theirs.extend([false, true].map(|is_bound| (encrypted(&bao, &engine, &name, is_bound), is_bound)));
                let hmac = bao.ask("POST", &format!("{engine}/hmac/{name}"), json!({ "input": "aW5wdXQ=" }));
                hmacs.push(text(&hmac["data"]["hmac"]));
                if version < 3 {
                    bao.ask("POST", &format!("{path}/rotate"), json!({}));
                }
            }
            // Only the archive has the first version then.
            bao.ask("POST", &format!("{path}/config"), json!({ "min_decryption_version": 2 }));
            let key = imported(&exported(&bao, &engine, &name));
            bao.ask("POST", &format!("{path}/config"), json!({ "min_decryption_version": 1 }));
            let whole = imported(&exported(&bao, &engine, &name));
            let context = Some(&b"my context"[..]);
            for (ciphertext, is_bound) in &theirs {
                let opened = whole.decrypt(ciphertext, context, associated(*is_bound)).expect("authentic");
                assert_eq!(opened.as_slice(), b"message", "{name}");
                let opened = key.decrypt(ciphertext, context, associated(*is_bound));
                assert_eq!(matches!(opened, Err(Refused::TooOld)), ciphertext.starts_with("vault:v1:"), "{name}");
            }
            for (number, hmac) in (1..).zip(&hmacs) {
                assert_eq!(whole.hmac(number, b"input").expect("signed"), *hmac, "{name}");
            }
            for (version, is_bound) in [(1, false), (2, true), (3, false)] {
                let (_, ciphertext) =
                    whole.encrypt(version, context, associated(is_bound), b"ours").expect("encrypted");
                let mut request = json!({ "ciphertext": ciphertext, "context": CONTEXT });
                if is_bound {
                    request["associated_data"] = json!(BOUND);
                }
                let opened = bao.ask("POST", &format!("{engine}/decrypt/{name}"), request);
                assert_eq!(opened["data"]["plaintext"], "b3Vycw==", "{name}");
            }
        }
    }
}

#[test]
#[ignore = "needs OpenBao"]
fn a_key_goes_to_an_openbao_and_back_with_what_was_trimmed_and_what_was_not() {
    let bao = OpenBao::shared();
    let engine = engine(&bao);
    for trimmed in [false, true] {
        let name = format!("trimmed-{trimmed}");
        let path = format!("{engine}/keys/{name}");
        bao.ask("POST", &path, json!({ "derived": true }));
        bao.ask("POST", &format!("{path}/rotate"), json!({}));
        let ciphertext = encrypted(&bao, &engine, &name, false);
        bao.ask("POST", &format!("{path}/rotate"), json!({}));
        bao.ask("POST", &format!("{path}/config"), json!({ "min_decryption_version": 2, "min_encryption_version": 3 }));
        if trimmed {
            bao.ask("POST", &format!("{path}/trim"), json!({ "min_available_version": 2 }));
        }
        let key = imported(&exported(&bao, &engine, &name));
        let (settings, expected) = (key.settings(), if trimmed { 2 } else { 0 });
        assert_eq!((settings.min_decryption, settings.min_encryption, settings.min_available), (2, 3, expected));
        let back = format!("{name}-back");
        let written = backup::write(&back, &key.to_message());
        bao.ask("POST", &format!("{engine}/restore/{back}"), json!({ "backup": *written }));
        let opened = bao.ask(
            "POST",
            &format!("{engine}/decrypt/{back}"),
            json!({ "ciphertext": ciphertext, "context": CONTEXT }),
        );
        assert_eq!(opened["data"]["plaintext"], "bWVzc2FnZQ==");
        // It goes on as a key of its own: it is rotated, and its backup is read again.
        bao.ask("POST", &format!("{engine}/keys/{back}/rotate"), json!({}));
        let again = imported(&exported(&bao, &engine, &back));
        assert_eq!(again.latest(), 4);
        assert_eq!(again.decrypt(&ciphertext, Some(b"my context"), b"").expect("authentic").as_slice(), b"message");
        let shown = bao.ask("GET", &format!("{engine}/keys/{back}"), Value::Null);
        assert_eq!(shown["data"]["min_available_version"], expected);
    }
}

#[test]
#[ignore = "needs OpenBao"]
fn keys_that_cannot_be_kept_are_refused() {
    let bao = OpenBao::shared();
    let engine = engine(&bao);
    for (name, settings) in [
        ("xchacha", json!({ "type": "xchacha20-poly1305" })),
        ("rsa", json!({ "type": "rsa-2048" })),
        ("ed25519", json!({ "type": "ed25519" })),
        ("convergent", json!({ "derived": true, "convergent_encryption": true })),
    ] {
        bao.ask("POST", &format!("{engine}/keys/{name}"), settings);
        let answer = exported(&bao, &engine, name);
        assert!(backup::parse(answer.to_string().as_bytes()).is_err(), "{name}");
    }
}
