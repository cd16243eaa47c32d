//! DynamoDB behind the trait of all key stores.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::Builder;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::primitives::Blob as Bytes;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity, ReturnValue};
use futures_util::future::join_all;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::answer::{Refusal, is_about, judge, no_answer};
use super::batch;
use super::config::{Config, Partition, Table};
use super::rights::{self, Rights};
use super::table::{self, Facts};
use crate::clock;
use crate::crypto::Blob;
use crate::keystore::aws::client;
use crate::keystore::aws::config::Endpoint;
use crate::keystore::aws::http;
use crate::keystore::pace::Pace;
use crate::keystore::{About, Access, Charged, Error, KeyStore, Listing};
use crate::name::KeyName;

/// The partition key, the sort key, and the attributes of an item.
pub(super) const STORE: &str = "store";
pub(super) const NAME: &str = "name";
pub(super) const VALUE: &str = "value";
const CREATED: &str = "created";

/// A condition that never holds.
pub(super) const NEVER: &str = "attribute_exists(#name) AND attribute_not_exists(#name)";

/// The most attempts for one page of a listing, so that a failed page does not make the whole listing start again.
const ATTEMPTS: u32 = 4;

/// How many keys of a batch are created at once.
const AT_ONCE: usize = 32;

/// How often one of them is sent when DynamoDB throttles.
const ROUNDS: usize = 8;

/// An item, or the key of one.
pub(super) type Item = HashMap<String, AttributeValue>;

/// One partition of one table.
#[derive(Debug)]
pub struct Store {
    /// Sends every call once. Retries are decided in `keystore::retry`, for all key stores.
    pub(super) calls: Client,
    listing: Client,
    /// Sends no credentials.
    unsigned: Client,
    pub(super) reads: Pace,
    writes: Pace,
    region: String,
    /// The address, unless it is that of the region.
    url: Option<String>,
    pub(super) table: Table,
    pub(super) partition: Partition,
    facts: Facts,
}

impl Store {
    /// Checks that the service answers, and that the table can hold keys.
    ///
    /// # Errors
    /// Why not.
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        let http = http::client(&config.tls, "keystore.dynamodb.tls.ca")?;
        let shared = client::load(&config.region, &config.endpoint, config.credentials.as_ref()).await?;
        let build = |builder: Builder, attempts| {
            let builder = builder.http_client(http.clone());
            let builder = builder.retry_config(RetryConfig::standard().with_max_attempts(attempts));
            match &config.endpoint {
                Endpoint::Url(url) => builder.endpoint_url(url.as_str()),
                Endpoint::Region | Endpoint::Fips => builder,
            }
        };
        let mut anonymous = shared.to_builder();
        anonymous.set_credentials_provider(None);
        let anonymous = Builder::from(&anonymous.build()).allow_no_auth();
        let mut store = Self {
            calls: Client::from_conf(build(Builder::from(&shared), 1).build()),
            listing: Client::from_conf(build(Builder::from(&shared), ATTEMPTS).build()),
            unsigned: Client::from_conf(build(anonymous, 1).build()),
            reads: Pace::new(),
            writes: Pace::new(),
            region: config.region.clone(),
            url: match &config.endpoint {
                Endpoint::Url(url) => Some(url.to_string()),
                Endpoint::Region | Endpoint::Fips => None,
            },
            table: config.table.clone(),
            partition: config.partition.clone(),
            facts: Facts::default(),
        };
        store.sign_of_life().await?;
        store.facts = table::examine(&store).await?;
        store.facts.warnings.extend(config.endpoint.warning());
        Ok(store)
    }

    pub(super) fn rights(&self) -> Rights<'_> {
        Rights { region: &self.region, table: self.table.as_str(), partition: self.partition.as_str() }
    }

    /// The key of an item.
    pub(super) fn key(&self, name: &str) -> Item {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        HashMap::from([(STORE.to_owned(), text(self.partition.as_str())), (NAME.to_owned(), text(name))])
    }

    /// Notes that the service throttles.
    pub(super) fn slowed(&self, pace: &Pace, refusal: Refusal) -> Refusal {
        if matches!(refusal, Refusal::Throttled(_)) {
            pace.slow_down();
        }
        refusal
    }

    /// Asks for the names in our partition that begin with `prefix`.
    pub(super) fn query(&self, prefix: &str) -> QueryFluentBuilder {
        let query = self.listing.query().table_name(self.table.as_str()).consistent_read(true);
        let query = query.return_consumed_capacity(ReturnConsumedCapacity::Total);
        let query = query.projection_expression("#name");
        let query = query.expression_attribute_names("#store", STORE).expression_attribute_names("#name", NAME);
        let query = query.expression_attribute_values(":store", AttributeValue::S(self.partition.as_str().to_owned()));
        match prefix {
            "" => query.key_condition_expression("#store = :store"),
            prefix => query
                .key_condition_expression("#store = :store AND begins_with(#name, :prefix)")
                .expression_attribute_values(":prefix", AttributeValue::S(prefix.to_owned())),
        }
    }

    /// Sends a request without a signature, which needs no right and costs nothing. Any answer counts, except that of a
    /// gateway that got none itself. Returns the date of the answer.
    async fn sign_of_life(&self) -> Result<Option<String>, Error> {
        let Err(error) = self.unsigned.describe_table().table_name(self.table.as_str()).send().await else {
            return Ok(None);
        };
        match error.raw_response() {
            Some(answer) if !matches!(answer.status().as_u16(), 502..=504) => {
                Ok(answer.headers().get("date").map(str::to_owned))
            }
            _ => Err(judge(self, "DescribeTable", error).into()),
        }
    }

    /// Stores an item, on the condition that there is none of this name.
    async fn put(&self, name: &KeyName, value: &Blob) -> Result<(), Refusal> {
        let mut item = self.key(name.as_str());
        item.insert(VALUE.to_owned(), AttributeValue::B(Bytes::new(value.expose())));
        item.insert(CREATED.to_owned(), AttributeValue::N(clock::now().unix_timestamp().to_string()));
        let put = self.calls.put_item().table_name(self.table.as_str()).set_item(Some(item));
        let put = put.condition_expression("attribute_not_exists(#name)").expression_attribute_names("#name", NAME);
        let put = put.return_consumed_capacity(ReturnConsumedCapacity::Total);
        self.writes.turn().await;
        let answer = put.send().await.map_err(|error| self.slowed(&self.writes, judge(self, "PutItem", error)))?;
        is_about(self, "PutItem", answer.consumed_capacity()).map_err(Refusal::Other)
    }

    /// Creates a key beside others. What DynamoDB refuses for lack of capacity is not done, and is sent again at the
    /// slower pace.
    async fn put_of_many(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        let mut answer = self.put(name, value).await;
        for _ in 1..ROUNDS {
            let Err(Refusal::Throttled(_)) = answer else { break };
            answer = self.put(name, value).await;
        }
        created(answer)
    }

    /// Requests are signed with our time, and the service refuses those that are more than five minutes off.
    async fn clock(&self) -> Result<Option<OffsetDateTime>, Error> {
        let date = self.sign_of_life().await?;
        Ok(date.and_then(|date| OffsetDateTime::parse(&date, &Rfc2822).ok()))
    }
}

