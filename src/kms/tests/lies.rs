//! A journal that lies: what is there was changed, and what a watch tells did not happen. It is noticed or harmless.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use super::cluster::{Disk, Server, delete, join, rotate};
use super::interleaving::{Keys, Random, versions};
use super::*;
use crate::kms::journal::shared::{Cluster, Everything, Shared};
use crate::kms::journal::{Appended, Changes, Commit, Each, Error as Failed, Follow, Head, Journal, Said};
use crate::kms::loading;
use crate::kms::record::{Cipher, Id};
use crate::kms::seal;
use crate::kms::store::Seals;
use crate::kms::writer::Writer;

/// What a node knows of the enclave `e`, or of one with the name of another cluster.
fn keys(snapshot: &Snapshot) -> Keys {
    let enclaves = snapshot.enclaves.values();
    enclaves.flat_map(|enclave| enclave.keys.values()).map(|ring| (ring.name.to_string(), versions(ring))).collect()
}

/// Some keys, with versions that come and go.
async fn work(server: &Server, count: usize, random: &mut Random, deletes: bool) {
    for _ in 0..count {
        let name = format!("k-{}", random.below(6));
        let kind = if deletes { random.below(8) } else { 2 + random.below(6) };
        let command = match kind {
            0 => delete(&name, 0),
            1 => delete(&name, u32::try_from(1 + random.below(3)).expect("few")),
            2..4 => create_key(&name),
            _ => rotate(&name),
        };
        // Some of it is refused.
        let _ = server.change("e", command).await;
    }
}

/// What can be changed in a journal.
struct Past {
    history: Vec<(Head, Everything)>,
    others: Vec<(Head, Everything)>,
}

impl Past {
    /// The newest state, changed in some way.
    fn changed(&self, random: &mut Random) -> (Head, Everything) {
        let (mut head, mut all) = self.history.last().cloned().expect("there is one");
        for _ in 0..=random.below(2) {
            let ids: Vec<Id> = all.records.keys().copied().collect();
            let (one, two) = (ids[random.below(ids.len())], ids[random.below(ids.len())]);
            let (old_head, old) = &self.history[random.below(self.history.len() - 1)];
            let (other_head, other) = &self.others[random.below(self.others.len())];
            match random.below(11) {
                // Two records change places.
                0 => {
                    let value = all.records[&two].clone();
                    let value = all.records.insert(one, value).expect("there");
                    all.records.insert(two, value);
                }
                // An old value of a record, or one that was removed.
                1 | 2 => {
                    let values: Vec<_> =
                        old.records.iter().filter(|(id, value)| all.records.get(*id) != Some(*value)).collect();
                    if !values.is_empty() {
                        let (id, value) = values[random.below(values.len())];
                        all.records.insert(*id, value.clone());
                    }
                }
                3 => drop(all.records.remove(&one)),
                4 => {
                    let value = all.records.get_mut(&one).expect("there");
                    value.truncate(random.below(value.len().max(1)));
                }
                5 => {
                    let value = all.records.get_mut(&one).expect("there");
                    let at = random.below(value.len().max(1));
                    value.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.below(8));
                }
                // An old head, or the one of another cluster.
                6 => head.state.clone_from(&old_head.state),
                7 => (head.epoch, head.state) = (other_head.epoch, other_head.state.clone()),
                // Everything of an older state.
                8 => {
                    head.state.clone_from(&old_head.state);
                    all = old.clone();
                }
                // Records of another cluster.
                9 => {
                    let count = 1 + random.below(other.records.len().max(1));
                    all.records.extend(other.records.iter().take(count).map(|(id, value)| (*id, value.clone())));
                }
                _ => all.seals = if random.chance(50) { other.seals.clone() } else { Seals::new() },
            }
            if all.records.is_empty() {
                break;
            }
        }
        (head, all)
    }
}

