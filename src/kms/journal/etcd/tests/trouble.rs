//! Members that die, a quorum that is lost, compaction, a full disk, and an etcd that was set back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::server::Server;
use super::{Appended, Changes, Error, Etcd, Head, append, put};
use crate::kms::journal::Journal as _;

/// Longer than anything takes that works.
const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
#[ignore = "runs etcd: tests/run"]
async fn a_follower_that_was_away_during_a_compaction_is_told_so() {
    let server = Server::start(1, &[]).await;
    let one = server.journal("a/");
    let first = append(&one, None, 1, b"s0", &put(1, b"one")).await;
    let second = append(&one, Some(&first), 1, b"s1", &put(2, b"two")).await;
    let third = append(&one, Some(&second), 1, b"s2", &put(3, b"three")).await;
    let mut follow = one.follow(&second).await.expect("the head");
    server.ctl(&["compact", &second.revision.to_string()]);
    assert_eq!(follow.next().await.expect("a commit").head, third, "nothing after it is lost");
    assert_eq!(one.follow(&second).await.expect("kept").next().await.expect("a commit").head, third);
    assert!(matches!(one.follow(&first).await.err(), Some(Error::Compacted)));
    server.ctl(&["compact", &server.revision().to_string()]);
    assert!(matches!(one.follow(&second).await.err(), Some(Error::Compacted)));
    let mut follow = one.follow(&third).await.expect("the head");
    let fourth = append(&one, Some(&third), 1, b"s3", &put(4, b"four")).await;
    assert_eq!(follow.next().await.expect("a commit").head, fourth);
    assert_eq!(super::all(&one).await.len(), 4);
}

