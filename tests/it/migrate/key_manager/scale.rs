//! Many keys, over a long way, and through kills.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Desk, ENCLAVE, KeyManager};
use crate::migrate::interruption::random;
use crate::support::delay::Delay;

/// A number from the environment, or another one.
fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Both ways, each killed `KILLS` times at a random moment (5 unless the environment says otherwise). Whatever the moment, every
/// name on the target holds a whole key or none, and another run with `--merge` completes it.
#[test]
#[ignore = "takes half a minute: tests/run"]
fn a_killed_run_leaves_no_half_key_and_merge_completes_it() {
    const KEYS: usize = 1_000;
    let (manager, desk) = (KeyManager::start(), Desk::with_keys(KEYS));
    desk.write("kms.yml", &manager.section().to_string());
    let admin = manager.program("claviger", desk.path(), &manager.root);
    // Few at once, so that there are many moments between them.
    let into = ["migrate", "-q", "--concurrency", "1", "--from", "src.yml"];
    let out = ["migrate", "-q", "--concurrency", "1", "--from", "kms.yml", "--to", "dst.yml"];
    let into_proof = ["verify", "-q", "--from", "src.yml"];
    let out_proof = ["verify", "-q", "--from", "src.yml", "--to", "dst.yml"];
    let started = Instant::now();
    admin.run(&into).ok();
    let whole = started.elapsed();
    let mut between = 0;
    for (args, verify) in [(&into[..], &into_proof[..]), (&out, &out_proof)] {
        for _ in 0..number("KILLS", 5) {
            if args == into {
                manager.minkms(&["rm-enclave", ENCLAVE]).ok();
                manager.minkms(&["add-enclave", ENCLAVE]).ok();
            } else {
                let _ = std::fs::remove_dir_all(desk.path().join("dst"));
            }
            let mut child = admin.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
            std::thread::sleep(whole.mul_f64(0.3 + 0.7 * random()));
            let _ = child.kill();
            child.wait().expect("our child");
            let there = match args == into {
                true => manager.keys(),
                false if desk.path().join("dst").exists() => desk.keys("dst").len(),
                false => 0,
            };
            between += usize::from((1..KEYS).contains(&there));
            admin.run(&[args, &["--merge"]].concat()).ok();
            admin.run(verify).ok();
        }
    }
    eprintln!("{between} kills between the first key and the last");
}

/// `KEYS` in the environment is how many keys, `LATENCY` how many milliseconds a request takes longer: `docs/measurements.md`
/// has the results of many.
#[tokio::test]
async fn many_keys_go_in_and_come_out() {
    let (keys, latency) = (number("KEYS", 1_000), number("LATENCY", 0) as u64);
    let (manager, desk) = (KeyManager::start(), Desk::with_keys(keys));
    let far = Delay::new(manager.server.address(), Duration::from_millis(latency));
    let mut section = manager.section();
    section["keystore"]["kms"]["endpoint"] = json!([far.address().to_string()]);
    desk.write("kms.yml", &section.to_string());
    let run = |args: &[&str]| -> Value {
        let started = Instant::now();
        let run = desk.run(&manager, &[args, &["--json"]].concat());
        assert_eq!(run.exit, Some(0), "{run:?}");
        let report = super::report(&run);
        eprintln!("{}: {:.2} s, {}", args.join(" "), started.elapsed().as_secs_f64(), report["seconds"]);
        report
    };
    let inward = run(&["migrate", "--from", "src.yml", "--to", "kms.yml"]);
    assert_eq!(inward["counts"]["written"], keys);
    run(&["verify", "--from", "src.yml", "--to", "kms.yml"]);
    let outward = run(&["migrate", "--from", "kms.yml", "--to", "dst.yml"]);
    assert_eq!(outward["counts"]["written"], keys);
    run(&["verify", "--from", "src.yml", "--to", "dst.yml"]);
    if latency > 0 {
        one_at_a_time(&manager, far.address()).await;
    }
}

/// What it takes without batches, and with nothing in flight at once: a request to import a key, and one for each part of its proof.
async fn one_at_a_time(manager: &KeyManager, address: SocketAddr) {
    use claviger::client::kms::Commands;
    use claviger::client::{Client, Endpoint, Tls, Trust};
    use claviger::kms::Action;
    use claviger::kms::wire::{
        DecryptRequest, DecryptResponse, GenerateKeyRequest, GenerateKeyResponse, ImportKeyRequest,
    };
    const KEYS: usize = 20;
    let key = claviger::auth::enclave::ApiKey::parse(&manager.root).expect("a key");
    let tls = Tls::with_enclave_key(&key, &Trust::Anybody, claviger::clock::now()).expect("usable");
    let client = Client::new(vec![Endpoint::parse(&address.to_string()).expect("an address")], tls);
    let started = Instant::now();
    for n in 0..KEYS {
        let name = format!("one-at-a-time-{n}");
        let import = ImportKeyRequest::bare(name.clone(), "AES256".into(), vec![7; 32]);
        client.change(ENCLAVE, Commands::one(Action::KeyImport, &import)).await.expect("imported");
        let request = GenerateKeyRequest { name: name.clone(), ..GenerateKeyRequest::default() };
        let made: GenerateKeyResponse = client.ask(ENCLAVE, Action::KeyGenerate, &request).await.expect("made");
        let request = DecryptRequest { name, ciphertext: made.ciphertext.clone(), ..DecryptRequest::default() };
        let _: DecryptResponse = client.ask(ENCLAVE, Action::KeyDecrypt, &request).await.expect("decrypted");
    }
    let rate = KEYS as f64 / started.elapsed().as_secs_f64();
    eprintln!("one at a time, with two requests to prove each: {rate:.1} keys/s");
}
