//! Secrets Manager behind the trait of all key stores.

use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::store::{CURRENT, PAGE, Store, is_about, no_version, text, value_of};
use super::{error, rights};
use crate::crypto::Blob;
use crate::keystore::{About, Access, Charged, Error, KeyStore, Listing};
use crate::name::KeyName;

#[async_trait]
impl KeyStore for Store {
    /// One call, which never overwrites.
    async fn create(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        let id = self.id(name);
        let create = self.clients.calls.create_secret().name(&id).secret_string(text(value)?);
        let create = create.set_kms_key_id(self.kms_key.clone()).send();
        let created = self.send(&self.writes, self.call("CreateSecret", &id), create).await?;
        is_about(&id, "CreateSecret", created.name())
    }

    async fn get(&self, name: &KeyName) -> Result<Blob, Error> {
        let id = self.id(name);
        let value = value_of(self.get_version(&id).await?);
        value.ok_or_else(|| Error::Failed(format!("the secret '{id}' has no value").into()))
    }

    /// Adds a version, then moves the label of the current version to it, if the label has not moved meanwhile. Readers
    /// see one step.
    async fn replace(&self, name: &KeyName, expected: &Blob, value: &Blob) -> Result<(), Error> {
        let id = self.id(name);
        let value = text(value)?;
        let mut current = self.get_version(&id).await?;
        let old = current.version_id.take().ok_or_else(|| no_version("GetSecretValue"))?;
        if !value_of(current).is_some_and(|stored| stored.is_same(expected)) {
            return Err(Error::Failed("the key has another value than expected".into()));
        }
        let new = self.put_new(&id, value).await?;
        let stage = self.clients.calls.update_secret_version_stage().secret_id(&id).version_stage(CURRENT);
        let stage = stage.remove_from_version_id(old).move_to_version_id(new).send();
        let moved = self.send(&self.writes, self.call("UpdateSecretVersionStage", &id), stage).await?;
        is_about(&id, "UpdateSecretVersionStage", moved.name())
    }

    /// One call, without a recovery period. It also succeeds when there is no such secret.
    async fn delete(&self, name: &KeyName) -> Result<(), Error> {
        let id = self.id(name);
        let delete = self.clients.calls.delete_secret().secret_id(&id).force_delete_without_recovery(true).send();
        let deleted = self.send(&self.writes, self.call("DeleteSecret", &id), delete).await?;
        is_about(&id, "DeleteSecret", deleted.name())
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        let mut listing = Listing::default();
        let mut next = None;
        loop {
            let request = self.list_request(prefix).set_next_token(next).send();
            let page = self.send(&self.reads, self.call("ListSecrets", "*"), request).await?;
            // Without one it is no page, and says nothing about keys.
            let secrets =
                page.secret_list.ok_or_else(|| Error::Failed("ListSecrets: the answer has no list".into()))?;
            for secret in secrets {
                let id = secret.name.unwrap_or_default();
                match id.strip_prefix(self.prefix.as_str()).filter(|entry| entry.starts_with(prefix)) {
                    Some(entry) if secret.deleted_date.is_some() => listing.refuse(entry, error::SCHEDULED),
                    Some(entry) => listing.insert(entry),
                    None => {}
                }
            }
            next = page.next_token;
            if next.is_none() {
                break;
            }
        }
        Ok(listing.sorted())
    }

    async fn status(&self) -> Result<Duration, Error> {
        let asked = Instant::now();
        self.sign_of_life().await?;
        Ok(asked.elapsed())
    }

    fn behind(&self) -> Option<&dyn KeyStore> {
        None
    }

    fn about(&self) -> About<'_> {
        let page = Some(PAGE as usize);
        let charged = Charged { by: "AWS Secrets Manager", create: 1, get: 1, replace: 3, page, keeps: true };
        About {
            clock: Box::pin(self.clock()),
            warnings: &self.warnings,
            charges: vec![charged],
            ..About::new(Box::pin(rights::identity(self)))
        }
    }

    async fn check(&self, access: Access) -> Result<(), Error> {
        rights::check(self, access).await
    }
}
