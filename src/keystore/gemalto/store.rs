//! Thales CipherTrust Manager, formerly Gemalto KeySecure: each key is a secret of the type "seed".
//!
//! The service answers 404 when there is no such secret, and also when the right to it is missing. So a name counts as
//! missing only when a complete listing lacks it, too.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::config::{Config, Credentials};
use crate::crypto::Blob;
use crate::http;
use crate::http::token::{Failure, Grant, Login, Session};
use crate::keystore::rest::{Ask, Reply, escaped, shown, sign_of_life, with_token};
use crate::keystore::{About, Access, Backend as _, Error, KeyStore, Listing};
use crate::name::KeyName;
use crate::setting::Prefix;

/// What an answer is called that is not.
const WHO: &str = "Thales CipherTrust Manager";

/// The most secrets in one answer to a listing.
const PAGE: usize = 200;

/// How often a listing begins anew because secrets were added or removed meanwhile.
const ROUNDS: usize = 5;

/// How long a listing proves that a name is missing. A name that another server has created since is found by its own
/// right, and a create of it is refused.
const PROOF: Duration = Duration::from_secs(5);

/// How often an export is tried of a secret that is listed and yet not found.
const TRIES: u32 = 5;

/// CipherTrust Manager, as one user sees it.
pub struct Store {
    client: http::Client,
    session: Session,
    endpoint: String,
    domain: Option<String>,
    prefix: Prefix,
    listed: Mutex<Option<Listed>>,
    warnings: Vec<String>,
}

/// All names at a moment.
struct Listed {
    names: HashSet<String>,
    at: Instant,
}

struct ByToken {
    client: http::Client,
    endpoint: String,
    token: SecretString,
    domain: Option<String>,
}

#[async_trait]
impl Login for ByToken {
    async fn log_in(&self, _old: Option<&SecretString>) -> Result<Grant, Failure> {
        #[derive(Serialize)]
        struct Wish<'a> {
            grant_type: &'static str,
            refresh_token: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            domain: Option<&'a str>,
        }
        #[derive(Deserialize)]
        struct Granted {
            jwt: SecretString,
            duration: u64,
        }
        let token = self.token.expose_secret();
        let wish = Wish { grant_type: "refresh_token", refresh_token: token, domain: self.domain.as_deref() };
        let ask = Ask::post(format!("{}/api/v1/auth/tokens", self.endpoint)).json(&wish, token.len() + 256);
        let reply = ask.send(&self.client).await?;
        if !matches!(reply.status, 200 | 201) {
            return Err(reply.unexpected(format!("login refused: {}", said(&reply))).into());
        }
        let Granted { jwt, duration } = reply.json(WHO)?;
        Ok(Grant { secret: jwt, life: Duration::from_secs(duration) })
    }
}

#[derive(Serialize)]
struct New<'a> {
    #[serde(rename = "dataType")]
    kind: &'static str,
    material: &'a str,
    name: &'a str,
}

#[derive(Deserialize)]
struct Secret {
    name: String,
}

#[derive(Deserialize)]
struct Exported {
    material: SecretString,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Page {
    total: usize,
    resources: Vec<Secret>,
}

impl Store {
    /// Logs in, and checks that the service answers.
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        let warnings = config.warnings();
        let config = &config.keysecure;
        let tls = http::Tls {
            ca: config.tls.ca.clone(),
            setting: "keystore.gemalto.keysecure.tls.ca",
            ..http::Tls::default()
        };
        let client = http::Client::new(tls).map_err(|error| Error::Failed(error.into()))?;
        let (endpoint, Credentials { token, domain, retry }) =
            (config.endpoint.as_str().to_owned(), &config.credentials);
        let (token, domain) = (token.clone(), domain.clone());
        let login = ByToken { client: client.clone(), endpoint: endpoint.clone(), token, domain: domain.clone() };
        let session = Session::with_pause(login, *retry);
        let prefix = config.prefix.clone();
        let store = Self { client, session, endpoint, domain, prefix, listed: Mutex::default(), warnings };
        store.status().await?;
        Ok(store)
    }

