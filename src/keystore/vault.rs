//! HashiCorp Vault or OpenBao as key store: each key is an entry of the K/V engine, encrypted by the transit engine
//! where that is configured.

mod api;
mod config;
mod engine;
mod index;
mod kv;
mod login;
mod rights;
mod session;
mod transit;
mod wrapped;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use time::OffsetDateTime;
use zeroize::Zeroizing;

pub use self::config::{
    AppRole, Cert, Config, EngineOnly, Jwt, Kubernetes, Login, Secret, SecretId, Tls, Transit as TransitConfig,
    TransitOnly, UserPass, Version,
};
pub use self::engine::{Described, Engine};
pub use self::transit::Transit;

use self::api::{Answer, Api, Ask, Namespace};
use self::kv::Kv;
use self::session::Session;
use super::{About, Access, Backend, Error, Kept, KeyStore, Listing};
use crate::crypto::Blob;
use crate::http;
use crate::name::KeyName;
use crate::setting::Url;

/// The error when the token itself is refused, and not for a missing right.
const BAD_TOKEN: &str = "the server rejected the token: it is expired, revoked or malformed; give another one";

#[async_trait]
impl Backend for Config {
    /// Replaces keys of K/V 2 by way of a copy: a replaced key must be the first version again, because no other is read.
    async fn connect(&self) -> Result<Arc<dyn KeyStore>, Error> {
        let store = Store::connect(self).await?;
        Ok(match self.version {
            Version::V1 => Arc::new(store),
            Version::V2 => Arc::new(Kept::new(store)),
        })
    }

    fn files(&self) -> Vec<(&'static str, &Path)> {
        config::files(&self.tls, &self.login)
    }

    fn works_once(&self) -> Option<&'static str> {
        self.login.works_once()
    }

    fn warnings(&self) -> Vec<String> {
        config::warnings(&self.endpoint, &self.tls)
    }
}

/// A Vault or an OpenBao.
#[derive(Debug)]
pub struct Store {
    kv: Kv,
    transit: Option<Transit>,
    warnings: Vec<String>,
}

/// The API as this store uses it: in its namespace, with the token of its session.
#[derive(Debug, Clone)]
struct Connection {
    api: Api,
    namespace: Namespace,
    session: Arc<Session>,
    /// The path that shows whether a token is valid. Every valid token may read it.
    probe: Arc<str>,
}

impl Store {
    /// Logs in, and checks that the mount has the configured version.
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        let Config { endpoint, tls, namespace, login, .. } = config;
        let engine = config.engine.trim_matches('/').to_owned();
        let tls = tls.for_http("keystore.vault.tls.ca");
        let connection = Connection::open(endpoint, tls, namespace.as_deref(), login, &engine)?;
        let transit = config.transit.as_ref().map(|transit| Transit {
            connection: connection.clone(),
            engine: transit.engine.trim_matches('/').to_owned(),
            key: transit.key.clone(),
        });
        let prefix = config.prefix.as_deref().unwrap_or_default().trim_matches('/').to_owned();
        let kv = Kv { connection, engine, prefix, version: config.version };
        kv.check_version().await?;
        let mut warnings = Backend::warnings(config);
        warnings.extend(rights::warning_of_update(&kv).await?);
        Ok(Self { kv, transit, warnings })
    }

    /// Uses the cluster's own id, which is the same at every address.
    async fn identity(&self) -> Result<String, Error> {
        #[derive(Deserialize)]
        struct Health {
            #[serde(default)]
            cluster_id: String,
        }
        let Kv { connection, engine, prefix, .. } = &self.kv;
        let cluster = connection.api.health::<Health>().await?.cluster_id;
        let cluster = if cluster.is_empty() { connection.api.endpoint().to_owned() } else { cluster };
        let namespace = connection.namespace.as_ref().and_then(|name| name.to_str().ok()).unwrap_or_default();
        Ok(format!("vault: cluster {cluster}, namespace '{namespace}', {engine}/{prefix}"))
    }

    async fn clock(&self) -> Result<Option<OffsetDateTime>, Error> {
        #[derive(Deserialize)]
        struct Health {
            server_time_utc: Option<i64>,
        }
        let Health { server_time_utc } = self.kv.connection.api.health().await?;
        Ok(server_time_utc.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok()))
    }

    async fn wrap(&self, value: &Blob) -> Result<SecretString, Error> {
        match &self.transit {
            Some(transit) => transit.wrap(value).await,
            None => std::str::from_utf8(value.expose())
                .map(Into::into)
                .map_err(|_| Error::Failed("the value is no text, and a Vault holds nothing else".into())),
        }
    }
}

impl Tls {
    /// `setting` is where the CAs are set.
    fn for_http(&self, setting: &'static str) -> http::Tls {
        let Self { client, ca, insecure_skip_verify } = self;
        let (key, cert) = client.clone().unzip();
        http::Tls { cert, key, ca: ca.clone(), setting, insecure_skip_verify: *insecure_skip_verify }
    }
}

