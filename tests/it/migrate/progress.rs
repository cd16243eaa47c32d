//! What a run shows while it runs.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::support::{Run, Stores};
use crate::support::{eventually, pty};

#[test]
fn a_terminal_shows_a_bar_with_rate_and_time_left() {
    let stores = Stores::with_keys(3_000);
    let command = stores.command(&["migrate", "--from", "src.yml", "--to", "dst.yml", "--concurrency", "1"]);
    let (shown, code) = pty::run(command);
    assert_eq!(code, Some(0), "{shown}");
    let bar = shown.split('\r').find(|text| text.contains("Writing [")).unwrap_or_else(|| panic!("no bar: {shown}"));
    assert!(bar.contains("/3000 keys, ") && bar.contains("/s, ") && bar.contains(" left"), "{bar}");
    let last = shown.lines().last().expect("a line");
    assert!(last.ends_with("Migrated   3000 keys successfully!"), "{last}");
}

#[test]
fn elsewhere_there_is_a_line_a_second() {
    let stores = Stores::with_keys(2_000);
    let child = stores.start(&["--concurrency", "1"]);
    eventually("some keys are there", || stores.keys("dst").len() > 5);
    // However fast the disk: a second passes while the run is under way.
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::STOP).expect("it runs");
    std::thread::sleep(Duration::from_millis(1_100));
    kill_process(pid, Signal::CONT).expect("it runs");
    let run = Run::from(child.wait_with_output().expect("our child")).expect(0);
    let lines = run.stderr.lines().filter(|line| line.starts_with("Writing: ") && line.contains("/2000 keys, "));
    assert!(lines.clone().count() >= 1, "{}", run.stderr);
    assert!(lines.clone().all(|line| line.ends_with(" left")), "{}", run.stderr);
    assert!(!run.stderr.contains('\x1b') && !run.stderr.contains('\r'), "{}", run.stderr);
}

#[test]
fn quiet_is_silent_when_all_is_well() {
    let stores = Stores::with_keys(10);
    let run = stores.migrate(&["-q"]).expect(0);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""));
    assert_eq!(stores.keys("dst").len(), 10);
}
