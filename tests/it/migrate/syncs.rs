//! Every key is on disk before it counts, and yet not every key costs a sync of the directory.

use std::process::Command;

use super::support::{Run, Stores};
use crate::support::peer::program;

#[test]
#[ignore = "runs strace: tests/run"]
fn keys_in_flight_share_the_syncs_of_the_directory() {
    const KEYS: usize = 300;
    let stores = Stores::with_keys(KEYS);
    let mut strace = Command::new(program("strace", "strace"));
    // Syncs that take a while, however fast the disk is.
    strace.args(["-f", "-yy", "-e", "trace=fsync", "-e", "inject=fsync:delay_enter=5ms", "-o", "trace"]);
    strace.args([env!("CARGO_BIN_EXE_claviger"), "migrate", "--from", "src.yml", "--to", "dst.yml"]);
    Run::from(strace.current_dir(stores.path("")).output().expect("strace runs")).expect(0);
    let trace = stores.read("trace");
    let directory = format!("<{}>", stores.path("dst").display());
    let of_files = trace.lines().filter(|line| line.contains(" fsync(") && line.contains("/.claviger-")).count();
    let of_directory = trace.lines().filter(|line| line.contains(" fsync(") && line.contains(&directory)).count();
    assert_eq!(of_files, KEYS, "{trace}");
    assert!((1..KEYS / 3).contains(&of_directory), "{of_directory} syncs of the directory for {KEYS} keys");
}
