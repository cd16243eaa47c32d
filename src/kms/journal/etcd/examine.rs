//! What the doctor looks at. It changes nothing.

use std::time::Duration;

use tokio::time::Instant;

use super::layout::{Entry, end_of};
use super::{Etcd, Journal as _, Refusal};
use crate::etcd::message::{KeyValue, PutRequest, Request, StatusRequest};
use crate::foreign::{cut, printable};
use crate::kms::record::{Cipher, Place, Record};
use crate::kms::seal::{self, Providers};
use crate::kms::store::Seals;

/// How large the largest transaction is that a node sends, with something to spare.
const LARGE: usize = 1_200_000;

/// How many commits are measured.
const ROUNDS: usize = 11;

/// A member of etcd.
#[derive(Debug)]
pub struct Member {
    /// Where it is.
    pub endpoint: String,
    /// The version of etcd.
    pub version: String,
    /// How large its file is, in bytes.
    pub bytes: u64,
    /// How large its file may be, in bytes; 0: it does not say.
    pub quota: u64,
}

impl Etcd {
    /// The members that answer.
    pub async fn answering(&self) -> Vec<Member> {
        let answers = self.access.client.ask_all(&StatusRequest {}).await.into_iter();
        let member = |(endpoint, answer): (String, Result<_, _>)| {
            let status: crate::etcd::message::StatusResponse = answer.ok()?;
            let (bytes, quota) = (status.db_size.try_into().ok()?, status.db_size_quota.try_into().ok()?);
            Some(Member { endpoint, version: cut(&printable(&status.version), 40).into_owned(), bytes, quota })
        };
        answers.filter_map(member).collect()
    }

    /// Whether etcd takes transactions as large as those of a node.
    ///
    /// # Errors
    /// Why not.
    pub async fn takes_large(&self) -> Result<(), Refusal> {
        let put = PutRequest::new(self.access.layout.probe(), &vec![0; LARGE]);
        let answer = self.access.client.call(self.never(vec![Request::Put(put)])).await;
        answer.map(drop).map_err(|error| self.refusal(error))
    }

    /// How long a commit takes: the median of some.
    ///
    /// # Errors
    /// When one fails.
    pub async fn latency(&self) -> Result<Duration, Refusal> {
        let mut took = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let (begin, put) = (Instant::now(), PutRequest::new(self.access.layout.probe(), &[0; 500]));
            let answer = self.access.client.call(self.never(vec![Request::Put(put)])).await;
            answer.map_err(|error| self.refusal(error))?;
            took.push(begin.elapsed());
        }
        took.sort_unstable();
        Ok(took[ROUNDS / 2])
    }

    /// How many members of the cluster are live.
    ///
    /// # Errors
    /// When etcd does not answer.
    pub async fn count_live(&self) -> Result<usize, Refusal> {
        Ok(self.live().await?.len())
    }

    /// Opens the head with one of these providers. Returns the number of commits and of records; none: nothing was ever
    /// written. It may block, so async tasks that others wait for must not call it with providers on other machines.
    ///
    /// # Errors
    /// Why it does not open.
    pub async fn open_head(&self, providers: &Providers) -> Result<Option<(u64, u64)>, Refusal> {
        let (Some(head), revision) = self.access.head(0).await? else { return Ok(None) };
        let epoch = self.access.layout.epoch(head.epoch);
        let (first, mut seals) = (self.access.layout.seal(head.epoch, ""), Seals::new());
        let mut take = |kv: &KeyValue| {
            if let Entry::Seal(name) = Entry::parse(kv.key.get(epoch.len()..).unwrap_or_default())? {
                seals.insert(name.to_owned(), kv.value.clone());
            }
            Ok(())
        };
        self.access.pages(first.clone(), end_of(&first), revision, &mut take).await?;
        let root = seal::unseal(&seals, providers).map_err(|error| Refusal::Wrong(error.to_string()))?;
        let cipher = Cipher::new(&root);
        match cipher.open(&cipher.id(&Place::state()), &head.state) {
            Ok(Record::State(state)) => Ok(Some((state.commit, state.records))),
            Ok(Record::MovedOut(_, host)) => {
                Err(Refusal::Wrong(format!("the data was moved out, to '{}'", printable(&host))))
            }
            Ok(_) => Err(Refusal::Wrong("the head is another record".into())),
            Err(damaged) => Err(Refusal::Wrong(format!("the head does not open: {damaged}"))),
        }
    }
}

impl From<super::Error> for Refusal {
    fn from(error: super::Error) -> Self {
        match error {
            super::Error::Unreachable(_) => Self::Unreachable(error.to_string()),
            error => Self::Wrong(error.to_string()),
        }
    }
}
