//! The calls to DynamoDB that the key store is made of.

use std::collections::HashMap;
use std::fmt;

use aws_config::retry::RetryConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::Builder;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::primitives::Blob as Bytes;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::answer::{Refusal, is_about, judge};
use super::config::Config;
use super::place::{NAME, Place, STORE, VALUE};
use super::table::{self, Facts};
use crate::clock;
use crate::crypto::Blob;
use crate::keystore::Error;
use crate::keystore::aws::client;
use crate::keystore::aws::config::Endpoint;
use crate::keystore::aws::http;
use crate::keystore::pace::Pace;
use crate::name::KeyName;

/// The attribute with the time of creation.
const CREATED: &str = "created";

/// A condition that never holds.
pub(super) const NEVER: &str = "attribute_exists(#name) AND attribute_not_exists(#name)";

/// The most attempts for one page of a listing, so that a failed page does not make the whole listing start again.
const ATTEMPTS: u32 = 4;

/// How often one of many keys is sent when DynamoDB throttles.
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
    pub(super) writes: Pace,
    pub(super) place: Place,
    pub(super) facts: Facts,
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
            place: Place {
                region: config.region.clone(),
                url: match &config.endpoint {
                    Endpoint::Url(url) => Some(url.to_string()),
                    Endpoint::Region | Endpoint::Fips => None,
                },
                table: config.table.clone(),
                partition: config.partition.clone(),
            },
            facts: Facts::default(),
        };
        store.sign_of_life().await?;
        store.facts = table::examine(&store.calls, &store.place).await?;
        store.facts.warnings.extend(config.endpoint.warning());
        Ok(store)
    }

    /// The key of an item.
    pub(super) fn key(&self, name: &str) -> Item {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        HashMap::from([(STORE.to_owned(), text(self.place.partition.as_str())), (NAME.to_owned(), text(name))])
    }

    /// The value of an item.
    pub(super) fn value_of(&self, item: &mut Item) -> Result<Blob, Error> {
        match item.remove(VALUE) {
            Some(AttributeValue::B(value)) => Ok(value.into_inner().into()),
            _ => Err(Error::Failed(
                format!("the item has no bytes in '{VALUE}': it was not written by a key server").into(),
            )),
        }
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
        let query = self.listing.query().table_name(self.place.table.as_str()).consistent_read(true);
        let query = query.return_consumed_capacity(ReturnConsumedCapacity::Total);
        let query = query.projection_expression("#name");
        let query = query.expression_attribute_names("#store", STORE).expression_attribute_names("#name", NAME);
        let query =
            query.expression_attribute_values(":store", AttributeValue::S(self.place.partition.as_str().to_owned()));
        match prefix {
            "" => query.key_condition_expression("#store = :store"),
            prefix => query
                .key_condition_expression("#store = :store AND begins_with(#name, :prefix)")
                .expression_attribute_values(":prefix", AttributeValue::S(prefix.to_owned())),
        }
    }

    /// Sends a request without a signature, which needs no right and costs nothing. Any answer counts, except that of a
    /// gateway that got none itself. Returns the date of the answer.
    pub(super) async fn sign_of_life(&self) -> Result<Option<String>, Error> {
        let Err(error) = self.unsigned.describe_table().table_name(self.place.table.as_str()).send().await else {
            return Ok(None);
        };
        match error.raw_response() {
            Some(answer) if !matches!(answer.status().as_u16(), 502..=504) => {
                Ok(answer.headers().get("date").map(str::to_owned))
            }
            _ => Err(judge(&self.place, "DescribeTable", error).into()),
        }
    }

    /// Stores an item, on the condition that there is none of this name.
    pub(super) async fn put(&self, name: &KeyName, value: &Blob) -> Result<(), Refusal> {
        let mut item = self.key(name.as_str());
        item.insert(VALUE.to_owned(), AttributeValue::B(Bytes::new(value.expose())));
        item.insert(CREATED.to_owned(), AttributeValue::N(clock::now().unix_timestamp().to_string()));
        let put = self.calls.put_item().table_name(self.place.table.as_str()).set_item(Some(item));
        let put = put.condition_expression("attribute_not_exists(#name)").expression_attribute_names("#name", NAME);
        let put = put.return_consumed_capacity(ReturnConsumedCapacity::Total);
        self.writes.turn().await;
        let answer =
            put.send().await.map_err(|error| self.slowed(&self.writes, judge(&self.place, "PutItem", error)))?;
        is_about(&self.place, "PutItem", answer.consumed_capacity()).map_err(Refusal::Other)
    }

    /// Creates a key beside others. What DynamoDB refuses for lack of capacity is not done, and is sent again at the
    /// slower pace.
    pub(super) async fn put_of_many(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        let mut answer = self.put(name, value).await;
        for _ in 1..ROUNDS {
            let Err(Refusal::Throttled(_)) = answer else { break };
            answer = self.put(name, value).await;
        }
        created(answer)
    }

    /// Requests are signed with our time, and the service refuses those that are more than five minutes off.
    pub(super) async fn clock(&self) -> Result<Option<OffsetDateTime>, Error> {
        let date = self.sign_of_life().await?;
        Ok(date.and_then(|date| OffsetDateTime::parse(&date, &Rfc2822).ok()))
    }
}

/// What the answer to a conditional write means for who creates a key.
pub(super) fn created(answer: Result<(), Refusal>) -> Result<(), Error> {
    match answer {
        Err(Refusal::Condition) => Err(Error::Exists),
        answer => answer.map_err(Error::from),
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("dynamodb: ")?;
        if let Some(url) = &self.place.url {
            write!(f, "{url}, ")?;
        }
        write!(
            f,
            "region {}, table '{}', partition '{}'",
            self.place.region,
            self.place.table.as_str(),
            self.place.partition.as_str()
        )
    }
}
