//! `keys.decrypts`: the keys of the store open what the running server has encrypted.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::{Report, count, some};
use crate::api::wire::DecryptRequest;
use crate::cli::input;
use crate::crypto::{Key, base64, json};
use crate::keystore::{Error, KeyStore};
use crate::name::KeyName;
use crate::telemetry::log::causes;

pub(super) const ID: &str = "keys.decrypts";
const FIX: &str = "make sure that the config names the key store of the server that made the ciphertext, and restore keys \
                   that are missing; one that was made with a context needs it in the file, as \"context\"";

/// What a running server has encrypted, and must be opened.
pub(super) struct Ciphertext {
    file: PathBuf,
    request: DecryptRequest,
}

impl Ciphertext {
    /// Reads a file: what `key encrypt` and `key dek` print, or the ciphertext alone in base64.
    pub(super) fn read(file: &Path) -> anyhow::Result<Self> {
        let text = input::read(file)?;
        let request = parse(&text).with_context(|| format!("'{}' holds no ciphertext", file.display()))?;
        Ok(Self { file: file.to_owned(), request })
    }
}

fn parse(text: &[u8]) -> anyhow::Result<DecryptRequest> {
    let text = text.trim_ascii();
    // On a terminal a label stands before it.
    let text = text.strip_prefix(b"ciphertext:").unwrap_or(text).trim_ascii();
    let request = match text.starts_with(b"{") {
        // The error may quote a data key that stands there, too.
        true => json::object(text).ok().context("its JSON is malformed")?,
        false => {
            let ciphertext = base64::decode(text).context("it is neither base64 nor what 'key encrypt' prints")?;
            DecryptRequest { ciphertext: ciphertext.into(), ..DecryptRequest::default() }
        }
    };
    if request.ciphertext.is_empty() {
        bail!("there is no \"ciphertext\" in it");
    }
    Ok(request)
}

/// Tries keys on each ciphertext, since none says which key made it: these, or without any all there are.
pub(super) async fn check(
    store: &dyn KeyStore,
    keys: Option<&[KeyName]>,
    ciphertexts: &[Ciphertext],
    report: &mut Report,
) {
    let keys = match keys {
        Some(keys) => Ok(keys.to_vec()),
        None => store.list("").await.map(|listing| listing.names),
    };
    let keys = match keys {
        Ok(keys) => keys,
        Err(error) => {
            let fix = "correct what the message names, or name the keys with '--require-keys'";
            return report.failed(ID, format!("the keys cannot be listed: {}", causes(&error)), fix);
        }
    };
    let mut openers = vec![None; ciphertexts.len()];
    let mut unread = Vec::new();
    for name in &keys {
        if openers.iter().all(Option::is_some) {
            break;
        }
        match read(store, name).await {
            Ok(Some(key)) => {
                for (opener, Ciphertext { request, .. }) in openers.iter_mut().zip(ciphertexts) {
                    if opener.is_none() && key.decrypt(&request.ciphertext, &request.context).is_ok() {
                        *opener = Some(name);
                    }
                }
            }
            Ok(None) => {}
            Err(why) => unread.push(format!("'{name}' ({why})")),
        }
    }
    for (Ciphertext { file, .. }, opener) in ciphertexts.iter().zip(openers) {
        let file = file.display();
        match opener {
            Some(name) => report.ok(ID, format!("the key '{name}' opens '{file}'")),
            None if unread.is_empty() => {
                report.failed(ID, format!("none of {} opens '{file}'", count(keys.len(), "key")), FIX);
            }
            None => {
                let all = count(keys.len(), "key");
                let message = format!("none of {all} opens '{file}', and these cannot be read: {}", some(&unread));
                report.failed(ID, message, FIX);
            }
        }
    }
}

/// Reads a key; none: it does not exist.
async fn read(store: &dyn KeyStore, name: &KeyName) -> Result<Option<Key>, String> {
    match store.get(name).await {
        Ok(value) => Key::parse(&value).map(Some).map_err(|error| error.to_string()),
        Err(Error::NotFound) => Ok(None),
        Err(error) => Err(causes(&error)),
    }
}

/// Reports that the key store does not exist.
pub(super) fn nowhere(ciphertexts: &[Ciphertext], report: &mut Report) {
    if !ciphertexts.is_empty() {
        report.failed(ID, "there is no key store whose keys could open a ciphertext", FIX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_what_commands_print() {
        for text in [
            r#"{"ciphertext":"aGVsbG8="}"#,
            "{\"plaintext\":\"c2VjcmV0\",\"ciphertext\":\"aGVsbG8=\"}\n",
            "\nciphertext: aGVsbG8=\n",
            "aGVs\nbG8=\n",
        ] {
            let request = parse(text.as_bytes()).expect(text);
            assert!(*request.ciphertext == *b"hello" && request.context.is_empty(), "{text}");
        }
        let request = parse(br#"{"ciphertext":"aGVsbG8=","context":"Y3R4"}"#).expect("a context, too");
        assert_eq!(*request.context, *b"ctx");
        for text in ["", "{}", "{\"ciphertext\":\"\"}", "{\"ciphertext\":7}", "hunter2!", "{\"plaintext\":\"c2Vj"] {
            let error = parse(text.as_bytes()).expect_err(text).to_string();
            assert!(!error.contains("hunter2") && !error.contains("c2Vj"), "{error}");
        }
    }
}
