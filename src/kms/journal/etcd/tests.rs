//! The journal over real members of etcd.

mod server;
mod trouble;

use std::time::Duration;

use self::server::{Server, journal};
use super::{Appended, Changes, Error, Etcd, Head, Journal as _, Refusal, Said};
use crate::kms::journal::conformance;
use crate::kms::record::Id;

fn put(n: u8, value: &[u8]) -> Changes {
    Changes { records: [([n; 32], Some(value.to_vec()))].into(), ..Changes::default() }
}

/// Appends something that nobody else is before.
async fn append(journal: &Etcd, after: Option<&Head>, epoch: u64, state: &[u8], changes: &Changes) -> Head {
    match journal.append(after.map(|head| head.revision), epoch, state, changes).await {
        Ok(Appended::Done(head)) => head,
        other => panic!("not appended: {other:?}"),
    }
}

/// All that a journal has.
async fn all(journal: &Etcd) -> Vec<(Id, usize)> {
    let mut seen = Vec::new();
    let mut see = |id: &Id, value: &[u8]| {
        seen.push((*id, value.len()));
        true
    };
    journal.load(&mut see).await.expect("an answer").expect("a head");
    seen
}

#[tokio::test]
#[ignore = "runs etcd: tests/run"]
async fn the_one_in_etcd_is_a_journal() {
    let server = Server::start(1, &[]).await;
    conformance::run(&server.journal("a/"), &server.journal("a/")).await;
    // Another prefix is another journal.
    conformance::run(&server.journal("a/b/"), &server.journal("a/b/")).await;
    let [one, two] = ["c/", "c/"].map(|prefix| server.journal(prefix));
    assert_eq!(one.most_changes(), 127);
    let most = (0..127).map(|n| ([n; 32], Some(vec![n; 8_000])));
    let changes = Changes { records: most.collect(), ..Changes::default() };
    let head = append(&one, None, 1, b"s0", &changes).await;
    assert_eq!(all(&two).await.len(), 127);
    assert!(one.cluster().is_some() && one.cluster() == two.cluster());
    let mut follow = two.follow(&head).await.expect("the head");
    // It is silent for longer than a member may be that has gone.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let none: Changes = Changes { records: (0..127).map(|n| ([n; 32], None)).collect(), ..Changes::default() };
    let next = append(&one, Some(&head), 1, b"s1", &none).await;
    let quiet = tokio::time::timeout(Duration::from_secs(60), follow.next()).await.expect("it is told");
    assert_eq!(quiet.expect("a commit"), super::super::Commit { head: next.clone(), changes: none });
    let quiet = tokio::time::timeout(Duration::from_secs(6), follow.next()).await;
    assert!(quiet.is_err(), "a member that has nothing to tell is not left: {quiet:?}");
    append(&one, Some(&next), 1, b"s2", &put(1, &vec![1; 900_000])).await;
    assert_eq!(follow.next().await.expect("a commit").changes.count(), 1);
}

#[tokio::test]
#[ignore = "runs etcd: tests/run"]
async fn much_is_loaded_in_pages_that_fit() {
    let server = Server::start(1, &[]).await;
    let one = server.journal("a/");
    let id = |n: u32| -> Id { std::array::from_fn(|at| n.to_be_bytes()[at % 4]) };
    let mut expected: Vec<_> = (0..12_000).map(|n| (id(n), 20)).collect();
    let small = expected.iter().map(|(id, len)| (*id, Some(vec![7; *len])));
    one.fill(3, &Changes { records: small.collect(), ..Changes::default() }).await.expect("filled");
    let large = (20_000..20_024).map(|n| (id(n), Some(vec![8; 900_000])));
    one.fill(3, &Changes { records: large.clone().collect(), ..Changes::default() }).await.expect("filled");
    append(&one, None, 3, b"s0", &Changes::default()).await;
    expected.extend(large.map(|(id, _)| (id, 900_000)));
    let mut seen = all(&one).await;
    seen.sort_unstable();
    expected.sort_unstable();
    assert!(seen == expected, "{} of {}", seen.len(), expected.len());
    let mut count = 0;
    let mut stop = |_: &Id, _: &[u8]| {
        count += 1;
        count < 3
    };
    assert!(matches!(one.load(&mut stop).await, Err(Error::Malformed(_))));
    assert_eq!(count, 3);
}

