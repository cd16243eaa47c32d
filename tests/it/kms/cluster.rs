//! Several key managers on three real etcd.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use claviger::client::kms::Commands;
use claviger::client::{Client, Error};
use claviger::kms::Action;
use claviger::kms::wire::{
    ClusterStatusResponse, CreateKeyRequest, DecryptRequest, DecryptResponse, DeleteKeyRequest, EncryptRequest,
    EncryptResponse, KeyStatus, KeyVersionRequest, NameRequest,
};

use super::{ENCLAVE, HSM, client, create_enclave, root};
use crate::support::etcd::{Etcd, tls};
use crate::support::openbao::unique;
use crate::support::program::Program;
use crate::support::{TestServer, block_on, eventually};

/// The `cluster` section of a config, as JSON, which is YAML.
fn config(etcd: &Etcd, prefix: &str, stale_reads: &str) -> String {
    let section = json!({ "endpoints": etcd.endpoints(), "prefix": prefix, "tls": tls("app") });
    json!({ "version": "v1", "cluster": { "etcd": section, "stale_reads": stale_reads } }).to_string()
}

/// A node with its data in a directory.
fn node(config: &str, data: &Path, host: &str) -> TestServer {
    let file = data.with_extension("yml");
    std::fs::write(&file, config).expect("written");
    TestServer::key_manager(data, HSM, &["--host", host, "--config", file.to_str().expect("text")])
}

struct Trio {
    config: String,
    directory: tempfile::TempDir,
    servers: Vec<TestServer>,
}

impl Trio {
    fn start(etcd: &Etcd, stale_reads: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let config = config(etcd, &format!("{}/", unique("kms")), stale_reads);
        let mut trio = Self { config, directory, servers: Vec::new() };
        for n in 0..3 {
            let server = trio.node(n);
            trio.servers.push(server);
        }
        block_on(create_enclave(&trio.client(0)));
        trio
    }

    fn node(&self, n: usize) -> TestServer {
        node(&self.config, &self.directory.path().join(format!("data{n}")), &format!("node-{n}:7373"))
    }

    fn client(&self, n: usize) -> Client {
        client(&self.servers[n], &root())
    }
}

async fn create(client: &Client, name: &str, add_version: bool) -> Result<(), Error> {
    let request = CreateKeyRequest { name: name.into(), add_version, ..CreateKeyRequest::default() };
    client.change(ENCLAVE, Commands::one(Action::KeyCreate, &request)).await
}

async fn encrypt(client: &Client, name: &str) -> Result<EncryptResponse, Error> {
    let mut request = EncryptRequest::default();
    (request.name, request.plaintext) = (name.into(), b"message".to_vec());
    client.ask(ENCLAVE, Action::KeyEncrypt, &request).await
}

async fn decrypt(client: &Client, name: &str, sealed: &EncryptResponse) -> Result<DecryptResponse, Error> {
    let request = DecryptRequest {
        name: name.into(),
        version: sealed.version,
        ciphertext: sealed.ciphertext.clone(),
        ..DecryptRequest::default()
    };
    client.ask(ENCLAVE, Action::KeyDecrypt, &request).await
}

async fn delete(client: &Client, name: &str) -> Result<(), Error> {
    let request = DeleteKeyRequest { name: name.into(), all_versions: true, ..DeleteKeyRequest::default() };
    client.change(ENCLAVE, Commands::one(Action::KeyDelete, &request)).await
}

async fn status(client: &Client) -> ClusterStatusResponse {
    client.ask("", Action::ClusterStatus, &NameRequest::default()).await.expect("an answer")
}

fn minkms(server: &TestServer, args: &[&str]) -> crate::support::program::Outcome {
    let directory = server.directory();
    let program = Program::named("minkms", directory).env("MINIO_KMS_SERVER", server.address().to_string());
    program.env("MINIO_KMS_API_KEY", root().expose()).run(&[args, &["-k"]].concat())
}