/// What a record of the state, the records and the seals say.
fn read(head: &Head, all: &Everything) -> Keys {
    let root = seal::unseal(&all.seals, &providers(&[("env", HSM)])).expect("our own");
    let cipher = Cipher::new(&root);
    let state_id = cipher.id(&crate::kms::record::Place::state());
    let loaded = loading::load(&cipher, admin().identity, |each| {
        each(&state_id, &head.state);
        all.records.iter().all(|(id, value)| each(id, value));
        Ok(())
    });
    keys(&loaded.expect("whole").0)
}

async fn past(seed: u64, count: usize) -> Arc<Cluster> {
    let cluster = Cluster::new();
    let server = Server::start(&cluster, "a:7373", &Disk::default()).await;
    server.change("", create_enclave("e")).await.expect("created");
    server.change("e", create_identity(identity(7), "User")).await.expect("created");
    for n in 0..6 {
        server.change("e", create_key(&format!("k-{n}"))).await.expect("created");
    }
    work(&server, count, &mut Random::new(seed), true).await;
    server.stop().await;
    cluster
}

#[tokio::test]
async fn what_was_changed_in_the_journal_is_noticed_or_harmless() {
    let cluster = past(1, 30).await;
    // One that runs, and has the newest state.
    let disk = Disk::default();
    let mut running = join(Arc::new(cluster.node()), disk.store(), "b:7373", &disk).await.expect("it takes part");
    let (history, others) = (cluster.history(), past(2, 10).await.history());
    let known: Vec<Keys> = history.iter().map(|(head, all)| read(head, all)).collect();
    let foreign: Vec<Keys> = others.iter().map(|(head, all)| read(head, all)).collect();
    let newest = known.last().expect("there is one").clone();
    let past = Past { history, others };
    let mut random = Random::new(3);
    let mut noticed = [0, 0];
    for round in 0..1_000 {
        let (head, all) = past.changed(&mut random);
        // One that begins cannot know that everything was set back; but it never knows what was never there.
        let disk = Disk::default();
        let forged = Cluster::of(head.clone(), all.clone());
        match join(Arc::new(forged.node()), disk.store(), "c:7373", &disk).await {
            Ok(keeper) => {
                let keys = keys(keeper.snapshot());
                assert!(known.contains(&keys) || foreign.contains(&keys), "{round}: never was like this: {keys:?}");
            }
            Err(_) => noticed[0] += 1,
        }
        cluster.forge(head, all);
        let reloaded;
        (running, reloaded) = tokio::task::spawn_blocking(move || {
            let reloaded = running.reload();
            (running, reloaded)
        })
        .await
        .expect("no panic");
        noticed[1] += usize::from(reloaded.is_err());
        assert_eq!(keys(running.snapshot()), newest, "{round}");
        cluster.set_back(1);
    }
    assert!(noticed.iter().all(|noticed| *noticed > 600), "{noticed:?}");
}

/// A journal with a watch that leaves out, repeats, exchanges and invents commits.
struct Liar {
    inner: Shared,
    random: std::sync::Mutex<Random>,
    told: Arc<std::sync::atomic::AtomicUsize>,
}

struct Lies {
    inner: Box<dyn Follow>,
    random: Random,
    ready: VecDeque<Commit>,
    seen: Vec<Commit>,
    told: Arc<std::sync::atomic::AtomicUsize>,
}

impl Lies {
    /// What nobody has written.
    fn invented(&mut self, commit: &Commit) -> Commit {
        let mut invented = commit.clone();
        let old = self.seen[self.random.below(self.seen.len())].clone();
        match self.random.below(5) {
            0 => invented.head.state = old.head.state,
            1 => invented.changes = old.changes,
            2 => invented.changes = Changes::default(),
            3 => {
                for value in invented.changes.records.values_mut().flatten() {
                    let at = self.random.below(value.len());
                    value[at] ^= 1;
                }
            }
            _ => {
                invented.changes.records.values_mut().for_each(|value| *value = None);
                invented.head.epoch += 1;
            }
        }
        invented
    }
}