/// What the answer to a conditional write means for who creates a key.
fn created(answer: Result<(), Refusal>) -> Result<(), Error> {
    match answer {
        Err(Refusal::Condition) => Err(Error::Exists),
        answer => answer.map_err(Error::from),
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("dynamodb: ")?;
        if let Some(url) = &self.url {
            write!(f, "{url}, ")?;
        }
        write!(f, "region {}, table '{}', partition '{}'", self.region, self.table.as_str(), self.partition.as_str())
    }
}

#[async_trait]
impl KeyStore for Store {
    /// One call, on the condition that there is no such item.
    async fn create(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        created(self.put(name, value).await)
    }

    async fn get(&self, name: &KeyName) -> Result<Blob, Error> {
        let get = self.calls.get_item().table_name(self.table.as_str()).set_key(Some(self.key(name.as_str())));
        let get = get.consistent_read(true).return_consumed_capacity(ReturnConsumedCapacity::Total);
        let get = get.projection_expression("#value").expression_attribute_names("#value", VALUE);
        self.reads.turn().await;
        let answer = get.send().await.map_err(|error| self.slowed(&self.reads, judge(self, "GetItem", error)))?;
        is_about(self, "GetItem", answer.consumed_capacity())?;
        self.value_of(&mut answer.item.ok_or(Error::NotFound)?)
    }

    /// One call, on the condition that the value is the expected one.
    async fn replace(&self, name: &KeyName, expected: &Blob, value: &Blob) -> Result<(), Error> {
        let update = self.calls.update_item().table_name(self.table.as_str()).set_key(Some(self.key(name.as_str())));
        let update = update.update_expression("SET #value = :new").condition_expression("#value = :old");
        let bytes = |blob: &Blob| AttributeValue::B(Bytes::new(blob.expose()));
        let update = update.expression_attribute_names("#value", VALUE);
        let update = update.expression_attribute_values(":new", bytes(value));
        let update = update.expression_attribute_values(":old", bytes(expected)).return_values(ReturnValue::AllNew);
        self.writes.turn().await;
        match update.send().await.map_err(|error| self.slowed(&self.writes, judge(self, "UpdateItem", error))) {
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
        let delete = self.calls.delete_item().table_name(self.table.as_str()).set_key(Some(self.key(name.as_str())));
        let delete = delete.condition_expression("attribute_exists(#name)").expression_attribute_names("#name", NAME);
        let delete = delete.return_consumed_capacity(ReturnConsumedCapacity::Total);
        self.writes.turn().await;
        match delete.send().await.map_err(|error| self.slowed(&self.writes, judge(self, "DeleteItem", error))) {
            Ok(answer) => is_about(self, "DeleteItem", answer.consumed_capacity()),
            Err(Refusal::Condition) => Err(Error::NotFound),
            Err(refusal) => Err(refusal.into()),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        let (mut listing, mut next) = (Listing::default(), None);
        loop {
            self.reads.turn().await;
            let page = self.query(prefix).set_exclusive_start_key(next).send().await;
            let page = page.map_err(|error| self.slowed(&self.reads, judge(self, "Query", error)))?;
            is_about(self, "Query", page.consumed_capacity())?;
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
            Some(arn) => format!("dynamodb: {arn}, partition '{}'", self.partition.as_str()),
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
