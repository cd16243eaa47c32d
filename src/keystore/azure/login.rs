//! Logging in to Microsoft's Entra ID, or as a managed identity. What a token is for is asked of the vault; who gives it
//! is never: whoever could answer for the vault would get the secret.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use hyper::Uri;
use hyper::header::{HeaderName, WWW_AUTHENTICATE};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::api::VERSION;
use super::config::{self, ClientSecret};
use crate::http;
use crate::http::token::{self, Failure, Grant};
use crate::keystore::Error;
use crate::keystore::environment::{self, Variables};
use crate::keystore::rest::{Ask, Reply, escaped};
use crate::setting::Url;
use crate::telemetry::log;

/// The metadata service of every machine of Azure's.
const METADATA: &str = "http://169.254.169.254";

/// The form in which an application shows what another party says about it.
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A way to log in to one vault.
pub(super) struct Login {
    pub(super) client: http::Client,
    pub(super) vault: Url,
    pub(super) source: Source,
    /// Where Entra ID answers.
    pub(super) authority: Url,
}

/// Where credentials are.
#[derive(Debug)]
pub(super) enum Source {
    /// The secret of an application.
    Secret(ClientSecret),
    /// A file in which a cluster vouches for the application.
    Federated { tenant: String, client: String, file: PathBuf },
    /// App Service, and what is like it.
    Service { endpoint: String, header: SecretString, client: Option<String> },
    /// The metadata service of a machine.
    Machine { endpoint: String, client: Option<String> },
}

impl Source {
    /// The configured one, or the first that is there.
    pub(super) fn find(login: &config::Login, variables: Variables<'_>) -> Self {
        match login {
            config::Login::Secret(secret) => Self::Secret(secret.clone()),
            config::Login::ManagedIdentity(identity) => Self::managed(Some(identity.client_id.clone()), variables),
            config::Login::Default => Self::of_application(variables).unwrap_or_else(|| Self::managed(None, variables)),
        }
    }

    fn of_application(variables: Variables<'_>) -> Option<Self> {
        let (tenant_id, client_id) = (variables("AZURE_TENANT_ID")?, variables("AZURE_CLIENT_ID")?);
        if let Some(secret) = variables("AZURE_CLIENT_SECRET") {
            return Some(Self::Secret(ClientSecret { tenant_id, client_id, client_secret: secret.into() }));
        }
        let file = variables("AZURE_FEDERATED_TOKEN_FILE")?.into();
        Some(Self::Federated { tenant: tenant_id, client: client_id, file })
    }

    fn managed(client: Option<String>, variables: Variables<'_>) -> Self {
        match (variables("IDENTITY_ENDPOINT"), variables("IDENTITY_HEADER")) {
            (Some(endpoint), Some(header)) => Self::Service { endpoint, header: header.into(), client },
            _ => {
                let endpoint = variables("AZURE_POD_IDENTITY_AUTHORITY_HOST").unwrap_or_else(|| METADATA.into());
                Self::Machine { endpoint: endpoint.trim_end_matches('/').into(), client }
            }
        }
    }

    /// The application, where the config or the environment names it.
    pub(super) fn application(&self) -> Option<&str> {
        match self {
            Self::Secret(secret) => Some(&secret.client_id),
            Self::Federated { client, .. } => Some(client),
            Self::Service { client, .. } | Self::Machine { client, .. } => client.as_deref(),
        }
    }
}

/// Where Entra ID answers for a vault: as the environment says, or by the cloud of the vault.
pub(super) fn authority(vault: &Url, variables: Variables<'_>) -> Result<Url, Error> {
    if let Some(host) = variables("AZURE_AUTHORITY_HOST") {
        let url = if host.contains("://") { host } else { format!("https://{host}") };
        let safe = Url::parse(&url).filter(|url| url.warning().is_none());
        return safe.ok_or_else(|| Error::Failed("AZURE_AUTHORITY_HOST is no https:// address".into()));
    }
    let host = host(vault.as_str()).unwrap_or_default();
    let authority = match host {
        host if host.ends_with(".vault.azure.cn") => "https://login.chinacloudapi.cn",
        host if host.ends_with(".vault.usgovcloudapi.net") => "https://login.microsoftonline.us",
        _ => "https://login.microsoftonline.com",
    };
    Ok(Url::parse(authority).expect("a constant that is an address"))
}

#[async_trait]
impl token::Login for Login {
    async fn log_in(&self, _old: Option<&SecretString>) -> Result<Grant, Failure> {
        Ok(self.try_log_in().await?)
    }
}

