//! Interleavings of the code of nodes: every call of a node to the journal, every answer that it hears and every commit
//! that comes to it waits at a gate, and a seed says who is next, what is lost, and which process ends.
//!
//! `INTERLEAVINGS=10000 cargo test --lib interleaving` tries more seeds than the few that are always tried.

mod book;
mod gate;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use prost::Message as _;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::book::{Asks, Book, Broken, Version};
pub(super) use self::book::{Keys, versions};
use self::gate::{Call, Gated, Gates, Verdict, What};
use super::cluster::{Disk, delete, join, rotate};
use super::*;
use crate::kms::journal::shared::Cluster;
use crate::kms::node::Fault;
use crate::kms::serve::fresh;
use crate::kms::store::Lazy;
use crate::kms::wire::{EncryptRequest, EncryptResponse, KeyVersionRequest};
use crate::kms::writer::{Order, Writer};

/// Numbers that look random, the same ones for the same seed.
#[derive(Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 11) % end as u64).expect("less than a usize")
    }

    /// Whether something happens that happens so often in a hundred times.
    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// What all nodes and clients share.
struct World {
    cluster: Arc<Cluster>,
    gates: Arc<Gates>,
    book: Mutex<Book>,
    broken: Mutex<Option<Broken>>,
    fault: Option<Fault>,
}

/// A process.
#[derive(Clone)]
struct Process {
    number: usize,
    writer: Arc<Writer>,
    journal: Gated,
}

/// A server: a disk, and a process most of the time.
struct Server {
    host: String,
    disk: Disk,
    is_lazy: bool,
    process: Option<Process>,
}

/// What a client does.
#[derive(Debug, Clone)]
enum Deed {
    Change(Asks),
    Encrypt(String),
    /// Looks for a version that somebody relies on.
    Look(String),
}

