//! Several nodes over one journal in memory.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use super::*;
use crate::crypto::transit::Kind;
use crate::kms::destroy;
use crate::kms::journal::shared::{Cluster, Link};
use crate::kms::keeper::{Joining, Notes};
use crate::kms::members::Leave;
use crate::kms::node::Node;
use crate::kms::ring::Ring;
use crate::kms::snapshot::Retired;
use crate::kms::store;
use crate::kms::transit::{self, What};
use crate::kms::wire::DeleteKeyRequest;
use crate::kms::writer::{Order, Writer};

/// What a node has on its disk: it survives the node.
#[derive(Clone, Default)]
pub(super) struct Disk {
    store: Arc<Mutex<Mem>>,
    note: Arc<Mutex<Option<Vec<u8>>>>,
}

impl Disk {
    /// All values of the store.
    fn content(&self) -> BTreeSet<Vec<u8>> {
        let mut all = BTreeSet::new();
        let mut each = |_: &crate::kms::record::Id, value: &[u8]| {
            all.insert(value.to_vec());
            true
        };
        self.store.lock().expect("no panic").for_each(&mut each).expect("readable");
        all
    }
}

/// A store whose content outlives it.
struct Kept(Arc<Mutex<Mem>>);

impl Store for Kept {
    fn seals(&self) -> Result<store::Seals, store::Error> {
        self.0.lock().expect("no panic").seals()
    }

    fn get(&self, id: &crate::kms::record::Id) -> Result<Option<Vec<u8>>, store::Error> {
        self.0.lock().expect("no panic").get(id)
    }

    fn for_each(&self, each: &mut dyn FnMut(&crate::kms::record::Id, &[u8]) -> bool) -> Result<(), store::Error> {
        self.0.lock().expect("no panic").for_each(each)
    }

    fn settle(&mut self) -> Result<(), store::Error> {
        Ok(())
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), store::Error> {
        self.0.lock().expect("no panic").commit(batch)
    }

    fn begin(&self, seals: &store::Seals) -> Result<Box<dyn store::Begun>, store::Error> {
        let begun = Mem::with(seals.clone());
        Ok(Box::new(Anew { begun, place: self.0.clone() }))
    }
}

struct Anew {
    begun: Mem,
    place: Arc<Mutex<Mem>>,
}

impl store::Begun for Anew {
    fn put(&mut self, id: &crate::kms::record::Id, value: &[u8]) -> Result<(), store::Error> {
        store::Begun::put(&mut self.begun, id, value)
    }

    fn read_back(
        &mut self,
        each: &mut dyn FnMut(&crate::kms::record::Id, &[u8]) -> bool,
    ) -> Result<store::Seals, store::Error> {
        self.begun.read_back(each)
    }

    fn install(self: Box<Self>) -> Result<Box<dyn Store>, store::Error> {
        let Self { begun, place } = *self;
        *place.lock().expect("no panic") = begun;
        Ok(Box::new(Kept(place)))
    }
}

impl Notes for Disk {
    fn read(&self) -> std::io::Result<Option<Vec<u8>>> {
        Ok(self.note.lock().expect("no panic").clone())
    }

    fn write(&mut self, note: &[u8]) -> std::io::Result<()> {
        *self.note.lock().expect("no panic") = Some(note.to_vec());
        Ok(())
    }
}

impl Disk {
    pub(super) fn store(&self) -> Box<dyn Store> {
        Box::new(Kept(self.store.clone()))
    }

    /// Another disk with the same content.
    pub(super) fn copy(&self) -> Self {
        let mut copy = Mem::with(self.store().seals().expect("in memory"));
        let mut batch = Batch::default();
        let mut take = |id: &crate::kms::record::Id, value: &[u8]| {
            batch.puts.push((*id, value.to_vec()));
            true
        };
        self.store().for_each(&mut take).expect("in memory");
        copy.commit(&batch).expect("in memory");
        let note = self.note.lock().expect("no panic").clone();
        Self { store: Arc::new(Mutex::new(copy)), note: Arc::new(Mutex::new(note)) }
    }
}

/// Opens what a node has.
pub(super) async fn join(
    journal: Arc<dyn crate::kms::journal::Journal>,
    store: Box<dyn Store>,
    host: &str,
    disk: &Disk,
) -> Result<Keeper, crate::kms::keeper::Error> {
    let notes = Box::new(disk.clone());
    let joining = Joining { journal, notes, host: host.into(), stale_reads: None, runtime: Handle::current() };
    let open = move || Keeper::join(store, joining, providers(&[("env", HSM)]), admin());
    tokio::task::spawn_blocking(open).await.expect("no panic")
}

