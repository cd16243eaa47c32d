//! `fs-odd-entries` and `keystore-trouble`: the directory of the keys holds what it should not, or is gone.

use std::os::unix::fs::symlink;
use std::path::Path;

use futures_util::future::join_all;

use super::case::{Case, File};
use super::{Clients, Report, replay};
use crate::support::server::{copy_fixture, fixture_config};
use crate::support::{Protocol, TestServer, block_on};

#[test]
fn fs_odd_entries() {
    replay("fs-odd-entries", || {
        let directory = tempfile::tempdir().expect("a temporary directory");
        copy_fixture(directory.path());
        add_odd_entries(&directory.path().join("keys")).expect("the entries are made");
        TestServer::start_in(directory, &fixture_config(|config| config))
    });
}

/// What `about` names.
fn add_odd_entries(keys: &Path) -> std::io::Result<()> {
    let long = "n".repeat(90);
    for name in [".hidden", "a.b", "with space", "tmp~", "ä", &long, "-lead", "_"] {
        std::fs::write(keys.join(name), "x")?;
    }
    std::fs::write(keys.join("empty"), "")?;
    for name in ["subdir", "lost+found"] {
        std::fs::create_dir(keys.join(name))?;
    }
    symlink("my-key", keys.join("link"))?;
    symlink("nowhere", keys.join("dangling"))
}

/// The cases of a step run side by side, since each may wait until the server has lost patience. Those
/// after the first two, which fill the cache and use it, do not depend on each other.
#[test]
fn keystore_trouble() {
    const FILE: &str = "keystore-trouble";
    let cases = File::load(FILE).cases;
    let mut report = Report::new(FILE);
    for protocol in Protocol::ALL {
        let server = TestServer::fixture();
        let clients = Clients::new(&server, protocol);
        let mut rest: &[Case] = &cases;
        while let Some(first) = rest.first() {
            let step = first.step.as_deref().expect("every case has a step");
            prepare(step, &server.keys());
            let len = rest.iter().take_while(|case| case.step == first.step).count();
            let answers = block_on(join_all(rest[..len].iter().map(|case| clients.of(case).send(case.request()))));
            let at = cases.len() - rest.len();
            for (n, (case, answer)) in rest.iter().zip(answers).enumerate() {
                report.compare(at + n, protocol, case, answer);
            }
            rest = &rest[len..];
        }
    }
    report.finish();
}

fn prepare(step: &str, keys: &Path) {
    let done = match step {
        "directory there" | "directory removed" => Ok(()),
        "directory removed; my-key is cached" => std::fs::remove_dir_all(keys),
        "a file in its place" => std::fs::write(keys, "no directory"),
        step => panic!("unknown step: {step}"),
    };
    done.expect("the directory is prepared");
}
