//! Fortanix SDKMS: each key is an opaque security object, which may be exported.

use std::fmt;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hyper::header::AUTHORIZATION;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::config::Config;
use crate::crypto::{Blob, base64};
use crate::http;
use crate::keystore::rest::{Ask, Reply, escaped};
use crate::keystore::{About, Access, Backend as _, Error, KeyStore, Listing};
use crate::name::KeyName;
use crate::setting::Prefix;

/// What an answer is called that is not.
const WHO: &str = "Fortanix SDKMS";

/// The most objects in one answer to a listing.
const PAGE: usize = 100;

/// The only kind of object that is a key.
const OPAQUE: &str = "OPAQUE";

/// SDKMS, as one application sees it.
pub struct Store {
    client: http::Client,
    endpoint: String,
    key: SecretString,
    group: Option<String>,
    prefix: Prefix,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct New<'a> {
    obj_type: &'static str,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_id: Option<&'a str>,
    key_ops: [&'static str; 2],
    value: &'a str,
    enabled: bool,
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
}

/// An object without its value.
#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    name: String,
    obj_type: String,
}

#[derive(Deserialize)]
struct Exported {
    kid: String,
    value: SecretString,
    enabled: bool,
    name: Option<String>,
}

impl Store {
    /// Checks that the service answers and takes the key.
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        let warnings = config.warnings();
        let config = &config.sdkms;
        let tls =
            http::Tls { ca: config.tls.ca.clone(), setting: "keystore.fortanix.sdkms.tls.ca", ..http::Tls::default() };
        let store = Self {
            client: http::Client::new(tls).map_err(|error| Error::Failed(error.into()))?,
            endpoint: config.endpoint.as_str().to_owned(),
            key: config.credentials.key.clone(),
            group: config.group_id.clone(),
            prefix: config.prefix.clone(),
            warnings,
        };
        store.page(None, 1).await?;
        Ok(store)
    }

    fn id(&self, name: &KeyName) -> String {
        format!("{}{name}", self.prefix.as_str())
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.endpoint)
    }

    /// Sends a request as the application. What means the same for every request is an [`Error`].
    async fn send(&self, ask: Ask) -> Result<Reply, Error> {
        let reply = ask.secret(&AUTHORIZATION, "Basic ", &self.key)?.send(&self.client).await?;
        match reply.status {
            401 | 403 => Err(reply.failed(format!(
                "{}; the API key is wrong, or its application lacks a right: in the group of the keys it needs to \
                 create, export, list and delete objects",
                reply.message()
            ))),
            _ if reply.may_pass() => Err(reply.unreachable("the service is busy or down")),
            _ => Ok(reply),
        }
    }

    /// The object of a name, with its value.
    async fn export(&self, id: &str) -> Result<(Exported, Reply), Error> {
        let ask = Ask::post(self.url("crypto/v1/keys/export")).json(&Named { name: id }, 128);
        let reply = self.send(ask).await?;
        match reply.status {
            200 => {
                let exported: Exported = reply.json(WHO)?;
                match exported.name.as_deref().is_none_or(|name| name == id) {
                    true => Ok((exported, reply)),
                    false => Err(reply.failed("the answer is about something else")),
                }
            }
            404 if is_missing(&reply) => Err(Error::NotFound),
            _ => Err(unexpected(&reply)),
        }
    }

    /// The objects whose names come after this one.
    async fn page(&self, after: Option<&str>, limit: usize) -> Result<Vec<Object>, Error> {
        let after = after.map(|name| format!("&start={}", escaped(name))).unwrap_or_default();
        let reply = self
            .send(Ask::get(self.url(&format!("crypto/v1/keys?sort=name:asc&limit={limit}{after}"))).large())
            .await?;
        if reply.status == 200 { reply.list(WHO) } else { Err(unexpected(&reply)) }
    }

    async fn health(&self) -> Result<Reply, Error> {
        let reply = self.send(Ask::get(self.url("sys/v1/health"))).await?;
        if matches!(reply.status, 200 | 204) { Ok(reply) } else { Err(unexpected(&reply)) }
    }

    async fn clock(&self) -> Result<Option<OffsetDateTime>, Error> {
        Ok(self.health().await?.date())
    }
}

