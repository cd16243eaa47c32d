//! Logging in to Google. Credentials are looked for in the order of Google's own programs: the config file, the file that
//! the environment names, the well-known file, the metadata service.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::SignatureScheme;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::config::{self, Credentials, SecretManager};
use crate::clock;
use crate::crypto::pem;
use crate::http;
use crate::http::token::{self, Failure, Grant};
use crate::keystore::Error;
use crate::keystore::environment::{self, Variables};
use crate::keystore::rest::{Ask, Reply, escaped, shown};
use crate::setting::Url;
use crate::telemetry::log;

/// How long a token lasts that we sign ourselves, or ask for.
const LIFE: Duration = Duration::from_secs(3_600);

/// The part of all addresses of Google's that its other clouds replace.
const UNIVERSE: &str = "googleapis.com";

/// Google's metadata service, on every machine of Google's.
const METADATA: &str = "169.254.169.254";

/// A way to log in.
pub(super) struct Login {
    pub(super) client: http::Client,
    pub(super) source: Source,
    pub(super) scopes: Vec<String>,
}

/// Where credentials are.
#[derive(Debug)]
pub(super) enum Source {
    /// In the config file.
    Config(Credentials),
    /// In a file of JSON.
    File(PathBuf),
    /// At the metadata service of this host.
    Metadata(String),
}

impl Source {
    /// The first that is there.
    pub(super) fn find(config: &SecretManager, variables: Variables<'_>) -> Self {
        if let Some(credentials) = &config.credentials {
            return Self::Config(credentials.clone());
        }
        if let Some(file) = variables("GOOGLE_APPLICATION_CREDENTIALS") {
            return Self::File(file.into());
        }
        let well_known = variables("HOME")
            .map(|home| PathBuf::from(home).join(".config/gcloud/application_default_credentials.json"));
        match well_known.filter(|file| file.exists()) {
            Some(file) => Self::File(file),
            None => Self::Metadata(variables("GCE_METADATA_HOST").unwrap_or_else(|| METADATA.into())),
        }
    }

    /// The address of the service account, where the config names it.
    pub(super) fn account(&self) -> Option<&str> {
        match self {
            Self::Config(credentials) => Some(&credentials.client_email),
            Self::File(_) | Self::Metadata(_) => None,
        }
    }
}

/// The file of a service account.
#[derive(Deserialize)]
struct Account {
    client_email: String,
    private_key_id: String,
    private_key: SecretString,
    token_uri: Option<String>,
    universe_domain: Option<String>,
}

/// The file of a workload outside of Google, whose own platform vouches for it.
#[derive(Deserialize)]
struct External {
    audience: String,
    subject_token_type: String,
    token_url: String,
    credential_source: CredentialSource,
    service_account_impersonation_url: Option<String>,
}

#[derive(Deserialize)]
struct CredentialSource {
    file: Option<PathBuf>,
    format: Option<Format>,
}

#[derive(Deserialize)]
struct Format {
    subject_token_field_name: Option<String>,
}

#[derive(Deserialize)]
struct AccessToken {
    access_token: SecretString,
    expires_in: u64,
}

#[async_trait]
impl token::Login for Login {
    async fn log_in(&self, _old: Option<&SecretString>) -> Result<Grant, Failure> {
        let granted = match &self.source {
            Source::Config(account) => self.signed(account, None),
            Source::File(file) => self.by_file(file).await,
            Source::Metadata(host) => self.by_metadata(host).await,
        };
        Ok(granted?)
    }
}

impl Login {
    async fn by_file(&self, file: &Path) -> Result<Grant, Error> {
        #[derive(Deserialize)]
        struct Kind {
            #[serde(rename = "type")]
            kind: String,
        }
        let failed = |why: String| Error::Failed(format!("'{}': {why}", file.display()).into());
        let text = environment::read(file.to_owned()).await?;
        let text = text.expose_secret();
        let Kind { kind } = serde_json::from_str(text).map_err(|_| failed("this is no file of credentials".into()))?;
        let incomplete = |_| failed(format!("credentials of the type '{}' without all that they need", shown(&kind)));
        match kind.as_str() {
            "service_account" => self.by_account(serde_json::from_str(text).map_err(incomplete)?).await,
            "external_account" => self.by_external(serde_json::from_str(text).map_err(incomplete)?).await,
            "authorized_user" => Err(failed(
                "these are the credentials of a person (type 'authorized_user'); give this program a service account, \
                 or run it where the metadata service has one"
                    .into(),
            )),
            _ => Err(failed(format!("credentials of the type '{}' are not supported", shown(&kind)))),
        }
    }

