//! The rights that the credentials need, how they are checked, and the identity of the store.

use std::error::Error as StdError;
use std::fmt;

use aws_sdk_secretsmanager::config::http::HttpResponse;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_secretsmanager::operation::list_secrets::ListSecretsError;
use serde_json::json;

use super::config::{Endpoint, SecretsManager};
use super::error::{Call, is_denial};
use super::store::{CURRENT, NEW, Store};
use crate::keystore::{Access, Error};
use crate::name::KeyName;

const ADD: &str = "add to the statements of their IAM policy";

/// A value too short for the id of a version, so that a call with it changes nothing.
const NO_VERSION: &str = "none";

/// Where secrets are.
#[derive(Debug)]
pub(super) struct Place {
    region: String,
    /// The address, unless it is that of the region.
    url: Option<String>,
}

impl Place {
    pub(super) fn new(config: &SecretsManager) -> Self {
        let url = match &config.endpoint {
            Endpoint::Url(url) => Some(url.to_string()),
            Endpoint::Region | Endpoint::Fips => None,
        };
        Self { region: config.region.clone(), url }
    }

    /// The first part of every ARN.
    fn partition(&self) -> &'static str {
        match self.region.split('-').next() {
            Some("cn") => "aws-cn",
            Some("us") if self.region.starts_with("us-gov-") => "aws-us-gov",
            _ => "aws",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.url {
            Some(url) => write!(f, "{url}, region {}", self.region),
            None => write!(f, "region {}", self.region),
        }
    }
}

/// Builds the statements of an IAM policy.
pub(super) struct Rights<'a> {
    place: &'a Place,
    prefix: &'a str,
    kms_key: Option<&'a str>,
}

impl<'a> Rights<'a> {
    pub(super) fn new(place: &'a Place, prefix: &'a str, kms_key: Option<&'a str>) -> Self {
        Self { place, prefix, kms_key }
    }

    /// What to do when the right to `action` is missing, or the right to the KMS key.
    pub(super) fn missing(&self, action: &str, is_about_kms: bool) -> String {
        let statement = if is_about_kms { self.kms_statement() } else { self.statement(&[action]) };
        let doubt = match action {
            // The service has no ARN to compare with when there is no such secret.
            "GetSecretValue" if !is_about_kms => " (AWS may say so, too, of a secret that does not exist)",
            _ => "",
        };
        format!("{doubt}; {ADD}: {statement}")
    }

    /// What to do when the rights to these actions are missing.
    fn missing_all(&self, actions: &[&str]) -> String {
        let names: Vec<_> = actions.iter().map(|action| format!("secretsmanager:{action}")).collect();
        format!("the credentials do not allow {}; {ADD}: {}", names.join(", "), self.statement(actions))
    }

    /// The statement that allows all these actions.
    fn statement(&self, actions: &[&str]) -> String {
        let (partition, region) = (self.place.partition(), &self.place.region);
        let secrets = format!("arn:{partition}:secretsmanager:{region}:*:secret:{}*", self.prefix);
        let allow = |actions: Vec<&str>, resource: &str| {
            let actions: Vec<_> = actions.iter().map(|action| format!("secretsmanager:{action}")).collect();
            json!({ "Effect": "Allow", "Action": actions, "Resource": resource }).to_string()
        };
        // Listing cannot be limited to some secrets.
        let (list, others): (Vec<_>, Vec<_>) = actions.iter().partition(|action| **action == "ListSecrets");
        let mut statements = Vec::new();
        if !others.is_empty() {
            statements.push(allow(others, &secrets));
        }
        if !list.is_empty() {
            statements.push(allow(list, "*"));
        }
        statements.join(", ")
    }

    fn kms_statement(&self) -> String {
        let (partition, region) = (self.place.partition(), &self.place.region);
        let key = match self.kms_key {
            Some(arn) if arn.starts_with("arn:") && arn.contains(":key/") => arn.to_owned(),
            // A policy cannot name a key by its alias.
            _ => format!("arn:{partition}:kms:{region}:*:key/*"),
        };
        let domain = if partition == "aws-cn" { "amazonaws.com.cn" } else { "amazonaws.com" };
        json!({
            "Effect": "Allow",
            "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
            "Resource": key,
            "Condition": { "StringEquals": { "kms:ViaService": format!("secretsmanager.{region}.{domain}") } },
        })
        .to_string()
    }
}

