//! Filling an epoch that has no head yet, and clearing others away.
//!
//! Two processes may do that at the same time. Whoever fills an epoch holds `made/<epoch>` under a lease: each of its
//! transactions asks for that, and nothing of the epoch is cleared away while the key is there.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio_util::task::AbortOnDropHandle;

use super::layout::{Layout, Place, end_of};
use super::{Access, Changes, Error, Head, claim, is_claimed};
use crate::etcd::Client;
use crate::etcd::message::{
    Compare, Comparison, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, Operand,
    RangeRequest, Request, TxnRequest,
};

/// How long the epoch of a process that has died is spared, in seconds, and how often one that lives says so.
const LEASE: i64 = 30;
const KEEP: Duration = Duration::from_secs(8);

/// How many keys are removed at once.
const TOGETHER: i64 = 1_000;

/// The most bytes of a transaction. etcd takes requests of 1.5 MiB.
const MOST_BYTES: usize = 1 << 20;

/// What this process fills.
pub(super) struct Fill {
    access: Arc<Access>,
    /// Held while somebody writes.
    turn: Mutex<()>,
    held: std::sync::Mutex<Option<Held>>,
}

/// An epoch that nobody else fills or clears away.
struct Held {
    epoch: u64,
    lease: i64,
    _keeper: AbortOnDropHandle<()>,
}

impl Fill {
    pub(super) fn new(access: Arc<Access>) -> Self {
        Self { access, turn: Mutex::new(()), held: std::sync::Mutex::new(None) }
    }

    /// The condition that the epoch is still this process's; none: it has not filled it.
    pub(super) fn condition(&self, epoch: u64) -> Option<Compare> {
        let lease = self.lease_of(epoch)?;
        Some(Compare::new(&self.access.layout.made(epoch), Comparison::Equal, Operand::Lease(lease)))
    }

