//! Writes files that appear complete or not at all.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// What to do when the file already exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum OnConflict {
    Fail,
    Replace,
}

/// Writes a file with these permissions, under a temporary name first.
pub(in crate::cli) fn write(path: &Path, mode: u32, content: &[u8], on_conflict: OnConflict) -> anyhow::Result<()> {
    try_write(path, mode, content, on_conflict).with_context(|| format!("failed to write '{}'", path.display()))
}

fn try_write(path: &Path, mode: u32, content: &[u8], on_conflict: OnConflict) -> io::Result<()> {
    let temporary = Temporary::beside(path)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary.0)?;
    file.write_all(content)?;
    file.sync_all()?;
    match on_conflict {
        OnConflict::Fail => fs::hard_link(&temporary.0, path),
        OnConflict::Replace => fs::rename(&temporary.0, path),
    }
}

/// A temporary file. It is removed on drop, unless it was renamed.
struct Temporary(PathBuf);

impl Temporary {
    fn beside(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it names no file"))?;
        let name = format!(".claviger-{}-{}", std::process::id(), name.to_string_lossy());
        Ok(Self(path.with_file_name(name)))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_that_exists_is_replaced_only_when_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("x.key");
        write(&path, 0o600, b"one", OnConflict::Fail).expect("written");
        assert!(write(&path, 0o600, b"two", OnConflict::Fail).is_err());
        assert_eq!(fs::read(&path).expect("there"), b"one");
        write(&path, 0o600, b"two", OnConflict::Replace).expect("replaced");
        assert_eq!(fs::read(&path).expect("there"), b"two");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).expect("there").count(), 1, "nothing else is left");
    }
}
