//! The key store: how keys are created, read, deleted and listed.

use std::fmt;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hyper::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use time::OffsetDateTime;

use super::api::{Api, Call, WHO};
use super::config::Config;
use super::login::{self, Login, Source};
use super::policy::{Right, Rights};
use super::rights;
use super::spelling::{Doubt, Spelling, differs, swapped};
use super::version::{Version, oldest, parts, time_of};
use crate::crypto::Blob;
use crate::crypto::buffer::to_json;
use crate::http;
use crate::http::token::Session;
use crate::keystore::environment::Variables;
use crate::keystore::pace::Pace;
use crate::keystore::rest::sign_of_life;
use crate::keystore::{About, Access, Backend as _, Charged, Error, KeyStore, Listing, Names};
use crate::name::KeyName;
use crate::setting::Prefix;

/// The most entries in one answer to a listing.
const PAGE: usize = 25;

/// The longest value, in bytes.
pub const MAX_VALUE: usize = 25_000;

/// How often a version is looked at that is not settled yet, and how often a secret that is just being deleted.
const ROUNDS: usize = 4;

/// The pauses between attempts to purge a secret that is still being deleted.
const PURGING: Duration = Duration::from_millis(500);

/// How long a secret may take to be deleted, before the request is given up.
const DELETED: Duration = Duration::from_secs(8);

/// One vault.
pub struct Store {
    api: Api,
    prefix: Prefix,
    spelling: Spelling,
    warnings: Vec<String>,
}

#[derive(Deserialize)]
struct Secret {
    id: String,
    value: SecretString,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page<E> {
    value: Vec<E>,
    next_link: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    id: String,
    /// Whether it belongs to a certificate.
    #[serde(default)]
    managed: bool,
}

#[derive(Deserialize)]
struct Tombstone {
    id: String,
}

impl Store {
    /// Logs in, and checks that the vault answers.
    pub async fn connect(config: &Config, variables: Variables<'_>) -> Result<Self, Error> {
        let tls = http::Tls { ca: config.tls.ca.clone(), setting: "keystore.azure.tls.ca", ..http::Tls::default() };
        let client = http::Client::new(tls).map_err(|error| Error::Failed(error.into()))?;
        let warnings = config.warnings();
        let config = &config.keyvault;
        let source = Source::find(&config.login, variables);
        let host = login::host(config.endpoint.as_str()).unwrap_or_default();
        let rights = Rights {
            vault: host.split('.').next().unwrap_or_default().to_owned(),
            application: source.application().map(str::to_owned),
        };
        let authority = login::authority(&config.endpoint, variables)?;
        let login = Login { client: client.clone(), vault: config.endpoint.clone(), source, authority };
        let api = Api {
            client,
            session: Session::new(login),
            endpoint: config.endpoint.as_str().to_owned(),
            rights,
            reads: Pace::new(),
            writes: Pace::new(),
        };
        let store = Self { api, prefix: config.prefix.clone(), spelling: Spelling::default(), warnings };
        store.status().await?;
        Ok(store)
    }

    /// The name of the secret.
    ///
    /// # Errors
    /// A vault has no such names.
    fn id(&self, name: &KeyName) -> Result<String, Error> {
        match refusal(name) {
            Some(why) => Err(Error::Failed(format!("'{name}': {why}").into())),
            None => Ok(format!("{}{name}", self.prefix.as_str())),
        }
    }