impl Connection {
    /// Starts to log in, in the background. `engine` is one that the token has rights to.
    fn open(
        endpoint: &Url,
        tls: http::Tls,
        namespace: Option<&str>,
        login: &Login,
        engine: &str,
    ) -> Result<Self, Error> {
        let client = http::Client::new(tls).map_err(failed)?;
        let api = Api::new(client, endpoint.as_str());
        let namespace = login::header(namespace.unwrap_or_default())?;
        let login = login::Login { api: api.clone(), way: login.clone(), namespace: namespace.clone() };
        let session = Arc::new(Session::begin(login));
        Ok(Self { api, namespace, session, probe: format!("sys/internal/ui/mounts/{engine}").into() })
    }

    fn ask<'a>(&'a self, method: &'static str, path: &'a str, body: Option<&'a Zeroizing<Vec<u8>>>) -> Ask<'a> {
        Ask { method, path, namespace: &self.namespace, token: None, body }
    }

    /// Sends a request with the session's token, and again with a new token if the old one is no longer valid.
    async fn send<D: DeserializeOwned>(&self, ask: Ask<'_>) -> Result<Answer<D>, Error> {
        let token = self.session.token().await?;
        let answer = self.api.send(Ask { token: Some(&token.secret), ..ask }).await?;
        // Either the token is no longer valid, or it lacks the right. A new login helps only in the first case.
        if answer.status != 403 || self.is_good(&token.secret).await? {
            return Ok(answer);
        }
        let token = self.session.replace(&token).await?;
        let answer = self.api.send(Ask { token: Some(&token.secret), ..ask }).await?;
        Ok(Answer { token_is_bad: answer.status == 403 && !self.is_good(&token.secret).await?, ..answer })
    }

    /// Whether the server knows the token. Of one that has no right at all to the engine it says so.
    async fn is_good(&self, token: &SecretString) -> Result<bool, Error> {
        let probe = Ask { token: Some(token), ..self.ask("GET", &self.probe, None) };
        let answer = self.api.send::<IgnoredAny>(probe).await?;
        Ok(answer.status == 200 || answer.errors.iter().any(|error| error.contains("preflight capability check")))
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Kv { connection, engine, prefix, version } = &self.kv;
        write!(f, "vault: {}/{engine}", connection.api.endpoint())?;
        if !prefix.is_empty() {
            write!(f, "/{prefix}")?;
        }
        write!(f, " (K/V {version}")?;
        if let Some(transit) = &self.transit {
            write!(f, ", wrapped by {}/{}", transit.engine, transit.key)?;
        }
        f.write_str(")")
    }
}

#[async_trait]
impl KeyStore for Store {
    async fn create(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        self.kv.create(name.as_str(), &self.wrap(value).await?).await
    }

    async fn get(&self, name: &KeyName) -> Result<Blob, Error> {
        let stored = self.kv.get(name.as_str()).await?;
        match &self.transit {
            Some(transit) => transit.unwrap(&stored).await,
            None if stored.expose().starts_with(transit::MARK) => Err(Error::Failed(
                "the stored value is wrapped by a transit key; add the section 'transit' with the name of that key"
                    .into(),
            )),
            None => Ok(stored),
        }
    }

    async fn replace(&self, name: &KeyName, expected: &Blob, value: &Blob) -> Result<(), Error> {
        if !self.get(name).await?.is_same(expected) {
            return Err(Error::Failed("the key has another value than expected".into()));
        }
        self.kv.overwrite(name.as_str(), &self.wrap(value).await?).await
    }

    async fn delete(&self, name: &KeyName) -> Result<(), Error> {
        self.kv.delete(name.as_str()).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        let mut listing = Listing::default();
        for entry in self.kv.list().await? {
            // Folders are not keys, and are skipped without a report.
            if entry.starts_with(prefix) && !entry.ends_with('/') {
                listing.insert(&entry);
            }
        }
        Ok(listing.sorted())
    }

    async fn status(&self) -> Result<Duration, Error> {
        let started = Instant::now();
        self.kv.connection.api.health::<IgnoredAny>().await?;
        let latency = started.elapsed();
        // A server that answers but refuses our login is not usable.
        self.kv.connection.session.token().await?;
        Ok(latency)
    }

    fn behind(&self) -> Option<&dyn KeyStore> {
        None
    }

    fn about(&self) -> About<'_> {
        About {
            clock: Box::pin(self.clock()),
            warnings: &self.warnings,
            token_age: self.kv.connection.session.age(),
            ..About::new(Box::pin(self.identity()))
        }
    }

    async fn check(&self, access: Access) -> Result<(), Error> {
        self.status().await?;
        let (mut needs, mut policy) = (self.kv.needs(access), self.kv.policy(access));
        if let Some(transit) = &self.transit {
            needs.extend(transit.needs(access));
            policy = format!("{policy}\n{}", transit.policy());
        }
        rights::check(&self.kv.connection, needs, &policy).await
    }
}

fn failed(error: http::TlsError) -> Error {
    Error::Failed(error.into())
}
