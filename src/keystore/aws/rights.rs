//! Whether the credentials have the rights that they need, and where the store is.

use std::error::Error as StdError;

use aws_sdk_secretsmanager::config::http::HttpResponse;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_secretsmanager::operation::list_secrets::ListSecretsError;

use super::error::{Call, is_denial};
use super::store::{CURRENT, NEW, Store};
use crate::keystore::{Access, Error};
use crate::name::KeyName;

/// A value too short for the id of a version, so that a call with it changes nothing.
const NO_VERSION: &str = "none";

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
    Ok(format!("aws: {} account {account} prefix '{}'", store.place.identity(), store.prefix.as_str()))
}
