//! `files`: whether files with secrets are secret.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::{Report, count, some};

/// Permissions that let everybody read or write a file, or the group write it. That a group may read it is how
/// services and containers are given their files.
const TOO_OPEN: u32 = 0o026;

/// Looks at the permissions of files that hold secrets.
pub(super) fn check<'p>(files: impl IntoIterator<Item = &'p Path>, report: &mut Report) {
    const ID: &str = "files";
    let mode = |file: &Path| std::fs::metadata(file).map_or(0, |found| found.mode() & 0o777);
    let is_open = |file: &&Path| mode(file) & TOO_OPEN != 0;
    let mut files: Vec<_> = files.into_iter().collect();
    files.sort();
    files.dedup();
    let open: Vec<_> = files.iter().copied().filter(is_open).collect();
    if open.is_empty() {
        return report.ok(ID, format!("{} with secrets, readable by owner and group only", count(files.len(), "file")));
    }
    let shown: Vec<_> = open.iter().map(|file| format!("'{}' ({:04o})", file.display(), mode(file))).collect();
    report.warning(
        ID,
        format!(
            "users other than the owner have access to {} with secrets: {}",
            count(open.len(), "file"),
            some(&shown)
        ),
        "chmod 600 them (640 for the group of the server); in Kubernetes set 'defaultMode: 0440' at the volume; \
         if others may have read them, make new keys",
    );
}

/// Whether a setting, named as in the config file, names a file with a secret.
pub(super) fn is_secret(setting: &str) -> bool {
    ["tls.key", ".file", ".jwt", ".wrapped"].iter().any(|end| setting.ends_with(end))
}