impl Login {
    async fn try_log_in(&self) -> Result<Grant, Error> {
        let resource = self.resource().await?;
        match &self.source {
            Source::Secret(ClientSecret { tenant_id, client_id, client_secret }) => {
                let fields = [("client_secret", client_secret.expose_secret())];
                self.as_application(tenant_id, client_id, &resource, &fields).await
            }
            Source::Federated { tenant, client, file } => {
                let assertion = environment::read(file.clone()).await?;
                let fields = [("client_assertion", assertion.expose_secret()), ("client_assertion_type", ASSERTION)];
                self.as_application(tenant, client, &resource, &fields).await
            }
            Source::Service { endpoint, header, client } => {
                let url = managed(endpoint, "2019-08-01", &resource, client.as_deref());
                let name = HeaderName::from_static("x-identity-header");
                granted(&Ask::get(url).secret(&name, "", header)?.send(&self.client).await?)
            }
            Source::Machine { endpoint, client } => {
                let url = format!("{endpoint}/metadata/identity/oauth2/token");
                let url = managed(&url, "2018-02-01", &resource, client.as_deref());
                self.as_machine(&Ask::get(url).header("metadata", "true")).await
            }
        }
    }

    /// What a token for this vault is for. The vault says so to those who have none.
    async fn resource(&self) -> Result<String, Error> {
        let ask = Ask::get(format!("{}/secrets?maxresults=1&api-version={VERSION}", self.vault));
        let reply = ask.send(&self.client).await?;
        if reply.status != 401 {
            return Err(reply.unexpected(format!("is '{}' the address of a key vault?", self.vault)));
        }
        let challenge = reply.headers.get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let resource = attribute(challenge, "resource")
            .or_else(|| attribute(challenge, "scope").map(|scope| scope.trim_end_matches("/.default")));
        let resource = resource.ok_or_else(|| reply.failed("this vault does not say what a token for it is for"))?;
        // A vault of others could ask for a token for all vaults, and use it.
        if !is_part_of(host(resource).unwrap_or_default(), host(self.vault.as_str()).unwrap_or_default()) {
            return Err(reply.failed("this vault asks for a token for something else"));
        }
        Ok(resource.to_owned())
    }

    async fn as_application(
        &self,
        tenant: &str,
        client: &str,
        resource: &str,
        proof: &[(&str, &str)],
    ) -> Result<Grant, Error> {
        let url = format!("{}/{}/oauth2/v2.0/token", self.authority, escaped(tenant));
        let scope = format!("{resource}/.default");
        let fields = [("grant_type", "client_credentials"), ("client_id", client), ("scope", &scope)];
        granted(&Ask::post(url).form(&[&fields, proof].concat()).send(&self.client).await?)
    }

    async fn as_machine(&self, ask: &Ask) -> Result<Grant, Error> {
        let reply = ask.send(&self.client).await.map_err(|error| {
            let why = log::causes(&error);
            Error::Unreachable(
                format!(
                    "no credentials in the config file or the environment, and the metadata service of Azure does not \
                     answer: {why}"
                )
                .into(),
            )
        })?;
        match reply.status {
            // It says so while it starts, or is updated.
            404 | 410 => Err(reply.unreachable("the metadata service has no token yet")),
            _ => granted(&reply),
        }
    }
}

fn managed(endpoint: &str, version: &str, resource: &str, client: Option<&str>) -> String {
    let client = client.map(|client| format!("&client_id={}", escaped(client))).unwrap_or_default();
    format!("{endpoint}?api-version={version}&resource={}{client}", escaped(resource))
}

fn granted(reply: &Reply) -> Result<Grant, Error> {
    #[derive(Deserialize)]
    struct Granted {
        access_token: SecretString,
        /// Seconds: a number of Entra ID's, a text of a metadata service's.
        expires_in: serde_json::Value,
    }
    if reply.status != 200 {
        return Err(reply.unexpected(format!("login refused: {}", reply.message())));
    }
    let Granted { access_token, expires_in } = reply.json("Microsoft")?;
    let seconds = expires_in.as_u64().or_else(|| expires_in.as_str()?.parse().ok());
    let seconds = seconds.ok_or_else(|| reply.failed("the answer does not say how long the token lasts"))?;
    Ok(Grant { secret: access_token, life: Duration::from_secs(seconds) })
}

