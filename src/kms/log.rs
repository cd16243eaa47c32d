//! `/v1/debug/log`: streams log records, past and new ones, each with its length in front.

use std::net::Ipv4Addr;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use prost::Message as _;
use serde_json::{Map, Value};

use super::wire::{LogRecord, LogRequest, LoggedRequest, StackFrame, Timestamp};
use super::{Error, State};
use crate::clock;
use crate::server::{Call, Reply, Whole};
use crate::telemetry::log::Record;

/// How much of the log a key manager keeps in memory, in bytes. It is enough for some thousand lines.
pub const HISTORY: usize = 1 << 20;

/// The largest record, in bytes.
const LARGEST: usize = 4_096;

/// Sends the records since the requested time that are still in memory, then new ones. A reader that cannot keep up is
/// disconnected. A time in the future is ignored.
pub(super) async fn follow(call: Call<State>, body: Whole) -> Result<Reply, Error> {
    let request = LogRequest::parse(body.as_ref())?;
    let since = request.since.filter(|since| *since <= clock::now().into());
    let is_past = |record: &Record| since.is_some_and(|since| Timestamp::from(record.time) >= since);
    let reader = call.state().telemetry.log.records().subscribe_with(is_past);
    let too_slow = reader.too_slow();
    let records = stream::unfold(reader, |mut reader| async { reader.next().await.map(|record| (record, reader)) });
    let frames = records.filter_map(move |record| std::future::ready(request.answer(&record).map(frame)));
    Ok(Reply::stream("application/octet-stream", frames, too_slow))
}

impl LogRequest {
    /// The record as it is sent; `None` when the filters leave it out.
    fn answer(&self, record: &Record) -> Option<LogRecord> {
        let level = i32::from(record.level.0);
        if level < self.level {
            return None;
        }
        let mut answer = read(record).filter(|answer| self.wants(answer))?;
        if self.trace_level.is_some_and(|least| level >= least) {
            let place = record.place;
            answer.trace.push(StackFrame { function: place.module.into(), file: place.file.into(), line: place.line });
        }
        Some(answer)
    }

    fn wants(&self, record: &LogRecord) -> bool {
        let is = |wanted: &str, value: &str| wanted.is_empty() || wanted == value;
        let about = record.request.as_ref();
        record.message.contains(&self.message)
            && about.is_none_or(|about| {
                is(&self.path, &about.path) && is(&self.identity, &about.identity) && is(&self.ip, &about.ip)
            })
    }
}

/// Converts a record to the wire format, without its source location.
fn read(record: &Record) -> Option<LogRecord> {
    let mut fields: Map<String, Value> = serde_json::from_slice(&record.line).ok()?;
    let mut text = |name: &str| match fields.shift_remove(name) {
        Some(Value::String(text)) => text,
        _ => String::new(),
    };
    let (_, _, mut message) = (text("time"), text("level"), text("message"));
    let (path, identity, mut ip) = (text("path"), text("identity"), text("ip"));
    if ip.is_empty() {
        // Clients ignore a record without an address.
        ip = Ipv4Addr::UNSPECIFIED.to_string();
    }
    for (name, value) in &fields {
        message.push_str(&format!(" {name}={}", value.as_str().unwrap_or_default()));
    }
    let request = Some(LoggedRequest { path, identity, ip });
    Some(LogRecord {
        level: record.level.0.into(),
        time: Some(record.time.into()),
        message,
        trace: Vec::new(),
        request,
    })
}

/// A record with its length in front. A record that is too long is cut.
fn frame(mut record: LogRecord) -> Bytes {
    let excess = |record: &LogRecord| record.encoded_len().saturating_sub(LARGEST);
    let by = excess(&record);
    shorten(&mut record.message, by);
    let by = excess(&record);
    record.request.iter_mut().for_each(|request| shorten(&mut request.path, by));
    let len = u32::try_from(record.encoded_len()).expect("at most 4 KiB");
    let mut bytes = Vec::with_capacity(4 + record.encoded_len());
    bytes.extend(len.to_be_bytes());
    record.encode(&mut bytes).expect("a vector grows");
    bytes.into()
}

/// Cuts at least `by` bytes off the end, at a character boundary.
fn shorten(text: &mut String, by: usize) {
    let most = text.len().saturating_sub(by);
    let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(end);
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::telemetry::log::{Level, Place};

    fn record(line: &str) -> Record {
        Record {
            line: line.to_owned().into(),
            time: OffsetDateTime::UNIX_EPOCH + time::Duration::SECOND,
            level: Level(5),
            place: Place { module: "claviger::kms", file: "src/kms.rs", line: 7 },
        }
    }

    #[test]
    fn a_line_becomes_a_record() {
        let line = r#"{"time":"1970-01-01T00:00:01Z","level":"WARN+1","message":"key created","key":"k","ip":"::1"}"#;
        let read = read(&record(line)).expect("a record");
        assert_eq!((read.level, read.message.as_str()), (5, "key created key=k"));
        assert_eq!(read.request.as_ref().map(|request| request.ip.as_str()), Some("::1"));
        assert_eq!(read.time.map(|time| (time.seconds, time.nanos)), Some((1, 0)));
        let bytes = frame(read.clone());
        assert_eq!(bytes[..4], u32::try_from(bytes.len() - 4).expect("short").to_be_bytes());
        assert_eq!(LogRecord::decode(&bytes[4..]).expect("a record"), read);
    }

    #[test]
    fn only_a_record_of_the_level_asked_for_says_where_it_was_made() {
        let frame = StackFrame { function: "claviger::kms".into(), file: "src/kms.rs".into(), line: 7 };
        for (level, trace_level, wanted) in [
            (0, None, Some(vec![])),
            (5, Some(5), Some(vec![frame.clone()])),
            (5, Some(-4), Some(vec![frame])),
            (0, Some(6), Some(vec![])),
            (6, Some(0), None),
        ] {
            let request = LogRequest { level, trace_level, ..LogRequest::default() };
            let trace = request.answer(&record(r#"{"message":"m"}"#)).map(|answer| answer.trace);
            assert_eq!(trace, wanted, "{level} {trace_level:?}");
        }
    }

    #[test]
    fn a_long_record_is_cut_between_characters() {
        for extra in 0..4 {
            let long = "x".repeat(extra) + &"ä".repeat(5_000);
            let bytes = frame(LogRecord { message: long.clone(), ..LogRecord::default() });
            assert!(bytes.len() <= 4 + LARGEST && bytes.len() > LARGEST - 8, "{}", bytes.len());
            assert!(LogRecord::decode(&bytes[4..]).expect("a record").message.ends_with('ä'));
            let request = Some(LoggedRequest { path: long, ..LoggedRequest::default() });
            let bytes = frame(LogRecord { message: "gone".into(), request, ..LogRecord::default() });
            assert!(bytes.len() <= 4 + LARGEST && bytes.len() > LARGEST - 8, "{}", bytes.len());
            let cut = LogRecord::decode(&bytes[4..]).expect("a record");
            assert!(cut.request.expect("kept").path.ends_with('ä') && cut.message.is_empty());
        }
    }
}
