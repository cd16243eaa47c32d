//! `/v1/debug/log`: records of the log while they happen, each with its length before it.

use std::net::Ipv4Addr;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use prost::Message as _;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::wire::{LogRecord, LogRequest, LoggedRequest};
use super::{Error, State};
use crate::server::{Call, Reply, Whole};
use crate::telemetry::log::Level;

/// The largest record, in bytes.
const LARGEST: usize = 4_096;

/// The records from now on; the reader is cut off when it cannot keep up.
pub(super) async fn follow(call: Call<State>, body: Whole) -> Result<Reply, Error> {
    let request = LogRequest::decode(body.as_ref())?;
    let reader = call.state().telemetry.log.records().subscribe();
    let too_slow = reader.too_slow();
    let lines = stream::unfold(reader, |mut reader| async { reader.next().await.map(|line| (line, reader)) });
    let records = lines.filter_map(move |line| {
        let wanted = record(&line).filter(|record| request.wants(record));
        std::future::ready(wanted.map(|record| frame(&record)))
    });
    Ok(Reply::stream("application/octet-stream", records, too_slow))
}

impl LogRequest {
    fn wants(&self, record: &LogRecord) -> bool {
        let is = |wanted: &str, value: &str| wanted.is_empty() || wanted == value;
        let about = record.request.as_ref();
        record.level >= self.level
            && record.message.contains(&self.message)
            && about.is_none_or(|about| {
                is(&self.path, &about.path) && is(&self.identity, &about.identity) && is(&self.ip, &about.ip)
            })
    }
}

/// What a line of the log is as a record.
fn record(line: &[u8]) -> Option<LogRecord> {
    let mut fields: Map<String, Value> = serde_json::from_slice(line).ok()?;
    let mut text = |name: &str| Some(fields.shift_remove(name)?.as_str()?.to_owned());
    let time = OffsetDateTime::parse(&text("time")?, &Rfc3339).ok()?;
    let level = Level::parse(&text("level")?)?.0.into();
    let mut message = text("message")?;
    let mut part = |name| text(name).unwrap_or_default();
    let (path, identity, mut ip) = (part("path"), part("identity"), part("ip"));
    if ip.is_empty() {
        // Clients take a record without an address for none at all.
        ip = Ipv4Addr::UNSPECIFIED.to_string();
    }
    let request = LoggedRequest { path, identity, ip };
    for (name, value) in &fields {
        message.push_str(&format!(" {name}={}", value.as_str().unwrap_or_default()));
    }
    Some(LogRecord { level, time: Some(time.into()), message, request: Some(request) })
}

fn frame(record: &LogRecord) -> Bytes {
    let mut record = record.clone();
    // Not one character after the other where there are a million.
    let most = record.message.char_indices().map(|(at, _)| at).take_while(|at| *at <= LARGEST).last().unwrap_or(0);
    if record.message.len() > LARGEST {
        record.message.truncate(most);
    }
    while record.encoded_len() > LARGEST {
        record.message.pop();
    }
    let len = u32::try_from(record.encoded_len()).expect("at most 4 KiB");
    let mut bytes = Vec::with_capacity(4 + LARGEST);
    bytes.extend(len.to_be_bytes());
    record.encode(&mut bytes).expect("a vector grows");
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_becomes_a_record() {
        let line = br#"{"time":"1970-01-01T00:00:01Z","level":"WARN+1","message":"key created","key":"k","ip":"::1"}"#;
        let record = record(line).expect("a record");
        assert_eq!((record.level, record.message.as_str()), (5, "key created key=k"));
        assert_eq!(record.request.as_ref().map(|request| request.ip.as_str()), Some("::1"));
        assert_eq!(record.time.map(|time| (time.seconds, time.nanos)), Some((1, 0)));
        let bytes = frame(&record);
        assert_eq!(bytes[..4], u32::try_from(bytes.len() - 4).expect("short").to_be_bytes());
        assert_eq!(LogRecord::decode(&bytes[4..]).expect("a record"), record);
    }

    #[test]
    fn a_long_record_is_cut_between_characters() {
        for extra in 0..4 {
            let message = "x".repeat(extra) + &"ä".repeat(5_000);
            let bytes = frame(&LogRecord { message, ..LogRecord::default() });
            assert!(bytes.len() <= 4 + LARGEST && bytes.len() > LARGEST - 8, "{}", bytes.len());
            assert!(LogRecord::decode(&bytes[4..]).expect("a record").message.ends_with('ä'));
        }
    }
}
