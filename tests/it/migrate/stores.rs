//! From every kind of key store to every other.

use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use serde_json::json;

use claviger::crypto::Blob;
use claviger::keystore::KeyStore;
use claviger::name::KeyName;

use super::support::{Run, Stores, key};
use crate::keystore::places::{Kind, Peers, Place};
use crate::support::block_on;

/// How often a kill that came too late is tried again, with another target.
const KILLS: usize = 3;

/// How many requests a test has under way.
const AT_ONCE: usize = 64;

/// `KEYS` in the environment is how many keys go each way: `docs/measurements.md` has the result of many.
#[test]
#[ignore = "runs every peer: tests/run"]
fn keys_go_from_every_store_to_every_other_through_a_kill_and_are_the_same() {
    let keys = std::env::var("KEYS").map_or(32, |keys| keys.parse().expect("KEYS is a number"));
    let (kinds, journeys) = (Kind::all(), Journeys::new(keys));
    std::thread::scope(|scope| {
        for (n, from) in kinds.iter().enumerate() {
            let (kinds, journeys) = (&kinds, &journeys);
            scope.spawn(move || {
                let source = journeys.source(*from);
                // Each begins with another one, so that the slow ones are not all waited for at the end.
                (1..kinds.len()).for_each(|step| journeys.go(&source, kinds[(n + step) % kinds.len()]));
            });
        }
    });
    journeys.expect(kinds.len() * (kinds.len() - 1));
}

/// Each store is a source once, and a target once.
#[test]
#[ignore = "runs every peer: tests/run"]
fn a_thousand_keys_go_into_every_store_and_out_of_it_through_a_kill() {
    let (kinds, journeys) = (Kind::all(), Journeys::new(1_000));
    std::thread::scope(|scope| {
        for (n, from) in kinds.iter().enumerate() {
            let (to, journeys) = (kinds[(n + 1) % kinds.len()], &journeys);
            scope.spawn(move || journeys.go(&journeys.source(*from), to));
        }
    });
    journeys.expect(kinds.len());
}

/// The keys that go from store to store, and what became of them.
struct Journeys {
    peers: Peers,
    keys: Vec<(KeyName, Blob)>,
    /// How many keys were there when a run was killed, for each journey.
    killed: Mutex<Vec<usize>>,
    /// Held by a journey from or to moto, which is one thread.
    moto: Mutex<()>,
}

impl Journeys {
    fn new(keys: usize) -> Self {
        let name = |n| KeyName::parse(&format!("key-{n:05}")).expect("a name");
        let keys = (0..keys).map(|n| (name(n), key(n).into_bytes().into())).collect();
        Self { peers: Peers::shared(), keys, killed: Mutex::default(), moto: Mutex::default() }
    }

    /// A store that has all keys.
    fn source(&self, kind: Kind) -> Place {
        let _turn = self.turn(&[kind]);
        let place = Place::new(kind, &self.peers);
        block_on(async {
            let store = place.connect().await;
            let create = |(name, value)| store.create(name, value);
            let pairs = self.keys.iter().map(|(name, value)| (name, value));
            let created: Vec<_> = stream::iter(pairs).map(create).buffer_unordered(AT_ONCE).collect().await;
            created.into_iter().for_each(|created| created.unwrap_or_else(|error| panic!("{kind}: {error:?}")));
        });
        place
    }

    /// A run that is killed when some keys are there, another one that goes on, and one that compares.
    fn go(&self, source: &Place, to: Kind) {
        let _turn = self.turn(&[source.kind, to]);
        let (stores, began) = (Stores::empty(), Instant::now());
        stores.write("from.yml", &json!({ "keystore": source.section }).to_string());
        let (target, killed) = self.killed(source, to, &stores);
        self.killed.lock().expect("no thread panics with it").push(killed);
        run(&stores, source, &target, &["migrate", "--merge", "--concurrency", "64"]);
        run(&stores, source, &target, &["verify", "--concurrency", "64"]);
        block_on(async {
            let store = target.connect().await;
            let found = self.all_of(&*store).await;
            let is_same = found.iter().zip(&self.keys).all(|(found, (_, value))| found.is_same(value));
            assert!(is_same, "{} to {to}: not byte for byte what it was", source.kind);
        });
        let (all, seconds) = (self.keys.len(), began.elapsed().as_secs_f64());
        eprintln!("{} to {to}: killed with {killed} of {all} keys there, then complete; {seconds:.1} s", source.kind);
    }

    /// A turn at moto, if one of these is played by it.
    fn turn(&self, kinds: &[Kind]) -> Option<MutexGuard<'_, ()>> {
        let is_moto = kinds.iter().any(|kind| matches!(kind, Kind::SecretsManager | Kind::DynamoDb));
        is_moto.then(|| self.moto.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A target that has some of the keys, and how many, because the run that brings them was killed.
    fn killed(&self, source: &Place, to: Kind, stores: &Stores) -> (Place, usize) {
        let mut tries = 0;
        loop {
            let target = Place::new(to, &self.peers);
            stores.write("to.yml", &json!({ "keystore": target.section }).to_string());
            // Few at a time, so that there is a middle.
            let mut command = command(stores, source, &target, &["migrate", "--concurrency", "4"]);
            let there = block_on(async {
                let store = target.connect().await;
                let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
                while count(&*store).await < self.keys.len() / 8 && child.try_wait().expect("our child").is_none() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                let _ = child.kill();
                child.wait().expect("our child");
                count(&*store).await
            });
            tries += 1;
            if there < self.keys.len() || tries == KILLS {
                return (target, there);
            }
        }
    }

    /// Everything in a store, in the order of the names.
    async fn all_of(&self, store: &dyn KeyStore) -> Vec<Blob> {
        let names = store.list("").await.expect("listed").names;
        assert!(names.iter().eq(self.keys.iter().map(|(name, _)| name)), "{store}: {} names", names.len());
        let found = stream::iter(&names).map(|name| store.get(name)).buffered(AT_ONCE);
        found.map(|value| value.expect("there")).collect().await
    }

    /// Checks that all journeys were made, and that most of the kills hit the writing.
    fn expect(self, journeys: usize) {
        let killed = self.killed.into_inner().expect("no thread panics with it");
        let between = killed.iter().filter(|there| (1..self.keys.len()).contains(*there)).count();
        eprintln!("{between} of {} kills between the first key and the last", killed.len());
        assert_eq!(killed.len(), journeys);
        assert!(between > journeys / 2, "{killed:?}");
    }
}

async fn count(store: &dyn KeyStore) -> usize {
    store.list("").await.expect("listed").names.len()
}

fn command(stores: &Stores, from: &Place, to: &Place, what: &[&str]) -> Command {
    let ways = ["--from", "from.yml", "--to", "to.yml", "--quiet"];
    let mut command = stores.command(&[what, &ways].concat());
    from.prepare(&mut command);
    to.prepare(&mut command);
    command
}

fn run(stores: &Stores, from: &Place, to: &Place, what: &[&str]) {
    let output = command(stores, from, to, what).output().expect("the program runs");
    assert!(output.status.success(), "{what:?} from {} to {}: {:?}", from.kind, to.kind, Run::from(output));
}