/// An attribute of a challenge: `name="value"`.
fn attribute<'t>(challenge: &'t str, name: &str) -> Option<&'t str> {
    Some(challenge.split_once(&format!("{name}=\""))?.1.split_once('"')?.0)
}

/// The host of an address.
pub(super) fn host(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    // The port of an IPv6 address stands behind a bracket.
    Some(match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    })
}

fn is_part_of(suffix: &str, host: &str) -> bool {
    let rest = host.strip_suffix(suffix);
    !suffix.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Whether two addresses are of the same server.
pub(super) fn is_same_server(a: &str, b: &str) -> bool {
    let (Ok(a), Ok(b)) = (a.parse::<Uri>(), b.parse::<Uri>()) else { return false };
    a.scheme() == b.scheme() && a.authority().is_some() && a.authority() == b.authority()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn variables(given: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> + Sync + use<> {
        let given: HashMap<_, _> =
            given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        move |name: &str| given.get(name).cloned()
    }

    #[test]
    fn credentials_are_found_in_azures_order() {
        let all = [
            ("AZURE_TENANT_ID", "t"),
            ("AZURE_CLIENT_ID", "c"),
            ("IDENTITY_ENDPOINT", "http://127.0.0.1/msi"),
            ("IDENTITY_HEADER", "h"),
            ("AZURE_FEDERATED_TOKEN_FILE", "/token"),
            ("AZURE_CLIENT_SECRET", "hunter2"),
        ];
        for (count, begins) in [(6, "Secret("), (5, "Federated"), (4, "Service"), (3, "Machine"), (1, "Machine")] {
            let found = format!("{:?}", Source::find(&config::Login::Default, &variables(&all[..count])));
            assert!(found.starts_with(begins) && !found.contains("hunter2"), "{found}");
        }
        let identity = config::Login::ManagedIdentity(config::ManagedIdentity { client_id: "own".into() });
        for (count, begins) in [(6, "Service"), (3, "Machine")] {
            let found = Source::find(&identity, &variables(&all[..count]));
            assert_eq!(found.application(), Some("own"));
            assert!(format!("{found:?}").starts_with(begins), "{found:?}");
        }
    }

    #[test]
    fn the_authority_is_that_of_the_cloud_and_never_in_the_clear() {
        for (vault, wanted) in [
            ("https://a.vault.azure.net", "https://login.microsoftonline.com"),
            ("https://a.vault.azure.cn", "https://login.chinacloudapi.cn"),
            ("https://a.vault.usgovcloudapi.net:443", "https://login.microsoftonline.us"),
        ] {
            let vault = Url::parse(vault).expect("an address");
            assert_eq!(authority(&vault, &variables(&[])).expect("one").as_str(), wanted);
            let other = variables(&[("AZURE_AUTHORITY_HOST", "login.example.com/")]);
            assert_eq!(authority(&vault, &other).expect("one").as_str(), "https://login.example.com");
            assert!(authority(&vault, &variables(&[("AZURE_AUTHORITY_HOST", "http://login.example.com")])).is_err());
        }
    }

    #[test]
    fn a_vault_gets_tokens_for_its_own_cloud_alone() {
        for (resource, vault, good) in [
            ("https://vault.azure.net", "https://my.vault.azure.net", true),
            ("https://vault.azure.net/", "https://my.vault.azure.net:443/x", true),
            ("https://0.0.1:5", "https://127.0.0.1:5", true),
            ("https://vault.azure.net", "https://vault.azure.net.example.com", false),
            ("https://vault.azure.net", "https://myvault.azure.net", false),
            ("https://management.azure.com", "https://my.vault.azure.net", false),
            ("", "https://my.vault.azure.net", false),
            ("https://", "https://my.vault.azure.net", false),
        ] {
            assert_eq!(
                is_part_of(host(resource).unwrap_or_default(), host(vault).expect("a host")),
                good,
                "{resource}"
            );
        }
        let challenge = r#"Bearer authorization="https://login/t", resource="https://vault.azure.net", error="x""#;
        assert_eq!(attribute(challenge, "resource"), Some("https://vault.azure.net"));
        assert_eq!((attribute(challenge, "scope"), attribute("Basic", "resource")), (None, None));
    }

    #[test]
    fn a_link_stays_at_its_server() {
        assert!(is_same_server("https://h:1/a?b", "https://h:1"));
        for other in ["http://h:1/a", "https://h/a", "https://h:1@evil/a", "//h:1/a", "https://h.evil:1"] {
            assert!(!is_same_server(other, "https://h:1"), "{other}");
        }
    }
}