#[async_trait]
impl Follow for Lies {
    async fn next(&mut self) -> Result<Commit, Failed> {
        loop {
            if let Some(commit) = self.ready.pop_front() {
                self.told.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                return Ok(commit);
            }
            let commit = self.inner.next().await?;
            self.seen.push(commit.clone());
            match self.random.below(10) {
                0 => {}
                1 => self.ready.extend([commit.clone(), commit]),
                2 => {
                    let next = self.inner.next().await?;
                    self.ready.extend([next, commit]);
                }
                3 | 4 => {
                    let invented = self.invented(&commit);
                    let is_told = self.random.chance(70);
                    self.ready.push_back(invented);
                    self.ready.extend(is_told.then_some(commit));
                }
                _ => self.ready.push_back(commit),
            }
        }
    }
}

#[async_trait]
impl Journal for Liar {
    fn cluster(&self) -> Option<u64> {
        self.inner.cluster()
    }

    async fn head(&self) -> Result<Option<Head>, Failed> {
        self.inner.head().await
    }

    async fn append(
        &self,
        after: Option<i64>,
        epoch: u64,
        state: &[u8],
        changes: &Changes,
    ) -> Result<Appended, Failed> {
        self.inner.append(after, epoch, state, changes).await
    }

    async fn load(&self, each: &mut Each<'_>) -> Result<Option<(Head, Seals)>, Failed> {
        self.inner.load(each).await
    }

    async fn follow(&self, after: &Head) -> Result<Box<dyn Follow>, Failed> {
        let random = {
            let mut random = self.random.lock().expect("no panic");
            Random::new(random.below(1 << 20) as u64)
        };
        let (ready, seen, told) = (VecDeque::new(), Vec::new(), self.told.clone());
        Ok(Box::new(Lies { inner: self.inner.follow(after).await?, random, ready, seen, told }))
    }

    async fn fill(&self, epoch: u64, changes: &Changes) -> Result<(), Failed> {
        self.inner.fill(epoch, changes).await
    }

    async fn clear_but(&self, epoch: u64) -> Result<(), Failed> {
        self.inner.clear_but(epoch).await
    }

    async fn live(&self) -> Result<BTreeMap<u32, Vec<u8>>, Failed> {
        self.inner.live().await
    }

    async fn say(&self, number: u32, what: Vec<u8>) -> Result<Said, Failed> {
        self.inner.say(number, what).await
    }

    async fn leave(&self) {
        self.inner.leave().await;
    }

    fn most_changes(&self) -> usize {
        self.inner.most_changes()
    }
}

#[tokio::test]
async fn a_watch_that_lies_is_corrected_by_loading() {
    let cluster = Cluster::new();
    let a = Server::start(&cluster, "a:7373", &Disk::default()).await;
    a.change("", create_enclave("e")).await.expect("created");
    let told = Arc::<std::sync::atomic::AtomicUsize>::default();
    let liar = Liar { inner: cluster.node(), random: std::sync::Mutex::new(Random::new(5)), told: told.clone() };
    let disk = Disk::default();
    let keeper = join(Arc::new(liar), disk.store(), "b:7373", &disk).await.expect("it takes part");
    let b = Writer::start(keeper).expect("a thread");
    let node = b.node().expect("a node").clone();
    node.begin_saying().await.expect("nobody else");
    let (mut random, end) = (Random::new(6), Instant::now() + Duration::from_secs(120));
    while told.load(std::sync::atomic::Ordering::Relaxed) < 300 && Instant::now() < end {
        work(&a, 5, &mut random, false).await;
        assert!(b.snapshot().commit <= a.writer.snapshot().commit, "it knows of nothing that was not written");
    }
    while b.confirm().await.is_err() {
        assert!(Instant::now() < end, "{:?}", node.trouble());
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(keys(&b.snapshot()), keys(&a.writer.snapshot()));
    assert!(node.counts.reloads.load(std::sync::atomic::Ordering::Relaxed) > 10);
    b.finish().await;
}
