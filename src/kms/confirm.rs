//! Asking the journal, so that an answer is not older than its question.
//!
//! Whoever wants to know shares one question with all who wait, but never one that was sent before it came: the answer
//! to that may be older.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

use crate::clock;

/// One question, asked again and again.
#[derive(Debug)]
pub(super) struct Question<A> {
    /// How often it was sent.
    sent: AtomicU64,
    /// The last answer. Whoever holds it asks.
    last: Mutex<Option<Answer<A>>>,
}

/// The answer to a question.
#[derive(Debug, Clone)]
pub(super) struct Answer<A> {
    number: u64,
    /// When the question was sent, by [`clock::since_boot`].
    pub(super) sent_at: u64,
    /// What was answered.
    pub(super) said: A,
}

impl<A> Default for Question<A> {
    fn default() -> Self {
        Self { sent: AtomicU64::new(0), last: Mutex::new(None) }
    }
}

impl<A: Clone> Question<A> {
    /// An answer to a question that was sent after this call began; `send` sends it, unless somebody else has.
    pub(super) async fn ask(&self, send: impl Future<Output = A>) -> Answer<A> {
        let needed = self.sent.load(Ordering::SeqCst) + 1;
        let mut last = self.last.lock().await;
        if let Some(answer) = last.as_ref().filter(|answer| answer.number >= needed) {
            return answer.clone();
        }
        let number = self.sent.fetch_add(1, Ordering::SeqCst) + 1;
        let sent_at = clock::since_boot();
        let said = send.await;
        last.insert(Answer { number, sent_at, said }).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::kms::journal::shared::Cluster;
    use crate::kms::journal::{Appended, Changes, Journal};

    #[tokio::test]
    async fn all_who_wait_share_the_next_question() {
        let cluster = Cluster::new();
        let node = cluster.node();
        let gate = node.gate();
        let question = Arc::new(Question::default());
        let node = Arc::new(node);
        let ask = || {
            let (question, node) = (question.clone(), node.clone());
            tokio::spawn(async move { question.ask(async { node.head().await.map_err(Arc::new) }).await })
        };
        gate.close();
        let first = ask();
        tokio::time::sleep(Duration::from_millis(20)).await;
        // It has read the head, and its answer is on the way.
        let written = cluster.node().append(None, 1, b"s", &Changes::default()).await.expect("an answer");
        let others: Vec<_> = (0..5).map(|_| ask()).collect();
        tokio::time::sleep(Duration::from_millis(20)).await;
        gate.open();
        assert!(first.await.expect("asked").said.expect("an answer").is_none(), "as it was when it was asked");
        for other in others {
            let head = other.await.expect("asked").said.expect("an answer");
            assert_eq!(Appended::Done(head.expect("it is newer")), written);
        }
        assert_eq!(question.sent.load(Ordering::SeqCst), 2);
    }
}
