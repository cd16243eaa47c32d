//! A migration beside the bare system calls that it cannot do without, in one run: `cargo bench --bench migrate`.
//!
//! `KEYS=100000 CONCURRENCY=32 TMPDIR=/a/disk cargo bench --bench migrate` chooses another size and disk; the answer
//! depends on the disk, so only the ratios mean something. Each of the `ROUNDS` does both, one after the other.

#![expect(clippy::unwrap_used, reason = "what is measured is known to work")]
#![expect(clippy::disallowed_methods, reason = "the size comes from the environment")]
#![expect(clippy::print_stdout, reason = "this is what it is for")]

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use rustix::fs::{RenameFlags, renameat_with};

/// Files that one sync of the directory is for.
const BATCH: usize = 8_192;

fn main() {
    let setting = |name: &str, default| std::env::var(name).map_or(default, |value| value.parse().unwrap());
    let (keys, concurrency, rounds) = (setting("KEYS", 10_000), setting("CONCURRENCY", 32), setting("ROUNDS", 3));
    let directory = tempfile::tempdir().unwrap();
    let bench = Bench { directory: directory.path().into(), keys, concurrency };
    bench.make_source();
    println!("{keys} keys, {concurrency} in flight");
    println!("| list and read, keys/s | raw | ratio | write and read back, keys/s | raw | ratio |");
    println!("|---|---|---|---|---|---|");
    for round in 1..=rounds {
        bench.round(round);
    }
}

struct Bench {
    directory: PathBuf,
    keys: usize,
    concurrency: usize,
}

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn make_source(&self) {
        std::fs::create_dir(self.path("src")).unwrap();
        for n in 0..self.keys {
            std::fs::write(self.path("src").join(name(n)), value(n)).unwrap();
        }
        for side in ["src", "dst"] {
            std::fs::write(self.path(&format!("{side}.yml")), format!("keystore: {{ fs: {{ path: {side} }} }}"))
                .unwrap();
        }
        rustix::fs::sync();
    }

    fn round(&self, round: usize) {
        let raw_plan = self.rate(|| self.raw_read());
        let (plan, copy) = self.migrate();
        // Disks differ in how many syncs at once they like best.
        let raw_copy = [16, 64, 256].map(|threads| self.rate(|| self.raw_write(threads)));
        let raw_copy = raw_copy.into_iter().fold(0.0, f64::max);
        let ratio = |ours: f64, raw: f64| ours / raw;
        println!(
            "| {plan:.0} | {raw_plan:.0} | {:.2} | {copy:.0} | {raw_copy:.0} | {:.2} |",
            ratio(plan, raw_plan),
            ratio(copy, raw_copy),
        );
        // Removed only at the end: disks that discard what is removed are slow for a while.
        for target in ["dst", "raw-16", "raw-64", "raw-256"] {
            std::fs::rename(self.path(target), self.path(&format!("{target}-of-round-{round}"))).unwrap();
        }
    }

    /// Keys per second.
    fn rate(&self, work: impl FnOnce()) -> f64 {
        let started = Instant::now();
        work();
        self.keys as f64 / started.elapsed().as_secs_f64()
    }

    /// The keys per second of the real thing: its plan, and its writes with their proof.
    fn migrate(&self) -> (f64, f64) {
        let output = Command::new(env!("CARGO_BIN_EXE_claviger"))
            .args(["migrate", "--from", "src.yml", "--to", "dst.yml", "--json", "-q"])
            .args(["--concurrency", &self.concurrency.to_string()])
            .current_dir(&self.directory)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["counts"]["written"], self.keys);
        let rate = |part: &str| self.keys as f64 / report["seconds"][part].as_f64().unwrap();
        (rate("plan"), rate("copy"))
    }

    /// Lists the source and reads every file, on as many threads as there are cores.
    fn raw_read(&self) {
        let names: Vec<_> = std::fs::read_dir(self.path("src")).unwrap().map(|entry| entry.unwrap().path()).collect();
        let cores = std::thread::available_parallelism().unwrap().get();
        in_parallel(names.len(), cores, |n| read(&names[n]));
    }

    /// Writes every file, syncs it, names it; syncs the directory once a batch; then reads the batch back.
    fn raw_write(&self, threads: usize) {
        let target = self.path(&format!("raw-{threads}"));
        std::fs::create_dir(&target).unwrap();
        let directory = File::open(&target).unwrap();
        for first in (0..self.keys).step_by(BATCH) {
            let count = BATCH.min(self.keys - first);
            in_parallel(count, threads, |n| {
                let n = first + n;
                let temporary = format!(".claviger-{n:016x}");
                let mut options = File::options();
                let mut file = options.write(true).create_new(true).mode(0o600).open(target.join(&temporary)).unwrap();
                file.write_all(value(n).as_bytes()).unwrap();
                file.sync_all().unwrap();
                renameat_with(&directory, &temporary, &directory, name(n), RenameFlags::NOREPLACE).unwrap();
            });
            directory.sync_all().unwrap();
            in_parallel(count, threads, |n| read(&target.join(name(first + n))));
        }
    }
}

/// Does `work` for the numbers below `count` on this many threads.
fn in_parallel(count: usize, threads: usize, work: impl Fn(usize) + Sync) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    match next.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
                        n if n < count => work(n),
                        _ => break,
                    }
                }
            });
        }
    });
}

fn read(path: &Path) {
    let mut file = File::open(path).unwrap();
    let len = file.metadata().unwrap().len() as usize;
    let mut value = vec![0; len + 1];
    assert_eq!(file.read(&mut value).unwrap(), len);
    std::hint::black_box(value);
}

fn name(n: usize) -> String {
    format!("key-{n:07}")
}

/// A stored key of the size that keys have.
fn value(n: usize) -> String {
    use base64::Engine as _;
    let mut bytes = String::new();
    write!(bytes, "{n:032}").unwrap();
    let bytes = base64::engine::general_purpose::STANDARD.encode(bytes);
    let owner = "614916aaeed73669a19723356353b71580129b6c4be54ca554ce30820cee62ae";
    format!(r#"{{"bytes":"{bytes}","algorithm":"AES256","created_at":"2023-11-14T22:13:20Z","created_by":"{owner}"}}"#)
}
