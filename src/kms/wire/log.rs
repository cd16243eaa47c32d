//! The messages of the log.

use prost::Message;
use serde::Serialize;

use super::{Timestamp, json};

/// Which records of the log to send.
#[derive(Clone, PartialEq, Message)]
pub struct LogRequest {
    /// The lowest level, in the numbers of Go's slog: 0 is INFO.
    #[prost(sint32, tag = "1")]
    pub level: i32,
    /// Only those that contain this text.
    #[prost(string, tag = "2")]
    pub message: String,
    /// Also past records since this time; none: only new ones. See [`LogRequest::parse`].
    #[prost(message, optional, tag = "3")]
    pub since: Option<Timestamp>,
    // 4: see `LogRequest::parse`.
    /// Only those of requests for this path.
    #[prost(string, tag = "5")]
    pub path: String,
    /// Only those of requests by this identity.
    #[prost(string, tag = "6")]
    pub identity: String,
    /// Only those of requests from this address.
    #[prost(string, tag = "7")]
    pub ip: String,
    /// Records of this level and above carry their source location; none: no record does.
    #[prost(sint32, optional, tag = "8")]
    pub trace_level: Option<i32>,
}

/// The request of older clients.
#[derive(Clone, PartialEq, Message)]
struct OldLogRequest {
    #[prost(sint32, optional, tag = "4")]
    trace_level: Option<i32>,
}

impl LogRequest {
    /// Parses a request of an old or a new client. In old requests field 4 is the trace level. In new ones field 8 is,
    /// and field 4 is a text: a method, which no record has. Clients in Go send the year 1 for no time.
    ///
    /// # Errors
    /// When the bytes are not a request.
    pub fn parse(bytes: &[u8]) -> Result<Self, prost::DecodeError> {
        const NO_TIME: Timestamp = Timestamp { seconds: -62_135_596_800, nanos: 0 };
        let request = Self::decode(bytes)?;
        let old = OldLogRequest::decode(bytes).unwrap_or_default();
        let since = request.since.filter(|since| *since != NO_TIME);
        Ok(Self { since, trace_level: request.trace_level.or(old.trace_level), ..request })
    }
}

/// A record of the log.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct LogRecord {
    /// In the numbers of Go's slog: 0 is INFO.
    #[prost(sint32, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub level: i32,
    /// When it happened.
    #[prost(message, optional, tag = "2")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub time: Option<Timestamp>,
    /// The text.
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub message: String,
    /// Its source location, if that was asked for; at most one.
    #[prost(message, repeated, tag = "4")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub trace: Vec<StackFrame>,
    /// The request that it is about. Clients require this field.
    #[prost(message, optional, tag = "5")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub request: Option<LoggedRequest>,
}

/// A source location.
#[derive(Clone, PartialEq, Eq, Message, Serialize)]
pub struct StackFrame {
    /// The function, or its module.
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub function: String,
    /// The file, from the root of the source.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub file: String,
    /// The line in it, from 1.
    #[prost(uint32, tag = "3")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub line: u32,
}

/// The request that a record of the log is about; empty fields: none.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct LoggedRequest {
    /// The path.
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub path: String,
    /// Who asked.
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub identity: String,
    /// From where.
    #[prost(string, tag = "4")]
    #[serde(skip_serializing_if = "json::is_default")]
    pub ip: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_old_and_new_clients_are_read() {
        let parse = |bytes: &[u8]| LogRequest::parse(bytes).expect("a request");
        assert_eq!(parse(b""), LogRequest::default());
        // As the Go SDK writes a request in which nothing is set.
        assert_eq!(parse(b"\x1a\x0b\x08\x80\x92\xb8\xc3\x98\xfe\xff\xff\xff\x01"), LogRequest::default());
        let of = |trace_level| LogRequest { trace_level: Some(trace_level), ..LogRequest::default() };
        assert_eq!(parse(b"\x40\x07"), of(-4));
        assert_eq!(parse(b"\x20\x07"), of(-4), "as older clients write it");
        assert_eq!(parse(b"\x22\x03GET\x40\x00"), of(0), "newer ones write a method there");
        assert_eq!(parse(b"\x22\x03GET"), LogRequest::default());
        let since = Timestamp { seconds: 1, nanos: 2 };
        let request = LogRequest { since: Some(since), ..LogRequest::default() };
        assert_eq!(parse(&request.encode_to_vec()), request);
        assert!(LogRequest::parse(b"\x1a\xff").is_err());
    }
}