#[tokio::test]
#[ignore = "runs etcd: tests/run"]
async fn an_epoch_that_is_filled_is_nobody_elses() {
    let server = Server::start(1, &[]).await;
    let [one, two] = ["a/", "a/"].map(|prefix| server.journal(prefix));
    one.fill(5, &put(1, b"one")).await.expect("filled");
    assert!(matches!(two.fill(5, &put(2, b"two")).await, Err(Error::Malformed(_))), "it is the other's");
    two.clear_but(9).await.expect("cleared");
    assert!(matches!(two.append(None, 5, b"s0", &put(2, b"two")).await, Err(Error::Malformed(_))), "it is the other's");
    let head = append(&one, None, 5, b"s0", &put(3, b"three")).await;
    assert_eq!(all(&two).await, [([1; 32], 3), ([3; 32], 5)], "nothing was cleared away");
    assert!(matches!(two.fill(5, &put(2, b"two")).await, Err(Error::Malformed(_))), "it is in use");
    assert!(matches!(two.clear_but(9).await, Err(Error::Malformed(_))), "it is in use");
    assert_eq!(all(&two).await.len(), 2);

    // Whoever has lost hold of what it fills cannot finish it.
    one.fill(6, &put(1, b"one")).await.expect("filled");
    server.ctl(&["del", "--prefix", "a/made/"]);
    two.clear_but(5).await.expect("cleared");
    let late = one.append(Some(head.revision), 6, b"s0", &Changes::default()).await;
    assert!(matches!(late, Err(Error::Malformed(_))), "{late:?}");
    assert!(matches!(one.fill(6, &put(2, b"two")).await, Err(Error::Malformed(_))), "it is told");
    one.fill(6, &put(4, b"four")).await.expect("filled anew");
    append(&one, Some(&head), 6, b"s0", &Changes::default()).await;
    assert_eq!(all(&two).await, [([4; 32], 4)]);

    // What a process has left that died before it made the first head is not taken over.
    let [one, two] = ["b/", "b/"].map(|prefix| server.journal(prefix));
    one.fill(1, &put(1, b"one")).await.expect("filled");
    drop(one);
    server.ctl(&["del", "--prefix", "b/made/"]);
    append(&two, None, 1, b"s0", &put(2, b"two")).await;
    assert_eq!(all(&two).await, [([2; 32], 3)]);
}

#[tokio::test]
#[ignore = "runs etcd: tests/run"]
async fn what_no_node_has_written_is_noticed() {
    let server = Server::start(1, &[]).await;
    let one = server.journal("a/");
    let head = append(&one, None, 1, b"s0", &put(1, b"one")).await;
    let mut follow = one.follow(&head).await.expect("the head");
    server.ctl(&["put", "a/other", "x"]);
    server.ctl(&["put", "a/0000000000000002/r/x", "x"]);
    let head = append(&one, Some(&head), 1, b"s1", &put(2, b"two")).await;
    assert_eq!(follow.next().await.expect("a commit").head, head, "what does not matter is passed over");
    for (prefix, args, is_set_back) in [
        ("b/", &["del", "b/0000000000000001/r/AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"][..], false),
        ("c/", &["put", "c/0000000000000001/r/AQEB", "x"], false),
        ("d/", &["put", "d/head", "x"], false),
        ("e/", &["del", "e/head"], true),
    ] {
        let one = server.journal(prefix);
        let head = append(&one, None, 1, b"s0", &put(1, b"one")).await;
        let mut follow = one.follow(&head).await.expect("the head");
        server.ctl(args);
        let error = follow.next().await.expect_err("it is noticed");
        assert!(matches!(error, Error::SetBack(_)) == is_set_back, "{args:?}: {error:?}");
        assert!(matches!(error, Error::SetBack(_) | Error::Malformed(_)), "{args:?}: {error:?}");
    }
}

