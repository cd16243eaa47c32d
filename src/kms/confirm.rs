//! Asking the journal for its head, so that an answer is not older than its question.
//!
//! Whoever wants to know shares one question with all who wait, but never one that was sent before it came: the answer
//! to that may be older.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

use super::journal::{Error, Head, Journal};
use crate::clock;

/// Asks for the head.
#[derive(Default)]
pub(super) struct Confirm {
    /// How many questions have been sent.
    sent: AtomicU64,
    /// The last answer. Whoever holds it asks.
    last: Mutex<Option<Answer>>,
}

/// The answer to a question.
#[derive(Clone)]
pub(super) struct Answer {
    number: u64,
    /// When the question was sent, by [`clock::since_boot`].
    pub(super) sent_at: u64,
    /// The head; none: there is none.
    pub(super) head: Result<Option<Head>, Arc<Error>>,
}

impl Confirm {
    /// An answer to a question that was sent after this call began.
    pub(super) async fn ask(&self, journal: &dyn Journal) -> Answer {
        let needed = self.sent.load(Ordering::SeqCst) + 1;
        let mut last = self.last.lock().await;
        if let Some(answer) = last.as_ref().filter(|answer| answer.number >= needed) {
            return answer.clone();
        }
        let number = self.sent.fetch_add(1, Ordering::SeqCst) + 1;
        let sent_at = clock::since_boot();
        let head = journal.head().await.map_err(Arc::new);
        last.insert(Answer { number, sent_at, head }).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::kms::journal::shared::Cluster;
    use crate::kms::journal::{Appended, Changes};

    #[tokio::test]
    async fn all_who_wait_share_the_next_question() {
        let cluster = Cluster::new();
        let node = cluster.node();
        let gate = node.gate();
        let confirm = Arc::new(Confirm::default());
        let node = Arc::new(node);
        let ask = |confirm: &Arc<Confirm>| {
            let (confirm, node) = (confirm.clone(), node.clone());
            tokio::spawn(async move { confirm.ask(&*node).await })
        };
        gate.close();
        let first = ask(&confirm);
        tokio::time::sleep(Duration::from_millis(20)).await;
        // It has read the head, and its answer is on the way.
        let written = cluster.node().append(None, 1, b"s", &Changes::default()).await.expect("an answer");
        let others: Vec<_> = (0..5).map(|_| ask(&confirm)).collect();
        tokio::time::sleep(Duration::from_millis(20)).await;
        gate.open();
        assert!(first.await.expect("asked").head.expect("an answer").is_none(), "as it was when it was asked");
        for other in others {
            let head = other.await.expect("asked").head.expect("an answer");
            assert_eq!(Appended::Done(head.expect("it is newer")), written);
        }
        assert_eq!(confirm.sent.load(Ordering::SeqCst), 2);
    }
}
