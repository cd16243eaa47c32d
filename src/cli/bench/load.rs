//! Makes the load: connections, concurrent requests on each, and the outcome of every request.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use tokio::task::LocalSet;
use zeroize::Zeroizing;

use super::mix::{Mix, Op};
use crate::api::wire::{DecryptRequest, EncryptRequest, GenerateRequest};
use crate::client::Client;
use crate::client::link::{Link, Prepared, Protocol, Refusal};
use crate::crypto::json::Bytes;

/// The longest answer that is told from longer ones, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;

/// What to measure.
pub(super) struct Plan {
    pub(super) mix: Mix,
    pub(super) connections: usize,
    pub(super) streams: usize,
    pub(super) protocol: Protocol,
    pub(super) duration: Duration,
    pub(super) count: u64,
    pub(super) warmup: Duration,
    /// Bytes to encrypt.
    pub(super) size: usize,
}

/// What was measured.
pub(super) struct Load {
    pub(super) tallies: BTreeMap<usize, Tally>,
    /// How often each failure was seen.
    pub(super) failures: BTreeMap<String, u64>,
    pub(super) took: Duration,
    /// CPU time of this process.
    pub(super) cpu: Duration,
}

/// The requests of one kind.
pub(super) struct Tally {
    pub(super) op: Op,
    /// Nanoseconds until each answer, failures included.
    pub(super) times: Histogram<u64>,
    pub(super) succeeded: u64,
}

/// One kind of request, once for every key.
struct Requests(Vec<(Op, Vec<Prepared>)>);

/// What all senders share. They run on one thread.
struct Shared {
    requests: Requests,
    sequence: Vec<(usize, Op)>,
    begins: Instant,
    ends: Instant,
    left: RefCell<u64>,
    tallies: RefCell<BTreeMap<usize, Tally>>,
    failures: RefCell<BTreeMap<String, u64>>,
}

impl Load {
    /// Sends requests as planned, for the keys with these names.
    pub(super) async fn run(client: &Client, plan: &Plan, keys: &[String]) -> anyhow::Result<Self> {
        let requests = Requests::prepare(client, plan, keys).await?;
        let mut links = Vec::with_capacity(plan.connections * plan.streams);
        for _ in 0..plan.connections {
            let link = client.link(plan.protocol).await.context("failed to open a connection")?;
            for _ in 1..plan.streams {
                let Some(shared) = link.share() else { bail!("the server does not speak HTTP/2 on this connection") };
                links.push(shared);
            }
            links.push(link);
        }
        let begins = Instant::now() + plan.warmup;
        let shared = Rc::new(Shared::new(plan, requests, begins));
        let local = LocalSet::new();
        for (nth, link) in links.into_iter().enumerate() {
            local.spawn_local(send(shared.clone(), link, nth));
        }
        let before = Rc::new(RefCell::new(Duration::ZERO));
        local.spawn_local({
            let before = before.clone();
            async move {
                tokio::time::sleep_until(begins.into()).await;
                *before.borrow_mut() = cpu_time();
            }
        });
        local.await;
        let took = Instant::now().saturating_duration_since(begins);
        let cpu = cpu_time().saturating_sub(*before.borrow());
        let shared = Rc::into_inner(shared).expect("all senders have ended");
        let (tallies, failures) = (shared.tallies.into_inner(), shared.failures.into_inner());
        Ok(Self { tallies, failures, took, cpu })
    }
}

impl Shared {
    fn new(plan: &Plan, requests: Requests, begins: Instant) -> Self {
        let index = |op: &Op| requests.0.iter().position(|(other, _)| other == op).expect("prepared");
        let sequence: Vec<_> = plan.mix.sequence().iter().map(|op| (index(op), *op)).collect();
        let tally = |(index, op): &(usize, Op)| {
            let times = Histogram::new_with_bounds(1, LONGEST, 3).expect("the bounds are in order");
            (*index, Tally { op: *op, times, succeeded: 0 })
        };
        Self {
            tallies: RefCell::new(sequence.iter().map(tally).collect()),
            requests,
            sequence,
            begins,
            ends: begins + plan.duration,
            left: RefCell::new(plan.count),
            failures: RefCell::default(),
        }
    }

    /// Whether there is one more request to send.
    fn take(&self, now: Instant) -> bool {
        if now >= self.ends {
            return false;
        }
        let mut left = self.left.borrow_mut();
        // What warms up is not counted.
        if now >= self.begins {
            if *left == 0 {
                return false;
            }
            *left -= 1;
        }
        true
    }

    fn note(&self, index: usize, took: Duration, failure: Option<String>) {
        if let Some(tally) = self.tallies.borrow_mut().get_mut(&index) {
            tally.times.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(LONGEST));
            tally.succeeded += u64::from(failure.is_none());
        }
        if let Some(failure) = failure {
            *self.failures.borrow_mut().entry(failure).or_default() += 1;
        }
    }
}

/// Sends one request after the other until it is over, or the connection is.
async fn send(shared: Rc<Shared>, mut link: Link, nth: usize) {
    for step in nth.. {
        let started = Instant::now();
        if !shared.take(started) {
            return;
        }
        let (index, _) = shared.sequence[step % shared.sequence.len()];
        let requests = &shared.requests.0[index].1;
        let answered = link.ask(&requests[step % requests.len()]).await;
        let lost = matches!(answered, Err(Refusal::Lost(_)));
        if started >= shared.begins {
            shared.note(index, started.elapsed(), answered.err().map(|error| error.to_string()));
        }
        if lost {
            return;
        }
    }
}

impl Requests {
    /// Makes every request that the mix needs; what is to be decrypted is encrypted first.
    async fn prepare(client: &Client, plan: &Plan, keys: &[String]) -> anyhow::Result<Self> {
        let bytes = |bytes: &[u8]| Bytes::from(Zeroizing::new(bytes.to_vec()));
        let context = || bytes(br#"{"bucket":"claviger-bench/object"}"#);
        let mut requests = Vec::new();
        for op in Op::ALL.into_iter().filter(|op| plan.mix.sequence().contains(op)) {
            let mut prepared = Vec::with_capacity(keys.len());
            for name in keys {
                let encrypt =
                    EncryptRequest { plaintext: bytes(&vec![0x5a; plan.size]), context: context(), version: None };
                prepared.push(match op {
                    Op::Generate => Prepared::generate(name, &GenerateRequest { context: context(), version: None }),
                    Op::Encrypt => Prepared::encrypt(name, &encrypt),
                    Op::Decrypt => {
                        let encrypted = client.encrypt(name, &encrypt).await.context("failed to encrypt")?;
                        let ciphertext = encrypted.ciphertext;
                        Prepared::decrypt(name, &DecryptRequest { ciphertext, context: context(), version: None })
                    }
                });
            }
            requests.push((op, prepared));
        }
        Ok(Self(requests))
    }
}

/// CPU time of this process so far.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