/// Checks by calls that change nothing whether the credentials allow `access`. Some rights cannot be checked that way:
/// reading and replacing while there is no key, and using a KMS key. They show with the first call that needs them.
pub(super) async fn check(store: &Store, access: Access) -> Result<(), Error> {
    let mut missing = Vec::new();
    let key = match first_key(store).await {
        Err(error) if is_denial(&error) => {
            missing.push("ListSecrets");
            None
        }
        found => found.map_err(|error| store.call("ListSecrets", "*").failed(error))?,
    };
    let mut note = |action, denied| {
        if denied {
            missing.push(action);
        }
    };
    if let Some(id) = &key {
        let got = store.clients.calls.get_secret_value().secret_id(id).version_stage(CURRENT).send().await;
        note("GetSecretValue", lacks(&store.call("GetSecretValue", id), got)?);
    }
    let calls = &store.clients.calls;
    if access >= Access::Create {
        let id = format!("{}claviger-check", store.prefix.as_str());
        let created = calls.create_secret().name(&id).secret_string("none").client_request_token(NO_VERSION);
        note("CreateSecret", lacks(&store.call("CreateSecret", &id), created.send().await)?);
    }
    if let Some(id) = key.as_ref().filter(|_| access >= Access::Replace) {
        let put = calls.put_secret_value().secret_id(id).secret_string("none").version_stages(NEW);
        let put = put.client_request_token(NO_VERSION).send().await;
        note("PutSecretValue", lacks(&store.call("PutSecretValue", id), put)?);
        let moved = calls.update_secret_version_stage().secret_id(id).version_stage(NEW);
        let moved = moved.remove_from_version_id(NO_VERSION).send().await;
        note("UpdateSecretVersionStage", lacks(&store.call("UpdateSecretVersionStage", id), moved)?);
    }
    match missing[..] {
        [] => Ok(()),
        _ => Err(Error::Failed(store.rights().missing_all(&missing).into())),
    }
}

/// The name of a secret whose name is that of a key; `None` when the first page has none.
async fn first_key(store: &Store) -> Result<Option<String>, SdkError<ListSecretsError, HttpResponse>> {
    let page = store.list_request("").send().await?;
    let is_key = |id: &&String| id.strip_prefix(store.prefix.as_str()).is_some_and(|name| KeyName::parse(name).is_ok());
    let secrets = page.secret_list.unwrap_or_default();
    let mut names =
        secrets.iter().filter(|secret| secret.deleted_date.is_none()).filter_map(|secret| secret.name.as_ref());
    Ok(names.find(is_key).cloned())
}

/// Whether the right to a call is missing. Any other refusal means that the right is there, because the service checks
/// rights first.
fn lacks<T, E>(call: &Call<'_>, answer: Result<T, SdkError<E, HttpResponse>>) -> Result<bool, Error>
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    let Err(error) = answer else { return Ok(false) };
    let is_denial = is_denial(&error);
    match call.failed(error) {
        Error::Unreachable(cause) => Err(Error::Unreachable(cause)),
        _ => Ok(is_denial),
    }
}

/// The region, the account, and the prefix of our names. The account is read from the ARN of a secret; it is "unknown"
/// while there are none.
pub(super) async fn identity(store: &Store) -> Result<String, Error> {
    let listed = store.clients.listing.list_secrets().max_results(1).include_planned_deletion(true).send().await;
    let listed = listed.map_err(|error| store.call("ListSecrets", "*").failed(error))?;
    let arn = listed.secret_list.unwrap_or_default().into_iter().find_map(|secret| secret.arn);
    let account = arn.as_deref().and_then(|arn| arn.split(':').nth(4)).unwrap_or("unknown");
    let place = &store.place;
    // An address in AWS is one of many for the same place.
    let foreign = place.url.as_deref().filter(|url| !url.contains(".amazonaws.com")).unwrap_or_default();
    Ok(format!("aws: {foreign} {} account {account} prefix '{}'", place.region, store.prefix.as_str())
        .replace("  ", " "))
}
