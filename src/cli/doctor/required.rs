//! `keys.required`: the required keys exist, can be read, and encrypt and decrypt.

use std::path::PathBuf;

use anyhow::Context as _;

use super::{Report, count, some};
use crate::crypto::{Key, SecretKey};
use crate::keystore::{Error, KeyStore};
use crate::name::KeyName;
use crate::telemetry::log::causes;

pub(super) const ID: &str = "keys.required";
const FIX: &str = "correct the config when it names another place than theirs, or restore them from a backup";

/// Names from the command line.
#[derive(Debug, Clone)]
pub(super) enum Given {
    Names(Vec<KeyName>),
    /// A file with a name a line.
    File(PathBuf),
}

/// Names of keys, sorted.
pub(super) struct Keys(pub(super) Vec<KeyName>);

impl Given {
    /// A text with a slash or a dot is a path: no name contains them.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.contains(['/', '.']) {
            return Ok(Self::File(text.into()));
        }
        let names = text.split(',').map(|name| KeyName::parse(name.trim()).map_err(|error| error.to_string()));
        names.collect::<Result<_, _>>().map(Self::Names)
    }

    /// The names. A file may have empty lines, and lines that begin with '#'.
    pub(super) fn read(&self) -> anyhow::Result<Keys> {
        let mut names = match self {
            Self::Names(names) => names.clone(),
            Self::File(path) => {
                let text =
                    std::fs::read_to_string(path).with_context(|| format!("failed to read '{}'", path.display()))?;
                parse_lines(&text).map_err(|line| {
                    anyhow::anyhow!("{}:{line}: not the name of a key; write one name a line", path.display())
                })?
            }
        };
        anyhow::ensure!(!names.is_empty(), "--require-keys names no key: a check without names would always succeed");
        names.sort();
        names.dedup();
        Ok(Keys(names))
    }
}

/// The names, or the number of the first line that is not a name. Its text is not shown, because it may be a secret.
fn parse_lines(text: &str) -> Result<Vec<KeyName>, usize> {
    let lines = text.lines().map(str::trim).enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines.map(|(number, line)| KeyName::parse(line).map_err(|_| number + 1)).collect()
}

/// Reads each key, and encrypts and decrypts a data key with it.
pub(super) async fn check(store: &dyn KeyStore, keys: &Keys, report: &mut Report) {
    let mut broken = Vec::new();
    for name in &keys.0 {
        if let Err(why) = try_out(store, name).await {
            broken.push(format!("'{name}' ({why})"));
        }
    }
    let all = count(keys.0.len(), "required key");
    if broken.is_empty() {
        return report.ok(ID, format!("{all}, each there, readable and fit to encrypt and decrypt with"));
    }
    let message = format!("{} of {all} cannot be used: {}", broken.len(), some(&broken));
    report.failed(ID, message, FIX);
}

/// Reports that the key store does not exist.
pub(super) fn nowhere(keys: &Keys, report: &mut Report) {
    let message = format!("{}, and the key store is not there", count(keys.0.len(), "required key"));
    report.failed(ID, message, FIX);
}

async fn try_out(store: &dyn KeyStore, name: &KeyName) -> Result<(), String> {
    const CONTEXT: &[u8] = b"claviger doctor";
    let value = store.get(name).await.map_err(|error| match error {
        Error::NotFound => "it does not exist".to_owned(),
        error => causes(&error),
    })?;
    let key = Key::parse(&value).map_err(|error| error.to_string())?;
    let data_key = key.generate_data_key(CONTEXT).map_err(|error| error.to_string())?;
    let decrypted = key.decrypt(&data_key.ciphertext, CONTEXT).map_err(|error| error.to_string())?;
    let is_same = SecretKey::from_slice(&decrypted).is_some_and(|decrypted| decrypted.is_same(&data_key.plaintext));
    if is_same { Ok(()) } else { Err("a data key does not decrypt to what it was".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(keys: &Keys) -> Vec<&str> {
        keys.0.iter().map(KeyName::as_str).collect()
    }

    #[test]
    fn names_are_given_or_stand_in_a_file() {
        let given = Given::parse("my-key, other,my-key").expect("names");
        assert_eq!(names(&given.read().expect("names")), ["my-key", "other"]);
        assert!(matches!(Given::parse("./names"), Ok(Given::File(_))));
        assert!(matches!(Given::parse("names.txt"), Ok(Given::File(_))));
        let none = tempfile::NamedTempFile::new().expect("an empty file");
        assert!(Given::parse(none.path().to_str().expect("text")).expect("a file").read().is_err());
        assert!(Given::parse("my key").is_err());
        assert!(Given::parse("").is_err());
        assert!(Given::parse("./nowhere").expect("a file").read().is_err());
    }

    #[test]
    fn a_file_has_a_name_a_line() {
        let parsed = |text| parse_lines(text).map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(parsed("# ours\n\nmy-key\r\n  other\n"), Ok(vec!["my-key".to_owned(), "other".to_owned()]));
        assert_eq!(parsed("my-key\n{\"secret\":1}\n"), Err(2));
    }
}
