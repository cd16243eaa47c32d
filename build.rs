//! Notes the commit that a release is built from: `--version` and `/version` tell it.

#![expect(clippy::disallowed_methods, reason = "a build script is told everything by its environment")]

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=CLAVIGER_COMMIT");
    // Who builds from a tarball says the commit by this variable. A development build says none: it would be made anew
    // after every commit.
    let is_release = std::env::var_os("PROFILE").is_some_and(|profile| profile == "release");
    if std::env::var_os("CLAVIGER_COMMIT").is_some() || !is_release {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Some(commit) = commit(root) else { return };
    println!("cargo:rustc-env=CLAVIGER_COMMIT={commit}");
    // Where it says which commit is checked out: the branch, and which commit that is.
    let branch = git(root, &["symbolic-ref", "--quiet", "HEAD"]);
    let files = ["HEAD", "packed-refs"].into_iter().map(str::to_owned).chain(branch);
    for file in files.filter_map(|file| git(root, &["rev-parse", "--git-path", &file])) {
        let path = root.join(file);
        if path.exists() {
            println!("cargo:rerun-if-changed={}", path.display());
        }
    }
}

/// The commit that is checked out in `root`. None where that is no checkout of its own: a tarball may lie in somebody
/// else's, and git may be missing.
pub fn commit(root: &Path) -> Option<String> {
    let top = git(root, &["rev-parse", "--show-toplevel"])?;
    let is_ours = Path::new(&top).canonicalize().ok()? == root.canonicalize().ok()?;
    git(root, &["rev-parse", "HEAD"]).filter(|_| is_ours)
}

/// What git prints, if it succeeds.
fn git(root: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(root).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}
