//! etcd as key store: each key is a key of etcd below a prefix, with the stored key as its value.

mod batch;
mod config;

use std::fmt;
use std::time::{Duration, Instant};

use async_trait::async_trait;

pub use self::config::Config;

use super::{About, Access, Error, KeyStore, Listing};
use crate::crypto::Blob;
use crate::etcd::message::{
    Call, Compare, Comparison, DeleteRangeRequest, KeyValue, MemberListRequest, Operand, PutRequest, RangeRequest,
    RangeResponse, Request, Response, StatusRequest, TxnRequest,
};
use crate::etcd::{self, Client, Prefix};
use crate::name::KeyName;

/// The most keys in a page of a listing.
const PAGE: i64 = 1_000;

/// How often a listing begins again because etcd was compacted meanwhile.
const LISTINGS: usize = 3;

/// The keys below one prefix of one cluster.
#[derive(Debug)]
pub struct Store {
    client: Client,
    endpoints: String,
    prefix: Prefix,
    user: String,
    warnings: Vec<String>,
}

impl Store {
    /// Checks that a quorum of the cluster answers.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        let client = Client::new(&config.etcd).map_err(|error| Error::Failed(error.into()))?;
        let endpoints: Vec<_> = config.etcd.endpoints.iter().map(ToString::to_string).collect();
        let user = config.etcd.credentials.as_ref().map_or("USER", |user| &user.username).to_owned();
        let (endpoints, prefix) = (endpoints.join(","), config.prefix.clone());
        let mut store = Self { client, endpoints, prefix, user, warnings: Vec::new() };
        store.has_quorum().await?;
        store.warnings = store.find_risks().await?;
        Ok(store)
    }

    fn key(&self, name: &KeyName) -> Vec<u8> {
        format!("{}{name}", self.prefix.as_str()).into_bytes()
    }

    async fn call<C: Call>(&self, request: C) -> Result<C::Answer, Error> {
        self.client.call(request).await.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: etcd::Error) -> Error {
        match error {
            etcd::Error::Unreachable(trouble) => Error::Unreachable(trouble.into()),
            etcd::Error::Denied(trouble) => Error::Failed(format!("{trouble}; {}", self.rights("readwrite")).into()),
            error => Error::Failed(error.into()),
        }
    }

    /// The commands that give the user these rights.
    fn rights(&self, kind: &str) -> String {
        let (prefix, user) = (self.prefix.as_str(), &self.user);
        format!(
            "grant it, as root of etcd: etcdctl role add claviger; etcdctl role grant-permission claviger --prefix=true \
             {kind} {prefix}; etcdctl user grant-role {user} claviger"
        )
    }

    /// Reads a key that nobody has. A member without a quorum cannot answer that.
    async fn has_quorum(&self) -> Result<(), Error> {
        let key = self.prefix.as_str().into();
        self.call(RangeRequest { key, keys_only: true, ..RangeRequest::default() }).await.map(drop)
    }

    /// What works, and is dangerous.
    async fn find_risks(&self) -> Result<Vec<String>, Error> {
        let mut risks = Vec::new();
        if !self.client.has_users().await.map_err(|error| self.failed(error))? {
            risks.push(
                "etcd knows no users: everybody who reaches it can read and delete every key; enable authentication \
                 ('etcdctl auth enable'), and seal the keys with keystore.encrypt"
                    .into(),
            );
        }
        // A user may lack the right to ask for either; then nothing is said.
        if let Ok(list) = self.client.call(MemberListRequest {}).await
            && list.members.iter().filter(|member| !member.is_learner).count() < 3
        {
            risks.push(
                "the etcd cluster has fewer than three voting members: when one is lost it stands still, or its disk was \
                 the only copy of the keys; run three or five"
                    .into(),
            );
        }
        if let Ok(status) = self.client.call(StatusRequest {}).await
            && status.errors.iter().any(|error| error.contains("NOSPACE"))
        {
            risks.push(
                "etcd is full and creates no key: compact and defragment it or raise --quota-backend-bytes, then \
                 'etcdctl alarm disarm'"
                    .into(),
            );
        }
        Ok(risks)
    }

    /// Asks with a transaction that writes and whose conditions contradict each other: etcd checks the rights to it, and
    /// does nothing.
    async fn may_write(&self) -> Result<(), Error> {
        let key = format!("{}claviger-check", self.prefix.as_str()).into_bytes();
        let compare = vec![Compare::absent(&key), Compare::new(&key, Comparison::NotEqual, Operand::Create(0))];
        let success = vec![Request::Put(PutRequest::new(key, &[])).into()];
        self.call(TxnRequest { compare, success, failure: Vec::new() }).await.map(drop)
    }

    /// One attempt at a listing.
    async fn list_once(&self, prefix: &str) -> Result<Listing, etcd::Error> {
        let mut listing = Listing::default();
        let first = format!("{}{prefix}", self.prefix.as_str()).into_bytes();
        let mut page =
            RangeRequest { range_end: end_of(&first), key: first, limit: PAGE, keys_only: true, revision: 0 };
        loop {
            let answer = self.client.call(page.clone()).await?;
            for kv in &answer.kvs {
                let name = kv.key.get(self.prefix.as_str().len()..).unwrap_or_default();
                listing.insert(&String::from_utf8_lossy(name));
            }
            let Some(last) = answer.kvs.last().filter(|_| answer.more) else { return Ok(listing.sorted()) };
            // The rest is read as it was then, so that no key is missed or listed twice.
            page.revision = answer.header.unwrap_or_default().revision;
            page.key = [&last.key[..], &[0]].concat();
        }
    }
}