impl World {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("no panic")
    }

    fn check(&self, checked: Result<(), Broken>) {
        if let Err(broken) = checked {
            self.broken.lock().expect("no panic").get_or_insert(broken);
        }
    }

    fn broken(&self) -> Option<Broken> {
        self.broken.lock().expect("no panic").clone()
    }

    async fn start(&self, number: usize, server: &Server) -> Result<Process, String> {
        let journal = Gated::new(&self.cluster, &self.gates, number);
        let store = server.disk.store();
        let store = if server.is_lazy { Box::new(Lazy::new(store)) } else { store };
        let keeper = join(Arc::new(journal.clone()), store, &server.host, &server.disk).await;
        let writer = Arc::new(Writer::start(keeper.map_err(|error| error.to_string())?).expect("a thread"));
        if let Some(fault) = self.fault {
            writer.node().expect("a node").do_wrongly(fault);
        }
        writer.node().expect("a node").begin_saying().await.map_err(|error| error.to_string())?;
        Ok(Process { number, writer, journal })
    }

    /// Does something as a client of a server.
    async fn act(&self, process: &Process, deed: Deed) {
        match deed {
            Deed::Change(asks) => self.change(process, asks).await,
            Deed::Encrypt(name) => {
                let _ = self.encrypt(process, &name).await;
            }
            Deed::Look(name) => self.look(process, &name).await,
        }
    }

    async fn change(&self, process: &Process, asks: Asks) {
        let number = match self.book().ask(&asks) {
            Ok(number) => number,
            Err(broken) => return self.check(Err(broken)),
        };
        let command = match &asks {
            Asks::Create(name) => create_key(name),
            Asks::Rotate(name) => rotate(name),
            Asks::Delete(name, version) => delete(name, version.unwrap_or(0)),
        };
        let now = NOW + Duration::from_secs(number as u64);
        let author = Author { caller: admin().identity, now, right: Right::Account };
        let order = Order { author, enclave: "e".into(), commands: vec![command], size: 1 };
        let answer = timeout(Duration::from_secs(60), process.writer.apply(order)).await;
        let Ok(answer) = answer else { return self.check(Err(format!("{asks:?} was not answered"))) };
        if !process.journal.is_dead() {
            let checked = self.book().answered(number, &answer);
            self.check(checked);
        }
    }

    /// Encrypts as a server does, with a pause in between.
    async fn encrypt(&self, process: &Process, name: &str) -> Result<(), Error> {
        let plaintext = b"plain".to_vec();
        let request = EncryptRequest { name: name.into(), version: 0, plaintext, associated_data: Vec::new() };
        let queries = [(Action::KeyEncrypt, Query::KeyEncrypt(request))];
        let (since, newest) = {
            let mut book = self.book();
            let checked = book.read();
            self.check(checked);
            (book.heads(), book.newest().get(name).and_then(|versions| versions.last()).cloned())
        };
        let queries = &queries;
        let answer = || async move {
            let snapshot = process.writer.snapshot();
            // The turn lasts until the state is used no more.
            let _turn = self.gates.pass(process.number, What::Use).await;
            if process.journal.is_dead() {
                return Err(Error::Uncertain("it runs no more".into()));
            }
            let reader = reader(&snapshot);
            let reply = reader.answer(Action::KeyEncrypt, &queries[0].1, &mut Turn::endless()).await?;
            let number = EncryptResponse::decode(&**reply).expect("our own encoding").version;
            let ring = snapshot.enclave("e").expect("it has encrypted").key(name)?.clone();
            let version =
                versions(&ring).into_iter().find(|version| version.number == number).expect("it has encrypted");
            let checked = self.book().encrypted(name, &version);
            self.check(checked);
            Ok(())
        };
        let answer = fresh(&process.writer, queries, answer, Error::is_negative).await;
        if let (Err(error), Some(Version { uid, .. }), false) = (&answer, newest, process.journal.is_dead()) {
            let checked = self.book().denied(name, &uid, since, error);
            self.check(checked);
        }
        answer
    }

    async fn look(&self, process: &Process, name: &str) {
        let (since, relied) = {
            let mut book = self.book();
            let checked = book.read();
            self.check(checked);
            (book.heads(), book.relied(name).into_iter().next_back())
        };
        let Some((number, uid)) = relied else { return };
        let request = KeyVersionRequest { name: name.into(), version: number };
        let queries = [(Action::KeyStatus, Query::KeyStatus(request))];
        let queries = &queries;
        let answer = || async move {
            let snapshot = process.writer.snapshot();
            reader(&snapshot).answer(Action::KeyStatus, &queries[0].1, &mut Turn::endless()).await
        };
        let answer = fresh(&process.writer, queries, answer, Error::is_negative).await;
        if let (Err(error), false) = (answer, process.journal.is_dead()) {
            let checked = self.book().denied(name, &uid, since, &error);
            self.check(checked);
        }
    }

    /// Waits until nothing moves any more without a turn.
    async fn settle(&self) {
        let mut last = self.gates.events.load(Ordering::SeqCst);
        let mut quiet = 0;
        while quiet < 2 {
            sleep(Duration::from_micros(250)).await;
            let now = self.gates.events.load(Ordering::SeqCst);
            quiet = if now == last { quiet + 1 } else { 0 };
            last = now;
        }
    }
}

fn reader(snapshot: &Snapshot) -> Reader<'_> {
    Reader {
        snapshot,
        caller: admin().identity,
        enclave: "e",
        encoding: Encoding::Protobuf,
        has_kes: false,
        cluster: &no_cluster,
    }
}

/// A process that was started; none: it did not hear what it needs, and can be started again.
fn started(n: usize, process: Result<Process, String>) -> Result<Option<Process>, Broken> {
    match process {
        Ok(process) => Ok(Some(process)),
        Err(error) if error.contains(gate::LOST) => Ok(None),
        Err(error) => Err(format!("server {n} does not start: {error}")),
    }
}

