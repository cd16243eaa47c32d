//! DynamoDB behind the trait of all key stores.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_sdk_dynamodb::primitives::Blob as Bytes;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity, ReturnValue};
use futures_util::future::join_all;

use super::answer::{Refusal, is_about, judge, no_answer};
use super::place::{NAME, VALUE};
use super::store::{Store, created};
use super::{batch, rights};
use crate::crypto::Blob;
use crate::keystore::{About, Access, Charged, Error, KeyStore, Listing};
use crate::name::KeyName;

/// How many keys of a batch are created at once.
const AT_ONCE: usize = 32;

#[async_trait]
impl KeyStore for Store {
    /// One call, on the condition that there is no such item.
    async fn create(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        created(self.put(name, value).await)
    }

    async fn get(&self, name: &KeyName) -> Result<Blob, Error> {
        let get = self.calls.get_item().table_name(self.place.table.as_str()).set_key(Some(self.key(name.as_str())));
        let get = get.consistent_read(true).return_consumed_capacity(ReturnConsumedCapacity::Total);
        let get = get.projection_expression("#value").expression_attribute_names("#value", VALUE);
        self.reads.turn().await;
        let answer =
            get.send().await.map_err(|error| self.slowed(&self.reads, judge(&self.place, "GetItem", error)))?;
        is_about(&self.place, "GetItem", answer.consumed_capacity())?;
        self.value_of(&mut answer.item.ok_or(Error::NotFound)?)
    }

    /// One call, on the condition that the value is the expected one.
    async fn replace(&self, name: &KeyName, expected: &Blob, value: &Blob) -> Result<(), Error> {
        let update =
            self.calls.update_item().table_name(self.place.table.as_str()).set_key(Some(self.key(name.as_str())));
        let update = update.update_expression("SET #value = :new").condition_expression("#value = :old");
        let bytes = |blob: &Blob| AttributeValue::B(Bytes::new(blob.expose()));
        let update = update.expression_attribute_names("#value", VALUE);
        let update = update.expression_attribute_values(":new", bytes(value));
        let update = update.expression_attribute_values(":old", bytes(expected)).return_values(ReturnValue::AllNew);
        self.writes.turn().await;
        match update.send().await.map_err(|error| self.slowed(&self.writes, judge(&self.place, "UpdateItem", error))) {
            Ok(answer) if answer.attributes().is_some_and(|item| item.contains_key(NAME)) => Ok(()),
            Ok(_) => Err(no_answer("UpdateItem")),
            Err(Refusal::Condition) => {
                self.get(name).await?;
                Err(Error::Failed("the key has another value than expected".into()))
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    async fn delete(&self, name: &KeyName) -> Result<(), Error> {
        let delete =
            self.calls.delete_item().table_name(self.place.table.as_str()).set_key(Some(self.key(name.as_str())));
        let delete = delete.condition_expression("attribute_exists(#name)").expression_attribute_names("#name", NAME);
        let delete = delete.return_consumed_capacity(ReturnConsumedCapacity::Total);
        self.writes.turn().await;
        match delete.send().await.map_err(|error| self.slowed(&self.writes, judge(&self.place, "DeleteItem", error))) {
            Ok(answer) => is_about(&self.place, "DeleteItem", answer.consumed_capacity()),
            Err(Refusal::Condition) => Err(Error::NotFound),
            Err(refusal) => Err(refusal.into()),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        let (mut listing, mut next) = (Listing::default(), None);
        loop {
            self.reads.turn().await;
            let page = self.query(prefix).set_exclusive_start_key(next).send().await;
            let page = page.map_err(|error| self.slowed(&self.reads, judge(&self.place, "Query", error)))?;
            is_about(&self.place, "Query", page.consumed_capacity())?;
            for item in page.items.ok_or_else(|| no_answer("Query"))? {
                let name = item.get(NAME).and_then(|name| name.as_s().ok()).ok_or_else(|| no_answer("Query"))?;
                listing.insert(name);
            }
            next = page.last_evaluated_key.filter(|key| !key.is_empty());
            if next.is_none() {
                return Ok(listing.sorted());
            }
        }
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
        let identity = match &self.facts.arn {
            Some(arn) => format!("dynamodb: {arn}, partition '{}'", self.place.partition.as_str()),
            None => self.to_string(),
        };
        let charged = Charged { by: "DynamoDB", create: 1, get: 1, replace: 2, page: None, keeps: true };
        About {
            clock: Box::pin(self.clock()),
            warnings: &self.facts.warnings,
            charges: vec![charged],
            ..About::named(identity)
        }
    }

    async fn check(&self, access: Access) -> Result<(), Error> {
        rights::check(self, access).await
    }

    fn batch(&self) -> usize {
        batch::MOST
    }

    async fn get_batch(&self, names: &[KeyName]) -> Vec<Result<Blob, Error>> {
        batch::get(self, names).await
    }

    /// Side by side: a batch of DynamoDB has no conditions.
    async fn create_batch(&self, keys: &[(&KeyName, &Blob)]) -> Vec<Result<(), Error>> {
        let mut answers = Vec::with_capacity(keys.len());
        for some in keys.chunks(AT_ONCE) {
            answers.extend(join_all(some.iter().map(|(name, value)| self.put_of_many(name, value))).await);
        }
        answers
    }
}
