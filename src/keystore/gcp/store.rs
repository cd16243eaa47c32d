//! The key store: how keys are created, read, deleted and listed.

use std::fmt;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use secrecy::ExposeSecret as _;
use time::OffsetDateTime;

use super::api::{Api, Call, Nothing, WHO};
use super::config::Config;
use super::login::{Login, Source};
use super::message::{Accessed, Added, Automatic, Empty, Page, Payload, Replication, Version};
use super::policy::{Right, Rights};
use super::rights;
use crate::crypto::{Blob, base64};
use crate::http;
use crate::http::token::Session;
use crate::keystore::environment::Variables;
use crate::keystore::pace::Pace;
use crate::keystore::rest::{Reply, escaped, sign_of_life};
use crate::keystore::{About, Access, Backend, Charged, Error, KeyStore, Listing};
use crate::name::KeyName;
use crate::setting::Prefix;

/// The most secrets in one answer to a listing.
const PAGE: usize = 1_000;

/// The longest value, in bytes.
const MAX_VALUE: usize = 65_536;

/// How long a secret without a version may belong to a creator that is about to add one.
const BETWEEN: Duration = Duration::from_millis(200);

/// How often a create begins anew because somebody has deleted the secret meanwhile.
const ROUNDS: usize = 4;

/// Secret Manager of one project.
pub struct Store {
    api: Api,
    endpoint: String,
    /// The project, and the endpoint unless it is Google's.
    place: String,
    prefix: Prefix,
    warnings: Vec<String>,
}

/// What came of adding a version.
enum Outcome {
    /// It is the first, which counts.
    First,
    /// Somebody else's is.
    Later,
    /// There is no secret.
    NoSecret,
}

impl Store {
    /// Logs in, and checks that the service answers.
    pub async fn connect(config: &Config, variables: Variables<'_>) -> Result<Self, Error> {
        let tls = http::Tls { ca: config.tls.ca.clone(), setting: "keystore.gcp.tls.ca", ..http::Tls::default() };
        let client = http::Client::new(tls).map_err(|error| Error::Failed(error.into()))?;
        let warnings = Backend::warnings(config);
        let config = &config.secretmanager;
        let (project, endpoint) = (config.project_id.clone(), config.endpoint.as_str().to_owned());
        let source = Source::find(config, variables);
        let rights = Rights { project: project.clone(), account: source.account().map(str::to_owned) };
        let login = Login { client: client.clone(), source, scopes: config.scopes.clone() };
        let api = Api {
            client,
            session: Session::new(login),
            project: format!("{endpoint}/v1/projects/{}", escaped(&project)),
            rights,
            reads: Pace::new(),
            writes: Pace::new(),
        };
        let place = if config.is_google() { project } else { format!("{endpoint}, {project}") };
        let store = Self { api, endpoint, place, prefix: config.prefix.clone(), warnings };
        store.status().await?;
        Ok(store)
    }

    fn id(&self, name: &KeyName) -> String {
        format!("{}{name}", self.prefix.as_str())
    }

    /// Makes a secret without a version; false: it is there.
    async fn make(&self, id: &str) -> Result<bool, Error> {
        let body = &Replication { replication: Some(Automatic { automatic: Empty {} }) };
        let call = Call { right: Right::Create, path: format!("secrets?secretId={id}"), body: Some(body) };
        match self.api.call(call).await? {
            Ok(reply) => is_about(&reply, id, &reply.json::<Added>(WHO)?.name, "").map(|()| true),
            Err(refusal) if refusal.status == "ALREADY_EXISTS" => Ok(false),
            Err(refusal) => Err(refusal.failed("")),
        }
    }

    /// Adds a version to a secret. The service numbers the versions, and the first one counts.
    async fn add(&self, id: &str, value: &Blob) -> Result<Outcome, Error> {
        let (data, checksum) = (base64::encode(value.expose()), crc32c(value.expose()));
        let body = &Version { payload: Payload { data: &data, data_crc32c: checksum.to_string().into() } };
        let call = Call { right: Right::Add, path: format!("secrets/{id}:addVersion"), body: Some(body) };
        match self.api.call(call).await? {
            Ok(reply) => {
                let Added { name } = reply.json(WHO)?;
                if is_about(&reply, id, &name, "/versions/1").is_ok() {
                    return Ok(Outcome::First);
                }
                let secret = name.rsplit_once("/versions/").map_or("", |(secret, _)| secret);
                is_about(&reply, id, secret, "").map(|()| Outcome::Later)
            }
            Err(refusal) if refusal.status == "NOT_FOUND" => Ok(Outcome::NoSecret),
            Err(refusal) => Err(refusal.failed("")),
        }
    }