    /// All entries of a listing, page by page, and the vault's time at its end.
    async fn all<E: serde::de::DeserializeOwned>(&self, first: Call<'_>) -> Result<Pages<E>, Error> {
        let mut reply = match self.api.call(first).await? {
            Ok(reply) => reply,
            Err(refusal) if refusal.is_missing() => return Ok(Pages { entries: Vec::new(), time: None }),
            Err(refusal) => return Err(refusal.failed("")),
        };
        let (mut entries, mut last) = (Vec::new(), String::new());
        loop {
            let Page { value, next_link } = reply.json(WHO)?;
            entries.extend(value);
            let Some(link) = next_link.filter(|link| !link.is_empty()) else {
                return Ok(Pages { entries, time: Some(time_of(&reply)?) });
            };
            // The token goes with it.
            if !login::is_same_server(&link, &self.api.endpoint) {
                return Err(reply.failed("the next page is said to be at another server"));
            }
            if link == last {
                return Err(reply.failed("the listing has no end: a page names itself as the next one"));
            }
            last.clone_from(&link);
            reply = match self.api.call(Api::link(Right::List, link)).await? {
                Ok(reply) => reply,
                Err(refusal) => return Err(refusal.failed("")),
            };
        }
    }

    /// All versions of a secret; none: there is no such secret.
    async fn versions(&self, id: &str) -> Result<Pages<Version>, Error> {
        let found: Pages<Version> =
            self.all(self.api.at(Right::List, Method::GET, &format!("secrets/{id}/versions"))).await?;
        found.entries.iter().try_for_each(|version| is_about(id, &version.id))?;
        Ok(found)
    }

    /// All versions, once it is settled which of them is the oldest.
    async fn settled(&self, id: &str) -> Result<Pages<Version>, Error> {
        for _ in 0..ROUNDS {
            let found = self.versions(id).await?;
            let (Some(oldest), Some(now)) = (oldest(&found.entries), found.time) else { return Ok(found) };
            let Some(wait) = oldest.unsettled(now) else { return Ok(found) };
            tokio::time::sleep(wait).await;
        }
        Err(Error::Unreachable(
            "the clock of the vault does not go on, so it is not known which version is older".into(),
        ))
    }

    /// The value of a version; none: it is no longer there.
    async fn value(&self, id: &str, version: &str) -> Result<Option<Blob>, Error> {
        let reply =
            match self.api.call(self.api.at(Right::Get, Method::GET, &format!("secrets/{id}/{version}"))).await? {
                Ok(reply) => reply,
                Err(refusal) if refusal.is_missing() => return Ok(None),
                Err(refusal) => return Err(refusal.failed("")),
            };
        let secret: Secret = reply.json(WHO)?;
        if parts(&secret.id) != Some((id, version)) {
            return Err(reply.failed("the answer is about something else"));
        }
        Ok(Some(secret.value.expose_secret().as_bytes().to_vec().into()))
    }

    /// Fails when there is a deleted secret of the name, which can be recovered.
    async fn is_not_deleted(&self, id: &str) -> Result<(), Error> {
        match self.api.call(self.api.at(Right::Get, Method::GET, &format!("deletedsecrets/{id}"))).await? {
            Ok(reply) => {
                is_about(id, &reply.json::<Tombstone>(WHO)?.id)?;
                Err(reply.failed(self.recover(id)))
            }
            Err(refusal) if refusal.is_missing() => Ok(()),
            Err(refusal) => Err(refusal.failed("")),
        }
    }

    fn recover(&self, id: &str) -> String {
        let vault = &self.api.rights.vault;
        format!(
            "the key was deleted, and can be recovered: 'az keyvault secret recover --vault-name {vault} --name {id}'; \
             or free the name for good: 'az keyvault secret purge --vault-name {vault} --name {id}'"
        )
    }

    /// Adds a version, whatever is there: there is no condition that it could be given.
    async fn put(&self, id: &str, value: &str) -> Result<(Version, i64), Error> {
        #[derive(serde::Serialize)]
        struct New<'a> {
            value: &'a str,
        }
        let body = to_json(&New { value }, 6 * value.len() + 64);
        let began = Instant::now();
        let reply = loop {
            let call = self.api.at(Right::Set, Method::PUT, &format!("secrets/{id}")).with_body(&body);
            match self.api.call(call).await? {
                Ok(reply) => break reply,
                Err(refusal) if refusal.is_busy() && began.elapsed() < DELETED => tokio::time::sleep(PURGING).await,
                Err(refusal) if refusal.is_busy() => return Err(refusal.unreachable()),
                Err(refusal) if refusal.inner == "ObjectIsDeletedButRecoverable" => {
                    return Err(refusal.failed(format!("; {}", self.recover(id))));
                }
                Err(refusal) => return Err(refusal.failed("")),
            }
        };
        let made: Version = reply.json(WHO)?;
        is_about(id, &made.id)?;
        Ok((made, time_of(&reply)?))
    }

