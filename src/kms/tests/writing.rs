//! The writer thread, on a store that is slow or fails.

use std::sync::mpsc;

use futures_util::FutureExt as _;

use super::*;
use crate::kms::record::Id;
use crate::kms::store::{self, Begun, Seals};
use crate::kms::writer::{self, Order, Writer};

/// Says that a commit has begun, and does what the test says: carries it out or not.
struct Obedient {
    inner: Box<dyn Store>,
    begun: mpsc::Sender<()>,
    orders: mpsc::Receiver<bool>,
}

impl Store for Obedient {
    fn seals(&self) -> Result<Seals, store::Error> {
        self.inner.seals()
    }

    fn get(&self, id: &Id) -> Result<Option<Vec<u8>>, store::Error> {
        self.inner.get(id)
    }

    fn for_each(&self, each: &mut dyn FnMut(&Id, &[u8]) -> bool) -> Result<(), store::Error> {
        self.inner.for_each(each)
    }

    fn settle(&mut self) -> Result<(), store::Error> {
        self.inner.settle()
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), store::Error> {
        self.begun.send(()).expect("the test listens");
        if self.orders.recv().expect("the test says what to do") {
            return self.inner.commit(batch);
        }
        Err(store::Error::new("the disk is full", "no space left"))
    }

    fn begin(&self, seals: &Seals) -> Result<Box<dyn Begun>, store::Error> {
        self.inner.begin(seals)
    }
}

/// A store that has a root key.
fn begun() -> Box<dyn Store> {
    let backup = keeper().backup().expect("made");
    let (seals, puts) = crate::kms::backup::parse(&backup).expect("whole");
    let mut store = Mem::default();
    store.commit(&Batch { puts, seals, ..Batch::default() }).expect("committed");
    Box::new(store)
}

/// A writer whose commits the test controls.
struct Controlled {
    writer: Arc<Writer>,
    begun: mpsc::Receiver<()>,
    orders: mpsc::Sender<bool>,
}

impl Controlled {
    fn start() -> Self {
        let (started, begun) = mpsc::channel();
        let (orders, obeyed) = mpsc::channel();
        let store = Obedient { inner: self::begun(), begun: started, orders: obeyed };
        let keeper = Keeper::open(Box::new(store), providers(&[("env", HSM)]), admin()).expect("opened");
        Self { writer: Arc::new(Writer::start(keeper).expect("a thread")), begun, orders }
    }

    fn apply(&self, enclave: &str, commands: Vec<(Action, Change)>) -> tokio::task::JoinHandle<Result<(), Error>> {
        let order = Order {
            author: Author { caller: admin().identity, now: NOW, right: Right::Account },
            enclave: enclave.into(),
            commands,
            size: 1,
        };
        let writer = self.writer.clone();
        tokio::spawn(async move { writer.apply(order).await })
    }