fn is_missing(reply: &Reply) -> bool {
    reply.says("sobject does not exist")
}

fn unexpected(reply: &Reply) -> Error {
    reply.unexpected(format!("the answer is not what {WHO} says here: {}", reply.message()))
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fortanix: {}", self.endpoint)?;
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
        let value: Zeroizing<String> = base64::encode(value.expose());
        let key_ops = ["EXPORT", "APPMANAGEABLE"];
        let group_id = self.group.as_deref();
        let new = New { obj_type: OPAQUE, name: &id, group_id, key_ops, value: &value, enabled: true };
        let reply = self.send(Ask::put(self.url("crypto/v1/keys")).json(&new, value.len() + 512)).await?;
        match reply.status {
            201 if reply.json::<Object>(WHO)?.name == id => Ok(()),
            409 if reply.says("sobject already exists") => Err(Error::Exists),
            _ => Err(unexpected(&reply)),
        }
    }

    async fn get(&self, name: &KeyName) -> Result<Blob, Error> {
        let (exported, reply) = self.export(&self.id(name)).await?;
        if !exported.enabled {
            return Err(reply.failed("the object is disabled; enable it in SDKMS"));
        }
        let value = base64::decode(exported.value.expose_secret().as_bytes());
        value.map(Into::into).ok_or_else(|| reply.failed("the value is no base64"))
    }

    /// Only [`Kept`](crate::keystore::Kept) replaces keys here.
    async fn replace(&self, _name: &KeyName, _expected: &Blob, _value: &Blob) -> Result<(), Error> {
        Err(Error::Failed(format!("{WHO} replaces no value").into()))
    }

    /// By the object's own id, so that no other object of the name is deleted.
    async fn delete(&self, name: &KeyName) -> Result<(), Error> {
        let (exported, _) = self.export(&self.id(name)).await?;
        let reply = self.send(Ask::delete(self.url(&format!("crypto/v1/keys/{}", escaped(&exported.kid))))).await?;
        match reply.status {
            204 => Ok(()),
            404 if is_missing(&reply) => Err(Error::NotFound),
            _ => Err(unexpected(&reply)),
        }
    }

    /// Each page begins behind the last name of the one before.
    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        let (mut listing, mut last) = (Listing::default(), None::<String>);
        loop {
            let page = self.page(last.as_deref(), PAGE).await?;
            let before = last.clone();
            for Object { name, obj_type } in page {
                if last.as_ref().is_none_or(|last| name > *last) {
                    last = Some(name.clone());
                }
                match name.strip_prefix(self.prefix.as_str()).filter(|entry| entry.starts_with(prefix)) {
                    Some(entry) if obj_type != OPAQUE => listing.refuse(entry, "not an opaque object"),
                    Some(entry) => listing.insert(entry),
                    None => {}
                }
            }
            // An empty page is the last one; and one without a new name, whatever the service means by it.
            if last == before {
                return Ok(listing.sorted());
            }
        }
    }

    async fn status(&self) -> Result<Duration, Error> {
        let asked = Instant::now();
        self.health().await?;
        Ok(asked.elapsed())
    }

    fn behind(&self) -> Option<&dyn KeyStore> {
        None
    }

    fn about(&self) -> About<'_> {
        let group = self.group.as_deref().unwrap_or_default();
        let identity = format!("fortanix: {} group '{group}' prefix '{}'", self.endpoint, self.prefix.as_str());
        About { clock: Box::pin(self.clock()), warnings: &self.warnings, ..About::named(identity) }
    }

    /// Checks what can be checked without changing anything: listing and exporting.
    async fn check(&self, _access: Access) -> Result<(), Error> {
        self.page(None, 1).await?;
        // Longer than the name of a key.
        match self.export(&format!("{}{:-<81}", self.prefix.as_str(), "claviger-check")).await {
            Ok(_) | Err(Error::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
