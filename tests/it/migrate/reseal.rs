//! `claviger reseal`, and `migrate` between sealed key stores.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::interruption::{ends_within, random};
use super::support::Stores;
use crate::support::client::Request;
use crate::support::moto::{Moto, REGION};
use crate::support::openbao::{OpenBao, unique};
use crate::support::server::dev_config;
use crate::support::{Client, Identity, Protocol, TestServer, block_on};

/// Two local keys.
const ONE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const TWO: &str = "AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn local(key: &str) -> Value {
    json!({ "local": { "key": key } })
}

/// The section with others that are read, and with plaintext that is.
fn also(mut encrypt: Value, others: &[&Value], allow_plaintext: bool) -> Value {
    encrypt["also"] = json!(others);
    encrypt["allow_plaintext"] = allow_plaintext.into();
    encrypt
}

fn transit(bao: &OpenBao) -> Value {
    let engine = unique("transit");
    bao.ask("POST", &format!("sys/mounts/{engine}"), json!({ "type": "transit" }));
    bao.ask("POST", &format!("{engine}/keys/seal"), Value::Null);
    json!({ "vault": {
        "endpoint": bao.endpoint(), "engine": engine, "key": "seal", "token": { "value": bao.token },
    } })
}

fn kms(moto: &Moto) -> Value {
    json!({ "aws": {
        "endpoint": moto.endpoint(), "region": REGION, "key": moto.kms_key(),
        "credentials": { "accesskey": "anybody", "secretkey": "whatever" },
    } })
}

/// Writes the config of the keys in a directory, sealed like this.
fn config(stores: &Stores, file: &str, directory: &str, encrypt: &Value) {
    let keystore = sealed(&json!({ "fs": { "path": directory } }), encrypt);
    // JSON is YAML.
    stores.write(file, &json!({ "keystore": keystore }).to_string());
}

/// The section of a key store, sealed like this.
fn sealed(store: &Value, encrypt: &Value) -> Value {
    let mut keystore = store.clone();
    if !encrypt.is_null() {
        keystore["encrypt"] = encrypt.clone();
    }
    keystore
}

/// The values of all keys as a store with this config has them, read by a migration into an unsealed one.
fn opened(stores: &Stores, file: &str) -> std::collections::BTreeMap<String, Vec<u8>> {
    let directory = unique("opened");
    config(stores, "opened.yml", &directory, &Value::Null);
    stores.run(&["migrate", "-q", "--from", file, "--to", "opened.yml"]).expect(0);
    stores.keys(&directory)
}