/// What clients will do: mostly things that get in each other's way.
fn deeds(random: &mut Random) -> Vec<Deed> {
    let names = ["k", "k", "n"];
    let number = 3 + random.below(5);
    let deed = |_| {
        let name = names[random.below(names.len())].to_owned();
        match random.below(16) {
            0 | 1 => Deed::Change(Asks::Create(name)),
            2..5 => Deed::Change(Asks::Rotate(name)),
            5 | 6 => Deed::Change(Asks::Delete(name, None)),
            7 | 8 => Deed::Change(Asks::Delete(name, Some(u32::try_from(1 + random.below(3)).expect("few")))),
            9..13 => Deed::Encrypt(name),
            _ => Deed::Look(name),
        }
    };
    (0..number).map(deed).collect()
}

/// A world, and those who act in it.
struct Exploration {
    world: Arc<World>,
    servers: Vec<Server>,
    random: Random,
    deeds: Vec<Deed>,
    /// How important everything is in this exploration, so that some wait for long; none: all are alike.
    ranks: Option<BTreeMap<(usize, What), usize>>,
    acting: JoinSet<()>,
    starting: JoinSet<(usize, Result<Process, String>)>,
    ended: JoinSet<()>,
    /// How much may still go wrong.
    trouble: usize,
    crashes: usize,
    _opens: Opens,
}

/// Opens all gates when it is dropped: the end of a test waits for threads that would wait there for ever.
struct Opens(Arc<Gates>);

impl Drop for Opens {
    fn drop(&mut self) {
        self.0.open();
    }
}

impl Exploration {
    async fn begin(seed: u64, count: usize, fault: Option<Fault>) -> Self {
        let (cluster, gates, mut random) = (Cluster::new(), Arc::<Gates>::default(), Random::new(seed));
        let mut servers: Vec<_> = (0..count)
            .map(|n| Server {
                host: format!("{n}:7373"),
                disk: Disk::default(),
                is_lazy: random.chance(50),
                process: None,
            })
            .collect();
        // The first one makes the root key, without which there is no book.
        let before = Disk::default();
        let keeper =
            join(Arc::new(cluster.node()), before.store(), &servers[0].host, &before).await.expect("the first");
        drop(keeper);
        servers[0].disk = before;
        let book = Mutex::new(Book::new(&cluster));
        let world = Arc::new(World { cluster, gates, book, broken: Mutex::default(), fault });
        for (n, server) in servers.iter_mut().enumerate() {
            server.process = Some(world.start(n, server).await.expect("it takes part"));
        }
        let first = servers[0].process.clone().expect("started");
        let author = Author { caller: admin().identity, now: NOW, right: Right::Account };
        let commands = vec![create_enclave("e")];
        first.writer.apply(Order { author, enclave: String::new(), commands, size: 1 }).await.expect("created");
        for asks in [Asks::Create("k".into()), Asks::Rotate("k".into())] {
            world.act(&first, Deed::Change(asks)).await;
        }
        for server in &servers {
            server.process.as_ref().expect("started").writer.confirm().await.expect("an answer");
        }
        world.gates.close();
        let _opens = Opens(world.gates.clone());
        let deeds = deeds(&mut random);
        let ranks = random.chance(60).then(BTreeMap::new);
        let (trouble, crashes) = (random.below(4), usize::from(random.chance(25)));
        let (acting, starting, ended) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
        Self { world, servers, random, deeds, ranks, acting, starting, ended, trouble, crashes, _opens }
    }

    /// Goes on until all clients have their answers, or something is broken.
    async fn run(mut self) -> Result<(), Broken> {
        for _ in 0..1_500 {
            self.world.settle().await;
            while self.acting.try_join_next().is_some() {}
            while let Some(Ok((n, process))) = self.starting.try_join_next() {
                self.servers[n].process = started(n, process)?;
            }
            if let Some(broken) = self.world.broken() {
                return Err(broken);
            }
            if self.deeds.is_empty() && self.acting.is_empty() {
                break;
            }
            self.step().await;
        }
        self.finish().await
    }

