//! What a member says: a key under a lease, which ends soon after the process.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio_util::task::AbortOnDropHandle;

use super::{Access, Error, Said, claim, is_claimed};
use crate::etcd;
use crate::etcd::message::{LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest};

/// How long a member that is not heard of is live, in seconds, and how often it says so.
const LEASE: i64 = 10;
const KEEP: Duration = Duration::from_secs(3);

/// Says what this process has to say.
pub(super) struct Voice {
    speaker: Arc<Speaker>,
    keeper: std::sync::Mutex<Option<AbortOnDropHandle<()>>>,
}

struct Speaker {
    access: Arc<Access>,
    /// Held by whoever speaks.
    speech: Mutex<Option<Speech>>,
}

/// The last thing that was to be said.
struct Speech {
    number: u32,
    what: Vec<u8>,
    /// None: none yet, or it has ended.
    lease: Option<i64>,
}

impl Voice {
    pub(super) fn new(access: Arc<Access>) -> Self {
        let speaker = Arc::new(Speaker { access, speech: Mutex::new(None) });
        Self { speaker, keeper: std::sync::Mutex::new(None) }
    }

    pub(super) async fn say(&self, number: u32, what: Vec<u8>) -> Result<Said, Error> {
        let said = self.speaker.say(number, what).await;
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        if keeper.is_none() {
            *keeper = Some(AbortOnDropHandle::new(tokio::spawn(keep(self.speaker.clone()))));
        }
        said
    }

    pub(super) async fn leave(&self) {
        drop(self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take());
        let speech = self.speaker.speech.lock().await.take();
        self.speaker.end(speech).await;
    }
}

impl Speaker {
    async fn say(&self, number: u32, what: Vec<u8>) -> Result<Said, Error> {
        let mut speech = self.speech.lock().await;
        if speech.as_ref().is_some_and(|speech| speech.number != number) {
            self.end(speech.take()).await;
        }
        let lease = speech.as_ref().and_then(|speech| speech.lease);
        let said = self.speak(speech.insert(Speech { number, what, lease })).await;
        if let Ok(Said::Taken) = said {
            self.end(speech.take()).await;
        }
        said
    }

    /// Says it under the lease, or under another one if that has ended.
    async fn speak(&self, speech: &mut Speech) -> Result<Said, Error> {
        loop {
            let old = speech.lease;
            let lease = match old {
                Some(lease) => lease,
                None => self.access.call(LeaseGrantRequest { ttl: LEASE }).await?.id,
            };
            // It is kept even if the answer is lost: the key tells by it who has written it.
            speech.lease = Some(lease);
            let claim = claim(&self.access.layout.live(speech.number), &speech.what, lease, Vec::new());
            match self.access.client.call(claim).await {
                Ok(answer) if is_claimed(&answer) => return Ok(Said::Done),
                Ok(_) => return Ok(Said::Taken),
                Err(etcd::Error::NoLease(_)) if old.is_some() => speech.lease = None,
                Err(error) => return Err(self.access.failed(error)),
            }
        }
    }

    /// Stops saying something.
    async fn end(&self, speech: Option<Speech>) {
        if let Some(id) = speech.and_then(|speech| speech.lease) {
            // Else it ends by itself.
            let _ = self.access.client.call(LeaseRevokeRequest { id }).await;
        }
    }

    /// Lets the lease begin anew; says everything again if it has ended.
    async fn keep(&self) {
        let mut speech = self.speech.lock().await;
        let Some(speech) = speech.as_mut() else { return };
        if let Some(id) = speech.lease {
            match self.access.client.call(LeaseKeepAliveRequest { id }).await {
                Ok(kept) if kept.ttl <= 0 => speech.lease = None,
                _ => return,
            }
        }
        // If that fails or the member is another process by now, the next one who says something is told.
        let _ = self.speak(speech).await;
    }
}

async fn keep(speaker: Arc<Speaker>) {
    loop {
        tokio::time::sleep(KEEP).await;
        speaker.keep().await;
    }
}