fn sealed_by(stores: &Stores, provider: &str) -> usize {
    let mark = format!(r#"{{"claviger_sealed":{{"version":1,"provider":"{provider}""#);
    stores.keys("src").values().filter(|value| value.starts_with(mark.as_bytes())).count()
}

/// From plaintext to each provider, between them, and back. Each run is killed once, at a random moment, and another
/// one goes on. `KEYS` in the environment is how many keys: `docs/measurements.md` has the result of many.
#[test]
#[ignore = "runs OpenBao: tests/run"]
fn every_seal_follows_every_other() {
    let keys = std::env::var("KEYS").map_or(100, |keys| keys.parse().expect("KEYS is a number"));
    let (bao, moto) = (OpenBao::shared(), Moto::shared());
    let stores = Stores::with_keys(keys);
    let before = stores.keys("src");
    let (one, two) = (local(ONE), local(TWO));
    let (vault, openbao, kms, other_kms) = (transit(&bao), transit(&bao), kms(&moto), kms(&moto));
    let plain = Value::Null;
    let way = [
        &plain, &one, &two, &plain, &vault, &openbao, &vault, &plain, &kms, &other_kms, &one, &kms, &vault, &kms,
        &plain,
    ];
    for pair in way.windows(2) {
        let (old, new) = (pair[0], pair[1]);
        let readers = configs(&stores, old, new);
        let raw = stores.keys("src");
        let reseal = ["reseal", "--config", "old.yml", "--target", "new.yml"];
        let began = Instant::now();
        let dry = stores.run(&[&reseal[..], &["--dry-run"]].concat()).expect(0);
        let took = began.elapsed();
        assert_eq!(dry.stdout, format!("Dry run: {keys} keys can be sealed anew; nothing was changed.\n"));
        assert_eq!(stores.keys("src"), raw);
        let charged = [old, new].iter().any(|seal| seal.get("aws").is_some());
        assert_eq!(dry.stderr.contains("Charged by AWS KMS: "), charged, "{}", dry.stderr);
        assert!(dry.stderr.contains(&format!("'{readers}', which reads both seals")), "{}", dry.stderr);

        // A rehearsal does what the run does.
        ends_within(stores.command(&reseal), took.mul_f64(random()));
        assert_eq!(opened(&stores, readers), before, "servers with '{readers}' read all of them");
        let rest = stores.run(&reseal).expect(0).stdout;
        eprintln!("after the kill: {}", rest.lines().next().unwrap_or_default());
        let again = stores.run(&reseal).expect(0);
        assert!(again.stdout.starts_with("Resealed 0 keys"), "{}", again.stdout);
        assert_eq!(opened(&stores, "new.yml"), before);
        let provider = if new.get("local").is_some() { "local" } else { "transit" };
        if new.get("aws").is_none() {
            assert_eq!(sealed_by(&stores, provider), if new.is_null() { 0 } else { keys });
        }
    }
    assert_eq!(stores.keys("src"), before, "byte for byte");
}

/// Writes both configs for a move; returns which of them reads both seals.
fn configs(stores: &Stores, old: &Value, new: &Value) -> &'static str {
    if new.is_null() {
        config(stores, "old.yml", "src", &also(old.clone(), &[], true));
        config(stores, "new.yml", "src", new);
        return "old.yml";
    }
    let others: Vec<_> = Some(old).filter(|old| !old.is_null()).into_iter().collect();
    config(stores, "old.yml", "src", old);
    config(stores, "new.yml", "src", &also(new.clone(), &others, old.is_null()));
    "new.yml"
}

/// Whenever it is killed, every key is whole, a config with both seals reads all of them, and another run goes on.
#[test]
#[ignore = "runs OpenBao: tests/run"]
fn a_killed_run_leaves_every_key_readable() {
    const FEWER: usize = 200;
    let stores = Stores::with_keys(FEWER);
    let before = stores.keys("src");
    let kills = std::env::var("KILLS").map_or(20, |kills| kills.parse().expect("KILLS is a number"));
    let bao = OpenBao::shared();
    let mut seals = [local(ONE), transit(&bao)];
    config(&stores, "old.yml", "src", &Value::Null);
    config(&stores, "new.yml", "src", &also(seals[0].clone(), &[], true));
    let (mut between, mut delay) = (0, 0.05);
    for kill in 0..kills {
        let command = stores.command(&["reseal", "-q", "--config", "old.yml", "--target", "new.yml"]);
        ends_within(command, Duration::from_secs_f64(delay));
        assert_eq!(opened(&stores, "new.yml"), before, "kill {kill}");

        let done = stores.run(&["reseal", "--config", "old.yml", "--target", "new.yml"]).expect(0);
        let resealed: usize = done.stdout.split(' ').nth(1).and_then(|count| count.parse().ok()).expect("a count");
        // The moments follow the machine, so that most of them hit the writing.
        match resealed {
            0 => delay *= 0.8,
            FEWER => delay *= 1.2,
            _ => between += 1,
        }
        assert_eq!(opened(&stores, "new.yml"), before, "kill {kill}");
        config(&stores, "old.yml", "src", &seals[0]);
        seals.reverse();
        config(&stores, "new.yml", "src", &also(seals[0].clone(), &[&seals[1]], false));
    }
    eprintln!("{kills} kills, {between} of them between the first key and the last");
    assert!(between > 0, "some kills hit the writing");
}