/// One node, as its clients see it.
pub(super) struct Server {
    pub(super) writer: Arc<Writer>,
    pub(super) link: Arc<Mutex<Link>>,
}

impl Server {
    pub(super) async fn start(cluster: &Arc<Cluster>, host: &str, disk: &Disk) -> Self {
        Self::try_start(cluster, host, disk).await.expect("it takes part")
    }

    pub(super) async fn try_start(
        cluster: &Arc<Cluster>,
        host: &str,
        disk: &Disk,
    ) -> Result<Self, crate::kms::keeper::Error> {
        let journal = cluster.node();
        let link = journal.link();
        let keeper = join(Arc::new(journal), disk.store(), host, disk).await?;
        let writer = Arc::new(Writer::start(keeper).expect("a thread"));
        writer.node().expect("a node").begin_saying().await.expect("nobody else");
        Ok(Self { writer, link })
    }

    pub(super) fn node(&self) -> &Arc<Node> {
        self.writer.node().expect("a node")
    }

    pub(super) async fn change(&self, enclave: &str, command: (Action, Change)) -> Result<(), Error> {
        let author = Author { caller: admin().identity, now: NOW, right: Right::Account };
        let order = Order { author, enclave: enclave.into(), commands: vec![command], size: 1 };
        timeout(Duration::from_secs(40), self.writer.apply(order)).await.expect("it ends")
    }

    pub(super) async fn stop(self) {
        self.writer.finish().await;
    }

    /// The key as this node has it now.
    pub(super) fn key(&self, name: &str) -> Result<Arc<Ring>, Error> {
        let snapshot = self.writer.snapshot();
        Ok(snapshot.enclave("e").ok_or(Error::NoEnclave)?.key(name)?.clone())
    }

    pub(super) fn set(&self, link: Link) {
        *self.link.lock().expect("no panic") = link;
    }
}

pub(super) fn rotate(name: &str) -> (Action, Change) {
    let request = CreateKeyRequest { name: name.into(), add_version: true, ..CreateKeyRequest::default() };
    (Action::KeyCreate, Change::KeyCreate(request))
}

pub(super) fn delete(name: &str, version: u32) -> (Action, Change) {
    let request = DeleteKeyRequest { name: name.into(), version, all_versions: version == 0 };
    (Action::KeyDelete, Change::KeyDelete(request))
}

fn delete_enclave(enclave: &str) -> (Action, Change) {
    (Action::EnclaveDelete, Change::EnclaveDelete(name(enclave)))
}

/// Two nodes, and an enclave `e`.
pub(super) async fn two() -> (Arc<Cluster>, Server, Server) {
    let cluster = Cluster::new();
    let a = Server::start(&cluster, "a:7373", &Disk::default()).await;
    let b = Server::start(&cluster, "b:7373", &Disk::default()).await;
    a.change("", create_enclave("e")).await.expect("created");
    (cluster, a, b)
}

#[tokio::test]
async fn what_one_has_made_the_other_has_when_it_asks() {
    let (_, a, b) = two().await;
    for n in 0..50 {
        let (one, other) = if n % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let name = format!("k-{n}");
        one.change("e", create_key(&name)).await.expect("created");
        other.writer.confirm().await.expect("an answer");
        assert!(other.key(&name).is_ok(), "{name}");
    }
    assert_eq!(a.writer.snapshot().members.iter().count(), 2);
}

#[tokio::test]
async fn of_two_who_make_the_same_key_one_is_refused() {
    let (_, a, b) = two().await;
    for n in 0..40 {
        let name = format!("k-{n}");
        let (one, other) = tokio::join!(a.change("e", create_key(&name)), b.change("e", create_key(&name)));
        let refused = [&one, &other].iter().filter(|done| matches!(done, Err(Error::KeyExists))).count();
        assert_eq!((refused, one.is_ok() ^ other.is_ok()), (1, true), "{one:?} {other:?}");
    }
    assert!(
        a.node().counts.overtaken.load(std::sync::atomic::Ordering::Relaxed) > 0
            || b.node().counts.overtaken.load(std::sync::atomic::Ordering::Relaxed) > 0
    );
}

