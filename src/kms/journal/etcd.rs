//! The journal in etcd: the head, and the records of each epoch, are keys below one prefix.
//!
//! Every commit is one transaction on the condition that the head is still the one that it was made after. So etcd's
//! revisions put the commits of all nodes in one order. A transaction is sent once: whoever asked for it sends it again,
//! and its condition keeps it from being done twice.

mod check;
mod config;
mod examine;
mod fill;
mod follow;
mod layout;
#[cfg(test)]
mod tests;
mod voice;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

pub use self::check::Refusal;
pub use self::config::{Cluster, Config};
pub use self::examine::Member;

use self::fill::Fill;
use self::follow::Following;
use self::layout::{Entry, Layout, end_of};
use self::voice::Voice;
use super::{Appended, Changes, Each, Error, Follow, Head, Journal, Said};
use crate::etcd::message::{
    Call, Compare, Comparison, DeleteRangeRequest, KeyValue, Operand, PutRequest, RangeRequest, RangeResponse, Request,
    Response, TxnRequest, TxnResponse,
};
use crate::etcd::{self, Client};
use crate::http::TlsError;
use crate::kms::store::Seals;

/// The most keys that are read at once.
const PAGE: i64 = 5_000;

/// The most bytes of seals that are read.
const SEALS: usize = 1 << 20;

/// The most members that are asked about.
const MEMBERS: i64 = 10_000;

/// How long something is tried that nobody waits for who could be answered otherwise, and the pause between two tries.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(100);

/// The journal below a prefix.
pub struct Etcd {
    access: Arc<Access>,
    fill: Fill,
    voice: Voice,
    /// The most operations of a transaction.
    operations: usize,
}

/// How the keys below the prefix are reached.
struct Access {
    client: Arc<Client>,
    layout: Layout,
    /// The user, for error texts.
    user: String,
}

impl Etcd {
    /// Reads certificates, and connects to nobody yet.
    ///
    /// # Errors
    /// What is wrong with the certificates.
    pub fn new(config: &Config) -> Result<Self, TlsError> {
        let client = Arc::new(Client::new(&config.etcd)?);
        let user = config.etcd.credentials.as_ref().map_or("USER", |user| &user.username).to_owned();
        let access = Arc::new(Access { client, layout: Layout::new(config.prefix.as_str()), user });
        let (fill, voice) = (Fill::new(access.clone()), Voice::new(access.clone()));
        Ok(Self { access, fill, voice, operations: config.operations })
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd").field("layout", &self.access.layout).finish_non_exhaustive()
    }
}

impl Access {
    async fn call<C: Call>(&self, request: C) -> Result<C::Answer, Error> {
        self.client.call(request).await.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: etcd::Error) -> Error {
        match error {
            etcd::Error::Compacted(_) => Error::Compacted,
            etcd::Error::Future(trouble) => Error::SetBack(format!("etcd was set back: {trouble}")),
            etcd::Error::Denied(trouble) => {
                Error::Unreachable(format!("{trouble}; {}", self.layout.how_to_grant(&self.user)).into())
            }
            error => Error::Unreachable(error.into()),
        }
    }

    /// Sends a transaction again and again until somebody answers. Doing it twice must be doing it once.
    async fn repeat(&self, request: &TxnRequest) -> Result<TxnResponse, Error> {
        let begin = Instant::now();
        loop {
            match self.call(request.clone()).await {
                Err(Error::Unreachable(_)) if begin.elapsed() < PATIENCE => tokio::time::sleep(PAUSE).await,
                answer => return answer,
            }
        }
    }

    /// The head, and the revision at which it was asked for.
    async fn head(&self, revision: i64) -> Result<(Option<Head>, i64), Error> {
        let answer = self.call(RangeRequest { key: self.layout.head(), revision, ..RangeRequest::default() }).await?;
        let asked = answer.header.as_ref().map_or(0, |header| header.revision);
        Ok((self.head_of(&answer)?, asked))
    }