/// A transaction that stores a value under a free key.
fn create(key: Vec<u8>, value: &Blob) -> TxnRequest {
    let compare = vec![Compare::absent(&key)];
    TxnRequest::when(compare, vec![Request::Put(PutRequest::new(key, value.expose()))])
}

/// The value of a range that asks for one key.
fn value_of(key: &[u8], mut answer: RangeResponse) -> Result<Blob, Error> {
    match &mut answer.kvs[..] {
        [] => Err(Error::NotFound),
        [KeyValue { key: found, value, .. }] if found == key => Ok(std::mem::take(value).into()),
        _ => Err(Error::Failed("the answer of etcd is about another key".into())),
    }
}

/// The first key after all that begin with `prefix`.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    // All are ASCII, so the last byte can be increased.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "etcd: {}, prefix '{}'", self.endpoints, self.prefix.as_str())
    }
}

#[async_trait]
impl KeyStore for Store {
    /// One transaction, on the condition that there is no such key.
    async fn create(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        match self.call(create(self.key(name), value)).await?.succeeded {
            true => Ok(()),
            false => Err(Error::Exists),
        }
    }

    /// A linearizable read: a member asks the others whether it is up to date.
    async fn get(&self, name: &KeyName) -> Result<Blob, Error> {
        let key = self.key(name);
        let answer = self.call(RangeRequest { key: key.clone(), ..RangeRequest::default() }).await?;
        value_of(&key, answer)
    }

    /// One transaction, on the condition that the value is the expected one.
    async fn replace(&self, name: &KeyName, expected: &Blob, value: &Blob) -> Result<(), Error> {
        let key = self.key(name);
        let compare = vec![Compare::new(&key, Comparison::Equal, Operand::Value(expected.expose().into()))];
        let put = PutRequest::new(key.clone(), value.expose());
        let look = RangeRequest { key, keys_only: true, ..RangeRequest::default() };
        let failure = vec![Request::Range(look).into()];
        let answer = self.call(TxnRequest { compare, success: vec![Request::Put(put).into()], failure }).await?;
        if answer.succeeded {
            return Ok(());
        }
        match answer.responses.first().and_then(|response| response.response.as_ref()) {
            Some(Response::Range(found)) if found.kvs.is_empty() => Err(Error::NotFound),
            _ => Err(Error::Failed("the key has another value than expected".into())),
        }
    }

    async fn delete(&self, name: &KeyName) -> Result<(), Error> {
        let key = self.key(name);
        match self.call(DeleteRangeRequest { key, range_end: Vec::new() }).await?.deleted {
            0 => Err(Error::NotFound),
            _ => Ok(()),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        let mut tries = 1;
        loop {
            match self.list_once(prefix).await {
                Err(etcd::Error::Compacted(_)) if tries < LISTINGS => tries += 1,
                Err(etcd::Error::Compacted(trouble)) => return Err(Error::Unreachable(trouble.into())),
                listing => return listing.map_err(|error| self.failed(error)),
            }
        }
    }

    async fn status(&self) -> Result<Duration, Error> {
        let asked = Instant::now();
        self.has_quorum().await?;
        Ok(asked.elapsed())
    }

    fn behind(&self) -> Option<&dyn KeyStore> {
        None
    }

    /// The cluster's own id is the same at every address.
    fn about(&self) -> About<'_> {
        let cluster = self.client.cluster().unwrap_or_default();
        let identity = format!("etcd: cluster {cluster:x}, prefix '{}'", self.prefix.as_str());
        About { warnings: &self.warnings, ..About::named(identity) }
    }

    async fn check(&self, access: Access) -> Result<(), Error> {
        let first = self.prefix.as_str().as_bytes().to_vec();
        let all = RangeRequest { range_end: end_of(&first), key: first, limit: 1, keys_only: true, revision: 0 };
        self.call(all).await?;
        if access >= Access::Create {
            self.may_write().await?;
        }
        Ok(())
    }

    fn batch(&self) -> usize {
        batch::MOST
    }

    async fn get_batch(&self, names: &[KeyName]) -> Vec<Result<Blob, Error>> {
        batch::get(self, names).await
    }

    async fn create_batch(&self, keys: &[(&KeyName, &Blob)]) -> Vec<Result<(), Error>> {
        batch::create(self, keys).await
    }
}