/// A server with both seals reads every key at every moment of a run, of a killed one too, also where a key is replaced
/// in several steps.
#[test]
#[ignore = "runs OpenBao: tests/run"]
fn servers_read_every_key_all_the_way() {
    const KEYS: usize = 60;
    let bao = OpenBao::shared();
    let engine = bao.kv(None, 2);
    let token = json!({ "value": bao.token });
    let vault = json!({ "endpoint": bao.endpoint(), "engine": engine, "version": "v2", "token": token });
    let stores = Stores::with_keys(KEYS);
    let directory = json!({ "fs": { "path": stores.path("src") } });
    stores.write("vault.yml", &json!({ "keystore": { "vault": vault } }).to_string());
    stores.run(&["migrate", "-q", "--from", "src.yml", "--to", "vault.yml"]).expect(0);
    let (one, transit) = (local(ONE), transit(&bao));
    for store in [directory, json!({ "vault": vault })] {
        for [old, new, reads] in [
            [&Value::Null, &one, &also(one.clone(), &[], true)],
            [&one, &transit, &also(transit.clone(), &[&one], false)],
            [&also(transit.clone(), &[], true), &Value::Null, &also(transit.clone(), &[], true)],
        ] {
            let write = |file, encrypt| {
                stores.write(file, &json!({ "keystore": sealed(&store, encrypt) }).to_string());
            };
            write("old.yml", old);
            write("new.yml", if new.is_null() { new } else { reads });
            let keystore = sealed(&store, reads).to_string();
            let config = dev_config("").replace("{ fs: { path: keys } }", &keystore);
            let config = format!("cache: {{ expiry: {{ any: 1ms, unused: 1ms }} }}\n{config}");
            let server = TestServer::start_in(tempfile::tempdir().expect("a directory"), &config);
            let ended = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let reader = scope.spawn(|| block_on(read_until(&server, KEYS, &ended)));
                let reseal = ["reseal", "--config", "old.yml", "--target", "new.yml"];
                // In Vault a replacement that is cut off takes two minutes to be ended: one is enough.
                let kills = if store.get("fs").is_some() { 3 } else { usize::from(old.is_null()) };
                for _ in 0..kills {
                    ends_within(stores.command(&reseal), Duration::from_millis(2_000).mul_f64(random()));
                }
                let run = stores.run(&reseal);
                ended.store(true, Ordering::Relaxed);
                run.expect(0);
                let reads = reader.join().expect("every key was read");
                assert!(reads >= KEYS, "{reads} reads");
            });
        }
    }
}

/// Reads all keys again and again, and returns how often it has read one.
async fn read_until(server: &TestServer, keys: usize, ended: &AtomicBool) -> usize {
    let admin = Client::new(server.address(), Some(Identity::dev("admin")), Protocol::H2);
    let session = admin.session().await.expect("connects");
    for reads in 0.. {
        if ended.load(Ordering::Relaxed) && reads >= keys {
            return reads;
        }
        let request = Request::new("GET", &format!("/v1/key/describe/key-{:05}", reads % keys));
        let answer = session.another().send(request).await.expect("an answer");
        assert_eq!(answer.status, 200, "after {reads} reads: {}", answer.text());
    }
    unreachable!("it reads for ever")
}