    fn id(&self, name: &KeyName) -> String {
        format!("{}{name}", self.prefix.as_str())
    }

    /// Sends a request with the session's token. What means the same for every request is an [`Error`].
    async fn send(&self, ask: impl Fn(String) -> Ask, path: &str) -> Result<Reply, Error> {
        let url = format!("{}/api/v1/vault/secrets{path}", self.endpoint);
        let ask = |token: &SecretString| ask(url.clone()).bearer(token);
        let reply = with_token(&self.session, &self.client, ask, |reply| reply.status == 401).await?;
        match reply.status {
            401 => Err(reply.failed("the service refuses a token that it has just given")),
            403 => Err(reply.failed(format!(
                "{}; the user of the refresh token lacks a right: to create, export, list and delete secrets",
                said(&reply)
            ))),
            _ if reply.may_pass() => Err(reply.unreachable(said(&reply))),
            _ => Ok(reply),
        }
    }

    /// All names, from a listing during which their number did not change.
    async fn names(&self) -> Result<HashSet<String>, Error> {
        for _ in 0..ROUNDS {
            if let Some(names) = self.try_names().await? {
                return Ok(names);
            }
        }
        Err(Error::Unreachable("secrets are added or removed all the time while they are listed".into()))
    }

    async fn try_names(&self) -> Result<Option<HashSet<String>>, Error> {
        let (mut names, mut seen, mut total) = (HashSet::new(), 0, None);
        loop {
            let reply = self.send(|url| Ask::get(url).large(), &format!("?limit={PAGE}&skip={seen}")).await?;
            if reply.status != 200 {
                return Err(unexpected(&reply));
            }
            let page: Page = reply.json(WHO)?;
            if *total.get_or_insert(page.total) != page.total {
                return Ok(None);
            }
            seen += page.resources.len();
            let is_empty = page.resources.is_empty();
            names.extend(page.resources.into_iter().map(|secret| secret.name));
            match seen >= page.total {
                true => return Ok(Some(names)),
                false if is_empty => return Err(reply.failed("the listing ends before it is complete")),
                false => {}
            }
        }
    }

    /// Whether a secret is there after a 404 about it, which may also say that there is no right to it.
    async fn is_there(&self, id: &str) -> Result<bool, Error> {
        let mut listed = self.listed.lock().await;
        if listed.as_ref().is_some_and(|listed| listed.at.elapsed() < PROOF && !listed.names.contains(id)) {
            return Ok(false);
        }
        let at = Instant::now();
        let names = self.names().await?;
        let is_there = names.contains(id);
        *listed = Some(Listed { names, at });
        Ok(is_there)
    }
}

fn no_right(reply: &Reply) -> Error {
    reply.failed(
        "the secret is there, and the user of the refresh token has no right to it: allow it to export and to delete secrets",
    )
}

/// An error in the service's own words.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Explained {
    code_desc: String,
}

fn said(reply: &Reply) -> String {
    match reply.maybe_json() {
        Some(Explained { code_desc }) => shown(&code_desc),
        None => reply.message(),
    }
}

fn unexpected(reply: &Reply) -> Error {
    reply.unexpected(format!("the answer is not what {WHO} says here: {}", said(reply)))
}

/// Whether an error is the service's own, and not that of something between.
fn is_own(reply: &Reply) -> bool {
    reply.maybe_json::<Explained>().is_some()
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gemalto: {}", self.endpoint)?;
        if let Some(domain) = &self.domain {
            write!(f, ", domain '{domain}'")?;
        }
        match self.prefix.as_str() {
            "" => Ok(()),
            prefix => write!(f, ", prefix '{prefix}'"),
        }
    }
}

