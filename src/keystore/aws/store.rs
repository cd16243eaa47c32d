//! The calls to Secrets Manager that the key store is made of.

use std::error::Error as StdError;
use std::fmt;

use aws_sdk_secretsmanager::config::http::HttpResponse;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueOutput;
use aws_sdk_secretsmanager::operation::list_secrets::builders::ListSecretsFluentBuilder;
use aws_sdk_secretsmanager::types::{Filter, FilterNameStringType};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::client::Clients;
use super::config::{Config, is_prefix};
use super::error::{self, Call};
use super::policy::{Place, Rights};
use crate::crypto::Blob;
use crate::keystore::Error;
use crate::keystore::pace::Pace;
use crate::name::KeyName;
use crate::setting::Prefix;

/// The version of a secret that counts.
pub(super) const CURRENT: &str = "AWSCURRENT";

/// The label of a version that will replace the current one. At most one version of a secret has it.
pub(super) const NEW: &str = "claviger-new";

/// The most secrets in an answer to `ListSecrets`.
pub(super) const PAGE: i32 = 100;

/// Secrets Manager in one region of one account.
#[derive(Debug)]
pub struct Store {
    pub(super) clients: Clients,
    pub(super) reads: Pace,
    pub(super) writes: Pace,
    pub(super) place: Place,
    pub(super) prefix: Prefix,
    pub(super) kms_key: Option<String>,
    pub(super) warnings: Vec<String>,
}

impl Store {
    /// Checks that the service answers. Credentials are looked up when they are first needed.
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        let clients = Clients::new(config).await?;
        let config = &config.secretsmanager;
        let store = Self {
            clients,
            reads: Pace::new(),
            writes: Pace::new(),
            place: Place::new(config),
            prefix: config.prefix.clone(),
            kms_key: config.kmskey.clone(),
            warnings: config.endpoint.warning().into_iter().collect(),
        };
        store.sign_of_life().await?;
        Ok(store)
    }

    pub(super) fn id(&self, name: &KeyName) -> String {
        format!("{}{name}", self.prefix.as_str())
    }

    pub(super) fn rights(&self) -> Rights<'_> {
        Rights::new(&self.place, self.prefix.as_str(), self.kms_key.as_deref())
    }

    /// A call about the secret `id`.
    pub(super) fn call<'a>(&'a self, action: &'static str, id: &'a str) -> Call<'a> {
        Call { action, id, rights: self.rights() }
    }

    /// Sends one request when it is its turn.
    pub(super) async fn send<T, E>(
        &self,
        pace: &Pace,
        call: Call<'_>,
        request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, Error>
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
        pace.turn().await;
        request.await.map_err(|error| {
            if error::is_too_often(&error) {
                pace.slow_down();
            }
            call.failed(error)
        })
    }

    pub(super) async fn get_version(&self, id: &str) -> Result<GetSecretValueOutput, Error> {
        // By its label: some look-alikes of the service answer without one with the version that was written last.
        let get = self.clients.calls.get_secret_value().secret_id(id).version_stage(CURRENT).send();
        let got = self.send(&self.reads, self.call("GetSecretValue", id), get).await?;
        is_about(id, "GetSecretValue", got.name())?;
        Ok(got)
    }

    /// Adds a version that is not current yet to a secret, and returns its id.
    pub(super) async fn put_new(&self, id: &str, value: &str) -> Result<String, Error> {
        let put = self.clients.calls.put_secret_value().secret_id(id).secret_string(value).version_stages(NEW).send();
        let put = self.send(&self.writes, self.call("PutSecretValue", id), put).await?;
        is_about(id, "PutSecretValue", put.name())?;
        put.version_id.ok_or_else(|| no_version("PutSecretValue"))
    }

    /// Sends a request without a signature, which needs no right and costs nothing. Any answer counts, except that of a
    /// gateway that got none itself. Returns the date of the answer.
    pub(super) async fn sign_of_life(&self) -> Result<Option<String>, Error> {
        let Err(error) = self.clients.unsigned.get_secret_value().secret_id("claviger").send().await else {
            return Ok(None);
        };
        match error.raw_response() {
            Some(answer) if !matches!(answer.status().as_u16(), 502..=504) => {
                Ok(answer.headers().get("date").map(str::to_owned))
            }
            _ => Err(self.call("GetSecretValue", "claviger").failed(error)),
        }
    }

    /// Requests are signed with our time, and the service refuses those that are more than five minutes off.
    pub(super) async fn clock(&self) -> Result<Option<OffsetDateTime>, Error> {
        let date = self.sign_of_life().await?;
        Ok(date.and_then(|date| OffsetDateTime::parse(&date, &Rfc2822).ok()))
    }

    /// Lists all secrets whose names begin with our prefix and `prefix`, also those scheduled for deletion.
    pub(super) fn list_request(&self, prefix: &str) -> ListSecretsFluentBuilder {
        let request = self.clients.listing.list_secrets().max_results(PAGE).include_planned_deletion(true);
        let names = format!("{}{prefix}", self.prefix.as_str());
        // The filter only makes the answer smaller; the reader compares names exactly. A filter that no name can match
        // would be an error.
        if names.is_empty() || !is_prefix(&names) {
            return request;
        }
        request.filters(Filter::builder().key(FilterNameStringType::Name).values(names).build())
    }
}

/// A secret's value as it was stored: the text, or the bytes if another program wrote the secret.
pub(super) fn value_of(secret: GetSecretValueOutput) -> Option<Blob> {
    let text = secret.secret_string.map(String::into_bytes);
    text.or_else(|| secret.secret_binary.map(|blob| blob.into_inner())).map(Into::into)
}

pub(super) fn text(value: &Blob) -> Result<&str, Error> {
    std::str::from_utf8(value.expose()).map_err(|_| Error::Failed("Secrets Manager takes only values of text".into()))
}

/// Checks that an answer with 200 comes from the service: it must name the secret.
pub(super) fn is_about(id: &str, action: &str, name: Option<&str>) -> Result<(), Error> {
    match name {
        Some(name) if name == id => Ok(()),
        _ => Err(Error::Failed(format!("{action} of '{id}': the answer is not one of Secrets Manager").into())),
    }
}

pub(super) fn no_version(action: &str) -> Error {
    Error::Failed(format!("{action}: the answer names no version").into())
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "aws: {}", self.place)?;
        match self.prefix.as_str() {
            "" => Ok(()),
            prefix => write!(f, ", prefix '{prefix}'"),
        }
    }
}
