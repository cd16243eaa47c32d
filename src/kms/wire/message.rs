//! Messages that others share: errors, listings, enclaves, time.

use prost::Message;
use serde::Serialize;
use time::OffsetDateTime;

use super::json;
use crate::moment;

/// Why a request was not answered.
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
    /// What names begin with.
    #[prost(string, tag = "1")]
    pub prefix: String,
    /// The name of the first element of the (next) page; empty: none.
    #[prost(string, tag = "2")]
    pub continue_at: String,
    /// The most elements; 0: as many as fit.
    #[prost(uint32, tag = "3")]
    pub limit: u32,
}

/// What a command is about, where it is one name: an enclave, or a policy.
#[derive(Clone, PartialEq, Message)]
pub struct NameRequest {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// What is known of an enclave.
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
    /// The identity that made it, or nobody.
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
    /// The name of the first element of the (next) page; empty: none.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub continue_at: String,
}

/// A moment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Message)]
pub struct Timestamp {
    /// Since 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// And so many billionths.
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
    /// And so many billionths.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl From<std::time::Duration> for Span {
    fn from(span: std::time::Duration) -> Self {
        let nanos = i32::try_from(span.subsec_nanos()).expect("less than a billion");
        Self { seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX), nanos }
    }
}
