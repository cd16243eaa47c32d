//! Wrappers pass on what they do not change.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use time::OffsetDateTime;

use super::{
    About, Access, Charged, Error, Kept, KeyStore, Listing, Measured, Retry, Seal, Sealed, Waits, conformance, mem,
};
use crate::crypto::Blob;
use crate::name::KeyName;

const CHARGED: Charged = Charged { by: "somebody", create: 1, get: 1, replace: 1, page: None, keeps: false };

/// A store that notes which of the optional methods were called.
struct Noting {
    keys: mem::Store,
    calls: Arc<Mutex<Vec<&'static str>>>,
    warnings: [String; 1],
}

impl Noting {
    fn note(&self, call: &'static str) {
        self.calls.lock().expect("no test panicked").push(call);
    }
}

impl fmt::Display for Noting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("noting")
    }
}

#[async_trait]
impl KeyStore for Noting {
    async fn create(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        self.keys.create(name, value).await
    }
    async fn get(&self, name: &KeyName) -> Result<Blob, Error> {
        self.keys.get(name).await
    }
    async fn replace(&self, name: &KeyName, expected: &Blob, value: &Blob) -> Result<(), Error> {
        self.keys.replace(name, expected, value).await
    }
    async fn delete(&self, name: &KeyName) -> Result<(), Error> {
        self.keys.delete(name).await
    }
    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        self.keys.list(prefix).await
    }
    async fn status(&self) -> Result<Duration, Error> {
        self.keys.status().await
    }
    fn behind(&self) -> Option<&dyn KeyStore> {
        None
    }
    fn about(&self) -> About<'_> {
        About {
            clock: Box::pin(async { Ok(Some(OffsetDateTime::UNIX_EPOCH)) }),
            warnings: &self.warnings,
            charges: vec![CHARGED],
            token_age: Some(Duration::from_secs(7)),
            ..About::named("its identity".into())
        }
    }
    async fn settle(&self, _: &Waits) -> Result<(), Error> {
        self.note("settle");
        Ok(())
    }
    async fn check(&self, _: Access) -> Result<(), Error> {
        self.note("check");
        Ok(())
    }
    async fn rehearse(&self, _: &KeyName, _: &Blob) -> Result<(), Error> {
        self.note("rehearse");
        Ok(())
    }
}

/// Every wrapper over a store of its own that notes, and the notes.
async fn wrappers() -> Vec<(&'static str, Arc<dyn KeyStore>, Arc<Mutex<Vec<&'static str>>>)> {
    let (mut wrappers, seal) = (Vec::new(), async || Seal::connect(None).await.expect("nobody to connect to"));
    for wrapper in ["measured", "retry", "sealed", "kept"] {
        let calls = Arc::default();
        let warnings = ["a warning".to_owned()];
        let store = Noting { keys: mem::Store::default(), calls: Arc::clone(&calls), warnings };
        let wrapped: Arc<dyn KeyStore> = match wrapper {
            "measured" => Arc::new(Measured::new(Arc::new(store))),
            "retry" => Arc::new(Retry::new(Arc::new(store))),
            "sealed" => Arc::new(Sealed::new(Arc::new(store), seal().await)),
            _ => Arc::new(Kept::new(store)),
        };
        wrappers.push((wrapper, wrapped, calls));
    }
    wrappers
}

#[tokio::test]
async fn every_wrapper_passes_the_suite() {
    for (_, store, _) in wrappers().await {
        conformance::run(&*store).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_wrapper_does_not_change_reaches_the_store_behind() {
    let (name, value) = (KeyName::parse("my-key").expect("valid"), Blob::from(b"value".to_vec()));
    for (wrapper, store, calls) in wrappers().await {
        store.check(Access::Replace).await.expect("checked");
        store.rehearse(&name, &value).await.expect("rehearsed");
        store.settle(&Waits::default()).await.expect("settled");
        assert_eq!(*calls.lock().expect("no test panicked"), ["check", "rehearse", "settle"], "{wrapper}");

        let about = store.about();
        assert_eq!(about.identity.await.expect("told"), "its identity", "{wrapper}");
        assert_eq!(about.clock.await.expect("told"), Some(OffsetDateTime::UNIX_EPOCH), "{wrapper}");
        assert_eq!(about.warnings, ["a warning"], "{wrapper}");
        assert_eq!(about.charges.len(), 1, "{wrapper}");
        assert_eq!(about.charges[0].by, CHARGED.by, "{wrapper}");
        assert_eq!(about.token_age, Some(Duration::from_secs(7)), "{wrapper}");
        assert_eq!(store.to_string(), "noting", "{wrapper}");
    }
}