    /// A token that the account has signed itself is good for all of Google's services; their other clouds exchange it.
    async fn by_account(&self, account: Account) -> Result<Grant, Error> {
        let Account { client_email, private_key_id, private_key, token_uri, universe_domain } = account;
        let private_key = config::lines(&private_key);
        let private_key = private_key.ok_or_else(|| Error::Failed("'private_key' is no key in PEM".into()))?;
        let credentials = Credentials { client_email, private_key_id, private_key };
        if universe_domain.is_none_or(|domain| domain == UNIVERSE) {
            return self.signed(&credentials, None);
        }
        let url = safe(&token_uri.unwrap_or_default(), "token_uri")?;
        let assertion = self.signed(&credentials, Some(url.as_str()))?.secret;
        let fields =
            [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", assertion.expose_secret())];
        grant(&Ask::post(url.as_str()).form(&fields).send(&self.client).await?)
    }

    /// A JWT, signed with the account's key.
    fn signed(&self, account: &Credentials, audience: Option<&str>) -> Result<Grant, Error> {
        let now = clock::now().unix_timestamp();
        let head = json!({ "alg": "RS256", "typ": "JWT", "kid": account.private_key_id });
        let mut claims = json!({
            "iss": account.client_email,
            "sub": account.client_email,
            "scope": self.scopes.join(" "),
            "iat": now,
            "exp": now + LIFE.as_secs().cast_signed(),
        });
        if let Some(audience) = audience {
            claims["aud"] = audience.into();
        }
        let encoded = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let text = format!("{}.{}", encoded(head), encoded(claims));
        let signature = URL_SAFE_NO_PAD.encode(sign(&account.private_key, text.as_bytes())?);
        Ok(Grant { secret: format!("{text}.{signature}").into(), life: LIFE })
    }

    async fn by_external(&self, account: External) -> Result<Grant, Error> {
        let subject = subject_token(account.credential_source).await?;
        let url = safe(&account.token_url, "token_url")?;
        let scopes = self.scopes.join(" ");
        let fields = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("audience", &account.audience),
            ("scope", &scopes),
            ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("subject_token", subject.expose_secret()),
            ("subject_token_type", &account.subject_token_type),
        ];
        let federated = grant(&Ask::post(url.as_str()).form(&fields).send(&self.client).await?)?;
        match &account.service_account_impersonation_url {
            Some(url) => self.impersonate(&safe(url, "service_account_impersonation_url")?, &federated.secret).await,
            None => Ok(federated),
        }
    }

    async fn impersonate(&self, url: &Url, token: &SecretString) -> Result<Grant, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Impersonated {
            access_token: SecretString,
            expire_time: String,
        }
        let wish = json!({ "lifetime": format!("{}s", LIFE.as_secs()), "scope": self.scopes });
        let reply = Ask::post(url.as_str()).json(&wish, 256).bearer(token)?.send(&self.client).await?;
        let Impersonated { access_token, expire_time } = granted(&reply)?;
        let end = OffsetDateTime::parse(&expire_time, &Rfc3339).map_err(|_| reply.failed("'expireTime' is no time"))?;
        Ok(Grant { secret: access_token, life: (end - clock::now()).try_into().unwrap_or(Duration::ZERO) })
    }

    async fn by_metadata(&self, host: &str) -> Result<Grant, Error> {
        let scopes = self.scopes.join(",");
        let path = "computeMetadata/v1/instance/service-accounts/default/token";
        let ask = Ask::get(format!("http://{host}/{path}?scopes={}", escaped(&scopes)));
        let reply = ask.header("metadata-flavor", "Google").send(&self.client).await.map_err(|error| {
            let why = log::causes(&error);
            Error::Unreachable(
                format!(
                    "no credentials in the config file, in GOOGLE_APPLICATION_CREDENTIALS or in ~/.config/gcloud, and \
                     the metadata service of Google does not answer: {why}"
                )
                .into(),
            )
        })?;
        if reply.headers.get("metadata-flavor").is_none_or(|flavor| flavor != "Google") {
            return Err(reply.failed("this is not the metadata service of Google"));
        }
        grant(&reply)
    }
}