    async fn step(&mut self) {
        let waiting = self.world.gates.waiting();
        if self.crashes > 0 && self.random.chance(3) {
            self.crashes -= 1;
            return self.crash().await;
        }
        if self.random.chance(1) {
            return self.world.cluster.compact();
        }
        let down = self.servers.iter().position(|server| server.process.is_none());
        if let Some(down) = down.filter(|_| self.starting.is_empty() && self.random.chance(10)) {
            return self.restart(down);
        }
        let begins = self.acting.len() < 4 && !self.deeds.is_empty() && (waiting.is_empty() || self.random.chance(20));
        if begins {
            return self.begin_deed();
        }
        let Some(next) = self.choose(&waiting) else { return sleep(Duration::from_millis(2)).await };
        let odds = match next.1 {
            What::Send(Call::Append) => (6, 6),
            What::Hear(Call::Append) => (20, 0),
            What::Commit => (4, 6),
            What::Late => (30, 0),
            What::Use => (0, 0),
            What::Send(_) | What::Hear(_) => (2, 0),
        };
        let (lost, late) = if self.trouble > 0 { odds } else { (0, 0) };
        let verdict = match self.random.below(100) {
            n if n < lost => Verdict::Lost,
            n if n < lost + late => Verdict::Late,
            _ => Verdict::Goes,
        };
        if verdict != Verdict::Goes {
            self.trouble -= 1;
        }
        self.world.gates.release(next, verdict).await;
        let checked = self.world.book().read();
        self.world.check(checked);
    }

    fn choose(&mut self, waiting: &[(usize, What)]) -> Option<(usize, What)> {
        let all: Vec<_> = waiting.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        if all.is_empty() {
            return None;
        }
        let any = all[self.random.below(all.len())];
        let is_random = self.random.chance(12);
        let Some(ranks) = self.ranks.as_mut().filter(|_| !is_random) else { return Some(any) };
        for which in &all {
            ranks.entry(*which).or_insert_with(|| self.random.below(1_000));
        }
        // Now and then another one becomes less important.
        if self.random.chance(5) {
            ranks.insert(any, self.random.below(1_000));
        }
        all.into_iter().max_by_key(|which| ranks[which])
    }

    fn begin_deed(&mut self) {
        let up: Vec<_> = self.servers.iter().filter_map(|server| server.process.clone()).collect();
        if up.is_empty() {
            return;
        }
        let process = up[self.random.below(up.len())].clone();
        let Some(deed) = self.deeds.pop() else { return };
        let world = self.world.clone();
        self.acting.spawn(async move {
            world.act(&process, deed).await;
            world.gates.events.fetch_add(1, Ordering::SeqCst);
        });
    }

    /// A process ends without a word. What it has sent may still arrive.
    async fn crash(&mut self) {
        let victim = self.random.below(self.servers.len());
        let Some(process) = self.servers[victim].process.take() else { return };
        self.servers[victim].disk = self.servers[victim].disk.copy();
        let waits =
            |gates: &Gates| gates.waiting().into_iter().find(|(node, what)| *node == victim && *what != What::Late);
        if self.random.chance(50) {
            self.world.gates.release((victim, What::Send(Call::Append)), Verdict::Late).await;
        }
        process.journal.kill().await;
        while let Some(which) = waits(&self.world.gates) {
            self.world.gates.release(which, Verdict::Lost).await;
        }
        self.ended.spawn(async move {
            process.writer.node().expect("a node").leave().await;
            process.writer.finish().await;
        });
    }

    fn restart(&mut self, n: usize) {
        let Server { host, disk, is_lazy, .. } = &self.servers[n];
        let server = Server { host: host.clone(), disk: disk.clone(), is_lazy: *is_lazy, process: None };
        let world = self.world.clone();
        self.starting.spawn(async move {
            let process = world.start(n, &server).await;
            world.gates.events.fetch_add(1, Ordering::SeqCst);
            (n, process)
        });
    }

