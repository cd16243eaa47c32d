//! The `keystore.dynamodb` section of the config file.

use std::path::Path;
#[cfg(feature = "aws")]
use std::sync::Arc;

use async_trait::async_trait;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::keystore::Backend;
use crate::keystore::aws::config::{Credentials, Endpoint, credentials};
use crate::keystore::environment;
#[cfg(feature = "aws")]
use crate::keystore::{Error, KeyStore};
use crate::setting::{self, ServerTls, Url};

/// The `keystore.dynamodb:` section of the config file.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Section")]
pub struct Config {
    /// The table.
    pub table: Table,
    /// The partition of the keys. Default `claviger`.
    pub partition: Partition,
    /// Where DynamoDB answers.
    pub endpoint: Endpoint,
    /// The region. Default: that of the environment.
    pub region: String,
    /// How to log in; none: the standard AWS provider chain finds credentials.
    pub credentials: Option<Credentials>,
    /// Certificates.
    pub tls: ServerTls,
}

#[async_trait]
impl Backend for Config {
    #[cfg(feature = "aws")]
    async fn connect(&self) -> Result<Arc<dyn KeyStore>, Error> {
        Ok(Arc::new(super::Store::connect(self).await?))
    }

    fn files(&self) -> Vec<(&'static str, &Path)> {
        self.tls.ca.iter().map(|ca| ("tls.ca", ca.as_path())).collect()
    }

    fn warnings(&self) -> Vec<String> {
        self.endpoint.warning().into_iter().collect()
    }
}

/// The name of a table: 3 to 255 letters, digits, and of `_.-`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table(String);

impl Table {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        match (3..=255).contains(&text.len()) && text.bytes().all(is_valid) {
            true => Ok(Self(text)),
            false => Err(D::Error::custom("not the name of a table: 3 to 255 letters, digits, or of '_.-'")),
        }
    }
}

/// The value of the partition key: 1 to 512 letters, digits and signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition(String);

impl Partition {
    /// The value as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Partition {
    fn default() -> Self {
        Self("claviger".into())
    }
}

impl<'de> Deserialize<'de> for Partition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // It stands in the condition of an IAM policy, where these are wildcards.
        let is_valid = |byte: u8| byte.is_ascii_graphic() && !b"*?$".contains(&byte);
        match !text.is_empty() && text.len() <= 512 && text.bytes().all(is_valid) {
            true => Ok(Self(text)),
            false => Err(D::Error::custom("must be 1 to 512 letters, digits and signs, without blanks and '*?$'")),
        }
    }
}

/// The section as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    table: Table,
    #[serde(default, deserialize_with = "setting::or_default")]
    partition: Partition,
    #[serde(default, deserialize_with = "setting::address")]
    endpoint: Option<Url>,
    #[serde(default)]
    fips: bool,
    region: Option<String>,
    #[serde(default, deserialize_with = "credentials")]
    credentials: Option<Credentials>,
    #[serde(default)]
    tls: ServerTls,
}

impl TryFrom<Section> for Config {
    type Error = &'static str;

    fn try_from(section: Section) -> Result<Self, Self::Error> {
        let Section { table, partition, endpoint, fips, region, credentials, tls } = section;
        let region = environment::region(region, &environment::of_process)?;
        Ok(Self { table, partition, endpoint: Endpoint::of(endpoint, fips)?, region, credentials, tls })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_names_a_table_and_a_region() {
        let with = |more: &str| serde_yaml::from_str::<Config>(&format!("{{ region: eu-central-1, {more} }}"));
        let config = with("table: keys").expect("valid");
        assert_eq!((config.table.as_str(), config.partition.as_str()), ("keys", "claviger"));
        assert_eq!(config.endpoint, Endpoint::Region);
        assert_eq!(with("table: keys, partition: team/a").expect("valid").partition.as_str(), "team/a");
        for bad in ["table: ab", "table: 'a b c'", "table: a/b/c", "table: keys, partition: 'a*'", "partition: p"] {
            assert!(with(bad).is_err(), "{bad}");
        }
        let config = with("table: keys, credentials: { accesskey: a, secretkey: hunter2 }").expect("valid");
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