    /// Whether the first version is there, whatever has become of it.
    async fn is_written(&self, id: &str) -> Result<bool, Error> {
        match self.api.call(access(id)).await? {
            Ok(reply) => is_about(&reply, id, &reply.json::<Accessed>(WHO)?.name, "/versions/1").map(|()| true),
            Err(refusal) if refusal.status == "FAILED_PRECONDITION" => Ok(true),
            Err(refusal) if refusal.status == "NOT_FOUND" => Ok(false),
            Err(refusal) => Err(refusal.failed("")),
        }
    }

    /// Tokens are signed with our time.
    async fn clock(&self) -> Result<Option<OffsetDateTime>, Error> {
        Ok(sign_of_life(&self.api.client, &format!("{}/", self.endpoint)).await?.date())
    }

    /// One page of the names of all secrets, and the token of the next one.
    async fn page(&self, prefix: &str, token: &str) -> Result<(Vec<String>, String), Error> {
        let mut path = format!("secrets?pageSize={PAGE}");
        if !token.is_empty() {
            path.push_str(&format!("&pageToken={}", escaped(token)));
        }
        // It finds names that contain this: it only makes the answer smaller.
        if !prefix.is_empty() {
            path.push_str(&format!("&filter={}", escaped(&format!("name:{prefix}"))));
        }
        let reply = match self.api.call(Nothing::new(Right::List, path)).await? {
            Ok(reply) => reply,
            Err(refusal) => return Err(refusal.failed("")),
        };
        let Page { secrets, next_page_token } = reply.json(WHO)?;
        let mut names = Vec::with_capacity(secrets.len());
        for Added { name } in secrets {
            let (_, id) = name.rsplit_once("/secrets/").ok_or_else(|| reply.failed("it lists what is no secret"))?;
            names.push(id.to_owned());
        }
        if !next_page_token.is_empty() && next_page_token == token {
            return Err(reply.failed("the listing has no end: a page names itself as the next one"));
        }
        Ok((names, next_page_token))
    }
}

fn access(id: &str) -> Nothing {
    Nothing::new(Right::Access, format!("secrets/{id}/versions/1:access"))
}

/// Checks that an answer names what was asked for, the project aside: answers name it by its number.
fn is_about(reply: &Reply, id: &str, name: &str, rest: &str) -> Result<(), Error> {
    match name.ends_with(&format!("/secrets/{id}{rest}")) {
        true => Ok(()),
        false => Err(reply.failed("the answer is about something else")),
    }
}

/// The checksum that Google's storage uses: CRC-32C.
fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let sum = bytes
        .iter()
        .fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), |sum: u32, _| (sum >> 1) ^ (POLYNOMIAL * (sum & 1))));
    !sum
}

/// Whether a checksum that an answer brings is that of the value. It is a number, written as a text.
fn fits(checksum: Option<&serde_json::Value>, value: &[u8]) -> bool {
    match checksum {
        None => true,
        Some(serde_json::Value::String(text)) => *text == crc32c(value).to_string(),
        Some(number) => number.as_u64() == Some(crc32c(value).into()),
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gcp: {}", self.place)?;
        match self.prefix.as_str() {
            "" => Ok(()),
            prefix => write!(f, ", prefix '{prefix}'"),
        }
    }
}