#[tokio::test]
#[ignore = "runs etcd: tests/run"]
async fn a_member_whose_lease_has_ended_says_everything_again() {
    let server = Server::start(1, &[]).await;
    let [one, two] = ["a/", "a/"].map(|prefix| server.journal(prefix));
    assert_eq!(one.say(7, b"here".to_vec()).await.expect("an answer"), Said::Done);
    let lease = server.ctl(&["get", "a/live/7", "-w", "json"]);
    let lease: serde_json::Value = serde_json::from_str(&lease).expect("JSON");
    let lease = format!("{:x}", lease["kvs"][0]["lease"].as_i64().expect("a lease"));
    server.ctl(&["lease", "revoke", &lease]);
    assert!(two.live().await.expect("an answer").is_empty());
    while two.live().await.expect("an answer") != [(7, b"here".to_vec())].into() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // It outlasts its lease.
    tokio::time::sleep(Duration::from_secs(14)).await;
    assert_eq!(two.live().await.expect("an answer").len(), 1);
    assert_eq!(two.say(7, b"I, too".to_vec()).await.expect("an answer"), Said::Taken);
    // It is another member now.
    assert_eq!(one.say(8, b"there".to_vec()).await.expect("an answer"), Said::Done);
    assert_eq!(two.live().await.expect("an answer"), [(8, b"there".to_vec())].into());
    // A process that has died is not live for long.
    drop(one);
    while !two.live().await.expect("an answer").is_empty() {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test]
#[ignore = "runs etcd: tests/run"]
async fn another_cluster_is_not_taken_for_the_first_one() {
    let (mut first, second) = (Server::start(1, &[]).await, Server::start(1, &[]).await);
    let one = journal(&[first.endpoints(), second.endpoints()].concat(), "a/");
    let head = append(&one, None, 1, b"s0", &put(1, b"one")).await;
    first.kill(0);
    for _ in 0..3 {
        let error = one.head().await.expect_err("the second is another cluster");
        let Error::Unreachable(error) = error else { panic!("{error:?}") };
        if error.to_string().contains("in place of") {
            break;
        }
    }
    first.run(0);
    first.elected().await;
    while !matches!(one.head().await, Ok(Some(found)) if found == head) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
#[ignore = "runs etcd: tests/run"]
async fn what_cannot_work_is_refused_at_the_start() {
    let server = Server::start(1, &["--max-txn-ops=64"]).await;
    let check = async |prefix: &str, operations: usize| {
        let mut journal = server.journal(prefix);
        journal.operations = operations;
        journal.check().await
    };
    let warnings = check("a/", 64).await.expect("it works");
    assert!(warnings.iter().any(|warning| warning.contains("knows no users")), "{warnings:?}");
    assert!(warnings.iter().any(|warning| warning.contains("fewer than three")), "{warnings:?}");
    assert!(server.ctl(&["get", "--prefix", "a/"]).is_empty(), "nothing is written");
    let refused = async |prefix: &str, operations: usize, says: &str| {
        let Err(Refusal::Wrong(why)) = check(prefix, operations).await else { panic!("it is refused") };
        assert!(why.contains(says), "{why}");
    };
    refused("a/", 65, "--max-txn-ops=65").await;
    server.ctl(&["put", "a/my-key", "of a key store"]);
    refused("a/", 64, "'a/my-key'").await;
    append(&server.journal("b/"), None, 1, b"s0", &put(1, b"one")).await;
    server.ctl(&["put", "b/my-key", "of somebody"]);
    check("b/", 64).await.expect("it was there first");
    server.ctl(&["put", "c/head", "x"]);
    refused("c/", 64, "the head is malformed").await;

    let [one, other] = [server.endpoints(), Server::start(1, &[]).await.endpoints()];
    let silent = journal(&other, "a/").check().await;
    assert!(matches!(silent, Err(Refusal::Unreachable(_))), "{silent:?}");
    let mut half = journal(&[one.clone(), other].concat(), "d/");
    half.operations = 64;
    let warnings = half.check().await.expect("one answers");
    assert!(warnings.iter().any(|warning| warning.contains("does not answer")), "{warnings:?}");
    let second = Server::start(1, &[]).await;
    let Err(Refusal::Wrong(why)) = journal(&[one, second.endpoints()].concat(), "d/").check().await else {
        panic!("they are two clusters")
    };
    assert!(why.contains("in place of"), "{why}");
}

#[tokio::test]
#[ignore = "runs etcd: tests/run"]
async fn a_right_that_is_missing_is_told_with_the_commands_that_grant_it() {
    let server = Server::start(1, &[]).await;
    for args in [
        &["user", "add", "root:pw"][..],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "kms:pw"],
        &["role", "add", "kms"],
        &["user", "grant-role", "kms", "kms"],
        &["role", "grant-permission", "kms", "--prefix=true", "read", "a/"],
        &["auth", "enable"],
    ] {
        server.ctl(args);
    }
    let check = async |password: &str| server.journal_of("a/", "kms", password).check().await;
    let Err(Refusal::Wrong(why)) = check("pw").await else { panic!("it may not write") };
    assert!(
        why.contains("grant-permission claviger-kms --prefix=true readwrite a/; etcdctl user grant-role kms"),
        "{why}"
    );
    assert!(matches!(check("other").await, Err(Refusal::Wrong(_))));
    let grant = &["--user=root:pw", "role", "grant-permission", "kms", "--prefix=true", "readwrite", "a/"];
    server.ctl(grant);
    check("pw").await.expect("it may");
    // That is enough for everything, also for leases and watches.
    let [one, two] = ["a/", "a/"].map(|prefix| server.journal_of(prefix, "kms", "pw"));
    conformance::run(&one, &two).await;
}