    /// Whether there is a secret of the name.
    async fn exists(&self, id: &str) -> Result<bool, Error> {
        match self.api.call(self.api.at(Right::Get, Method::GET, &format!("secrets/{id}"))).await? {
            Ok(reply) => is_about(id, &reply.json::<Tombstone>(WHO)?.id).map(|()| true),
            Err(refusal) if refusal.inner == "SecretDisabled" => Ok(true),
            Err(refusal) if refusal.is_missing() => Ok(false),
            Err(refusal) => Err(refusal.failed("")),
        }
    }

    /// Fails unless a secret that is deleted can be purged, so that its name is free again.
    async fn is_purgeable(&self, id: &str, versions: &[Version]) -> Result<(), Error> {
        if versions.iter().any(|version| !version.attributes.recovery_level.contains("Purgeable")) {
            let why = "this vault protects deleted secrets from being purged: the name would be blocked for up to 90 \
                       days. Nothing was deleted; use a vault without purge protection for keys that are deleted";
            return Err(Error::Failed(format!("'{id}': {why}").into()));
        }
        // Of a secret that is not deleted it purges nothing, and tells whether the right is there.
        match self.api.call(self.api.at(Right::Purge, Method::DELETE, &format!("deletedsecrets/{id}"))).await? {
            Err(refusal) if !refusal.is_missing() && !refusal.is_busy() => Err(refusal.failed("")),
            _ => Ok(()),
        }
    }

    /// Removes a deleted secret for good; false: there is none.
    async fn purge(&self, id: &str) -> Result<bool, Error> {
        let began = Instant::now();
        loop {
            let call = self.api.at(Right::Purge, Method::DELETE, &format!("deletedsecrets/{id}"));
            let busy = match self.api.call(call).await {
                Ok(Ok(reply)) if reply.status == 204 => return Ok(true),
                Ok(Ok(reply)) => return Err(reply.failed(format!("the answer is not what {WHO} says"))),
                Ok(Err(refusal)) if refusal.is_busy() => refusal.unreachable(),
                Ok(Err(refusal)) if refusal.is_missing() => return Ok(false),
                Ok(Err(refusal)) => return Err(refusal.failed("")),
                // Nothing can be lost by asking again.
                Err(error @ Error::Unreachable(_)) => error,
                Err(error) => return Err(error),
            };
            if began.elapsed() >= DELETED {
                return Err(busy);
            }
            tokio::time::sleep(PURGING).await;
        }
    }

