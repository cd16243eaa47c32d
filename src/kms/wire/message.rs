//! Messages that others share: errors, listings, enclaves, time.

use prost::Message;
use serde::Serialize;
use time::OffsetDateTime;

use super::json;
use crate::moment;

/// Why a request failed.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct ErrResponse {
    /// The text.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub message: String,
}

/// Which elements to list.
#[derive(Clone, PartialEq, Message)]
pub struct ListRequest {
    /// The prefix of the names.
    #[prost(string, tag = "1")]
    pub prefix: String,
    /// In a request: the first name to list; empty: all. In a reply: the first name of the next page; empty: there is
    /// none.
    #[prost(string, tag = "2")]
    pub continue_at: String,
    /// The largest number of elements; 0: as many as fit on a page.
    #[prost(uint32, tag = "3")]
    pub limit: u32,
}

/// The one name that a command is about: an enclave or a policy.
#[derive(Clone, PartialEq, Message)]
pub struct NameRequest {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// An enclave, without its content.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct EnclaveStatus {
    /// The name.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub name: String,
    /// When it was made.
    #[prost(message, optional, tag = "2")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub created_at: Option<Timestamp>,
    /// The identity that made it; empty: none.
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub created_by: String,
}

/// A page of enclaves.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct ListEnclavesResponse {
    /// Sorted.
    #[prost(message, repeated, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub enclaves: Vec<EnclaveStatus>,
    /// In a request: the first name to list; empty: all. In a reply: the first name of the next page; empty: there is
    /// none.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub continue_at: String,
}

/// A point in time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Message)]
pub struct Timestamp {
    /// Seconds since 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds in addition to the seconds.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Timestamp {
    /// The moment; 1970 where not every format can write it.
    pub fn to_time(self) -> OffsetDateTime {
        moment::of_unix(self.seconds, self.nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

impl From<OffsetDateTime> for Timestamp {
    fn from(time: OffsetDateTime) -> Self {
        let nanos = i32::try_from(time.nanosecond()).expect("less than a billion");
        Self { seconds: time.unix_timestamp(), nanos }
    }
}

/// A length of time.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Span {
    /// Whole seconds.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds in addition to the seconds.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl From<std::time::Duration> for Span {
    fn from(span: std::time::Duration) -> Self {
        let nanos = i32::try_from(span.subsec_nanos()).expect("less than a billion");
        Self { seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX), nanos }
    }
}
