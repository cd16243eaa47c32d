//! The `keystore.azure` section of the config file.

use secrecy::SecretString;
use serde::{Deserialize, Deserializer};

use crate::setting::{self, Prefix, ServerTls, Url};

/// The longest prefix, in bytes: 127 for the name of a secret, less 81, which is one more than a key's has.
const MAX_PREFIX: usize = 46;

/// The `keystore.azure:` section of the config file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Azure Key Vault.
    pub keyvault: KeyVault,
    /// Certificates.
    #[serde(default)]
    pub tls: ServerTls,
}

/// The `keystore.azure.keyvault:` section.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Section")]
pub struct KeyVault {
    /// Where the vault answers.
    pub endpoint: Url,
    /// The prefix of the names of all secrets that are keys.
    pub prefix: Prefix,
    /// How to log in.
    pub login: Login,
}

/// How to log in: exactly one way.
#[derive(Debug)]
pub enum Login {
    /// Azure's standard chain finds credentials: environment, workload identity, managed identity.
    Default,
    /// With a secret of an application.
    Secret(ClientSecret),
    /// As a managed identity of one's own choice.
    ManagedIdentity(ManagedIdentity),
}

/// The `keystore.azure.keyvault.credentials:` section, filled in.
#[derive(Debug, Clone)]
pub struct ClientSecret {
    /// The id of the tenant.
    pub tenant_id: String,
    /// The id of the application.
    pub client_id: String,
    /// The application's secret.
    pub client_secret: SecretString,
}

/// The `keystore.azure.keyvault.managed_identity:` section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManagedIdentity {
    /// The id of the identity.
    #[serde(deserialize_with = "setting::text")]
    pub client_id: String,
}

/// The section as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    endpoint: Url,
    #[serde(default, deserialize_with = "prefix")]
    prefix: Prefix,
    #[serde(default)]
    credentials: Credentials,
    managed_identity: Option<ManagedIdentity>,
}

impl TryFrom<Section> for KeyVault {
    type Error = &'static str;

    fn try_from(section: Section) -> Result<Self, Self::Error> {
        let login = match (section.credentials.0, section.managed_identity) {
            (None, None) => Login::Default,
            (Some(secret), None) => Login::Secret(secret),
            (None, Some(identity)) => Login::ManagedIdentity(identity),
            (Some(_), Some(_)) => {
                return Err("names two ways to log in; remove the section 'credentials' or 'managed_identity'");
            }
        };
        Ok(Self { endpoint: section.endpoint, prefix: section.prefix, login })
    }
}

fn prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Prefix, D::Error> {
    Prefix::deserialize_with(deserializer, MAX_PREFIX, b"-")
}

/// The `credentials:` section as it is written: all or nothing.
#[derive(Default)]
struct Credentials(Option<ClientSecret>);

impl<'de> Deserialize<'de> for Credentials {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Section {
            tenant_id: Option<String>,
            client_id: Option<String>,
            client_secret: Option<SecretString>,
        }
        match Section::deserialize(deserializer)? {
            Section { tenant_id: None, client_id: None, client_secret: None } => Ok(Self(None)),
            Section { tenant_id: Some(tenant_id), client_id: Some(client_id), client_secret: Some(client_secret) } => {
                Ok(Self(Some(ClientSecret { tenant_id, client_id, client_secret })))
            }
            _ => Err(serde::de::Error::custom(
                "needs 'tenant_id', 'client_id' and 'client_secret', or none of them for Azure's standard chain",
            )),
        }
    }
}
