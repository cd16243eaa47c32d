//! What every journal does.

use super::shared::Cluster;
use super::{Appended, Changes, Error, Journal, Said};
use crate::kms::record::Id;

const ONE: Id = [1; 32];
const TWO: Id = [2; 32];

fn put(id: Id, value: &[u8]) -> Changes {
    Changes { records: [(id, Some(value.to_vec()))].into(), ..Changes::default() }
}

/// Runs all checks on two handles to one new journal.
pub(in crate::kms) async fn run(one: &dyn Journal, two: &dyn Journal) {
    assert_eq!(one.head().await.expect("an answer"), None);
    assert!(one.load(&mut |_, _| true).await.expect("an answer").is_none());

    let mut changes = put(ONE, b"first");
    changes.seals.insert("a".into(), Some(b"seal".to_vec()));
    one.fill(7, &changes).await.expect("filled");
    assert_eq!(two.head().await.expect("an answer"), None, "what is filled in is not visible");
    let Appended::Done(first) = one.append(None, 7, b"s0", &Changes::default()).await.expect("an answer") else {
        panic!("there was none");
    };
    assert_eq!((first.epoch, first.state.as_slice()), (7, b"s0".as_slice()));
    let again = one.append(None, 7, b"s0", &Changes::default()).await.expect("an answer");
    assert_eq!(again, Appended::Overtaken(Some(first.clone())), "asked for again it is not done again");
    let again = two.append(None, 7, b"s0", &put(ONE, b"x")).await.expect("an answer");
    assert_eq!(again, Appended::Overtaken(Some(first.clone())), "by nobody");
    let again = two.append(None, 8, b"s9", &Changes::default()).await.expect("an answer");
    assert_eq!(again, Appended::Overtaken(Some(first.clone())));
    assert_eq!(two.head().await.expect("an answer"), Some(first.clone()));

    let mut follow = two.follow(&first).await.expect("it was the head");
    let Appended::Done(second) =
        one.append(Some(first.revision), 7, b"s1", &put(TWO, b"second")).await.expect("an answer")
    else {
        panic!("nobody was before it");
    };
    assert!(second.revision > first.revision);
    assert_eq!(
        one.append(Some(first.revision), 7, b"s1", &put(TWO, b"second")).await.expect("an answer"),
        Appended::Overtaken(Some(second.clone())),
        "asked for again it is not done again"
    );
    let mut changes = Changes { records: [(ONE, None)].into(), ..Changes::default() };
    changes.seals.insert("a".into(), None);
    changes.seals.insert("b".into(), Some(b"other".to_vec()));
    let Appended::Done(third) = two.append(Some(second.revision), 7, b"s2", &changes).await.expect("an answer") else {
        panic!("nobody was before it");
    };
    let next = follow.next().await.expect("a commit");
    assert_eq!((next.head, next.changes), (second.clone(), put(TWO, b"second")));
    let next = follow.next().await.expect("a commit");
    assert_eq!((next.head, next.changes), (third.clone(), changes));

    let mut seen = Vec::new();
    let mut see = |id: &Id, value: &[u8]| {
        seen.push((*id, value.to_vec()));
        true
    };
    let loaded = one.load(&mut see);
    let (head, seals) = loaded.await.expect("an answer").expect("a head");
    assert_eq!((head, seen), (third.clone(), vec![(TWO, b"second".to_vec())]));
    assert_eq!(seals, [("b".to_owned(), b"other".to_vec())].into());

    let mut other = first.clone();
    other.state = b"sx".to_vec();
    assert!(matches!(one.follow(&other).await.err(), Some(Error::SetBack(_))), "another head was there");
    other.revision = third.revision + 1_000;
    assert!(matches!(one.follow(&other).await.err(), Some(Error::SetBack(_))), "no such revision");
    other.revision = 0;
    assert!(matches!(one.follow(&other).await.err(), Some(Error::Compacted)), "nobody knows after what");

    assert_eq!(one.say(1, b"here".to_vec()).await.expect("an answer"), Said::Done);
    assert_eq!(two.say(1, b"I, too".to_vec()).await.expect("an answer"), Said::Taken);
    assert_eq!(two.say(2, b"there".to_vec()).await.expect("an answer"), Said::Done);
    assert_eq!(one.say(1, b"still".to_vec()).await.expect("an answer"), Said::Done);
    assert_eq!(two.live().await.expect("an answer"), [(1, b"still".to_vec()), (2, b"there".to_vec())].into());
    // A commit that wants members not to be live.
    let quiet = |numbers: &[u32]| Changes { silent: numbers.iter().copied().collect(), ..Changes::default() };
    let refused = one.append(Some(third.revision), 7, b"never", &quiet(&[2, 3])).await.expect("an answer");
    assert_eq!((refused, one.head().await.expect("an answer")), (Appended::Live, Some(third.clone())));
    let Appended::Done(third) = one.append(Some(third.revision), 7, b"s3", &quiet(&[3])).await.expect("an answer")
    else {
        panic!("nobody is member 3");
    };
    let next = follow.next().await.expect("a commit");
    assert_eq!((next.head, next.changes), (third.clone(), Changes::default()));
    one.leave().await;
    assert_eq!(two.live().await.expect("an answer"), [(2, b"there".to_vec())].into());
    assert_eq!(two.say(1, b"mine".to_vec()).await.expect("an answer"), Said::Done, "it is free");

    // Everything is replaced.
    two.fill(9, &put(ONE, b"anew")).await.expect("filled");
    let Appended::Done(fourth) =
        two.append(Some(third.revision), 9, b"s0", &Changes::default()).await.expect("an answer")
    else {
        panic!("nobody was before it");
    };
    let next = follow.next().await.expect("a commit");
    assert_eq!((next.head, next.changes), (fourth, Changes::default()));
    two.clear_but(9).await.expect("cleared");
    let mut seen = Vec::new();
    let mut see = |id: &Id, value: &[u8]| {
        seen.push((*id, value.to_vec()));
        true
    };
    let loaded = one.load(&mut see);
    let (_, seals) = loaded.await.expect("an answer").expect("a head");
    assert_eq!((seen, seals.len()), (vec![(ONE, b"anew".to_vec())], 0));
}

#[tokio::test]
async fn the_one_in_memory_is_a_journal() {
    let cluster = Cluster::new();
    run(&cluster.node(), &cluster.node()).await;
    let node = cluster.node();
    let head = node.head().await.expect("an answer").expect("a head");
    assert!(node.follow(&head).await.is_ok());
    let Ok(Appended::Done(_)) = node.append(Some(head.revision), 9, b"s", &put(TWO, b"x")).await else {
        panic!("nobody was before it");
    };
    cluster.compact();
    assert!(matches!(node.follow(&head).await.err(), Some(Error::Compacted)));
}
