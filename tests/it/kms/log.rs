//! The log, as its readers get it: what has happened, what happens, and where in the server.

use std::time::Duration;

use claviger::auth::enclave::ApiKey;
use claviger::client::Client;
use claviger::client::kms::{Commands, Records};
use claviger::kms::Action;
use claviger::kms::wire::{
    CreateIdentityRequest, CreatePolicyRequest, IdentityRequest, LogRecord, LogRequest, NameRequest, Timestamp,
};
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
        // More than a mebibyte of records: each of a request with as many long names as one line holds. Two that take
        // turns, so that none is the one before it.
        let request = |name: &str| CreatePolicyRequest { name: name.repeat(80), ..CreatePolicyRequest::default() };
        let requests: Vec<_> = (0..9).flat_map(|_| [request("a"), request("b")]).collect();
        // Many at a time: they share the waits for the disk.
        let change = |_| client.change(ENCLAVE, Commands::default().and_all(Action::PolicyCreate, &requests));
        for _ in 0..12 {
            try_join_all((0..50).map(change)).await.expect("set");
        }
        let since = Some(Timestamp::from(OffsetDateTime::UNIX_EPOCH));
        let request = LogRequest { message: "CREATE".into(), since, ..LogRequest::default() };
        let mut all = client.records(&request).await.expect("a stream");
        create(&client, 7).await;
        let mut held = 0_usize;
        loop {
            let record = next(&mut all).await;
            if record.message.ends_with("KEY:CREATE k-7") {
                break;
            }
            held += 1;
        }
        assert!((300..590).contains(&held), "{held}");
        assert!(server.log().is_empty(), "{}", server.stderr());
    });
}

/// Makes the key's identity a system administrator by an account of the enclave.
async fn add_sysadmin(root: &Client, enclave: &str, key: &ApiKey) {
    let (identity, privilege) = (key.identity().to_string(), "SysAdmin".to_owned());
    let request = CreateIdentityRequest { identity, privilege, ..CreateIdentityRequest::default() };
    root.change(enclave, Commands::one(Action::IdentityCreate, &request)).await.expect("created");
}

#[test]
fn a_stream_ends_with_the_commit_that_takes_the_right_to_read_it_away() {
    let data = tempfile::tempdir().expect("a directory");
    let server = TestServer::key_manager(data.path(), HSM, &[]);
    block_on(async {
        let root = client(&server, &root());
        create_enclave(&root).await;
        let other = NameRequest { name: "other".into() };
        root.change("", Commands::one(Action::EnclaveCreate, &other)).await.expect("created");
        let (one, two) = (ApiKey::generate().expect("a key"), ApiKey::generate().expect("a key"));
        add_sysadmin(&root, ENCLAVE, &one).await;
        add_sysadmin(&root, "other", &two).await;
        let mut roots = follow(&root, None, None).await;
        let mut readers = Vec::new();
        for key in [&one, &two] {
            readers.push(follow(&client(&server, key), None, None).await);
        }
        create(&root, 0).await;
        for reader in readers.iter_mut().chain([&mut roots]) {
            assert_eq!(number(&next(reader).await), 0, "a change of no rights ends no stream");
        }
        let remove = IdentityRequest { identity: one.identity().to_string() };
        root.change(ENCLAVE, Commands::one(Action::IdentityDelete, &remove)).await.expect("removed");
        ended(&mut readers[0]).await;
        create(&root, 1).await;
        assert_eq!(number(&next(&mut readers[1]).await), 1, "others go on");
        root.change("", Commands::one(Action::EnclaveDelete, &other)).await.expect("deleted");
        ended(&mut readers[1]).await;
        create(&root, 2).await;
        assert_eq!(number(&next(&mut roots).await), 1);
        assert_eq!(number(&next(&mut roots).await), 2);
    });
}

/// Waits for the end of a stream.
async fn ended(records: &mut Records) {
    let next = tokio::time::timeout(Duration::from_secs(30), records.next()).await.expect("in time");
    assert!(!matches!(next, Ok(Some(_))), "{next:?}");
}
