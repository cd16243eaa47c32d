//! Entrust KeyControl: each key is a secret in one box of a vault.

use std::fmt;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hyper::header::HeaderName;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::config::Config;
use crate::clock;
use crate::crypto::{Blob, base64};
use crate::http;
use crate::http::token::{Failure, Grant, Login, Session};
use crate::keystore::rest::{Ask, Reply, escaped, shown, with_token};
use crate::keystore::{About, Access, Backend as _, Error, KeyStore, Listing};
use crate::name::KeyName;

/// What an answer is called that is not.
const WHO: &str = "Entrust KeyControl";

/// The most secrets in one answer to a listing.
const PAGE: usize = 256;

/// The header with the token.
const TOKEN: HeaderName = HeaderName::from_static("x-vault-auth");

/// A box of a vault, as one user sees it.
pub struct Store {
    client: http::Client,
    session: Session,
    endpoint: String,
    vault: String,
    box_id: String,
    warnings: Vec<String>,
}

struct ByPassword {
    client: http::Client,
    endpoint: String,
    vault: String,
    username: String,
    password: SecretString,
}

#[async_trait]
impl Login for ByPassword {
    /// Renews the token in use, or else logs in.
    async fn log_in(&self, old: Option<&SecretString>) -> Result<Grant, Failure> {
        if let Some(old) = old {
            let renew = Ask::post(format!("{}/vault/1.0/Renew/", self.endpoint)).secret(&TOKEN, "", old)?;
            let renewed = renew.send(&self.client).await?;
            if renewed.status == 200 {
                return Ok(granted(&renewed)?);
            }
        }
        #[derive(Serialize)]
        struct Credentials<'a> {
            username: &'a str,
            password: &'a str,
        }
        let credentials = Credentials { username: &self.username, password: self.password.expose_secret() };
        let url = format!("{}/vault/1.0/Login/{}/", self.endpoint, escaped(&self.vault));
        let reply = Ask::post(url).json(&credentials, 4 * 1024).send(&self.client).await?;
        match reply.status {
            200 => Ok(granted(&reply)?),
            _ => Err(reply.unexpected(format!("login refused: {}", said(&reply))).into()),
        }
    }
}

fn granted(reply: &Reply) -> Result<Grant, Error> {
    #[derive(Deserialize)]
    struct Granted {
        access_token: SecretString,
        expires_at: String,
    }
    let Granted { access_token, expires_at } = reply.json(WHO)?;
    let end = OffsetDateTime::parse(&expires_at, &Rfc3339).map_err(|_| reply.failed("'expires_at' is no time"))?;
    // By the clock of who says it.
    let now = reply.date().unwrap_or_else(clock::now);
    Ok(Grant { secret: access_token, life: (end - now).try_into().unwrap_or(Duration::ZERO) })
}

#[derive(Serialize)]
struct InBox<'a> {
    box_id: &'a str,
    #[serde(flatten)]
    wish: Wish<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Wish<'a> {
    Nothing {},
    New {
        name: &'a str,
        secret_data: &'a str,
    },
    One {
        secret_id: &'a str,
    },
    Page {
        max_items: usize,
        #[serde(skip_serializing_if = "Option::is_none")]
        next_token: Option<&'a str>,
    },
}

#[derive(Deserialize)]
struct CheckedOut {
    secret_data: SecretString,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Page {
    #[serde(rename = "Secrets")]
    secrets: Vec<Entry>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    #[serde(default)]
    expired: bool,
}

impl Store {
    /// Logs in, and checks that the box is there.
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        let warnings = config.warnings();
        let config = &config.keycontrol;
        let tls = http::Tls {
            ca: config.tls.ca.clone(),
            setting: "keystore.entrust.keycontrol.tls.ca",
            ..http::Tls::default()
        };
        let client = http::Client::new(tls).map_err(|error| Error::Failed(error.into()))?;
        let (endpoint, vault) = (config.endpoint.as_str().to_owned(), config.vault_id.clone());
        let login = ByPassword {
            client: client.clone(),
            endpoint: endpoint.clone(),
            vault: vault.clone(),
            username: config.credentials.username.clone(),
            password: config.credentials.password.clone(),
        };
        let session = Session::new(login);
        let store = Self { client, session, endpoint, vault, box_id: config.box_id.clone(), warnings };
        store.status().await?;
        Ok(store)
    }

    /// Sends a request about the box. What means the same for every request is an [`Error`].
    async fn send(&self, call: &str, wish: Wish<'_>) -> Result<Reply, Error> {
        let url = format!("{}/vault/1.0/{call}/", self.endpoint);
        let body = InBox { box_id: &self.box_id, wish };
        let ask =
            |token: &SecretString| Ask::post(url.clone()).json(&body, 96 * 1024).large().secret(&TOKEN, "", token);
        let reply = with_token(&self.session, &self.client, ask, is_refused).await?;
        match reply.status {
            _ if is_refused(&reply) => Err(reply.failed("the service refuses a token that it has just given")),
            401 | 403 => Err(reply.failed(format!(
                "{}; the user lacks a right to the box '{}': to create, check out, list and delete secrets",
                said(&reply),
                self.box_id
            ))),
            _ if reply.may_pass() => Err(reply.unreachable(said(&reply))),
            _ => Ok(reply),
        }
    }