#[tokio::test]
async fn a_change_whose_answer_was_lost_is_made_once() {
    let (_, a, b) = two().await;
    a.change("e", create_key("k")).await.expect("created");
    for round in 2..6_u32 {
        a.set(Link::Deaf);
        let rotated = a.change("e", rotate("k"));
        let heard = async {
            sleep(Duration::from_millis(100)).await;
            if round % 2 == 0 {
                // Somebody else writes before the first one knows.
                b.change("e", create_key(&format!("other-{round}"))).await.expect("created");
            }
            a.set(Link::Up);
        };
        let (rotated, ()) = tokio::join!(rotated, heard);
        rotated.expect("it is known in the end");
        assert_eq!(a.key("k").expect("there").latest().0, round);
        b.writer.confirm().await.expect("an answer");
        assert_eq!(b.key("k").expect("there").count(), usize::try_from(round).expect("few"));
    }
}

#[tokio::test]
async fn a_deletion_waits_for_whoever_uses_an_older_state() {
    let (_, a, b) = two().await;
    a.change("e", create_key("k")).await.expect("created");
    a.change("e", rotate("k")).await.expect("rotated");
    b.writer.confirm().await.expect("an answer");
    let in_use = b.writer.snapshot();
    let deleting = a.change("e", delete("k", 2));
    let looking = async {
        sleep(Duration::from_millis(300)).await;
        b.writer.confirm().await.expect("an answer");
        let ring = b.key("k").expect("there");
        assert_eq!(
            (ring.retired(), ring.encrypting(0).expect("the older one").0),
            (&[2][..], 1),
            "retired, not deleted"
        );
        drop(in_use);
    };
    let (deleted, ()) = tokio::join!(deleting, looking);
    deleted.expect("deleted");
    b.writer.confirm().await.expect("an answer");
    assert_eq!(b.key("k").expect("there").count(), 1);
    b.change("e", delete("k", 0)).await.expect("deleted");
    a.writer.confirm().await.expect("an answer");
    assert!(matches!(a.key("k"), Err(Error::NoKey)));
    assert!(matches!(a.change("e", delete("k", 0)).await, Err(Error::NoKey)));
}

#[tokio::test]
async fn a_member_that_is_cut_off_keeps_a_key_from_being_deleted() {
    let (_, a, b) = two().await;
    a.change("e", create_key("k")).await.expect("created");
    b.writer.confirm().await.expect("an answer");
    b.set(Link::Cut);
    let refused = a.change("e", delete("k", 0)).await.expect_err("b has not said so").to_string();
    assert!(refused.starts_with("'k' is retired, not deleted: b:7373 "), "{refused}");
    assert!(matches!(a.key("k").expect("there").encrypting(0), Err(Error::KeyRetired)));
    assert!(matches!(a.change("e", rotate("k")).await, Err(Error::KeyRetired)));
    assert!(matches!(a.change("e", create_key("k")).await, Err(Error::KeyExists)));
    // What it had, it still encrypts with: that is why.
    assert!(b.key("k").expect("there").encrypting(0).is_ok());
    assert!(matches!(b.writer.confirm().await, Err(Error::Uncertain(_))));
    b.set(Link::Up);
    a.change("e", delete("k", 0)).await.expect("now it has");
    assert!(matches!(a.key("k"), Err(Error::NoKey)));
}

#[tokio::test]
async fn an_enclave_goes_in_steps_and_its_name_is_free_at_the_end() {
    let (_, a, b) = two().await;
    for n in 0..300 {
        a.change("e", create_key(&format!("k-{n}"))).await.expect("created");
    }
    a.change("e", create_identity(identity(7), "User")).await.expect("created");
    b.change("", delete_enclave("e")).await.expect("deleted");
    assert!(b.writer.snapshot().enclave("e").is_none() && !b.writer.snapshot().knows(&identity(7)));
    a.writer.confirm().await.expect("an answer");
    assert!(a.writer.snapshot().enclave("e").is_none() && !a.writer.snapshot().knows(&identity(7)));
    assert!(matches!(a.change("", create_enclave("e")).await, Err(Error::EnclaveExists)));
    // A server does this in the background.
    let most = 100;
    while let Some(change) = crate::kms::destroy::next_to_empty(&a.writer.snapshot(), most) {
        a.change("", (Action::EnclaveDelete, change)).await.expect("emptied");
    }
    b.change("", create_enclave("e")).await.expect("the name is free");
    a.writer.confirm().await.expect("an answer");
    assert_eq!(a.writer.snapshot().enclave("e").map(|enclave| enclave.retired), Some(Retired::No));
}