/// What servers with the old config make while a run goes on is seen by its last look.
#[test]
fn a_key_made_meanwhile_with_the_old_seal_is_told_of() {
    let stores = Stores::with_keys(2);
    config(&stores, "old.yml", "src", &Value::Null);
    config(&stores, "new.yml", "src", &also(local(ONE), &[], true));
    stores.run(&["reseal", "-q", "--config", "old.yml", "--target", "new.yml"]).expect(0);
    // Back, while a server keeps making keys.
    config(&stores, "old.yml", "src", &also(local(ONE), &[], true));
    config(&stores, "new.yml", "src", &Value::Null);
    config(&stores, "server.yml", "src", &also(local(ONE), &[], true));
    let again = ["reseal", "--config", "old.yml", "--target", "new.yml"];
    let run = stores.run(&again).expect(0);
    assert!(run.stdout.ends_with("give them 'new.yml', and run this again.\n"), "{}", run.stdout);

    let ended = AtomicBool::new(false);
    let told = std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                let (source, config_file) = (format!("more-{n}"), format!("more-{n}.yml"));
                std::fs::create_dir(stores.path(&source)).expect("a directory");
                stores.write(&format!("{source}/made-{n:04}"), &super::support::key(n));
                config(&stores, &config_file, &source, &Value::Null);
                stores.run(&["migrate", "-q", "--from", &config_file, "--to", "server.yml"]).expect(0);
            }
        });
        let told = (0..200).map(|_| stores.run(&again)).find(|run| run.code == Some(3));
        ended.store(true, Ordering::Relaxed);
        told
    });
    let told = told.expect("some key is made while a run goes on");
    assert!(told.stderr.contains("made meanwhile with another seal: "), "{}", told.stderr);
    assert!(told.stderr.contains(" (local key 355a2e2e6f796578); run again"), "{}", told.stderr);
    assert!(!told.stdout.contains("is any more"), "{}", told.stdout);
    let last = stores.run(&again);
    assert!(last.code == Some(0) && !opened(&stores, "new.yml").is_empty(), "{}", last.stderr);
}

/// A new version of a transit key is a new seal.
#[test]
#[ignore = "runs OpenBao: tests/run"]
fn a_rotated_transit_key_is_followed() {
    let bao = OpenBao::shared();
    let stores = Stores::with_keys(20);
    let before = stores.keys("src");
    let seal = transit(&bao);
    config(&stores, "old.yml", "src", &Value::Null);
    config(&stores, "new.yml", "src", &also(seal.clone(), &[], true));
    stores.run(&["reseal", "-q", "--config", "old.yml", "--target", "new.yml"]).expect(0);
    let engine = seal["vault"]["engine"].as_str().expect("text");
    bao.ask("POST", &format!("{engine}/keys/seal/rotate"), Value::Null);
    config(&stores, "new.yml", "src", &seal);

    let run = stores.run(&["reseal", "--config", "new.yml", "--target", "new.yml"]).expect(0);
    let label = |version| format!("transit key {engine}/seal, version {version}");
    assert!(run.stderr.contains(&format!("{}: 20 keys", label(1))), "{}", run.stderr);
    assert!(run.stderr.contains(&format!("as {}", label(2))), "{}", run.stderr);
    assert!(
        run.stdout.contains(&format!("Seals that no key in this store has any more: {}.", label(1))),
        "{}",
        run.stdout
    );
    bao.ask("POST", &format!("{engine}/keys/seal/config"), json!({ "min_decryption_version": 2 }));
    assert_eq!(opened(&stores, "new.yml"), before);
}