    /// Waits until a commit has begun, without keeping others from running.
    async fn has_begun(&self) {
        while self.begun.try_recv().is_err() {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_change_is_neither_shown_nor_answered_before_it_is_written_and_reads_do_not_wait() {
    let controlled = Controlled::start();
    let change = controlled.apply("", vec![create_enclave("one")]);
    controlled.has_begun().await;
    // From here on the thread stands still within its commit.
    assert_eq!(controlled.writer.snapshot().enclaves.iter().count(), 0);
    assert!(!change.is_finished());
    controlled.orders.send(true).expect("the store listens");
    change.await.expect("no panic").expect("written");
    assert_eq!(controlled.writer.snapshot().enclaves.iter().count(), 1);
}

#[tokio::test]
async fn what_comes_while_a_commit_lasts_is_written_together_and_refused_apart() {
    let controlled = Controlled::start();
    let first = controlled.apply("", vec![create_enclave("one")]);
    controlled.has_begun().await;
    let waiting: Vec<_> = ["two", "one", "three"].map(|name| controlled.apply("", vec![create_enclave(name)])).into();
    // They are in the queue when they have run until they wait.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    controlled.orders.send(true).expect("the store listens");
    first.await.expect("no panic").expect("written");
    controlled.has_begun().await;
    controlled.orders.send(true).expect("the store listens");
    let mut outcomes = Vec::new();
    for change in waiting {
        outcomes.push(change.await.expect("no panic"));
    }
    assert!(matches!(outcomes[..], [Ok(()), Err(Error::EnclaveExists), Ok(())]), "{outcomes:?}");
    assert_eq!(controlled.writer.snapshot().commit, 2, "one commit for both");
}

#[tokio::test]
async fn a_change_that_cannot_be_written_has_not_happened_and_is_said_to_be() {
    let controlled = Controlled::start();
    let change = controlled.apply("", vec![create_enclave("one")]);
    controlled.has_begun().await;
    controlled.orders.send(false).expect("the store listens");
    assert!(matches!(change.await.expect("no panic"), Err(Error::Unavailable(_))));
    assert_eq!(controlled.writer.snapshot().enclaves.iter().count(), 0);
    assert!(!controlled.writer.works());
    let change = controlled.apply("", vec![create_enclave("one")]);
    controlled.has_begun().await;
    controlled.orders.send(true).expect("the store listens");
    change.await.expect("no panic").expect("written");
    assert!(controlled.writer.works() && controlled.writer.snapshot().enclaves.iter().count() == 1);
}

#[tokio::test]
async fn a_change_happens_also_when_nobody_waits_for_it_any_more() {
    let controlled = Controlled::start();
    let change = controlled.apply("", vec![create_enclave("one")]);
    controlled.has_begun().await;
    change.abort();
    controlled.orders.send(true).expect("the store listens");
    controlled.writer.finish().await;
    assert_eq!(controlled.writer.snapshot().enclaves.iter().count(), 1);
}

#[tokio::test]
async fn a_panic_ends_the_order_that_it_comes_from_and_no_other() {
    let controlled = Controlled::start();
    let first = controlled.apply("", vec![create_enclave("one")]);
    controlled.has_begun().await;
    controlled.orders.send(true).expect("the store listens");
    first.await.expect("no panic").expect("written");
    let defect = (Action::KeyCreate, Change::Defect);
    let defect = controlled.apply("one", vec![create_key("lost"), defect]);
    assert!(matches!(defect.await.expect("no panic"), Err(Error::Defect)));
    let after = controlled.apply("one", vec![create_key("kept")]);
    controlled.has_begun().await;
    controlled.orders.send(true).expect("the store listens");
    after.await.expect("no panic").expect("written");
    let snapshot = controlled.writer.snapshot();
    let keys: Vec<_> = snapshot.enclaves.values().flat_map(|enclave| enclave.keys.keys()).collect();
    assert_eq!(keys.iter().map(|key| key.as_str()).collect::<Vec<_>>(), ["kept"]);
    assert!(controlled.writer.works());
}

#[tokio::test]
async fn a_dead_thread_is_known_to_be_dead_and_keeps_nobody_waiting() {
    let controlled = Controlled::start();
    let first = controlled.apply("", vec![create_enclave("one")]);
    controlled.has_begun().await;
    let second = controlled.apply("", vec![create_enclave("two")]);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(controlled.writer.failed().now_or_never().is_none() && controlled.writer.works());
    let Controlled { writer, orders, .. } = controlled;
    // Within its commit, where nobody can say any more what is on disk.
    drop(orders);
    let why = writer.failed().await.to_string();
    assert!(why.contains("the thread that writes has ended by a defect"), "{why}");
    for waiting in [first, second] {
        let answer = waiting.await.expect("no panic");
        assert!(matches!(&answer, Err(Error::Unavailable(why)) if why.is::<writer::Failed>()), "{answer:?}");
    }
    assert!(!writer.works());
    let late = Order {
        author: Author { caller: admin().identity, now: NOW, right: Right::Account },
        enclave: String::new(),
        commands: vec![create_enclave("three")],
        size: 1,
    };
    assert!(matches!(writer.apply(late).await, Err(Error::Unavailable(_))));
    assert!(matches!(writer.backup().await, Err(Error::Unavailable(_))));
    writer.finish().await;
}

#[tokio::test]
async fn a_thread_that_was_told_to_end_has_not_failed() {
    let controlled = Controlled::start();
    controlled.writer.finish().await;
    assert!(controlled.writer.failed().now_or_never().is_none());
}
