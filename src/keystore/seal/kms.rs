//! Sealing with a key of AWS KMS.

#[cfg(feature = "aws")]
mod key;

use serde::Deserialize;

#[cfg(feature = "aws")]
pub(super) use self::key::KmsKey;

use crate::keystore::aws::config::{Credentials, Endpoint, credentials};
use crate::keystore::environment;
use crate::setting::{self, ServerTls, Url};

/// The `keystore.encrypt.aws:` section.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Section")]
pub struct Config {
    /// Where KMS answers.
    pub endpoint: Endpoint,
    /// The region. Default: that of the environment.
    pub region: String,
    /// The id, the ARN or an alias of the key.
    pub key: String,
    /// How to log in; none: the standard AWS provider chain finds credentials.
    pub credentials: Option<Credentials>,
    /// Certificates.
    pub tls: ServerTls,
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
    #[serde(deserialize_with = "setting::text")]
    key: String,
    #[serde(default, deserialize_with = "credentials")]
    credentials: Option<Credentials>,
    #[serde(default)]
    tls: ServerTls,
}

impl TryFrom<Section> for Config {
    type Error = &'static str;

    fn try_from(section: Section) -> Result<Self, Self::Error> {
        let Section { endpoint, fips, region, key, credentials, tls } = section;
        let region = environment::region(region, &environment::of_process)?;
        Ok(Self { endpoint: Endpoint::of(endpoint, fips)?, region, key, credentials, tls })
    }
}