fn sign(key: &SecretString, text: &[u8]) -> Result<Vec<u8>, Error> {
    let unusable = || Error::Failed("'private_key' is no RSA key, and Google's service accounts have one".into());
    let der = pem::private_key(key.expose_secret().as_bytes(), None).map_err(|error| Error::Failed(error.into()))?;
    let key = any_supported_type(&der).map_err(|_| unusable())?;
    let signer = key.choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256]).ok_or_else(unusable)?;
    signer.sign(text).map_err(|error| Error::Failed(error.into()))
}

/// The token by which the workload's own platform vouches for it.
async fn subject_token(source: CredentialSource) -> Result<SecretString, Error> {
    let Some(file) = source.file else {
        let why = "the 'credential_source' of an external account must be a 'file'; 'url', 'environment_id' and \
                   'executable' are not supported";
        return Err(Error::Failed(why.into()));
    };
    let failed = |why: &str| Error::Failed(format!("'{}': {why}", file.display()).into());
    let text = environment::read(file.clone()).await?;
    match source.format.and_then(|format| format.subject_token_field_name) {
        None => Ok(text),
        Some(field) => {
            let read = serde_json::from_str::<std::collections::HashMap<String, SecretString>>(text.expose_secret());
            let mut fields = read.map_err(|_| failed("the token's file is not an object of texts"))?;
            fields.remove(&field).ok_or_else(|| failed("the token's file has no such field"))
        }
    }
}

/// An address that may be told secrets.
fn safe(url: &str, setting: &str) -> Result<Url, Error> {
    let safe = Url::parse(url).filter(|url| url.warning().is_none());
    safe.ok_or_else(|| Error::Failed(format!("'{setting}' of the credentials is no https:// address").into()))
}

/// An access token of OAuth.
fn grant(reply: &Reply) -> Result<Grant, Error> {
    let AccessToken { access_token, expires_in } = granted(reply)?;
    Ok(Grant { secret: access_token, life: Duration::from_secs(expires_in) })
}

fn granted<D: serde::de::DeserializeOwned>(reply: &Reply) -> Result<D, Error> {
    match reply.status {
        200 => reply.json("Google"),
        _ => Err(reply.unexpected(format!("login refused: {}", reply.message()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(more: &str) -> SecretManager {
        serde_yaml::from_str(&format!("{{ project_id: p{more} }}")).expect("valid")
    }

    fn source(variables: &[(&str, &str)]) -> String {
        let variables: std::collections::HashMap<_, _> = variables.iter().copied().collect();
        let found = Source::find(&config(""), &|name| variables.get(name).map(|value| (*value).to_owned()));
        format!("{found:?}")
    }

    #[test]
    fn credentials_are_found_in_googles_order() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().to_str().expect("UTF-8");
        let variables =
            [("HOME", path), ("GCE_METADATA_HOST", "127.0.0.1:1"), ("GOOGLE_APPLICATION_CREDENTIALS", "/f")];
        assert_eq!(source(&variables), "File(\"/f\")");
        assert_eq!(source(&variables[..2]), "Metadata(\"127.0.0.1:1\")");
        assert_eq!(source(&variables[..1]), "Metadata(\"169.254.169.254\")");
        let directory = home.path().join(".config/gcloud");
        std::fs::create_dir_all(&directory).expect("made");
        std::fs::write(directory.join("application_default_credentials.json"), "{}").expect("written");
        assert!(source(&variables[..2]).contains("application_default_credentials.json"));
    }

    #[test]
    fn secrets_go_nowhere_in_the_clear() {
        for good in ["https://sts.googleapis.com/v1/token", "http://127.0.0.1:1/token"] {
            safe(good, "token_url").expect(good);
        }
        for bad in ["http://sts.googleapis.com/v1/token", "sts.googleapis.com", ""] {
            assert!(safe(bad, "token_url").is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_that_is_not_rsa_is_refused() {
        let pem = pem::pkcs8(&rcgen::KeyPair::generate().expect("a key").serialize_der());
        let refused = sign(&SecretString::from(pem.as_str()), b"text").expect_err("no RSA key");
        assert!(log::causes(&refused).contains("no RSA key"));
    }
}