#[test]
#[ignore = "runs etcd: tests/run"]
fn three_servers_are_one_key_manager() {
    let etcd = Etcd::shared();
    let mut trio = Trio::start(&etcd, "24h");
    block_on(async {
        let clients: Vec<_> = (0..3).map(|n| trio.client(n)).collect();
        for n in 0..60 {
            let (one, other, third) = (&clients[n % 3], &clients[(n + 1) % 3], &clients[(n + 2) % 3]);
            let name = format!("k-{n}");
            create(one, &name, false).await.expect("created");
            let sealed = encrypt(other, &name).await.expect("there at once");
            create(other, &name, true).await.expect("rotated");
            let newer = encrypt(third, &name).await.expect("encrypted");
            assert_eq!(&*decrypt(third, &name, &sealed).await.expect("decrypted").plaintext, b"message");
            assert_eq!(&*decrypt(one, &name, &newer).await.expect("decrypted").plaintext, b"message");
            let refused = create(third, &name, false).await.expect_err("it is there").to_string();
            assert!(refused.contains("key already exists"), "{refused}");
            if n % 3 == 0 {
                delete(third, &name).await.expect("all have confirmed");
                for client in &clients {
                    let refused = encrypt(client, &name).await.expect_err("it is gone").to_string();
                    assert!(refused.contains("key does not exist"), "{refused}");
                }
            }
        }
        let status = status(&clients[0]).await;
        assert_eq!((status.nodes_up.len(), status.nodes_down.len()), (3, 0), "{status:?}");
        let hosts: Vec<_> = status.nodes_up.values().map(|node| node.host.as_str()).collect();
        assert_eq!(hosts, ["node-0:7373", "node-1:7373", "node-2:7373"]);
        assert!(status.nodes_up.values().all(|node| node.role == "Follower" && node.leader_id == -1));
    });
    // One of them is lost.
    trio.servers.pop().expect("there").kill();
    let a = &trio.servers[0];
    block_on(async {
        let client = trio.client(0);
        create(&client, "doomed", false).await.expect("a write needs no other server");
        let refused = delete(&client, "doomed").await.expect_err("not everybody has confirmed").to_string();
        assert!(refused.contains("'doomed' is retired, not deleted: node-2:7373"), "{refused}");
        let refused = encrypt(&trio.client(1), "doomed").await.expect_err("it is retired").to_string();
        assert!(refused.contains("key is being deleted"), "{refused}");
    });
    // Its lease ends after ten seconds.
    eventually("the server is known to be down", || block_on(status(&trio.client(0))).nodes_down.len() == 1);
    let removed = minkms(a, &["rm", "node-1:7373", "--yes"]);
    assert!(removed.stderr.contains("'node-1:7373' runs: stop it first"), "{}", removed.stderr);
    minkms(a, &["rm", "node-2:7373", "--yes"]).ok();
    block_on(delete(&trio.client(1), "doomed")).expect("those that are left have confirmed");
    let listed = minkms(a, &["ls"]).ok();
    assert!(listed.contains("node-0:7373") && listed.contains("node-1:7373") && !listed.contains("node-2"), "{listed}");
    assert!(minkms(a, &["add", "node-3:7373"]).stderr.contains("no such server has joined"), "nobody came");
    // It does not come back by itself, and it does as a new one.
    let data = trio.directory.path().join("data2");
    let file = data.with_extension("yml");
    let said = TestServer::key_manager_refuses(
        &data,
        HSM,
        &["--host", "node-2:7373", "--config", file.to_str().expect("text")],
    );
    assert!(said.contains("this server was removed from the cluster"), "{said}");
    std::fs::remove_dir_all(&data).expect("removed");
    let again = trio.node(2);
    minkms(a, &["add", "node-2:7373"]).ok();
    assert!(block_on(encrypt(&client(&again, &root()), "k-1")).is_ok());
    let status = block_on(status(&trio.client(0)));
    assert_eq!(status.nodes_up.keys().copied().collect::<Vec<_>>(), [1, 2, 4], "a number is never given again");
}

/// What clients have been told while something happened.
#[derive(Default)]
struct Told {
    made: Mutex<Vec<String>>,
    unknown: AtomicU64,
    failed_reads: AtomicU64,
    reads: AtomicU64,
    stop: AtomicBool,
}