#[tokio::test]
async fn a_node_comes_back_from_its_disk() {
    let cluster = Cluster::new();
    let (disk, other) = (Disk::default(), Disk::default());
    let a = Server::start(&cluster, "a:7373", &disk).await;
    let b = Server::start(&cluster, "b:7373", &other).await;
    a.change("", create_enclave("e")).await.expect("created");
    a.change("e", create_key("k")).await.expect("created");
    let number = a.node().number;
    a.stop().await;
    b.change("e", rotate("k")).await.expect("rotated");
    b.change("e", create_key("meanwhile")).await.expect("created");
    let a = Server::start(&cluster, "a:7373", &disk).await;
    assert_eq!((a.node().number, a.writer.snapshot().members.iter().count()), (number, 2), "the same member");
    assert_eq!(a.key("k").expect("there").latest().0, 2);
    assert!(a.key("meanwhile").is_ok());
    a.stop().await;
    b.change("e", rotate("k")).await.expect("rotated");
    // Now the commits in between are gone.
    cluster.compact();
    b.change("e", rotate("k")).await.expect("rotated");
    let a = Server::start(&cluster, "a:7373", &disk).await;
    assert_eq!(a.key("k").expect("there").latest().0, 4);
    a.change("e", rotate("k")).await.expect("rotated");
    b.writer.confirm().await.expect("an answer");
    assert_eq!(b.key("k").expect("there").latest().0, 5);
}

#[tokio::test]
async fn a_node_that_was_killed_between_its_records_and_its_note_comes_back() {
    let cluster = Cluster::new();
    let disk = Disk::default();
    let a = Server::start(&cluster, "a:7373", &disk).await;
    let old = disk.copy();
    a.change("", create_enclave("e")).await.expect("created");
    a.change("e", create_key("k")).await.expect("created");
    let number = a.node().number;
    // The records are newer than the note, as after a kill in between.
    let killed = Disk { note: old.note, ..disk.copy() };
    a.stop().await;
    let a = Server::start(&cluster, "a:7373", &killed).await;
    assert_eq!((a.node().number, a.writer.snapshot().members.iter().count()), (number, 1), "the same member");
    assert!(a.key("k").is_ok());
    a.change("e", rotate("k")).await.expect("rotated");
}

#[tokio::test]
async fn a_node_that_was_killed_before_it_noted_its_place_comes_back() {
    let cluster = Cluster::new();
    let disk = Disk::default();
    let a = Server::start(&cluster, "a:7373", &disk).await;
    let b = Server::start(&cluster, "b:7373", &Disk::default()).await;
    a.change("", create_enclave("e")).await.expect("created");
    let number = a.node().number;
    let noted = disk.note.lock().expect("no panic").clone();
    assert!(noted.is_some(), "it notes its place at the start");
    a.change("e", create_key("k")).await.expect("created");
    a.stop().await;
    // The file has the key, and the note is from before it.
    *disk.note.lock().expect("no panic") = noted.clone();
    b.change("e", rotate("k")).await.expect("rotated");
    let a = Server::start(&cluster, "a:7373", &disk).await;
    assert_eq!(a.node().number, number, "the same member");
    assert_eq!(a.key("k").expect("there").latest().0, 2);
    // An older journal is noticed all the same, and the file keeps what the journal has lost.
    a.stop().await;
    let before = disk.content();
    *disk.note.lock().expect("no panic") = noted;
    cluster.set_back(2);
    let refused = Server::try_start(&cluster, "a:7373", &disk).await.err().expect("it was set back").to_string();
    assert!(refused.contains("set back"), "{refused}");
    assert!(disk.content() == before, "the file is as it was");
}

#[tokio::test]
async fn a_journal_that_was_set_back_is_noticed() {
    let (cluster, a, b) = two().await;
    a.change("e", create_key("k")).await.expect("created");
    b.writer.confirm().await.expect("an answer");
    cluster.set_back(1);
    // Whoever comes over a new connection sees it.
    b.set(Link::Cut);
    sleep(Duration::from_millis(700)).await;
    b.set(Link::Up);
    let refused = b.change("e", create_key("other")).await.expect_err("nothing can be changed").to_string();
    assert!(refused.contains("set back") || refused.contains("not heard"), "{refused}");
    assert!(b.key("k").is_ok(), "what it has, it serves");
    assert!(b.writer.confirm().await.is_err());
}

