//! `log-streams` and `log-streams-by-version`: what readers of the log endpoints get.
//!
//! The archived server's own streams deliver nothing; earlier versions' did, and SDKs decode their lines.
//! Ours are compared with those.

use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::support::client::Request;
use crate::support::lines::Lines;
use crate::support::{Client, Identity, Protocol, TestServer, block_on, testdata};

#[derive(Deserialize)]
struct Stream {
    kes: String,
    stream: String,
    requests: Vec<String>,
    statuses: Vec<u16>,
    events: Vec<String>,
}

fn by_version() -> Vec<Stream> {
    let text = std::fs::read(testdata("http/log-streams-by-version.json")).expect("readable");
    serde_json::from_slice(&text).expect("valid")
}

/// The last recording of a stream that delivered something.
fn last_working(stream: &str) -> Stream {
    let working = |recorded: &Stream| recorded.stream == stream && !recorded.events.is_empty();
    by_version().into_iter().rfind(working).expect("a version whose stream worked")
}

/// Follows a stream from `protocol` while the recorded requests are made, and returns the lines they caused.
fn follow(recorded: &Stream, protocol: Protocol) -> Vec<String> {
    let server = TestServer::fixture();
    let client = |name: &str| Client::new(server.address(), Some(Identity::fixture(name)), protocol);
    let (admin, nobody) = (client("admin"), client("nobody"));
    block_on(async {
        let mut lines = Lines::open(&admin, &recorded.stream).await;
        for (request, status) in recorded.requests.iter().zip(&recorded.statuses) {
            let client = if request.ends_with("(an identity without policy)") { &nobody } else { &admin };
            let mut words = request.split(' ');
            let (method, path) = (words.next().expect("a method"), words.next().expect("a path"));
            let answer = client.send(Request::new(method, path)).await.expect("an answer");
            assert_eq!(answer.status, *status, "{request}");
        }
        // A last event, so that it is known when all others have arrived.
        admin.send(Request::new("DELETE", "/v1/key/delete/the-end")).await.expect("an answer");
        std::fs::write(server.keys().join("the-end"), "no key").expect("written");
        admin.get("/v1/key/describe/the-end").await;
        let mut seen = Vec::new();
        while let Some(line) = lines.next().await {
            let last = line.contains("describe/the-end");
            seen.push(line);
            if last {
                break;
            }
        }
        seen
    })
}

/// One event a request, denied ones included, as the SDK decodes them; the stream's own request is the
/// first, since it has been answered when its headers are sent.
#[test]
fn audit_events_are_those_of_the_last_version_whose_stream_worked() {
    let recorded = last_working("/v1/log/audit");
    assert_eq!(recorded.kes, "2023-05-02T22-48-10Z");
    for protocol in Protocol::ALL {
        let lines = follow(&recorded, protocol);
        let shape = |line: &str| {
            let mut event: Value = serde_json::from_str(line).expect("an event");
            let time = event["time"].take();
            OffsetDateTime::parse(time.as_str().expect("a time"), &Rfc3339).expect("RFC 3339");
            assert!(event["response"]["time"].take().as_u64().expect("nanoseconds") > 0);
            let identity = event["request"]["identity"].take();
            assert_eq!(identity.as_str().map(str::len), Some(64));
            event
        };
        let ours: Vec<Value> = lines.iter().map(|line| shape(line)).collect();
        let theirs: Vec<Value> = recorded.events.iter().map(|line| shape(line)).collect();
        let start = ours.iter().position(|event| event == &theirs[0]).expect("the first event");
        assert_eq!(ours[start..start + theirs.len()], theirs, "{protocol:?}");
        assert_eq!(ours.len(), start + theirs.len() + 2, "{protocol:?}: one event a request");
    }
}

/// The archived server's text is not a contract; that a failure arrives as a `message` with its path is.
#[test]
fn error_events_have_the_form_of_the_last_version_whose_stream_worked() {
    let recorded = last_working("/v1/log/error");
    assert_eq!(recorded.kes, "2024-01-11T13-09-29Z");
    for protocol in Protocol::ALL {
        let lines = follow(&recorded, protocol);
        let events: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).expect("an event")).collect();
        for event in &events {
            let message = event["message"].as_str().expect("a message");
            assert_eq!(*event, json!({ "message": message }), "nothing but a message");
        }
        let failed = events.iter().filter(|event| {
            let message = event["message"].as_str().unwrap_or_default();
            message.contains("failed to read key") && message.contains("/v1/key/generate/broken")
        });
        assert_eq!(failed.count(), 1, "{protocol:?}: {events:?}");
    }
}

/// The headers come at once, as `log-streams` has them, though no event may follow for hours.
#[test]
fn the_headers_are_those_of_the_archived_server() {
    #[derive(Deserialize)]
    struct Arrived {
        stream: String,
        proto: String,
        arrived: Value,
    }
    let text = std::fs::read(testdata("http/log-streams.json")).expect("readable");
    let streams: Vec<Arrived> = serde_json::from_slice(&text).expect("valid");
    assert_eq!(streams.len(), 4);
    let server = TestServer::fixture();
    for Arrived { stream, proto, arrived } in streams {
        let protocol = if proto == "h1" { Protocol::H1 } else { Protocol::H2 };
        let client = Client::new(server.address(), Some(Identity::fixture("admin")), protocol);
        let lines = block_on(Lines::open(&client, &stream));
        assert_eq!(lines.status, 200);
        assert_eq!(lines.headers["content-type"], "application/x-ndjson");
        assert!(arrived.to_string().contains("application/x-ndjson"));
        assert!(!lines.headers.contains_key("content-length"), "{stream} {proto}");
    }
}
