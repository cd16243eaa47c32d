//! Many keys read by one call. Creates have no batch: a batch of DynamoDB has no conditions.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::KeysAndAttributes;

use super::answer::{Refusal, judge, no_answer};
use super::place::{NAME, VALUE};
use super::store::{Item, Store};
use crate::crypto::Blob;
use crate::keystore::Error;
use crate::name::KeyName;
use crate::telemetry::log::causes;

/// The most keys that one call reads.
pub(super) const MOST: usize = 100;

/// How often what an answer left out is asked for again.
const ROUNDS: usize = 8;

pub(super) async fn get(store: &Store, names: &[KeyName]) -> Vec<Result<Blob, Error>> {
    let mut answers = Vec::with_capacity(names.len());
    for names in names.chunks(MOST) {
        match get_some(store, names).await {
            Ok(some) => answers.extend(some),
            Err(error) => answers.extend(names.iter().map(|_| Err(same(&error)))),
        }
    }
    answers
}

async fn get_some(store: &Store, names: &[KeyName]) -> Result<Vec<Result<Blob, Error>>, Error> {
    let (mut found, mut asked) = (HashMap::new(), names.iter().map(KeyName::as_str).collect::<Vec<_>>());
    // No name may be asked for twice.
    asked.sort_unstable();
    asked.dedup();
    let mut keys: Vec<_> = asked.into_iter().map(|name| store.key(name)).collect();
    for _ in 0..ROUNDS {
        if keys.is_empty() {
            break;
        }
        let (items, rest) = store.batch_get(keys).await?;
        for mut item in items {
            let name = item.get(NAME).and_then(|name| name.as_s().ok()).cloned();
            let name = name.ok_or_else(|| no_answer("BatchGetItem"))?;
            found.insert(name, store.value_of(&mut item));
        }
        if !rest.is_empty() {
            store.reads.slow_down();
        }
        keys = rest;
    }
    let is_left = |name: &str| {
        keys.iter().any(|key| key.get(NAME).is_some_and(|left| left.as_s().is_ok_and(|left| left == name)))
    };
    let answers = names.iter().map(|name| match found.get(name.as_str()) {
        Some(Ok(value)) => Ok(value.copy()),
        Some(Err(error)) => Err(same(error)),
        None if is_left(name.as_str()) => Err(Error::Unreachable("BatchGetItem: DynamoDB left the key out".into())),
        None => Err(Error::NotFound),
    });
    Ok(answers.collect())
}

impl Store {
    /// One call. Returns the items that are there, and the keys that the answer leaves out.
    pub(super) async fn batch_get(&self, keys: Vec<Item>) -> Result<(Vec<Item>, Vec<Item>), Refusal> {
        let wanted = KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(true);
        let wanted = wanted.projection_expression("#name, #value");
        let wanted = wanted.expression_attribute_names("#name", NAME).expression_attribute_names("#value", VALUE);
        let wanted = wanted.build().map_err(|error| Refusal::Other(Error::Failed(error.into())))?;
        let call = self.calls.batch_get_item().request_items(self.place.table.as_str(), wanted);
        self.reads.turn().await;
        let answer =
            call.send().await.map_err(|error| self.slowed(&self.reads, judge(&self.place, "BatchGetItem", error)))?;
        let items = answer.responses.unwrap_or_default().remove(self.place.table.as_str());
        let rest = answer.unprocessed_keys.unwrap_or_default().remove(self.place.table.as_str());
        // An answer that says nothing of the table is not DynamoDB's.
        if items.is_none() && rest.is_none() {
            return Err(Refusal::Other(no_answer("BatchGetItem")));
        }
        Ok((items.unwrap_or_default(), rest.map(|rest| rest.keys).unwrap_or_default()))
    }
}

/// The same failure for each key.
fn same(error: &Error) -> Error {
    match error {
        Error::Unreachable(_) => Error::Unreachable(causes(error).into()),
        _ => Error::Failed(causes(error).into()),
    }
}