/// Appends something, and finds out whether it was done, as a node does.
async fn resolve(journal: &Etcd, mut after: Head, state: &[u8], unknown: &AtomicU32) -> (bool, Head) {
    let mut is_unknown = false;
    loop {
        match journal.append(Some(after.revision), after.epoch, state, &put(1, state)).await {
            Ok(Appended::Done(head)) => return (true, head),
            Ok(Appended::Live) => panic!("nobody has to be silent"),
            Ok(Appended::Overtaken(head)) => {
                let head = head.expect("there is one");
                if !is_unknown {
                    return (false, head);
                }
                // One of the commits between may be this one.
                while let Ok(mut follow) = journal.follow(&after).await {
                    while after != head {
                        let Ok(commit) = follow.next().await else { break };
                        after = commit.head;
                        if after.state == state {
                            return (true, after);
                        }
                    }
                    if after == head {
                        return (false, head);
                    }
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(Error::Unreachable(_)) => {
                unknown.fetch_add(u32::from(!is_unknown), Relaxed);
                is_unknown = true;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[tokio::test]
#[ignore = "runs etcd: tests/run"]
async fn what_was_sent_when_a_leader_dies_is_known_in_the_end() {
    let mut server = Server::start(3, &[]).await;
    let first = append(&server.journal("a/"), None, 1, b"begin", &Changes::default()).await;
    let (end, unknown) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let (journal, end, unknown) = (server.journal("a/"), end.clone(), unknown.clone());
            let mut head = first.clone();
            tokio::spawn(async move {
                let (mut written, mut n) = (Vec::new(), 0);
                while !end.load(Relaxed) {
                    n += 1;
                    let state = format!("{writer} {n}").into_bytes();
                    let (is_written, newest) = resolve(&journal, head, &state, &unknown).await;
                    head = newest;
                    written.extend(is_written.then_some(state));
                }
                written
            })
        })
        .collect();
    for round in 0..6 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let leader = server.leader().await;
        if round % 2 == 0 {
            server.kill(leader);
            tokio::time::sleep(Duration::from_secs(2)).await;
            server.run(leader);
        } else {
            server.pause(leader);
            tokio::time::sleep(Duration::from_secs(3)).await;
            server.resume(leader);
        }
        server.elected().await;
    }
    end.store(true, Relaxed);
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.expect("no panic"));
    }
    let (reader, mut there, mut after) = (server.journal("a/"), Vec::new(), first);
    let head = reader.head().await.expect("an answer").expect("a head");
    let mut follow = reader.follow(&after).await.expect("the head");
    while after != head {
        after = follow.next().await.expect("a commit").head;
        there.push(after.state.clone());
    }
    there.sort();
    acknowledged.sort();
    assert!(there.len() > 100, "{} commits", there.len());
    assert!(there == acknowledged, "what was acknowledged is there, once, and nothing else is");
    assert!(unknown.load(Relaxed) > 0, "the kills were noticed");
}

#[tokio::test]
#[ignore = "runs etcd: tests/run"]
async fn without_a_majority_there_is_no_answer_and_afterwards_everything_goes_on() {
    let mut server = Server::start(3, &[]).await;
    let one = server.journal("a/");
    let head = append(&one, None, 1, b"s0", &put(1, b"one")).await;
    let mut follow = one.follow(&head).await.expect("the head");
    let leader = server.leader().await;
    // The one that stays is no leader, so that it notices by itself that it has none.
    let gone = [leader, (leader + 1) % 3];
    for n in gone {
        server.kill(n);
    }
    let asked = Instant::now();
    let ended = tokio::time::timeout(LONG, follow.next()).await.expect("it does not wait for ever");
    assert!(matches!(ended, Err(Error::Unreachable(_))), "{ended:?}");
    assert!(matches!(one.head().await, Err(Error::Unreachable(_))));
    assert!(matches!(one.say(1, b"here".to_vec()).await, Err(Error::Unreachable(_))));
    let lost = one.append(Some(head.revision), 1, b"s1", &put(2, b"two")).await;
    assert!(matches!(lost, Err(Error::Unreachable(_))), "{lost:?}");
    assert!(asked.elapsed() < LONG, "each member has a second");
    for n in gone {
        server.run(n);
    }
    server.elected().await;
    let (is_written, newest) = resolve(&one, head.clone(), b"s1", &AtomicU32::new(0)).await;
    // It was written by this time or by the first.
    assert!(is_written || newest.state == b"s1");
    assert_eq!(one.follow(&head).await.expect("the head").next().await.expect("a commit").head, newest);
}

#[tokio::test]
#[ignore = "runs etcd: tests/run"]
async fn a_member_that_stands_still_is_left_within_seconds() {
    let server = Server::start(3, &[]).await;
    let (one, two) = (server.journal("a/"), server.journal("a/"));
    let head = append(&one, None, 1, b"s0", &put(1, b"one")).await;
    let mut follow = one.follow(&head).await.expect("the head");
    server.pause(0);
    let ended = tokio::time::timeout(LONG, follow.next()).await.expect("it does not wait for ever");
    assert!(matches!(ended, Err(Error::Unreachable(_))), "{ended:?}");
    // The next one is at another member.
    let newest = loop {
        match two.append(Some(head.revision), 1, b"s1", &put(2, b"two")).await {
            Ok(Appended::Done(head)) => break head,
            Ok(Appended::Overtaken(Some(head))) => break head,
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let mut follow = one.follow(&head).await.expect("the head");
    assert_eq!(follow.next().await.expect("a commit").head, newest);
    server.resume(0);
}

#[tokio::test]
#[ignore = "runs etcd: tests/run"]
async fn an_etcd_that_is_full_writes_nothing_and_can_be_read() {
    let server = Server::start(1, &["--quota-backend-bytes=4000000"]).await;
    let one = server.journal("a/");
    let mut head = append(&one, None, 1, b"s0", &Changes::default()).await;
    let error = loop {
        match one.append(Some(head.revision), 1, b"s", &put(1, &[7; 500_000])).await {
            Ok(Appended::Done(new)) => head = new,
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("compact and defragment it"), "{error}");
    // The transaction that has etcd notice it is made, and refused all the same. So that outcome is unknown, too.
    let found = one.head().await.expect("an answer").expect("a head");
    assert!(found == head || found.revision == head.revision + 1, "{found:?} after {head:?}");
    head = found;
    assert!(one.append(Some(head.revision), 1, b"s", &put(1, &[7; 500_000])).await.is_err());
    assert_eq!(one.head().await.expect("an answer"), Some(head.clone()), "from then on nothing is written");
    assert!(one.follow(&head).await.is_ok());
    assert_eq!(super::all(&one).await, [([1; 32], 500_000)]);
    server.ctl(&["compact", &server.revision().to_string()]);
    server.ctl(&["defrag"]);
    server.ctl(&["alarm", "disarm"]);
    append(&one, Some(&head), 1, b"s", &put(1, b"small")).await;
}

#[tokio::test]
#[ignore = "runs etcd: tests/run"]
async fn an_etcd_that_was_set_back_is_noticed() {
    let mut server = Server::start(1, &[]).await;
    let one = server.journal("a/");
    let kept = append(&one, None, 1, b"s0", &put(1, b"one")).await;
    let snapshot = server.save();
    let lost = append(&one, Some(&kept), 1, b"s1", &put(2, b"two")).await;
    let mut follow = one.follow(&lost).await.expect("the head");
    server.set_back(&snapshot);
    server.elected().await;
    assert!(matches!(follow.next().await, Err(Error::Unreachable(_))), "its connection has ended");
    let again = server.journal("a/");
    for journal in [&one, &again] {
        let found = loop {
            match journal.follow(&lost).await.err() {
                Some(Error::Unreachable(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
                found => break found,
            }
        };
        assert!(matches!(found, Some(Error::SetBack(_))), "no such revision: {found:?}");
    }
    // The fork goes on beyond the revision that was lost.
    let fork = append(&again, Some(&kept), 1, b"s1'", &put(2, b"other")).await;
    append(&again, Some(&fork), 1, b"s2'", &put(3, b"three")).await;
    assert!(matches!(one.follow(&lost).await.err(), Some(Error::SetBack(_))), "another head");
    assert_eq!(one.cluster(), again.cluster(), "the id of the cluster alone tells nothing");
}