#[test]
#[ignore = "runs OpenBao: tests/run"]
fn migrate_seals_anew_on_the_way() {
    let bao = OpenBao::shared();
    let stores = Stores::with_keys(100);
    let before = stores.keys("src");
    config(&stores, "dst.yml", "dst", &local(ONE));
    // A rehearsal seals everything, and a seal that fails is found by it.
    let engine = transit(&bao);
    config(&stores, "broken.yml", "never-made", &engine);
    let path = engine["vault"]["engine"].as_str().expect("text");
    stores.run(&["migrate", "--from", "src.yml", "--to", "broken.yml", "--dry-run"]).expect(0);
    bao.ask("POST", &format!("{path}/keys/seal/config"), json!({ "deletion_allowed": true }));
    bao.ask("DELETE", &format!("{path}/keys/seal"), Value::Null);
    bao.ask("POST", &format!("{path}/keys/seal"), json!({ "type": "ed25519" }));
    let broken = stores.run(&["migrate", "--from", "src.yml", "--to", "broken.yml", "--dry-run"]).expect(1);
    assert!(broken.stderr.contains("100 entries cannot be used"), "{}", broken.stderr);
    assert!(!stores.path("never-made").exists());

    stores.migrate(&["-q"]).expect(0);
    stores.verify(&["-q"]).expect(0);
    assert!(stores.keys("dst").values().all(|value| value.starts_with(br#"{"claviger_sealed""#)));
    assert_eq!(opened(&stores, "dst.yml"), before);
}

#[test]
fn what_cannot_be_resealed_is_refused_before_anything_changes() {
    let stores = Stores::with_keys(5);
    config(&stores, "old.yml", "src", &Value::Null);
    config(&stores, "strict.yml", "src", &local(ONE));
    let refused = stores.run(&["reseal", "--config", "old.yml", "--target", "strict.yml"]).expect(1);
    assert!(refused.stderr.contains("does not open 5 keys (not sealed)"), "{}", refused.stderr);

    config(&stores, "sealed.yml", "src", &also(local(ONE), &[], true));
    stores.run(&["reseal", "-q", "--config", "old.yml", "--target", "sealed.yml"]).expect(0);
    config(&stores, "sealed.yml", "src", &local(ONE));
    let refused = stores.run(&["reseal", "--config", "sealed.yml", "--target", "old.yml"]).expect(1);
    assert!(refused.stderr.contains("neither config would read all keys"), "{}", refused.stderr);

    config(&stores, "new.yml", "src", &also(local(ONE), &[], true));
    stores.write("src/garbage", "no key");
    let raw = stores.keys("src");
    let refused = stores.run(&["reseal", "--config", "old.yml", "--target", "new.yml"]).expect(1);
    assert!(refused.stderr.contains("'garbage': "), "{}", refused.stderr);
    assert_eq!(stores.keys("src"), raw);

    config(&stores, "other.yml", "dst", &local(ONE));
    let refused = stores.run(&["reseal", "--config", "old.yml", "--target", "other.yml"]).expect(1);
    assert!(refused.stderr.contains("different key stores"), "{}", refused.stderr);
    for output in [refused.stdout, refused.stderr] {
        assert!(!output.contains(ONE), "{output}");
    }
}

#[test]
fn the_report_counts() {
    let stores = Stores::with_keys(3);
    config(&stores, "old.yml", "src", &Value::Null);
    config(&stores, "new.yml", "src", &also(local(ONE), &[], true));
    let run = stores.run(&["reseal", "--json", "--config", "old.yml", "--target", "new.yml"]).expect(0);
    let mut report: Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert!(report["started_at"].take().is_string());
    let expected = json!({
        "command": "reseal", "version": env!("CARGO_PKG_VERSION"), "started_at": null, "verdict": "complete",
        "message": null, "newest": "local key 355a2e2e6f796578", "dry_run": false, "sealed_by": { "not sealed": 3 },
        "to_reseal": 3, "resealed": 3, "failed": [], "not_reached": 0, "others": {}, "problems": [],
    });
    assert_eq!(report, expected);
}

#[test]
fn the_report_has_what_a_list_on_the_terminal_has_no_room_for() {
    let stores = Stores::with_keys(1);
    for n in 0..13 {
        stores.write(&format!("src/no-key-{n:02}"), "no key");
    }
    config(&stores, "old.yml", "src", &Value::Null);
    config(&stores, "new.yml", "src", &also(local(ONE), &[], true));
    let args = ["reseal", "--config", "old.yml", "--target", "new.yml", "--report"];
    let refused = stores.run(&[&args[..], &["report.json"]].concat()).expect(1);
    assert!(refused.stderr.contains("13 keys cannot be resealed:"), "{}", refused.stderr);
    assert!(refused.stderr.contains("… and 3 more"), "{}", refused.stderr);
    let report = std::fs::read_to_string(stores.path("report.json")).expect("a report");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["verdict"], "failed");
    let problems = report["problems"].as_array().expect("a list");
    assert_eq!(problems.len(), 13);
    assert_eq!(problems[12]["name"], "no-key-12");
    assert!(problems[12]["error"].is_string());
    // A report is no key.
    let refused = stores.run(&[&args[..], &["src/report.json"]].concat()).expect(1);
    assert!(refused.stderr.contains("would lie among the keys"), "{}", refused.stderr);
}
