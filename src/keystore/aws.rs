//! The `keystore.aws` section of the config file. The backend is not built yet.

use secrecy::SecretString;
use serde::Deserialize;

use crate::setting;

/// The `keystore.aws:` section of the config file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// AWS Secrets Manager.
    pub secretsmanager: SecretsManager,
}

/// The `keystore.aws.secretsmanager:` section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretsManager {
    /// Where Secrets Manager answers: a host, or an address with scheme; none: that of the region.
    pub endpoint: Option<String>,
    /// The region.
    #[serde(deserialize_with = "setting::text")]
    pub region: String,
    /// The KMS key that encrypts the secrets; none: the account's own for Secrets Manager.
    pub kmskey: Option<String>,
    /// How to log in.
    #[serde(default)]
    pub credentials: Credentials,
}

/// The `keystore.aws.secretsmanager.credentials:` section. When all are none, the standard AWS provider chain
/// finds credentials: environment, shared files, instance metadata.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// The access key's id.
    pub accesskey: Option<String>,
    /// The access key's secret.
    pub secretkey: Option<SecretString>,
    /// The token of a temporary session.
    pub token: Option<SecretString>,
}