    fn lease_of(&self, epoch: u64) -> Option<i64> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().filter(|held| held.epoch == epoch).map(|held| held.lease)
    }

    fn hold(&self, held: Option<Held>) -> Option<Held> {
        std::mem::replace(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner), held)
    }

    /// Lets go of an epoch that has a head now.
    pub(super) async fn done(&self, epoch: u64) {
        if self.lease_of(epoch).is_some() {
            self.let_go().await;
        }
    }

    async fn let_go(&self) {
        let Some(Held { lease, .. }) = self.hold(None) else { return };
        // Else it ends by itself.
        let _ = self.access.client.call(LeaseRevokeRequest { id: lease }).await;
    }

    /// Writes some changes, in transactions of so many operations.
    pub(super) async fn write(&self, epoch: u64, changes: &Changes, operations: usize) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        if self.lease_of(epoch).is_none() {
            self.let_go().await;
            self.begin(epoch).await?;
        }
        let mut rest = self.access.requests(epoch, changes);
        while !rest.is_empty() {
            let later = rest.split_off(fitting(&rest, operations));
            self.send(epoch, rest).await?;
            rest = later;
        }
        Ok(())
    }

    /// Makes an epoch this process's own, and empty.
    async fn begin(&self, epoch: u64) -> Result<(), Error> {
        let access = &self.access;
        let (head, _) = access.head(0).await?;
        if head.as_ref().is_some_and(|head| head.epoch == epoch) {
            return Err(Error::Malformed(format!("the epoch {epoch:x} is in use")));
        }
        let lease = access.call(LeaseGrantRequest { ttl: LEASE }).await?.id;
        let (made, client) = (access.layout.made(epoch), access.client.clone());
        let claim = claim(&made, &[], lease, vec![is_still(&access.layout, head.as_ref())]);
        if !is_claimed(&access.repeat(&claim).await?) {
            return Err(Error::Malformed(format!(
                "another process writes the epoch {epoch:x}, or has ended it just now"
            )));
        }
        let keeper = AbortOnDropHandle::new(tokio::spawn(keep(client, lease)));
        self.hold(Some(Held { epoch, lease, _keeper: keeper }));
        let Some(condition) = self.condition(epoch) else { return Ok(()) };
        self.clear(epoch, &[condition]).await
    }

    /// Does these under the condition that the epoch is this process's. Doing it twice is doing it once.
    async fn send(&self, epoch: u64, operations: Vec<Request>) -> Result<(), Error> {
        let lost = || Error::Malformed(format!("this process has lost hold of the epoch {epoch:x}: begin another one"));
        let condition = self.condition(epoch).ok_or_else(lost)?;
        if self.access.repeat(&TxnRequest::when(vec![condition], operations)).await?.succeeded {
            return Ok(());
        }
        self.let_go().await;
        Err(lost())
    }

    /// Removes all epochs but one, and those that somebody fills.
    pub(super) async fn clear_but(&self, kept: u64) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        if self.lease_of(kept).is_none() {
            self.let_go().await;
        }
        let access = &self.access;
        let (mut key, end) = access.layout.epochs();
        loop {
            let range_end = end.clone();
            let range = RangeRequest { key, range_end, limit: 1, keys_only: true, revision: 0 };
            let answer = access.call(range).await?;
            let Some(kv) = answer.kvs.first() else { return Ok(()) };
            let Place::Epoch(epoch, _) = access.layout.place(&kv.key) else {
                // It is not ours to remove.
                key = [&kv.key[..], &[0]].concat();
                continue;
            };
            if epoch != kept && !self.clear_unused(epoch).await? {
                return Err(Error::Malformed(format!("the epoch {epoch:x} is in use")));
            }
            key = end_of(&access.layout.epoch(epoch));
        }
    }

    /// Removes an epoch unless somebody fills it. Returns `false` if the head is of it.
    pub(super) async fn clear_unused(&self, epoch: u64) -> Result<bool, Error> {
        let (head, _) = self.access.head(0).await?;
        let unused = match head {
            Some(head) if head.epoch == epoch => return Ok(false),
            // The head may change, yet not to this epoch.
            Some(head) => {
                let (result, bound) = if head.epoch > epoch {
                    (Comparison::Greater, epoch.saturating_add(1))
                } else {
                    (Comparison::Less, epoch)
                };
                let bound = Operand::Value(bound.to_be_bytes().into());
                Compare::new(&self.access.layout.head(), result, bound)
            }
            None => Compare::absent(&self.access.layout.head()),
        };
        self.clear(epoch, &[unused, Compare::absent(&self.access.layout.made(epoch))]).await?;
        Ok(true)
    }

    /// Removes what an epoch has, as long as these conditions hold.
    async fn clear(&self, epoch: u64, conditions: &[Compare]) -> Result<(), Error> {
        let first = self.access.layout.epoch(epoch);
        let range_end = end_of(&first);
        loop {
            let range = RangeRequest {
                key: first.clone(),
                range_end: range_end.clone(),
                limit: TOGETHER,
                keys_only: true,
                revision: 0,
            };
            let answer = self.access.call(range).await?;
            let (Some(from), Some(to)) = (answer.kvs.first(), answer.kvs.last()) else { return Ok(()) };
            let delete = DeleteRangeRequest { key: from.key.clone(), range_end: [&to.key[..], &[0]].concat() };
            let delete = TxnRequest::when(conditions.to_vec(), vec![Request::DeleteRange(delete)]);
            if !self.access.repeat(&delete).await?.succeeded {
                return Ok(());
            }
        }
    }
}

/// The condition that the head is this one.
fn is_still(layout: &Layout, head: Option<&Head>) -> Compare {
    let revision = head.map_or(0, |head| head.revision);
    Compare::new(&layout.head(), Comparison::Equal, Operand::Mod(revision))
}

/// How many of these go into one transaction.
fn fitting(operations: &[Request], most: usize) -> usize {
    let mut bytes = 0;
    let fits = operations.iter().take(most).take_while(|operation| {
        bytes += operation.encoded_len();
        bytes <= MOST_BYTES
    });
    fits.count().max(1)
}

async fn keep(client: Arc<Client>, id: i64) {
    loop {
        tokio::time::sleep(KEEP).await;
        // If it has ended, the next transaction says so.
        let _ = client.call(LeaseKeepAliveRequest { id }).await;
    }
}
