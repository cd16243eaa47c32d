//! Counts the requests to a key store, their errors, and the time that they take.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::{Error, KeyStore, Listing};
use crate::clock;
use crate::crypto::Blob;
use crate::name::KeyName;
use crate::telemetry::histogram::Histogram;
use crate::telemetry::metrics::Text;

/// Counts what a server asks of a store: creates, reads, deletes, lists, and signs of life. Each attempt counts.
pub struct Measured {
    store: Arc<dyn KeyStore>,
    calls: Arc<Calls>,
}

/// What there was of each kind of call.
#[derive(Debug, Default)]
pub struct Calls {
    create: Call,
    get: Call,
    delete: Call,
    list: Call,
    status: Call,
}

#[derive(Debug, Default)]
struct Call {
    times: Histogram,
    errors: AtomicU64,
}

impl Measured {
    /// The same store.
    pub fn new(store: Arc<dyn KeyStore>) -> Self {
        Self { store, calls: Arc::default() }
    }

    /// What is counted, from now on.
    pub fn calls(&self) -> Arc<Calls> {
        self.calls.clone()
    }
}

impl Calls {
    /// Writes times and errors by operation.
    pub fn write(&self, text: &mut Text) {
        let Self { create, get, delete, list, status } = self;
        let all = [("create", create), ("get", get), ("delete", delete), ("list", list), ("status", status)];
        let name = "claviger_keystore_request_duration_seconds";
        text.family(name, "histogram", "Time that the key store takes for a request, by operation.");
        for (operation, call) in all {
            call.times.write(text, name, "operation", operation);
        }
        let name = "claviger_keystore_request_errors_total";
        text.family(name, "counter", "Requests that the key store refused or did not answer, by operation.");
        for (operation, call) in all {
            text.labelled(name, "operation", &operation, call.errors.load(Ordering::Relaxed));
        }
    }
}

impl Call {
    /// Counts this call. That a key exists or does not is an answer like any other; a call that is given up has none.
    async fn count<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let mut pending = Pending { call: self, since: clock::instant(), answered: false };
        let answer = call.await;
        pending.answered = !matches!(answer, Err(Error::Unreachable(_) | Error::Failed(_)));
        answer
    }
}

/// A call under way. Counts it when dropped, so also when it is given up.
struct Pending<'a> {
    call: &'a Call,
    since: Instant,
    answered: bool,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.call.times.record(clock::instant().saturating_duration_since(self.since));
        if !self.answered {
            self.call.errors.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

#[async_trait]
impl KeyStore for Measured {
    async fn create(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        self.calls.create.count(self.store.create(name, value)).await
    }

    async fn get(&self, name: &KeyName) -> Result<Blob, Error> {
        self.calls.get.count(self.store.get(name)).await
    }

    async fn replace(&self, name: &KeyName, expected: &Blob, value: &Blob) -> Result<(), Error> {
        self.store.replace(name, expected, value).await
    }

    async fn delete(&self, name: &KeyName) -> Result<(), Error> {
        self.calls.delete.count(self.store.delete(name)).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        self.calls.list.count(self.store.list(prefix)).await
    }

    async fn status(&self) -> Result<Duration, Error> {
        self.calls.status.count(self.store.status()).await
    }

    fn behind(&self) -> Option<&dyn KeyStore> {
        Some(&*self.store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn refusals_silence_and_what_is_given_up_are_errors_and_answers_are_not() {
        let calls = Calls::default();
        let get = async |answer| calls.get.count(std::future::ready(answer)).await.is_ok();
        assert!(get(Ok(())).await);
        assert!(!get(Err(Error::NotFound)).await);
        assert!(!get(Err(Error::Exists)).await);
        assert!(!get(Err(Error::Failed("denied".into()))).await);
        assert!(!get(Err(Error::Unreachable("silence".into()))).await);
        let silent = calls.get.count(std::future::pending::<Result<(), Error>>());
        assert!(tokio::time::timeout(Duration::from_millis(1), silent).await.is_err());
        let mut text = Text::default();
        calls.write(&mut text);
        let text = text.finish();
        for line in [
            "claviger_keystore_request_duration_seconds_count{operation=\"get\"} 6",
            "claviger_keystore_request_errors_total{operation=\"get\"} 3",
            "claviger_keystore_request_duration_seconds_count{operation=\"list\"} 0",
            "claviger_keystore_request_errors_total{operation=\"list\"} 0",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line} in\n{text}");
        }
    }
}
