//! The `keystore.aws` section of the config file.

use std::path::Path;
#[cfg(feature = "aws")]
use std::sync::Arc;

use async_trait::async_trait;
use secrecy::SecretString;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::keystore::Backend;
use crate::keystore::environment;
#[cfg(feature = "aws")]
use crate::keystore::{Error, KeyStore};
use crate::setting::{self, Prefix, ServerTls, Url};

/// The `keystore.aws:` section of the config file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// AWS Secrets Manager.
    pub secretsmanager: SecretsManager,
    /// Certificates.
    #[serde(default)]
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
        self.secretsmanager.endpoint.warning().into_iter().collect()
    }
}

/// The `keystore.aws.secretsmanager:` section.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Section")]
pub struct SecretsManager {
    /// Where Secrets Manager answers.
    pub endpoint: Endpoint,
    /// The region. Default: that of the environment.
    pub region: String,
    /// The KMS key that encrypts the secrets; none: the account's own for Secrets Manager.
    pub kmskey: Option<String>,
    /// The prefix of the names of all secrets that are keys.
    pub prefix: Prefix,
    /// How to log in; none: the standard AWS provider chain finds credentials: environment, shared files, web
    /// identity, container, instance metadata.
    pub credentials: Option<Credentials>,
}

/// Where Secrets Manager answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// At the address of the region.
    Region,
    /// At the address of the region with FIPS 140 validated cryptography.
    Fips,
    /// At an address of its own, such as that of a VPC endpoint.
    Url(Url),
}

impl Endpoint {
    /// What is dangerous.
    pub fn warning(&self) -> Option<String> {
        match self {
            Self::Url(url) => url.warning(),
            Self::Region | Self::Fips => None,
        }
    }

    /// What the settings `endpoint` and `fips` say.
    pub(in crate::keystore) fn of(url: Option<Url>, fips: bool) -> Result<Self, &'static str> {
        match (url, fips) {
            (None, false) => Ok(Self::Region),
            (None, true) => Ok(Self::Fips),
            (Some(url), false) => Ok(Self::Url(url)),
            (Some(_), true) => {
                Err("names an endpoint twice: 'fips' takes that of the region; remove 'endpoint' or 'fips'")
            }
        }
    }
}

/// The longest prefix, in bytes: 512 for the name of a secret, less 80 for that of a key.
const MAX_PREFIX: usize = 432;

/// What a name may have beside letters and digits.
const OTHERS: &[u8] = b"/_+=.@-";

/// The `keystore.aws.secretsmanager.credentials:` section, filled in.
#[derive(Debug)]
pub struct Credentials {
    /// The access key's id.
    pub access_key: String,
    /// The access key's secret.
    pub secret_key: SecretString,
    /// The token of a temporary session.
    pub token: Option<SecretString>,
}

/// The section as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    #[serde(default, deserialize_with = "setting::address")]
    endpoint: Option<Url>,
    #[serde(default)]
    fips: bool,
    region: Option<String>,
    kmskey: Option<String>,
    #[serde(default, deserialize_with = "prefix")]
    prefix: Prefix,
    #[serde(default, deserialize_with = "credentials")]
    credentials: Option<Credentials>,
}

impl TryFrom<Section> for SecretsManager {
    type Error = &'static str;

    fn try_from(section: Section) -> Result<Self, Self::Error> {
        let endpoint = Endpoint::of(section.endpoint, section.fips)?;
        let region = environment::region(section.region, &environment::of_process)?;
        let Section { kmskey, prefix, credentials, .. } = section;
        Ok(Self { endpoint, region, kmskey, prefix, credentials })
    }
}

/// Whether names of secrets can begin with this.
#[cfg(feature = "aws")]
pub(super) fn is_prefix(text: &str) -> bool {
    Prefix::parse(text, MAX_PREFIX, OTHERS).is_some()
}

fn prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Prefix, D::Error> {
    Prefix::deserialize_with(deserializer, MAX_PREFIX, OTHERS)
}

/// Reads credentials: an access key, with or without a token, or nothing at all.
pub(in crate::keystore) fn credentials<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Credentials>, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Section {
        accesskey: Option<String>,
        secretkey: Option<SecretString>,
        token: Option<SecretString>,
    }
    match Option::<Section>::deserialize(deserializer)?.unwrap_or_default() {
        Section { accesskey: None, secretkey: None, token: None } => Ok(None),
        Section { accesskey: Some(access_key), secretkey: Some(secret_key), token } => {
            Ok(Some(Credentials { access_key, secret_key, token }))
        }
        _ => Err(D::Error::custom(
            "needs 'accesskey' and 'secretkey', or nothing at all for the standard provider chain of AWS",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(more: &str) -> Result<SecretsManager, String> {
        let text = format!("{{ region: eu-central-1, {more} }}");
        serde_yaml::from_str(&text).map_err(|error| error.to_string())
    }

    #[test]
    fn an_endpoint_is_a_host_or_an_address() {
        for (written, url) in [
            ("127.0.0.1:5000", "https://127.0.0.1:5000"),
            ("secretsmanager.eu-central-1.amazonaws.com", "https://secretsmanager.eu-central-1.amazonaws.com"),
            ("http://127.0.0.1:5000/", "http://127.0.0.1:5000"),
        ] {
            let config = section(&format!("endpoint: '{written}'")).expect(written);
            assert_eq!(config.endpoint, Endpoint::Url(Url::parse(url).expect("an address")), "{written}");
        }
        assert_eq!(section("").expect("valid").endpoint, Endpoint::Region);
        assert_eq!(section("fips: true").expect("valid").endpoint, Endpoint::Fips);
        assert!(section("fips: true, endpoint: host").expect_err("two").contains("remove 'endpoint' or 'fips'"));
        assert!(section("endpoint: 'user:password@host'").is_err());
    }

    #[test]
    fn a_prefix_is_the_beginning_of_a_name() {
        for good in ["", "kes/", "team-a/kes_1.2+x=@"] {
            assert_eq!(section(&format!("prefix: '{good}'")).expect(good).prefix.as_str(), good);
        }
        for bad in ["!kes", "a b", "kes:", "\u{e4}", &"x".repeat(433)] {
            assert!(section(&format!("prefix: '{bad}'")).is_err(), "{bad}");
        }
    }

    #[test]
    fn half_an_access_key_is_none() {
        for bad in ["accesskey: a", "secretkey: b", "token: c", "accesskey: a, token: c"] {
            let error = section(&format!("credentials: {{ {bad} }}")).expect_err(bad);
            assert!(error.contains("'accesskey' and 'secretkey'"), "{error}");
        }
        assert!(section("credentials: {}").expect("valid").credentials.is_none());
        let config = section("credentials: { accesskey: a, secretkey: hunter2, token: hunter3 }").expect("valid");
        assert!(!format!("{config:?}").contains("hunter"));
    }
}