    /// Whether the box is there.
    async fn look(&self) -> Result<Reply, Error> {
        let reply = self.send("GetBox", Wish::Nothing {}).await?;
        match reply.status {
            200 => reply.json::<serde_json::Map<String, serde_json::Value>>(WHO).map(|_| reply),
            _ => Err(unexpected(&reply)),
        }
    }

    async fn check_out(&self, name: &str) -> Result<Blob, Error> {
        let reply = self.send("CheckoutSecret", Wish::One { secret_id: name }).await?;
        match reply.status {
            200 => {}
            404 if error(&reply) == "Secret not found" => return Err(Error::NotFound),
            _ => return Err(unexpected(&reply)),
        }
        let CheckedOut { secret_data, name: answered } = reply.json(WHO)?;
        if answered.is_some_and(|answered| answered != name) {
            return Err(reply.failed("the answer is about something else"));
        }
        let value = base64::decode(secret_data.expose_secret().as_bytes());
        value.map(Into::into).ok_or_else(|| reply.failed("the value is no base64"))
    }

    async fn clock(&self) -> Result<Option<OffsetDateTime>, Error> {
        Ok(self.look().await?.date())
    }
}

/// Whether the token is no longer good.
fn is_refused(reply: &Reply) -> bool {
    reply.status == 401 || reply.status == 403 && error(reply).to_ascii_lowercase().contains("token")
}

/// The service's own word for an error; empty: it has none.
fn error(reply: &Reply) -> String {
    #[derive(Deserialize)]
    struct Explained {
        error: String,
    }
    reply.maybe_json::<Explained>().map(|explained| explained.error).unwrap_or_default()
}

fn said(reply: &Reply) -> String {
    match error(reply) {
        error if error.is_empty() => reply.message(),
        error => shown(&error),
    }
}

fn unexpected(reply: &Reply) -> Error {
    match error(reply) {
        error if error.is_empty() => reply.unexpected(format!("the answer is not what {WHO} says here")),
        error => reply.unexpected(shown(&error)),
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entrust: {}, vault {}, box {}", self.endpoint, self.vault, self.box_id)
    }
}

#[async_trait]
impl KeyStore for Store {
    /// One call, which never overwrites: names are unique in a box.
    async fn create(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        let data = base64::encode(value.expose());
        let reply = self.send("CreateSecret", Wish::New { name: name.as_str(), secret_data: &data }).await?;
        match reply.status {
            // What a whole answer has in it is not known, so the secret itself is the proof.
            200 => match self.check_out(name.as_str()).await {
                Ok(stored) if stored.is_same(value) => Ok(()),
                Ok(_) => Err(Error::Exists),
                Err(Error::NotFound) => {
                    Err(reply.failed("the answer says that the secret was created, and it is not there"))
                }
                Err(error) => Err(error),
            },
            409 if error(&reply) == "Secret already exists" => Err(Error::Exists),
            _ => Err(unexpected(&reply)),
        }
    }

    async fn get(&self, name: &KeyName) -> Result<Blob, Error> {
        self.check_out(name.as_str()).await
    }

    /// Only [`Kept`](crate::keystore::Kept) replaces keys here.
    async fn replace(&self, _name: &KeyName, _expected: &Blob, _value: &Blob) -> Result<(), Error> {
        Err(Error::Failed(format!("{WHO} replaces no value").into()))
    }

    async fn delete(&self, name: &KeyName) -> Result<(), Error> {
        let reply = self.send("DeleteSecret", Wish::One { secret_id: name.as_str() }).await?;
        match reply.status {
            200 => reply.json::<serde_json::Map<String, serde_json::Value>>(WHO).map(drop),
            204 => Ok(()),
            404 if error(&reply) == "Secret not found" => Err(Error::NotFound),
            _ => Err(unexpected(&reply)),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        let (mut listing, mut token) = (Listing::default(), None::<String>);
        loop {
            let wish = Wish::Page { max_items: PAGE, next_token: token.as_deref() };
            let reply = self.send("ListSecretIds", wish).await?;
            if reply.status != 200 {
                return Err(unexpected(&reply));
            }
            let Page { secrets, next_token } = reply.json(WHO)?;
            for Entry { name, expired } in secrets.into_iter().filter(|entry| entry.name.starts_with(prefix)) {
                if expired { listing.refuse(&name, "it has expired") } else { listing.insert(&name) }
            }
            let next = next_token.filter(|token| !token.is_empty());
            match next {
                None => return Ok(listing.sorted()),
                Some(_) if next == token => {
                    return Err(reply.failed("the listing has no end: a page names itself as the next one"));
                }
                Some(_) => token = next,
            }
        }
    }

    async fn status(&self) -> Result<Duration, Error> {
        let asked = Instant::now();
        self.look().await?;
        Ok(asked.elapsed())
    }

    fn behind(&self) -> Option<&dyn KeyStore> {
        None
    }

    fn about(&self) -> About<'_> {
        About {
            clock: Box::pin(self.clock()),
            warnings: &self.warnings,
            token_age: self.session.age(),
            ..About::named(self.to_string())
        }
    }

    /// Checks what can be checked without changing anything: logging in and listing.
    async fn check(&self, _access: Access) -> Result<(), Error> {
        self.list("").await.map(drop)
    }
}