    /// From now on nobody waits. At the end all have the same.
    async fn finish(mut self) -> Result<(), Broken> {
        self.world.gates.open();
        let end = async {
            while self.acting.join_next().await.is_some() {}
            while let Some(Ok((n, process))) = self.starting.join_next().await {
                self.servers[n].process = started(n, process)?;
            }
            Ok::<_, Broken>(())
        };
        timeout(Duration::from_secs(100), end).await.map_err(|_| "it does not end")??;
        for n in 0..self.servers.len() {
            if self.servers[n].process.is_none() {
                let process = self.world.start(n, &self.servers[n]).await;
                self.servers[n].process = started(n, process)?;
            }
        }
        let checked = self.world.book().read();
        self.world.check(checked);
        for server in self.servers.iter().filter(|_| self.world.fault.is_none()) {
            let process = server.process.as_ref().expect("started");
            process.writer.confirm().await.map_err(|error| format!("{} is cut off: {error}", server.host))?;
            let snapshot = process.writer.snapshot();
            let enclave = snapshot.enclave("e").ok_or("the enclave is gone")?;
            let keys: Keys = enclave.keys.iter().map(|(name, ring)| (name.to_string(), versions(ring))).collect();
            if keys != *self.world.book().newest() {
                return Err(format!("{} has something else than the journal", server.host));
            }
        }
        for server in self.servers {
            let process = server.process.expect("started");
            self.ended.spawn(async move { process.writer.finish().await });
        }
        timeout(Duration::from_secs(100), async { while self.ended.join_next().await.is_some() {} })
            .await
            .map_err(|_| "a process does not end")?;
        self.world.broken().map_or(Ok(()), Err)
    }
}

/// How many seeds are tried.
#[expect(clippy::disallowed_methods, reason = "a setting of the test")]
fn seeds(few: u64) -> std::ops::Range<u64> {
    let count = std::env::var("INTERLEAVINGS").map_or(few, |count| count.parse().expect("INTERLEAVINGS is a number"));
    let first = std::env::var("FIRST").map_or(0, |first| first.parse().expect("FIRST is a number"));
    first..first + count
}

/// Explores so many seeds, a few at a time. Returns the first that breaks something.
async fn explore(seeds: std::ops::Range<u64>, nodes: usize, fault: Option<Fault>) -> Option<(u64, Broken)> {
    let (mut seeds, mut running) = (seeds, JoinSet::new());
    loop {
        while running.len() < 4
            && let Some(seed) = seeds.next()
        {
            running.spawn(async move { (seed, Exploration::begin(seed, nodes, fault).await.run().await) });
        }
        match running.join_next().await? {
            Ok((_, Ok(()))) => {}
            Ok((seed, Err(broken))) => {
                running.shutdown().await;
                return Some((seed, broken));
            }
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

#[tokio::test]
async fn nothing_that_two_nodes_do_breaks_what_clients_were_told() {
    assert_eq!(explore(seeds(60), 2, None).await, None);
}

#[tokio::test]
async fn nothing_that_three_nodes_do_breaks_what_clients_were_told() {
    assert_eq!(explore(seeds(30), 3, None).await, None);
}

/// The most seeds that it may take to find a fault.
const FOUND: u64 = 2_000;

#[tokio::test]
async fn a_node_that_does_not_confirm_is_found_out() {
    let (_, broken) = explore(0..FOUND, 2, Some(Fault::NoConfirm)).await.expect("it breaks something");
    assert!(broken.contains("absent") || broken.contains("right at no moment"), "{broken}");
}

#[tokio::test]
async fn a_node_that_refuses_at_once_is_found_out() {
    let (_, broken) = explore(0..FOUND, 2, Some(Fault::RefusesAtOnce)).await.expect("it breaks something");
    assert!(broken.contains("right at no moment"), "{broken}");
}

#[tokio::test]
async fn a_node_that_takes_a_lost_answer_for_a_no_is_found_out() {
    let (_, broken) = explore(0..FOUND, 2, Some(Fault::UnknownIsNo)).await.expect("it breaks something");
    assert!(broken.contains("two versions") || broken.contains("was done"), "{broken}");
}

#[tokio::test]
async fn a_node_that_deletes_in_one_step_is_found_out() {
    let (_, broken) = explore(0..FOUND, 2, Some(Fault::OneStep)).await.expect("it breaks something");
    assert!(broken.contains("has encrypted, and is gone"), "{broken}");
}
