//! Watches: changes of keys, as they happen.

use prost::{Message, Oneof};

use super::{KeyValue, ResponseHeader};

/// What the watcher says.
#[derive(Clone, PartialEq, Message)]
pub struct WatchRequest {
    /// It.
    #[prost(oneof = "Watching", tags = "1, 3")]
    pub request: Option<Watching>,
}

/// The kinds of what a watcher says.
#[derive(Clone, PartialEq, Oneof)]
pub enum Watching {
    /// Begins.
    #[prost(message, tag = "1")]
    Create(WatchCreateRequest),
    /// Asks for a sign of life.
    #[prost(message, tag = "3")]
    Progress(ProgressRequest),
}

impl From<Watching> for WatchRequest {
    fn from(request: Watching) -> Self {
        Self { request: Some(request) }
    }
}

/// Watches the keys from `key` up to `range_end`, which is not watched.
#[derive(Clone, PartialEq, Message)]
pub struct WatchCreateRequest {
    /// The first key.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// The first key that is not watched.
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
    /// The first revision whose changes are wanted.
    #[prost(int64, tag = "3")]
    pub start_revision: i64,
    /// Whether large answers may come in pieces.
    #[prost(bool, tag = "8")]
    pub fragment: bool,
}

/// Asks for a sign of life.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct ProgressRequest {}

/// What the member says.
#[derive(Clone, PartialEq, Message)]
pub struct WatchResponse {
    /// Who says it.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// Whether the watch ends with this.
    #[prost(bool, tag = "4")]
    pub canceled: bool,
    /// The first revision that is kept, if the one asked for is not.
    #[prost(int64, tag = "5")]
    pub compact_revision: i64,
    /// Why the watch ends.
    #[prost(string, tag = "6")]
    pub cancel_reason: String,
    /// Whether there is more of the same revisions.
    #[prost(bool, tag = "7")]
    pub fragment: bool,
    /// What has changed.
    #[prost(message, repeated, tag = "11")]
    pub events: Vec<Event>,
}

/// A change of one key.
#[derive(Clone, PartialEq, Message)]
pub struct Event {
    /// Which kind.
    #[prost(enumeration = "EventKind", tag = "1")]
    pub kind: i32,
    /// The key as it is now.
    #[prost(message, optional, tag = "2")]
    pub kv: Option<KeyValue>,
}

/// The kinds of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum EventKind {
    /// It has a value.
    Put = 0,
    /// It is gone.
    Delete = 1,
}