#[async_trait]
impl KeyStore for Store {
    /// One call, which never overwrites: names are unique.
    async fn create(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        let id = self.id(name);
        let material = std::str::from_utf8(value.expose());
        let material = material
            .map_err(|_| Error::Failed(format!("the value is no text, and {WHO} takes nothing else").into()))?;
        let new = New { kind: "seed", material, name: &id };
        let created = self.send(|url| Ask::post(url).json(&new, 6 * material.len() + 256), "").await;
        // Whether it was done or not: what was listed before proves nothing about this name any more.
        *self.listed.lock().await = None;
        let reply = created?;
        match reply.status {
            201 if reply.json::<Secret>(WHO)?.name == id => Ok(()),
            409 if is_own(&reply) => Err(Error::Exists),
            _ => Err(unexpected(&reply)),
        }
    }

    async fn get(&self, name: &KeyName) -> Result<Blob, Error> {
        let id = self.id(name);
        let mut tries = 0;
        let reply = loop {
            tries += 1;
            let reply = self.send(Ask::post, &format!("/{}/export?type=name", escaped(&id))).await?;
            match reply.status {
                200 => break reply,
                404 if is_own(&reply) && !self.is_there(&id).await? => return Err(Error::NotFound),
                // Somebody may be replacing it, who deletes it and creates it again.
                404 if is_own(&reply) && tries < TRIES => {}
                404 if is_own(&reply) => return Err(no_right(&reply)),
                _ => return Err(unexpected(&reply)),
            }
        };
        let Exported { material, name } = reply.json(WHO)?;
        if name.is_some_and(|name| name != id) {
            return Err(reply.failed("the answer is about something else"));
        }
        match material.expose_secret().as_bytes() {
            [] => Err(reply.failed("the secret is empty")),
            value => Ok(value.to_vec().into()),
        }
    }

    /// Only [`Kept`](crate::keystore::Kept) replaces keys here.
    async fn replace(&self, _name: &KeyName, _expected: &Blob, _value: &Blob) -> Result<(), Error> {
        Err(Error::Failed(format!("{WHO} replaces no value").into()))
    }

    async fn delete(&self, name: &KeyName) -> Result<(), Error> {
        let id = self.id(name);
        let reply = self.send(Ask::delete, &format!("/{}?type=name", escaped(&id))).await?;
        match reply.status {
            204 => Ok(()),
            404 if is_own(&reply) && self.is_there(&id).await? => Err(no_right(&reply)),
            404 if is_own(&reply) => Err(Error::NotFound),
            _ => Err(unexpected(&reply)),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        let mut listing = Listing::default();
        for name in self.names().await? {
            if let Some(entry) = name.strip_prefix(self.prefix.as_str()).filter(|entry| entry.starts_with(prefix)) {
                listing.insert(entry);
            }
        }
        Ok(listing.sorted())
    }

    /// A service that answers but refuses our login is not usable.
    async fn status(&self) -> Result<Duration, Error> {
        let asked = Instant::now();
        sign_of_life(&self.client, &format!("{}/", self.endpoint)).await?;
        let latency = asked.elapsed();
        self.session.token().await?;
        Ok(latency)
    }

    fn behind(&self) -> Option<&dyn KeyStore> {
        None
    }

    fn about(&self) -> About<'_> {
        let domain = self.domain.as_deref().unwrap_or_default();
        let identity = format!("gemalto: {} domain '{domain}' prefix '{}'", self.endpoint, self.prefix.as_str());
        About {
            clock: Box::pin(self.clock()),
            warnings: &self.warnings,
            token_age: self.session.age(),
            ..About::named(identity)
        }
    }

    /// Checks what can be checked without changing anything: logging in and listing.
    async fn check(&self, _access: Access) -> Result<(), Error> {
        self.names().await.map(drop)
    }
}

impl Store {
    async fn clock(&self) -> Result<Option<OffsetDateTime>, Error> {
        Ok(sign_of_life(&self.client, &format!("{}/", self.endpoint)).await?.date())
    }
}
