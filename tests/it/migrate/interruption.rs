//! Runs that are cut off, in order or not.

use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::support::{Run, Stores};
use crate::support::eventually;

#[test]
fn a_signal_ends_a_run_in_order_and_merge_goes_on() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let stores = Stores::with_keys(5_000);
        let child = stores.start(&["--concurrency", "2"]);
        eventually("some keys are there", || stores.keys("dst").len() > 20);
        kill_process(Pid::from_child(&child), signal).expect("it runs");
        let run = Run::from(child.wait_with_output().expect("our child")).expect(3);
        let done = stores.keys("dst");
        let message = format!("interrupted: {} of 5000 keys were migrated, and none half", done.len());
        assert!(run.stderr.contains(&message), "{message}: {}", run.stderr);
        assert!(run.stderr.contains("run again with --merge to go on"), "{}", run.stderr);
        assert!(!run.stdout.contains("successfully"), "{}", run.stdout);
        assert!(done.len() < 5_000, "it was interrupted");
        let hidden = std::fs::read_dir(stores.path("dst")).expect("readable").count() - done.len();
        assert_eq!(hidden, 0, "what was in flight was finished");
        if signal == Signal::INT {
            stores.migrate(&["--merge"]).expect(0);
            assert_eq!(stores.keys("dst"), stores.keys("src"));
        }
    }
}

/// Kills a run at a random moment, `KILLS` times (50 unless the environment says otherwise). Whatever the moment, every
/// name on the target holds a whole key or none, and another run with `--merge` completes it.
#[test]
#[ignore = "takes half a minute: tests/run"]
fn a_killed_run_leaves_no_half_key_and_merge_completes_it() {
    const KEYS: usize = 200;
    let kills = std::env::var("KILLS").map_or(50, |kills| kills.parse().expect("KILLS is a number"));
    let stores = Stores::with_keys(KEYS);
    let source = stores.keys("src");
    let mut middle = duration_of_a_run(&stores) / 2;
    let (mut before, mut during, mut after) = (0, 0, 0);
    for _ in 0..kills {
        clear(&stores);
        let mut child = stores.start(&["-q"]);
        std::thread::sleep(middle.mul_f64(0.5 + random()));
        let _ = child.kill();
        child.wait().expect("our child");

        let target = stores.keys("dst");
        for (name, value) in &target {
            assert!(source[name] == *value, "{name} holds {} bytes of something else", value.len());
        }
        // The moments follow the machine, so that most of them hit the writing.
        match target.len() {
            0 => (before, middle) = (before + 1, middle.mul_f64(1.05)),
            KEYS => (after, middle) = (after + 1, middle.mul_f64(0.95)),
            _ => during += 1,
        }
        stores.migrate(&["--merge", "-q"]).expect(0);
        assert_eq!(stores.keys("dst"), source);
    }
    eprintln!("{kills} kills: {before} before the first key, {during} between, {after} after the last");
    assert!(during > 0, "some kills hit the writing");
}

/// The time that one undisturbed run takes.
fn duration_of_a_run(stores: &Stores) -> Duration {
    let started = std::time::Instant::now();
    stores.migrate(&["-q"]).expect(0);
    started.elapsed()
}

fn clear(stores: &Stores) {
    std::fs::remove_dir_all(stores.path("dst")).expect("removed");
    std::fs::create_dir(stores.path("dst")).expect("made");
}

/// From 0 to 1.
pub fn random() -> f64 {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).expect("random bytes");
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

/// Whether a run ends in this time. If not, it is killed.
pub fn ends_within(mut command: Command, time: Duration) -> bool {
    let mut child = command.stderr(Stdio::null()).stdout(Stdio::null()).spawn().expect("it starts");
    std::thread::sleep(time);
    let _ = child.kill();
    child.wait().expect("our child").success()
}