/// Creates keys and encrypts with one until it is stopped.
async fn work(client: Client, number: usize, told: Arc<Told>) {
    let mut n = 0;
    while !told.stop.load(Ordering::Relaxed) {
        n += 1;
        let name = format!("w-{number}-{n}");
        match create(&client, &name, false).await {
            Ok(()) => told.made.lock().expect("no panic").push(name),
            Err(_) => drop(told.unknown.fetch_add(1, Ordering::Relaxed)),
        }
        told.reads.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = encrypt(&client, "hot").await {
            eprintln!("a read failed: {error}");
            told.failed_reads.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
#[ignore = "runs etcd: tests/run"]
fn nothing_is_lost_or_made_twice_when_leaders_and_servers_are_killed_and_reads_need_nobody() {
    let mut etcd = Etcd::start(3, &[]);
    let mut trio = Trio::start(&etcd, "24h");
    block_on(create(&trio.client(0), "hot", false)).expect("created");
    (0..3).for_each(|n| drop(block_on(encrypt(&trio.client(n), "hot")).expect("everybody has it")));
    let told = Arc::new(Told::default());
    let workers: Vec<_> = (0..2)
        .map(|n| {
            let (client, told) = (trio.client(n), told.clone());
            std::thread::spawn(move || block_on(work(client, n, told)))
        })
        .collect();
    std::thread::sleep(Duration::from_secs(1));
    let leader = etcd.leader();
    etcd.kill(leader);
    std::thread::sleep(Duration::from_secs(3));
    trio.servers.pop().expect("there").kill();
    etcd.run(leader);
    std::thread::sleep(Duration::from_secs(2));
    let back = trio.node(2);
    trio.servers.push(back);
    std::thread::sleep(Duration::from_secs(1));
    told.stop.store(true, Ordering::Relaxed);
    workers.into_iter().for_each(|worker| worker.join().expect("no panic"));
    let made = told.made.lock().expect("no panic");
    let (reads, failed) = (told.reads.load(Ordering::Relaxed), told.failed_reads.load(Ordering::Relaxed));
    eprintln!(
        "{} keys made, {} unknown, {reads} reads, {failed} failed",
        made.len(),
        told.unknown.load(Ordering::Relaxed)
    );
    assert!(made.len() > 50 && failed == 0, "{} made, {failed} of {reads} reads failed", made.len());
    block_on(async {
        for n in 0..3 {
            let client = trio.client(n);
            for name in made.iter() {
                let request = KeyVersionRequest { name: name.clone(), version: 0 };
                let status: KeyStatus = client.ask(ENCLAVE, Action::KeyStatus, &request).await.expect("it is there");
                assert_eq!(status.version, 1, "made once");
            }
        }
    });

    // Without a majority of etcd nothing can be changed, and what is known is served.
    let lost = [etcd.leader(), (etcd.leader() + 1) % 3];
    lost.iter().for_each(|member| etcd.kill(*member));
    let began = Instant::now();
    block_on(async {
        let client = trio.client(0);
        assert!(create(&client, "never", false).await.is_err());
        for _ in 0..50 {
            encrypt(&client, "hot").await.expect("it goes on");
        }
        let refused = encrypt(&client, "not-there").await.expect_err("nobody knows").to_string();
        assert!(refused.contains("has not heard of the others"), "{refused}");
    });
    let refused = Instant::now();
    assert!(block_on(create(&trio.client(0), "never", false)).is_err());
    assert!(refused.elapsed() < Duration::from_secs(10), "nobody waits again");
    eprintln!("without a majority: {:.1?}", began.elapsed());
    lost.iter().for_each(|member| etcd.run(*member));
    eventually("writes go on", || block_on(create(&trio.client(0), &unique("again"), false)).is_ok());
}

#[test]
#[ignore = "runs etcd: tests/run"]
fn a_single_server_moves_into_a_cluster_and_out_again_while_it_is_used() {
    let etcd = Etcd::shared();
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data0");
    let file = data.with_extension("yml");
    std::fs::write(&file, "version: v1\n").expect("written");
    let args = ["--host", "node-0:7373", "--config", file.to_str().expect("text")];
    let a = TestServer::key_manager(&data, HSM, &args);
    block_on(async {
        let client = client(&a, &root());
        create_enclave(&client).await;
        for n in 0..20 {
            create(&client, &format!("k-{n}"), false).await.expect("created");
        }
    });
    let refused = minkms(&a, &["join"]);
    assert!(refused.stderr.contains("has no 'cluster' section: add it first"), "{}", refused.stderr);
    let clustered = config(&etcd, &format!("{}/", unique("kms")), "24h");
    std::fs::write(&file, &clustered).expect("written");
    let stop = Arc::new(AtomicBool::new(false));
    let reading = {
        let (client, stop) = (client(&a, &root()), stop.clone());
        std::thread::spawn(move || {
            block_on(async {
                let mut reads = 0;
                while !stop.load(Ordering::Relaxed) {
                    encrypt(&client, "k-1").await.expect("reads go on");
                    reads += 1;
                }
                reads
            })
        })
    };
    minkms(&a, &["join"]).ok();
    let b = node(&clustered, &directory.path().join("data1"), "node-1:7373");
    block_on(async {
        let (one, other) = (client(&a, &root()), client(&b, &root()));
        create(&other, "of-b", false).await.expect("created");
        encrypt(&one, "of-b").await.expect("there");
        encrypt(&other, "k-19").await.expect("it came along");
    });
    assert!(minkms(&a, &["leave", "--yes"]).stderr.contains("is a member of the cluster, too"));
    let c = tempfile::tempdir().expect("a directory");
    std::fs::write(c.path().join("kms.yml"), &clustered).expect("written");
    assert!(b.stop().success());
    eventually("it may be removed", || minkms(&a, &["rm", "node-1:7373", "--yes"]).exit == Some(0));
    minkms(&a, &["leave", "--yes"]).ok();
    std::fs::write(&file, "version: v1\n").expect("written");
    stop.store(true, Ordering::Relaxed);
    let reads: u64 = reading.join().expect("no read failed");
    eprintln!("{reads} reads meanwhile");
    block_on(create(&client(&a, &root()), "after", false)).expect("created");
    assert!(a.stop().success());
    let a = TestServer::key_manager(&data, HSM, &args);
    block_on(async {
        let client = client(&a, &root());
        for name in ["k-1", "of-b", "after"] {
            encrypt(&client, name).await.expect("it is there");
        }
        delete(&client, "after").await.expect("deleted at once");
    });
}

#[test]
#[ignore = "runs etcd: tests/run"]
fn a_server_that_hears_of_nobody_decrypts_and_closes_when_it_is_too_old() {
    let mut etcd = Etcd::start(1, &[]);
    let mut trio = Trio::start(&etcd, "40s");
    let sealed = block_on(async {
        create(&trio.client(0), "k", false).await.expect("created");
        encrypt(&trio.client(1), "k").await.expect("encrypted")
    });
    // Long enough for all of it to be on the disk.
    std::thread::sleep(Duration::from_secs(5));
    etcd.kill(0);
    let began = Instant::now();
    trio.servers.remove(1).kill();
    // It starts without an answer after half a minute.
    let back = trio.node(1);
    block_on(async {
        let client = client(&back, &root());
        assert_eq!(&*decrypt(&client, "k", &sealed).await.expect("decrypted").plaintext, b"message");
        let refused = encrypt(&client, "k").await.expect_err("it may have been deleted meanwhile").to_string();
        assert!(refused.contains("has not heard of the others"), "{refused}");
    });
    // The others have been answering all the time.
    let other = &trio.servers[0];
    if began.elapsed() < Duration::from_secs(35) {
        assert!(block_on(encrypt(&client(other, &root()), "k")).is_ok());
    }
    eventually("its address refuses connections", || std::net::TcpStream::connect(other.address()).is_err());
    assert!(began.elapsed() > Duration::from_secs(35), "not before");
    etcd.run(0);
    eventually("it takes connections again", || std::net::TcpStream::connect(other.address()).is_ok());
    eventually("it encrypts again", || block_on(encrypt(&client(&back, &root()), "k")).is_ok());
}

#[test]
#[ignore = "runs etcd: tests/run"]
fn a_copied_directory_and_another_administrator_are_refused() {
    let etcd = Etcd::shared();
    let directory = tempfile::tempdir().expect("a directory");
    let config = config(&etcd, &format!("{}/", unique("kms")), "24h");
    let data = directory.path().join("data0");
    let a = node(&config, &data, "node-0:7373");
    block_on(create_enclave(&client(&a, &root())));
    let copy = directory.path().join("copy");
    eventually("the note is written", || data.join("replica").exists());
    std::fs::create_dir(&copy).expect("made");
    for file in std::fs::read_dir(&data).expect("readable") {
        let file = file.expect("readable").path();
        if file.is_file() {
            std::fs::copy(&file, copy.join(file.file_name().expect("a name"))).expect("copied");
        }
    }
    let file = data.with_extension("yml");
    let file = file.to_str().expect("text");
    let said = TestServer::key_manager_refuses(&copy, HSM, &["--host", "node-0:7373", "--config", file]);
    assert!(said.contains("another process is member 1 of the cluster; was its data directory copied?"), "{said}");
    // Without the section it does not pretend to be alone.
    let said = TestServer::key_manager_refuses(&copy, HSM, &[]);
    assert!(said.contains("this directory is that of a node of a cluster"), "{said}");
    let alone = TestServer::key_manager(&copy, HSM, &["--alone", "--yes"]);
    block_on(create(&client(&alone, &root()), "k", false)).expect("created");
    assert!(alone.stop().success());
    assert!(a.stop().success());
}
