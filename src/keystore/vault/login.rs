//! Logging in: gets and renews tokens.

use hyper::header::HeaderValue;
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::api::{Api, Ask, Auth, Namespace};
use super::config::{self, AppRole, Cert, Secret, SecretId, UserPass};
use crate::crypto::buffer::to_json;
use crate::keystore::Error;

/// How this store logs in.
#[derive(Debug)]
pub(super) struct Login {
    pub(super) api: Api,
    pub(super) way: config::Login,
    /// The namespace of the store.
    pub(super) namespace: Namespace,
}

impl Login {
    /// Gets a new token, or reads the given one again.
    pub(super) async fn login(&self) -> Result<Auth, Error> {
        match &self.way {
            config::Login::AppRole(way) => self.by_role(way).await,
            config::Login::Kubernetes(config::Kubernetes { namespace, engine, role, jwt })
            | config::Login::Jwt(config::Jwt { namespace, engine, role, jwt }) => {
                self.by_signed_token(engine, namespace.as_deref(), role, jwt).await
            }
            config::Login::UserPass(way) => self.by_password(way).await,
            config::Login::Cert(way) => self.by_certificate(way).await,
            config::Login::Token(token) => self.look_up(token.read().await?).await,
        }
    }

    /// The error when the server refuses a token as soon as we have it.
    pub(super) fn refused(&self) -> Error {
        match self.way {
            config::Login::Token(_) => Error::Failed(super::BAD_TOKEN.into()),
            _ => Error::Unreachable("the server refuses the token that it has just given".into()),
        }
    }

    async fn by_role(&self, way: &AppRole) -> Result<Auth, Error> {
        #[derive(Serialize)]
        struct Credentials<'a> {
            role_id: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            secret_id: Option<&'a str>,
        }
        let secret = match &way.secret {
            SecretId::None => None,
            SecretId::Given(secret) => Some(secret.clone()),
            SecretId::Wrapped(token) => Some(self.unwrapped(way, token.read().await?).await?),
        };
        let secret_id = secret.as_ref().map(SecretString::expose_secret);
        let credentials = Credentials { role_id: &way.id, secret_id };
        self.ask(&path(&way.engine, ""), way.namespace.as_deref(), &credentials).await
    }

    async fn by_signed_token(
        &self,
        engine: &str,
        namespace: Option<&str>,
        role: &str,
        jwt: &Secret,
    ) -> Result<Auth, Error> {
        #[derive(Serialize)]
        struct Credentials<'a> {
            role: &'a str,
            jwt: &'a str,
        }
        let jwt = jwt.read().await?;
        let credentials = Credentials { role, jwt: jwt.expose_secret() };
        self.ask(&path(engine, ""), namespace, &credentials).await
    }

    /// The certificate is shown by the connection.
    async fn by_certificate(&self, way: &Cert) -> Result<Auth, Error> {
        #[derive(Serialize)]
        struct Credentials<'a> {
            #[serde(skip_serializing_if = "str::is_empty")]
            name: &'a str,
        }
        self.ask(&path(&way.engine, ""), way.namespace.as_deref(), &Credentials { name: &way.name }).await
    }

    async fn by_password(&self, way: &UserPass) -> Result<Auth, Error> {
        #[derive(Serialize)]
        struct Credentials<'a> {
            password: &'a str,
        }
        let credentials = Credentials { password: way.password.expose_secret() };
        let user = percent_encoding::utf8_percent_encode(&way.username, percent_encoding::NON_ALPHANUMERIC);
        self.ask(&path(&way.engine, &format!("/{user}")), way.namespace.as_deref(), &credentials).await
    }

    /// Renews a token. The caller must check how much time it was granted.
    pub(super) async fn renew(&self, token: &SecretString) -> Result<Auth, Error> {
        let path = "auth/token/renew-self";
        let ask = Ask { method: "PUT", path, namespace: &self.namespace, token: Some(token), body: None };
        let answer = self.api.send::<IgnoredAny>(ask).await?;
        answer.auth.ok_or_else(|| ask.failed(format!("the token was not renewed (HTTP {})", answer.status)))
    }

    /// `namespace` is that of the auth method; none: that of the store.
    async fn ask(
        &self,
        path: &str,
        namespace: Option<&str>,
        credentials: &(impl Serialize + Sync),
    ) -> Result<Auth, Error> {
        let namespace = self.namespace_of(namespace)?;
        let body = to_json(credentials, 4 * 1024);
        let ask = Ask { method: "PUT", path, namespace: &namespace, token: None, body: Some(&body) };
        let answer = self.api.send::<IgnoredAny>(ask).await?;
        match answer.auth {
            Some(auth) if !auth.client_token.expose_secret().is_empty() => Ok(auth),
            _ => Err(ask.failed(format!("login refused (HTTP {}): {}", answer.status, answer.errors.join("; ")))),
        }
    }

    /// The namespace of the auth method; none is given: that of the store.
    pub(super) fn namespace_of(&self, given: Option<&str>) -> Result<Namespace, Error> {
        given.map_or_else(|| Ok(self.namespace.clone()), header)
    }

    /// Asks how long a given token lasts. A token without the right to ask counts as lasting for ever.
    async fn look_up(&self, token: SecretString) -> Result<Auth, Error> {
        #[derive(Deserialize)]
        struct LookedUp {
            #[serde(default)]
            ttl: u64,
            #[serde(default)]
            renewable: bool,
        }
        let path = "auth/token/lookup-self";
        let ask = Ask { method: "GET", path, namespace: &self.namespace, token: Some(&token), body: None };
        let found = self.api.send::<LookedUp>(ask).await?.data;
        let (lease_duration, renewable) = found.map_or((0, false), |found| (found.ttl, found.renewable));
        Ok(Auth { client_token: token, lease_duration, renewable })
    }
}

impl Secret {
    async fn read(&self) -> Result<SecretString, Error> {
        let path = match self {
            Self::Inline(secret) => return Ok(secret.clone()),
            Self::File(path) => path.clone(),
        };
        let read = tokio::task::spawn_blocking(move || {
            let text = std::fs::read_to_string(&path).map(Zeroizing::new);
            text.map(|text| SecretString::from(text.trim()))
                .map_err(|error| Error::Failed(format!("failed to read '{}': {error}", path.display()).into()))
        });
        read.await.unwrap_or_else(|error| Err(Error::Failed(error.into())))
    }
}

/// The header's value for a namespace; the root, `/`, has none.
pub(super) fn header(name: &str) -> Result<Namespace, Error> {
    match name.trim_matches('/') {
        "" => Ok(None),
        name => match HeaderValue::from_str(name) {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(Error::Failed(format!("'{name}' is no namespace").into())),
        },
    }
}

fn path(engine: &str, user: &str) -> String {
    format!("auth/{}/login{user}", engine.trim_matches('/'))
}