#[tokio::test]
async fn a_compaction_under_a_node_that_is_cut_off_makes_it_load_everything() {
    let (cluster, a, b) = two().await;
    b.set(Link::Cut);
    for n in 0..10 {
        a.change("e", create_key(&format!("k-{n}"))).await.expect("created");
    }
    // It notices the next thing that comes.
    sleep(Duration::from_millis(300)).await;
    cluster.compact();
    b.set(Link::Up);
    b.writer.confirm().await.expect("an answer");
    assert!((0..10).all(|n| b.key(&format!("k-{n}")).is_ok()));
    assert_eq!(b.node().counts.reloads.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[tokio::test]
async fn deletions_come_alone() {
    let (_, a, _b) = two().await;
    a.change("e", create_key("k")).await.expect("created");
    let author = Author { caller: admin().identity, now: NOW, right: Right::Account };
    let commands = vec![create_key("x"), delete("k", 0)];
    let refused = a.writer.apply(Order { author, enclave: "e".into(), commands, size: 1 }).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    assert!(a.key("x").is_err());
}

#[tokio::test]
async fn a_single_server_moves_in_and_out_again_and_reads_go_on() {
    let cluster = Cluster::new();
    let alone = Keeper::open(Box::new(Kept(Arc::default())), providers(&[("env", HSM)]), admin()).expect("opened");
    let writer = Arc::new(Writer::start(alone).expect("a thread"));
    let journal = cluster.node();
    let link = journal.link();
    let a = Server { writer, link };
    a.change("", create_enclave("e")).await.expect("created");
    for n in 0..200 {
        a.change("e", create_key(&format!("k-{n}"))).await.expect("created");
    }
    let disk = Disk::default();
    let joining = Joining {
        journal: Arc::new(journal),
        notes: Box::new(disk),
        host: "a:7373".into(),
        stale_reads: None,
        runtime: Handle::current(),
    };
    a.writer.move_in(joining).await.expect("moved");
    a.node().begin_saying().await.expect("nobody else");
    let b = Server::start(&cluster, "b:7373", &Disk::default()).await;
    assert!((0..200).all(|n| b.key(&format!("k-{n}")).is_ok()));
    b.change("e", create_key("of-b")).await.expect("created");
    let refused = a.writer.move_out().await.expect_err("there is another one").to_string();
    assert!(refused.starts_with("'b:7373' is a member of the cluster, too"), "{refused}");
    let remove = |host: &str| (Action::ClusterRemoveNode, Change::ClusterRemoveNode(name(host)));
    let refused = a.change("", remove("b:7373")).await.expect_err("it runs").to_string();
    assert_eq!(refused, "'b:7373' runs: stop it first");
    b.stop().await;
    a.change("", remove("b:7373")).await.expect("removed");
    a.writer.move_out().await.expect("alone");
    assert!(a.writer.node().is_none());
    assert!(a.key("of-b").is_ok());
    a.change("e", create_key("after")).await.expect("created");
    a.change("e", delete("after", 0)).await.expect("deleted at once");
    let other = Cluster::new();
    let joining = Joining {
        journal: Arc::new(other.node()),
        notes: Box::new(Disk::default()),
        host: "a:7373".into(),
        stale_reads: None,
        runtime: Handle::current(),
    };
    let refused = a.writer.move_in(joining).await.expect_err("requests would go by the old node").to_string();
    assert!(refused.contains("start it again"), "{refused}");
    let late = Server::try_start(&cluster, "c:7373", &Disk::default()).await.err().expect("it is no more").to_string();
    assert!(late.contains("moved out to a:7373"), "{late}");
}

#[tokio::test]
async fn a_removed_server_ends_and_its_number_is_not_given_again() {
    let (cluster, a, b) = two().await;
    let number = b.node().number;
    b.set(Link::Cut);
    b.node().journal.leave().await;
    a.change("", (Action::ClusterRemoveNode, Change::ClusterRemoveNode(name("b:7373")))).await.expect("removed");
    b.set(Link::Up);
    let ended = timeout(Duration::from_secs(10), b.node().ended()).await.expect("it hears of it");
    assert_eq!(ended, crate::kms::node::Ended::Removed);
    assert!(b.change("e", create_key("k")).await.is_err());
    let c = Server::start(&cluster, "c:7373", &Disk::default()).await;
    assert_eq!(c.node().number, number + 1);
    a.change("e", create_key("k")).await.expect("created");
    a.change("e", delete("k", 0)).await.expect("the two of them are asked");
}

#[tokio::test]
async fn a_backup_of_a_cluster_is_restored_where_one_server_is_left() {
    let (cluster, a, b) = two().await;
    a.change("e", create_key("kept")).await.expect("created");
    let backup = a.writer.backup().await.expect("made");
    a.change("e", create_key("later")).await.expect("created");
    assert!(matches!(a.writer.restore(backup.clone()).await, Err(Error::Conflict(_))));
    b.stop().await;
    a.change("", (Action::ClusterRemoveNode, Change::ClusterRemoveNode(name("b:7373")))).await.expect("removed");
    a.writer.restore(backup.clone()).await.expect("restored");
    assert!(a.key("kept").is_ok() && a.key("later").is_err());
    a.writer.rotate_root().await.expect("rotated");
    a.change("e", create_key("after")).await.expect("created");
    let c = Server::start(&cluster, "c:7373", &Disk::default()).await;
    assert!(c.key("kept").is_ok() && c.key("after").is_ok() && c.key("later").is_err());
    // A server that is no cluster takes it, too.
    let mut alone = keeper();
    alone.restore(&backup).expect("restored");
    assert!(alone.snapshot().members.is_empty() && alone.snapshot().enclave("e").is_some());
}

#[tokio::test]
async fn a_server_that_comes_back_meanwhile_is_not_removed() {
    let (_, a, b) = two().await;
    // It was looked at before, and did not run.
    let leave = Leave { number: b.node().number, host: "b:7373".into() };
    let refused = a.change("", (Action::ClusterRemoveNode, Change::Leave(leave))).await.expect_err("it runs");
    assert_eq!(refused.to_string(), "the server runs: stop it first");
    assert!(a.writer.snapshot().members.get(b.node().number).is_some());
    a.change("e", create_key("k")).await.expect("others go on");
}

#[tokio::test]
async fn a_transit_key_is_trimmed_when_everybody_knows_which_versions_may_encrypt() {
    let (_, a, b) = two().await;
    let change = |what| (Action::KeyDelete, Change::Transit(transit::Change { name: "t".into(), what }));
    a.change("e", change(What::Create { kind: Kind::Aes256Gcm, derived: false })).await.expect("created");
    a.change("e", change(What::Rotate)).await.expect("rotated");
    let refused = a.change("e", change(What::Trim(2))).await.expect_err("version 1 may encrypt");
    assert!(matches!(refused, Error::Invalid(_)), "{refused}");
    let minima = |min_encryption| {
        let config =
            transit::Config { min_decryption: Some(2), min_encryption: Some(min_encryption), ..Default::default() };
        change(What::Configure(config))
    };
    a.change("e", minima(2)).await.expect("configured");
    let key = a.writer.snapshot().enclave("e").expect("there").transit("t").expect("there").clone();
    let first_step = |asked: &[u32]| {
        let trim = destroy::Trim { key: key.clone(), first: 2, asked: asked.to_vec() };
        (Action::KeyDelete, Change::Destroy(destroy::Step::Trim(trim)))
    };
    let everybody = [a.node().number, b.node().number];
    let refused = a.change("e", first_step(&everybody[..1])).await;
    assert!(matches!(refused, Err(Error::Overtaken)), "not everybody was asked: {refused:?}");
    // The older version may encrypt again, and then not, and it is not known whether everybody knows.
    b.change("e", minima(0)).await.expect("configured");
    b.change("e", change(What::Rotate)).await.expect("rotated");
    b.change("e", minima(2)).await.expect("configured");
    let refused = a.change("e", first_step(&everybody)).await;
    assert!(matches!(refused, Err(Error::Overtaken)), "they were asked about another state: {refused:?}");
    b.writer.confirm().await.expect("an answer");
    let (in_use, trimming) = (b.writer.snapshot(), change(What::Trim(2)));
    a.change("e", change(What::Rotate)).await.expect("rotated");
    let looking = async {
        sleep(Duration::from_millis(300)).await;
        assert_eq!(
            a.writer.snapshot().enclave("e").expect("there").transit("t").expect("there").settings().min_available,
            0
        );
        drop(in_use);
    };
    let (trimmed, ()) = tokio::join!(a.change("e", trimming), looking);
    trimmed.expect("trimmed");
    b.writer.confirm().await.expect("an answer");
    assert_eq!(
        b.writer.snapshot().enclave("e").expect("there").transit("t").expect("there").settings().min_available,
        2
    );
}
