//! Sealing with a local key.

use std::fmt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{Provider, Wrapped};
use crate::crypto::{Sealer, SecretKey, base64};
use crate::hex;
use crate::keystore::Error;
use crate::name::KeyName;

/// The form of a key, for error texts.
const FORM: &str = "32 bytes in base64, as 'openssl rand -base64 32' prints them";

/// The `keystore.encrypt.local:` section.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Section")]
pub enum Config {
    /// The key itself.
    Key(SecretKey),
    /// The file that holds it in base64.
    File(PathBuf),
}

/// The section as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    key: Option<SecretString>,
    file: Option<PathBuf>,
}

impl TryFrom<Section> for Config {
    type Error = String;

    fn try_from(section: Section) -> Result<Self, Self::Error> {
        match (section.key, section.file) {
            (Some(key), None) => {
                parse(key.expose_secret().as_bytes()).map(Self::Key).ok_or_else(|| format!("'key' must be {FORM}"))
            }
            (None, Some(file)) => Ok(Self::File(file)),
            _ => Err("needs a key; write 'local: { key: ${NAME} }' or 'local: { file: PATH }'".into()),
        }
    }
}

impl Config {
    /// The file that the section names.
    pub(super) fn file(&self) -> Option<&Path> {
        match self {
            Self::Key(_) => None,
            Self::File(file) => Some(file),
        }
    }
}

fn parse(text: &[u8]) -> Option<SecretKey> {
    SecretKey::from_slice(&base64::decode(text.trim_ascii())?)
}

/// A key in this process that wraps data keys.
#[derive(Debug)]
pub(super) struct Local {
    id: String,
    sealer: Sealer,
}

impl Local {
    pub(super) fn open(config: &Config) -> Result<Self, Error> {
        match config {
            Config::Key(key) => Ok(Self::new(key)),
            Config::File(file) => read(file).map(|key| Self::new(&key)),
        }
    }

    pub(super) fn new(key: &SecretKey) -> Self {
        let id = key.hkdf("claviger local seal id v1");
        let id = hex::encode(&id.expose()[..8]);
        Self { id, sealer: Sealer::new(key.hkdf("claviger local seal v1")) }
    }

    /// The associated data that a data key is bound to.
    fn place(&self, name: &KeyName) -> Vec<u8> {
        format!("claviger data key 1\n{}\n{name}\n", self.id).into_bytes()
    }
}

fn read(file: &Path) -> Result<SecretKey, Error> {
    let failed = |what: &dyn fmt::Display| Error::Failed(format!("the seal key '{}' {what}", file.display()).into());
    let text =
        std::fs::read(file).map(Zeroizing::new).map_err(|error| failed(&format_args!("cannot be read: {error}")));
    parse(&text?).ok_or_else(|| failed(&format_args!("must be {FORM}")))
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "local key {}", self.id)
    }
}

#[async_trait]
impl Provider for Local {
    fn kind(&self) -> &'static str {
        "local"
    }

    fn may_open(&self, key: &str) -> bool {
        key == self.id
    }

    async fn wrap(&self, name: &KeyName, data_key: &SecretKey) -> Result<Wrapped, Error> {
        let sealed = self.sealer.seal(data_key.expose(), &self.place(name));
        let sealed = sealed.map_err(|error| Error::Failed(error.into()))?;
        Ok(Wrapped { key: self.id.clone(), data_key: base64::encode(&sealed).to_string() })
    }

    async fn unwrap(&self, name: &KeyName, wrapped: &Wrapped) -> Result<SecretKey, Error> {
        let sealed = base64::decode(wrapped.data_key.as_bytes());
        let data_key = sealed.and_then(|sealed| self.sealer.open(&sealed, &self.place(name)).ok());
        data_key.and_then(|data_key| SecretKey::from_slice(&data_key)).ok_or_else(super::not_authentic)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::Seal;
    use super::*;
    use crate::crypto::Blob;

    /// Made by another implementation of `docs/formats.md`.
    #[tokio::test]
    async fn the_format_is_as_documented() {
        let vectors = include_str!("../../../testdata/sealed/local.json");
        for vector in serde_json::from_str::<Vec<Value>>(vectors).expect("JSON") {
            let text = |field: &str| vector[field].as_str().expect("text");
            let key = parse(text("seal_key").as_bytes()).expect("32 bytes");
            let seal = Seal::with(Local::new(&key));
            let sealed = Blob::from(text("sealed").as_bytes().to_vec());
            let opened = seal.open(&KeyName::parse(text("name")).expect("a name"), sealed).await.expect("opens");
            assert_eq!(opened.expose(), text("value").as_bytes());
        }
    }

    #[test]
    fn a_key_is_32_bytes_in_base64() {
        assert!(parse(b" AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n").is_some());
        assert!(parse(b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHg==").is_none());
        assert!(parse(b"").is_none());
    }
}
