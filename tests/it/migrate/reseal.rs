//! `claviger reseal`, and `migrate` between sealed key stores.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use super::interruption::random;
use super::support::Stores;
use crate::support::moto::{Moto, REGION};
use crate::support::openbao::{OpenBao, unique};

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

/// Writes the config of the keys in `src`, sealed like this.
fn config(stores: &Stores, file: &str, directory: &str, encrypt: &Value) {
    let mut keystore = json!({ "fs": { "path": directory } });
    if !encrypt.is_null() {
        keystore["encrypt"] = encrypt.clone();
    }
    // JSON is YAML.
    stores.write(file, &json!({ "keystore": keystore }).to_string());
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
        let dry = stores.run(&[&reseal[..], &["--dry-run"]].concat()).expect(0);
        assert_eq!(dry.stdout, format!("Dry run: {keys} keys can be sealed anew; nothing was changed.\n"));
        assert_eq!(stores.keys("src"), raw);
        let charged = [old, new].iter().any(|seal| seal.get("aws").is_some());
        assert_eq!(dry.stderr.contains("Charged by AWS KMS: "), charged, "{}", dry.stderr);
        assert!(dry.stderr.contains(&format!("'{readers}', which reads both seals")), "{}", dry.stderr);

        let mut child = stores.command(&reseal).stderr(Stdio::null()).stdout(Stdio::null()).spawn().expect("it starts");
        std::thread::sleep(Duration::from_millis(keys as u64 * 10).mul_f64(random()));
        let _ = child.kill();
        child.wait().expect("our child");
        assert_eq!(opened(&stores, readers), before, "servers with '{readers}' read all of them");
        stores.run(&reseal).expect(0);
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
        let mut child =
            stores.command(&["reseal", "-q", "--config", "old.yml", "--target", "new.yml"]).spawn().expect("runs");
        std::thread::sleep(Duration::from_secs_f64(delay));
        let _ = child.kill();
        child.wait().expect("our child");
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

/// A new version of a transit key is a new seal.
#[test]
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
    assert!(run.stdout.contains(&format!("No key in this store is any more: {}.", label(1))), "{}", run.stdout);
    bao.ask("POST", &format!("{engine}/keys/seal/config"), json!({ "min_decryption_version": 2 }));
    assert_eq!(opened(&stores, "new.yml"), before);
}

#[test]
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
    let report: Value = serde_json::from_str(&run.stdout).expect("JSON");
    let expected = json!({
        "newest": "local key 355a2e2e6f796578", "dry_run": false, "sealed_by": { "not sealed": 3 }, "to_reseal": 3,
        "resealed": 3, "failed": [], "not_reached": 0, "others": {},
    });
    assert_eq!(report, expected);
}
