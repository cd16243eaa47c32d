//! The build script: which commit a release says it is built from.

use std::path::Path;
use std::process::Command;

#[path = "../../build.rs"]
#[expect(clippy::print_stdout, reason = "its main function tells cargo everything so")]
#[expect(dead_code, reason = "cargo calls that")]
mod script;

fn git(directory: &Path, args: &[&str]) {
    let name = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.com"];
    let status = Command::new("git").arg("-C").arg(directory).args(name).args(args).status();
    assert!(status.expect("git runs").success(), "{args:?}");
}

#[test]
fn a_checkout_has_a_commit_and_a_tarball_has_none() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path();
    assert_eq!(script::commit(root), None, "no checkout");
    git(root, &["init", "--quiet"]);
    assert_eq!(script::commit(root), None, "nothing is committed");
    git(root, &["commit", "--quiet", "--allow-empty", "-m", "first"]);
    let commit = script::commit(root).expect("a commit");
    assert!(commit.len() >= 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()), "{commit}");
    let unpacked = root.join("claviger-1.0");
    std::fs::create_dir(&unpacked).expect("made");
    assert_eq!(script::commit(&unpacked), None, "a tarball in the checkout of another program");
}