#[async_trait]
impl KeyStore for Store {
    /// Makes the secret, then adds a version: who adds the first has created the key. A secret without a version was left
    /// by a creator that was killed between the two, or belongs to one that is about to add its own.
    async fn create(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        if value.expose().len() > MAX_VALUE {
            return Err(Error::Failed(
                format!("the value is longer than the {MAX_VALUE} bytes that {WHO} takes").into(),
            ));
        }
        let id = self.id(name);
        for _ in 0..ROUNDS {
            if !self.make(&id).await? {
                if self.is_written(&id).await? {
                    return Err(Error::Exists);
                }
                tokio::time::sleep(BETWEEN).await;
                if self.is_written(&id).await? {
                    return Err(Error::Exists);
                }
            }
            match self.add(&id, value).await? {
                Outcome::First => return Ok(()),
                Outcome::Later => return Err(Error::Exists),
                Outcome::NoSecret => {}
            }
        }
        Err(Error::Unreachable("the secret is deleted again and again while it is created".into()))
    }

    async fn get(&self, name: &KeyName) -> Result<Blob, Error> {
        let id = self.id(name);
        let reply = match self.api.call(access(&id)).await? {
            Ok(reply) => reply,
            Err(refusal) if refusal.status == "NOT_FOUND" => return Err(Error::NotFound),
            Err(refusal) if refusal.status == "FAILED_PRECONDITION" => {
                return Err(refusal.failed(format!(
                    "; if version 1 is disabled: 'gcloud secrets versions enable 1 --secret={id} --project={}'; what \
                     was destroyed is gone",
                    self.api.rights.project
                )));
            }
            Err(refusal) => return Err(refusal.failed("")),
        };
        let Accessed { name, payload } = reply.json(WHO)?;
        is_about(&reply, &id, &name, "/versions/1")?;
        let value = base64::decode(payload.data.expose_secret().as_bytes());
        let value = value.ok_or_else(|| reply.failed("the value is no base64"))?;
        match fits(payload.data_crc32c.as_ref(), &value) {
            true => Ok(value.into()),
            false => Err(reply.unreachable("the value was damaged on its way: its checksum is another one")),
        }
    }

    /// Only [`Kept`](crate::keystore::Kept) replaces keys here: readers see the first version alone.
    async fn replace(&self, _name: &KeyName, _expected: &Blob, _value: &Blob) -> Result<(), Error> {
        Err(Error::Failed(format!("{WHO} replaces no version").into()))
    }

    async fn delete(&self, name: &KeyName) -> Result<(), Error> {
        let path = format!("secrets/{}", self.id(name));
        match self.api.call(Nothing::new(Right::Delete, path)).await? {
            Ok(reply) => reply.json::<Empty>(WHO).map(drop),
            Err(refusal) if refusal.status == "NOT_FOUND" => Err(Error::NotFound),
            Err(refusal) => Err(refusal.failed("")),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        let whole = format!("{}{prefix}", self.prefix.as_str());
        let (mut listing, mut token) = (Listing::default(), String::new());
        loop {
            let (names, next) = self.page(&whole, &token).await?;
            for id in names.iter().filter(|id| id.starts_with(&whole)) {
                listing.insert(&id[self.prefix.as_str().len()..]);
            }
            if next.is_empty() {
                return Ok(listing.sorted());
            }
            token = next;
        }
    }

    /// A service that answers but refuses our login is not usable.
    async fn status(&self) -> Result<Duration, Error> {
        let asked = Instant::now();
        sign_of_life(&self.api.client, &format!("{}/", self.endpoint)).await?;
        let latency = asked.elapsed();
        self.api.session.token().await?;
        Ok(latency)
    }

    async fn check(&self, access: Access) -> Result<(), Error> {
        rights::check(&self.api, self.prefix.as_str(), access).await
    }

    fn behind(&self) -> Option<&dyn KeyStore> {
        None
    }

    fn about(&self) -> About<'_> {
        let identity = format!("gcp: {} prefix '{}'", self.place, self.prefix.as_str());
        let charged = Charged { by: WHO, create: 2, get: 1, replace: 3, page: Some(PAGE), keeps: true };
        About {
            clock: Box::pin(self.clock()),
            warnings: &self.warnings,
            charges: vec![charged],
            token_age: self.api.session.age(),
            ..About::named(identity)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_googles() {
        // RFC 3720, B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(b""), 0);
        let sum = crc32c(b"value");
        assert!(
            fits(None, b"value") && fits(Some(&sum.into()), b"value") && fits(Some(&sum.to_string().into()), b"value")
        );
        assert!(!fits(Some(&(sum + 1).into()), b"value") && !fits(Some(&"none".into()), b"value"));
    }
}