    fn head_of(&self, answer: &RangeResponse) -> Result<Option<Head>, Error> {
        match &answer.kvs[..] {
            [] => Ok(None),
            [kv] if kv.key == self.layout.head() => layout::head(kv).map(Some),
            _ => Err(Error::Malformed("the answer of etcd is about another key".into())),
        }
    }

    /// Reads the head. For transactions that do not write.
    fn look(&self) -> Request {
        Request::Range(RangeRequest { key: self.layout.head(), ..RangeRequest::default() })
    }

    /// What makes these changes under an epoch.
    fn requests(&self, epoch: u64, changes: &Changes) -> Vec<Request> {
        let records = changes.records.iter().map(|(id, value)| (self.layout.record(epoch, id), value));
        let seals = changes.seals.iter().map(|(name, seal)| (self.layout.seal(epoch, name), seal));
        let operation = |(key, value): (Vec<u8>, &Option<Vec<u8>>)| match value {
            Some(value) => Request::Put(PutRequest::new(key, value)),
            None => Request::DeleteRange(DeleteRangeRequest { key, range_end: Vec::new() }),
        };
        records.chain(seals).map(operation).collect()
    }

    /// Passes all keys from `first` up to `end` to `each`, as they were at a revision.
    async fn pages(
        &self,
        first: Vec<u8>,
        end: Vec<u8>,
        revision: i64,
        each: &mut (dyn FnMut(&KeyValue) -> Result<(), Error> + Send),
    ) -> Result<(), Error> {
        let mut page = RangeRequest { key: first, range_end: end, limit: PAGE, keys_only: false, revision };
        loop {
            let answer = match self.client.call(page.clone()).await {
                // Together they may be too large for one answer, or take a member too long.
                Err(etcd::Error::Failed(_) | etcd::Error::Unreachable(_)) if page.limit > 1 => {
                    page.limit = (page.limit / 8).max(1);
                    continue;
                }
                answer => answer.map_err(|error| self.failed(error))?,
            };
            answer.kvs.iter().try_for_each(&mut *each)?;
            let Some(last) = answer.kvs.last().filter(|_| answer.more) else { return Ok(()) };
            page.key = [&last.key[..], &[0]].concat();
            page.limit = PAGE.min(page.limit * 2);
        }
    }
}

/// Writes a key under a lease, if it was written under that lease before, or is not there and the conditions hold. So a
/// claim whose answer was lost is known again.
fn claim(key: &[u8], value: &[u8], lease: i64, mut conditions: Vec<Compare>) -> TxnRequest {
    let put = || vec![Request::Put(PutRequest::under(lease, key.to_vec(), value))];
    let is_ours = Compare::new(key, Comparison::Equal, Operand::Lease(lease));
    conditions.push(Compare::absent(key));
    TxnRequest::when(vec![is_ours], put()).otherwise(Request::Txn(TxnRequest::when(conditions, put())))
}

/// Whether a claim was successful.
fn is_claimed(answer: &TxnResponse) -> bool {
    let otherwise = answer.responses.first().and_then(|response| response.response.as_ref());
    answer.succeeded || matches!(otherwise, Some(Response::Txn(created)) if created.succeeded)
}

#[async_trait]
impl Journal for Etcd {
    fn cluster(&self) -> Option<u64> {
        self.access.client.cluster()
    }

    async fn head(&self) -> Result<Option<Head>, Error> {
        Ok(self.access.head(0).await?.0)
    }

