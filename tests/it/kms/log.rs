//! The log, as its readers get it: what has happened, what happens, and where in the server.

use std::time::Duration;

use claviger::client::Client;
use claviger::client::kms::{Commands, Records};
use claviger::kms::Action;
use claviger::kms::wire::{CreateKeyRequest, LogRecord, LogRequest, Timestamp};
use futures_util::future::try_join_all;
use time::OffsetDateTime;

use super::{ENCLAVE, HSM, client, create_enclave, create_key, root};
use crate::support::{TestServer, block_on};

/// Which key a record says was made.
fn number(record: &LogRecord) -> usize {
    assert!(record.message.contains("KEY:CREATE") && record.time.is_some(), "{record:?}");
    record.message.rsplit_once('-').and_then(|(_, n)| n.parse().ok()).expect("a number")
}

async fn create(client: &Client, number: usize) {
    create_key(client, &format!("k-{number}"), false).await.expect("created");
}

async fn follow(client: &Client, since: Option<OffsetDateTime>, trace_level: Option<i32>) -> Records {
    let since = since.map(Timestamp::from);
    let request = LogRequest { message: "KEY:CREATE".into(), since, trace_level, ..LogRequest::default() };
    client.records(&request).await.expect("a stream")
}

async fn next(records: &mut Records) -> LogRecord {
    let next = tokio::time::timeout(Duration::from_secs(30), records.next()).await;
    next.expect("in time").expect("a record").expect("the stream goes on")
}

#[test]
fn the_past_comes_first_and_the_present_follows_without_a_gap() {
    let data = tempfile::tempdir().expect("a directory");
    let server = TestServer::key_manager(data.path(), HSM, &[]);
    block_on(async {
        let client = client(&server, &root());
        create_enclave(&client).await;
        create(&client, 0).await;
        let since = claviger::clock::now();
        create(&client, 1).await;
        create(&client, 2).await;
        // Readers that come while others write: each has every record once, in order.
        let writing = async {
            for n in 3..40 {
                create(&client, n).await;
            }
        };
        let reading = async {
            let mut readers = Vec::new();
            for _ in 0..10 {
                readers.push(follow(&client, Some(since), None).await);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            readers
        };
        let ((), readers) = tokio::join!(writing, reading);
        for mut reader in readers {
            for n in 1..40 {
                assert_eq!(number(&next(&mut reader).await), n);
            }
        }
        // Nothing of the past for who does not ask for it, or asks for what is yet to come.
        let mut from_now_on = follow(&client, None, None).await;
        let mut from_later_on = follow(&client, Some(since + time::Duration::DAY), None).await;
        let mut all = follow(&client, Some(OffsetDateTime::UNIX_EPOCH), None).await;
        create(&client, 40).await;
        assert_eq!(number(&next(&mut from_now_on).await), 40);
        assert_eq!(number(&next(&mut from_later_on).await), 40);
        assert_eq!(number(&next(&mut all).await), 0);
    });
}

#[test]
fn a_record_says_where_it_was_made_to_who_asks_for_its_level() {
    let data = tempfile::tempdir().expect("a directory");
    let server = TestServer::key_manager(data.path(), HSM, &[]);
    block_on(async {
        let client = client(&server, &root());
        create_enclave(&client).await;
        let (mut silent, mut errors) = (follow(&client, None, None).await, follow(&client, None, Some(8)).await);
        let mut traced = follow(&client, None, Some(0)).await;
        create(&client, 0).await;
        assert!(next(&mut silent).await.trace.is_empty() && next(&mut errors).await.trace.is_empty());
        let [frame] = &next(&mut traced).await.trace[..] else { panic!("one place") };
        assert_eq!((frame.function.as_str(), frame.file.as_str()), ("claviger::kms::writer", "src/kms/writer.rs"));
        assert!(frame.line > 0);
    });
}

#[test]
fn the_past_is_there_whatever_the_log_writes_and_its_end_is_what_is_kept() {
    let data = tempfile::tempdir().expect("a directory");
    let config = data.path().join("kms.yml");
    std::fs::write(&config, "version: v1\nlog: { error: off, audit: off }\n").expect("written");
    let server = TestServer::key_manager(data.path(), HSM, &["--config", config.to_str().expect("text")]);
    block_on(async {
        let client = client(&server, &root());
        create_enclave(&client).await;
        create_key(&client, "first", false).await.expect("created");
        // More than a mebibyte of records: of every request the first sixteen changes are logged.
        let request = CreateKeyRequest { name: "first".into(), add_version: true, ..CreateKeyRequest::default() };
        // Many at a time: they share the waits for the disk.
        let change =
            |_| client.change(ENCLAVE, Commands::default().and_all(Action::KeyCreate, &vec![request.clone(); 16]));
        for _ in 0..4 {
            try_join_all((0..50).map(change)).await.expect("rotated");
        }
        let mut all = follow(&client, Some(OffsetDateTime::UNIX_EPOCH), None).await;
        create(&client, 7).await;
        let mut held = 0_usize;
        loop {
            let record = next(&mut all).await;
            if record.message.ends_with("name=k-7") {
                break;
            }
            held += 1;
        }
        assert!((1_000..3_200).contains(&held), "{held}");
        assert_eq!(server.stderr(), "");
    });
}
