//! The `static` key store: one key, written in the config itself. Read-only.
//!
//! It reads the built-in key format of an object store. A deployment that outgrew a built-in key can go on reading its
//! data, and can move the key elsewhere with `migrate`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::{Access, Backend, Error, KeyStore, Listing};
use crate::crypto::{Blob, Key, SecretKey, base64};
use crate::name::KeyName;
use crate::setting;

/// The `keystore.static:` section of the config file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `<name>:<base64 of 32 bytes>`.
    #[serde(deserialize_with = "key")]
    pub key: SecretString,
}

#[async_trait]
impl Backend for Config {
    async fn connect(&self) -> Result<Arc<dyn KeyStore>, Error> {
        Ok(Arc::new(Store::open(self)?))
    }
}

/// Why the key in the config is invalid. It quotes nothing of the value, because a mistake may put the key anywhere.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key of the 'static' key store {0}; write '<name>:<base64 of 32 bytes>'")]
struct Malformed(&'static str);

/// Why the key cannot be changed.
#[derive(Debug, thiserror::Error)]
#[error("the 'static' key store is read-only: its one key stands in the config file")]
struct ReadOnly;

/// A store that holds one key.
#[derive(Debug)]
pub struct Store {
    name: KeyName,
    value: Blob,
}

impl Store {
    /// Parses the key. It has no algorithm and no HMAC key, so its stored value has the old form `{"bytes":"…"}`.
    pub fn open(config: &Config) -> Result<Self, Error> {
        let (name, key) = parse(config.key.expose_secret()).map_err(|error| Error::Failed(error.into()))?;
        Ok(Self { name, value: Key::untyped(key).encode() })
    }
}

/// Reads a key, so that a malformed one is an error of the config file.
fn key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
    let key = setting::secret(deserializer)?;
    parse(key.expose_secret()).map_err(D::Error::custom)?;
    Ok(key)
}

fn parse(text: &str) -> Result<(KeyName, SecretKey), Malformed> {
    let (name, key) = text.split_once(':').ok_or(Malformed("has no colon"))?;
    let name = KeyName::parse(name).map_err(|_| Malformed("has an invalid name before the colon"))?;
    let key = base64::decode(key.as_bytes()).ok_or(Malformed("has no base64 after the colon"))?;
    let key = SecretKey::from_slice(&key).ok_or(Malformed("is not 32 bytes long"))?;
    Ok((name, key))
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "static: {}", self.name)
    }
}

#[async_trait]
impl KeyStore for Store {
    async fn create(&self, name: &KeyName, _: &Blob) -> Result<(), Error> {
        // The same error as of every other store, so that a client that ensures its key exists can go on.
        Err(if *name == self.name { Error::Exists } else { Error::Failed(ReadOnly.into()) })
    }

    async fn get(&self, name: &KeyName) -> Result<Blob, Error> {
        if *name == self.name { Ok(self.value.copy()) } else { Err(Error::NotFound) }
    }

    async fn replace(&self, _: &KeyName, _: &Blob, _: &Blob) -> Result<(), Error> {
        Err(Error::Failed(ReadOnly.into()))
    }

    async fn delete(&self, _: &KeyName) -> Result<(), Error> {
        Err(Error::Failed(ReadOnly.into()))
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        let names = self.name.as_str().starts_with(prefix).then(|| self.name.clone());
        Ok(Listing { names: names.into_iter().collect(), foreign: Vec::new() })
    }

    async fn status(&self) -> Result<Duration, Error> {
        Ok(Duration::ZERO)
    }

    fn behind(&self) -> Option<&dyn KeyStore> {
        None
    }

    async fn check(&self, access: Access) -> Result<(), Error> {
        match access {
            Access::Read => Ok(()),
            Access::Create | Access::Serve | Access::Replace => Err(Error::Failed(ReadOnly.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance;
    use super::*;

    const KEY: &str = "my-key:QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=";

    fn open(key: &str) -> Result<Store, Error> {
        Store::open(&Config { key: key.into() })
    }

    #[tokio::test]
    async fn passes_the_reading_part_of_the_suite() {
        let store = open(KEY).expect("a key");
        let name = KeyName::parse("my-key").expect("valid");
        let value = br#"{"bytes":"QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="}"#.to_vec().into();
        conformance::run_read_only(&store, &name, &value).await;
        assert_eq!(store.to_string(), "static: my-key");
    }

    #[test]
    fn the_key_names_no_algorithm_and_has_no_hmac_key() {
        let key = Key::parse(&open(KEY).expect("a key").value).expect("its own form");
        assert!(key.algorithm().is_none() && !key.has_hmac());
    }

    #[test]
    fn errors_say_what_to_write_and_show_nothing() {
        for (bad, why) in [
            ("", "has no colon"),
            ("QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=", "has no colon"),
            (":QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=", "invalid name"),
            ("QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=:my-key", "invalid name"),
            ("my-key:QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE", "no base64"),
            ("my-key:QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB", "not 32 bytes"),
        ] {
            let error = open(bad).expect_err(bad);
            let text = crate::telemetry::log::causes(&error);
            assert!(text.contains(why) && text.contains("write '<name>:<base64 of 32 bytes>'"), "{text}");
            assert!(!text.contains("QUFB") && !format!("{error:?}").contains("QUFB"), "{text}");
        }
    }
}