    /// Checks that a secret that was found under a name is stored under that very name.
    async fn check_spelling(&self, id: &str) -> Result<(), Error> {
        loop {
            match self.spelling.check(id)? {
                Doubt::None => return Ok(()),
                Doubt::Probe => match self.is_echoed().await? {
                    Some(is_echoed) => self.spelling.probed(is_echoed),
                    // Nothing is listed yet that could tell.
                    None => return Ok(()),
                },
                Doubt::List => {
                    let names = self.names().await?;
                    let lower = id.to_ascii_lowercase();
                    let is_listed = names.iter().any(|entry| entry.name.to_ascii_lowercase() == lower);
                    self.spelling.note(names.iter().map(|entry| entry.name.as_str()));
                    if !is_listed {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Whether this vault answers with the spelling of the request rather than the stored one; none: no entry tells.
    async fn is_echoed(&self) -> Result<Option<bool>, Error> {
        let call = self.api.at(Right::List, Method::GET, &format!("secrets?maxresults={PAGE}"));
        let reply = match self.api.call(call).await? {
            Ok(reply) => reply,
            Err(refusal) => return Err(refusal.failed("")),
        };
        let Page::<Entry> { value, .. } = reply.json(WHO)?;
        let names = value.iter().filter_map(|entry| Some(parts(&entry.id)?.0));
        let Some(other) = names.filter_map(swapped).next() else { return Ok(None) };
        let path = format!("secrets/{other}/versions?maxresults=1");
        let page: Result<Page<Version>, _> = match self.api.call(self.api.at(Right::List, Method::GET, &path)).await? {
            Ok(reply) => reply.json(WHO),
            // It does not fold case at all.
            Err(refusal) if refusal.is_missing() => return Ok(Some(false)),
            Err(refusal) => return Err(refusal.failed("")),
        };
        let first = page?.value.into_iter().next();
        Ok(Some(first.is_some_and(|version| parts(&version.id).is_some_and(|(name, _)| name == other))))
    }

    /// The names of all secrets.
    async fn names(&self) -> Result<Vec<Name>, Error> {
        let call = self.api.at(Right::List, Method::GET, &format!("secrets?maxresults={PAGE}"));
        let found: Pages<Entry> = self.all(call).await?;
        if found.time.is_none() {
            return Err(Error::Failed(format!("the listing: the answer is not what {WHO} says").into()));
        }
        let mut names = Vec::with_capacity(found.entries.len());
        for Entry { id, managed } in found.entries {
            let (name, _) = parts(&id).ok_or_else(|| Error::Failed("the listing has what is no secret".into()))?;
            names.push(Name { name: name.to_owned(), managed });
        }
        Ok(names)
    }

    async fn clock(&self) -> Result<Option<OffsetDateTime>, Error> {
        Ok(sign_of_life(&self.api.client, &format!("{}/", self.api.endpoint)).await?.date())
    }
}

struct Pages<E> {
    entries: Vec<E>,
    /// The vault's time; none: there is nothing of the kind.
    time: Option<i64>,
}

struct Name {
    name: String,
    managed: bool,
}

/// Why a vault has no key of this name; none: it can have one.
fn refusal(name: &KeyName) -> Option<&'static str> {
    name.as_str().contains('_').then_some("names in a key vault have no '_'; write '-' in its place")
}

/// Checks that an answer is about the secret that was asked for, in this very spelling.
fn is_about(id: &str, answered: &str) -> Result<(), Error> {
    match parts(answered) {
        Some((name, _)) if name == id => Ok(()),
        Some((name, _)) if name.eq_ignore_ascii_case(id) => Err(differs(id, name)),
        _ => Err(Error::Failed(format!("'{id}': the answer is about something else").into())),
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "azure: {}", self.api.endpoint)?;
        match self.prefix.as_str() {
            "" => Ok(()),
            prefix => write!(f, ", prefix '{prefix}'"),
        }
    }
}

#[async_trait]
impl KeyStore for Store {
    /// Adds a version to a name that is free, and waits until nobody can add an older one: the creator of the oldest
    /// version has created the key. `version.rs` says why.
    async fn create(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        let id = self.id(name)?;
        let text = match std::str::from_utf8(value.expose()) {
            Ok(text) if text.len() <= MAX_VALUE => text,
            Ok(_) => {
                return Err(Error::Failed(
                    format!("the value is longer than the {MAX_VALUE} bytes that {WHO} takes").into(),
                ));
            }
            Err(_) => return Err(Error::Failed(format!("the value is no text, and {WHO} takes nothing else").into())),
        };
        if self.exists(&id).await? {
            return Err(Error::Exists);
        }
        let (ours, now) = self.put(&id, text).await?;
        if let Some(wait) = ours.unsettled(now) {
            tokio::time::sleep(wait).await;
        }
        let found = self.settled(&id).await?;
        self.spelling.forget(&id);
        match oldest(&found.entries) {
            Some(oldest) if oldest.id == ours.id => Ok(()),
            Some(_) if found.entries.iter().any(|version| version.id == ours.id) => Err(Error::Exists),
            _ => Err(Error::Unreachable("the version that was just added is not listed".into())),
        }
    }

    async fn get(&self, name: &KeyName) -> Result<Blob, Error> {
        let id = self.id(name)?;
        for _ in 0..ROUNDS {
            let found = self.settled(&id).await?;
            let (Some(oldest), Some(now)) = (oldest(&found.entries), found.time) else {
                self.is_not_deleted(&id).await?;
                return Err(Error::NotFound);
            };
            if let Some(why) = oldest.unusable(now) {
                return Err(Error::Failed(format!("the oldest version of '{id}' is the key, and {why}").into()));
            }
            let (_, version) = parts(&oldest.id).unwrap_or_default();
            if let Some(value) = self.value(&id, version).await? {
                self.check_spelling(&id).await?;
                return Ok(value);
            }
        }
        Err(Error::Unreachable("the secret is deleted and created again and again".into()))
    }

    /// Only [`Kept`](crate::keystore::Kept) replaces keys here: readers see the oldest version alone.
    async fn replace(&self, _name: &KeyName, _expected: &Blob, _value: &Blob) -> Result<(), Error> {
        Err(Error::Failed(format!("{WHO} replaces no version").into()))
    }

    /// Deletes the secret and purges it: what is deleted only blocks its name.
    async fn delete(&self, name: &KeyName) -> Result<(), Error> {
        let id = self.id(name)?;
        let versions = self.versions(&id).await?.entries;
        if !versions.is_empty() {
            self.is_purgeable(&id, &versions).await?;
        }
        let deleted = self.api.call(self.api.at(Right::Delete, Method::DELETE, &format!("secrets/{id}"))).await;
        let was_there = match deleted {
            Ok(Ok(reply)) => is_about(&id, &reply.json::<Tombstone>(WHO)?.id).map(|()| true)?,
            Ok(Err(refusal)) if refusal.is_missing() || refusal.is_busy() => false,
            Ok(Err(refusal)) => return Err(refusal.failed("")),
            // It may have been done. What is deleted is purged; what is not is the caller's to look at.
            Err(Error::Unreachable(cause)) if !self.purge(&id).await? => return Err(Error::Unreachable(cause)),
            Err(Error::Unreachable(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let was_deleted = self.purge(&id).await?;
        self.spelling.forget(&id);
        if was_there || was_deleted { Ok(()) } else { Err(Error::NotFound) }
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        let mut listing = Listing::default();
        for Name { name, managed } in self.names().await? {
            match name.strip_prefix(self.prefix.as_str()).filter(|entry| entry.starts_with(prefix)) {
                Some(entry) if managed => listing.refuse(entry, "the secret of a certificate"),
                Some(entry) => listing.insert(entry),
                None => {}
            }
        }
        Ok(listing.sorted())
    }

    /// A vault that answers but refuses our login is not usable.
    async fn status(&self) -> Result<Duration, Error> {
        let asked = Instant::now();
        sign_of_life(&self.api.client, &format!("{}/", self.api.endpoint)).await?;
        let latency = asked.elapsed();
        self.api.session.token().await?;
        Ok(latency)
    }

    fn behind(&self) -> Option<&dyn KeyStore> {
        None
    }

    fn about(&self) -> About<'_> {
        let identity = format!("azure: {} prefix '{}'", self.api.endpoint, self.prefix.as_str());
        let charged = Charged { by: WHO, create: 3, get: 2, replace: 5, page: Some(PAGE), keeps: false };
        About {
            clock: Box::pin(self.clock()),
            warnings: &self.warnings,
            charges: vec![charged],
            token_age: self.api.session.age(),
            names: Names { refuse: refusal, fold_case: true },
            ..About::named(identity)
        }
    }

    /// A create waits for seconds.
    fn batch(&self) -> usize {
        4
    }

    async fn check(&self, access: Access) -> Result<(), Error> {
        rights::check(&self.api, self.prefix.as_str(), access).await
    }
}