    async fn append(&self, after: Option<i64>, epoch: u64, state: &[u8], changes: &Changes) -> Result<Appended, Error> {
        let layout = &self.access.layout;
        let mut compare = vec![Compare::new(&layout.head(), Comparison::Equal, Operand::Mod(after.unwrap_or(0)))];
        if let Some(filled) = self.fill.condition(epoch) {
            compare.push(filled);
        } else if after.is_none() {
            // A process may have died that filled an epoch of this number.
            self.fill.clear_unused(epoch).await?;
            let first = layout.epoch(epoch);
            compare.push(Compare::absent(&first).up_to(end_of(&first)));
        }
        compare.extend(changes.silent.iter().map(|number| Compare::absent(&layout.live(*number))));
        let mut success = self.access.requests(epoch, changes);
        success.push(Request::Put(PutRequest::new(layout.head(), &layout::head_value(epoch, state))));
        let answer = self.access.call(TxnRequest::when(compare, success).otherwise(self.access.look())).await?;
        if answer.succeeded {
            self.fill.done(epoch).await;
            let revision = answer.header.map_or(0, |header| header.revision);
            return Ok(Appended::Done(Head { revision, epoch, state: state.to_vec() }));
        }
        let head = match answer.responses.first().and_then(|response| response.response.as_ref()) {
            Some(Response::Range(answer)) => self.access.head_of(answer)?,
            _ => {
                return Err(Error::Malformed("the answer of etcd to a transaction is not about its operations".into()));
            }
        };
        if head.as_ref().is_some_and(|head| head.epoch == epoch) {
            self.fill.done(epoch).await;
        }
        if head.as_ref().map(|head| head.revision) != after {
            return Ok(Appended::Overtaken(head));
        }
        if !changes.silent.is_empty() {
            return Ok(Appended::Live);
        }
        Err(Error::Malformed(format!(
            "nothing was written: another process writes the epoch {epoch:x}; begin another one"
        )))
    }

    async fn load(&self, each: &mut Each<'_>) -> Result<Option<(Head, Seals)>, Error> {
        let (Some(head), revision) = self.access.head(0).await? else { return Ok(None) };
        let first = self.access.layout.epoch(head.epoch);
        let (mut seals, mut bytes) = (Seals::new(), 0);
        let mut take = |kv: &KeyValue| {
            let is_fine = match Entry::parse(kv.key.get(first.len()..).unwrap_or_default())? {
                Entry::Record(id) => each(&id, &kv.value),
                Entry::Seal(name) => {
                    bytes += name.len() + kv.value.len();
                    seals.insert(name.to_owned(), kv.value.clone());
                    bytes <= SEALS
                }
            };
            if is_fine { Ok(()) } else { Err(Error::Malformed("what is in etcd was not written by a node".into())) }
        };
        self.access.pages(first.clone(), end_of(&first), revision, &mut take).await?;
        Ok(Some((head, seals)))
    }

    async fn follow(&self, after: &Head) -> Result<Box<dyn Follow>, Error> {
        Ok(Box::new(Following::begin(self.access.clone(), after).await?))
    }

    async fn fill(&self, epoch: u64, changes: &Changes) -> Result<(), Error> {
        self.fill.write(epoch, changes, self.operations).await
    }

    async fn clear_but(&self, epoch: u64) -> Result<(), Error> {
        self.fill.clear_but(epoch).await
    }

    async fn live(&self) -> Result<BTreeMap<u32, Vec<u8>>, Error> {
        let key = self.access.layout.lives();
        let range_end = end_of(&key);
        let range = RangeRequest { key, range_end, limit: MEMBERS, ..RangeRequest::default() };
        let mut answer = self.access.call(range).await?;
        let live = answer.kvs.iter_mut().filter_map(|kv| {
            let number = self.access.layout.live_of(&kv.key)?;
            Some((number, std::mem::take(&mut kv.value)))
        });
        Ok(live.collect())
    }

    async fn say(&self, number: u32, what: Vec<u8>) -> Result<Said, Error> {
        self.voice.say(number, what).await
    }

    async fn leave(&self) {
        self.voice.leave().await;
    }

    /// The head is one more key.
    fn most_changes(&self) -> usize {
        self.operations - 1
    }
}
