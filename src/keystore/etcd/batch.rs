//! Many keys in one transaction. It has no condition itself: each key has one of its own, and an answer of its own.

use std::collections::HashSet;

use super::{Store, create as create_one, value_of};
use crate::crypto::Blob;
use crate::etcd::message::{RangeRequest, Request, RequestOp, Response, ResponseOp, TxnRequest};
use crate::keystore::{Error, KeyStore as _};
use crate::name::KeyName;

/// The most keys in a transaction. etcd takes 128 operations, unless it is told otherwise.
pub(super) const MOST: usize = 100;

/// The most bytes of values in a transaction. etcd takes requests of 1.5 MiB.
const MOST_BYTES: usize = 1 << 20;

pub(super) async fn get(store: &Store, names: &[KeyName]) -> Vec<Result<Blob, Error>> {
    let mut answers = Vec::with_capacity(names.len());
    for names in names.chunks(MOST) {
        match get_some(store, names).await {
            Ok(some) => answers.extend(some),
            // Together the values may be too large for one answer.
            Err(_) => {
                for name in names {
                    answers.push(store.get(name).await);
                }
            }
        }
    }
    answers
}

async fn get_some(store: &Store, names: &[KeyName]) -> Result<Vec<Result<Blob, Error>>, Error> {
    let keys: Vec<_> = names.iter().map(|name| store.key(name)).collect();
    let read = |key: &Vec<u8>| Request::Range(RangeRequest { key: key.clone(), ..RangeRequest::default() }).into();
    let responses = run(store, keys.iter().map(read).collect()).await?;
    let answers = keys.iter().zip(responses).map(|(key, response)| match response.response {
        Some(Response::Range(answer)) => value_of(key, answer),
        _ => Err(no_answer()),
    });
    Ok(answers.collect())
}

pub(super) async fn create(store: &Store, keys: &[(&KeyName, &Blob)]) -> Vec<Result<(), Error>> {
    let mut answers = Vec::with_capacity(keys.len());
    let mut rest = keys;
    while !rest.is_empty() {
        let (some, others) = rest.split_at(fitting(rest));
        match create_some(store, some).await {
            Ok(created) => answers.extend(created),
            Err(error) => answers.extend(for_each(error, some.len())),
        }
        rest = others;
    }
    answers
}

/// How many of these keys go into one transaction. It takes no name twice.
fn fitting(keys: &[(&KeyName, &Blob)]) -> usize {
    let (mut names, mut bytes) = (HashSet::new(), 0);
    for (name, value) in keys {
        bytes += value.expose().len();
        if names.len() == MOST || bytes > MOST_BYTES || !names.insert(name.as_str()) {
            break;
        }
    }
    names.len().max(1)
}

async fn create_some(store: &Store, keys: &[(&KeyName, &Blob)]) -> Result<Vec<Result<(), Error>>, Error> {
    let creates = keys.iter().map(|(name, value)| Request::Txn(create_one(store.key(name), value)).into());
    let responses = run(store, creates.collect()).await?;
    let answers = responses.into_iter().map(|response| match response.response {
        Some(Response::Txn(answer)) if answer.succeeded => Ok(()),
        Some(Response::Txn(_)) => Err(Error::Exists),
        _ => Err(no_answer()),
    });
    Ok(answers.collect())
}

/// Does these operations in one step. Returns an answer for each.
async fn run(store: &Store, operations: Vec<RequestOp>) -> Result<Vec<ResponseOp>, Error> {
    let count = operations.len();
    let answer = store.call(TxnRequest { compare: Vec::new(), success: operations, failure: Vec::new() }).await?;
    if answer.responses.len() == count { Ok(answer.responses) } else { Err(no_answer()) }
}

/// The same failure for each key.
fn for_each(error: Error, count: usize) -> Vec<Result<(), Error>> {
    let text = crate::telemetry::log::causes(&error);
    let same = || match &error {
        Error::Unreachable(_) => Error::Unreachable(text.clone().into()),
        _ => Error::Failed(text.clone().into()),
    };
    (0..count).map(|_| Err(same())).collect()
}

fn no_answer() -> Error {
    Error::Failed("the answer of etcd to a transaction is not about its operations".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_has_no_name_twice_and_is_neither_long_nor_large() {
        let name = |text: &str| KeyName::parse(text).expect("valid");
        let (small, large) = (Blob::from(vec![1; 10]), Blob::from(vec![1; 400_000]));
        let names: Vec<_> = (0..150).map(|n| name(&format!("key-{n}"))).collect();
        let of = |value: &'static Blob| names.iter().map(move |name| (name, value)).collect::<Vec<_>>();
        let (small, large): (&Blob, &Blob) = (Box::leak(Box::new(small)), Box::leak(Box::new(large)));
        assert_eq!(fitting(&of(small)), MOST);
        assert_eq!(fitting(&of(large)), 2);
        let (a, b) = (name("a"), name("b"));
        assert_eq!(fitting(&[(&a, small), (&b, small), (&a, small)]), 2);
        let huge = Blob::from(vec![1; 2 * MOST_BYTES]);
        assert_eq!(fitting(&[(&a, &huge), (&b, small)]), 1, "one alone is etcd's to judge");
    }
}
