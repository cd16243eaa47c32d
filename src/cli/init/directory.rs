//! The new directory: it appears complete, or not at all.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};

use crate::cli::identity::files::{self, OnConflict};

/// A directory that is taken away again on drop, with all that was made in it, unless it is kept.
pub(super) struct Directory {
    path: PathBuf,
    /// Whether it was there before.
    was_there: bool,
    is_kept: bool,
}

impl Directory {
    /// Makes the directory, for its owner alone. One that is there must be empty.
    pub(super) fn make(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let made = DirBuilder::new().mode(0o700).recursive(false).create(path);
        let was_there = match made {
            Ok(()) => false,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => true,
            Err(error) => return Err(error).with_context(|| format!("failed to make the directory '{shown}'")),
        };
        let read = || format!("failed to read the directory '{shown}'");
        if was_there && fs::read_dir(path).with_context(read)?.next().is_some() {
            bail!("'{shown}' is not empty, and nothing is overwritten; name another directory");
        }
        let path = path.canonicalize().with_context(read)?;
        let made = Self { path, was_there, is_kept: false };
        // It stands in a config, a unit and lines for a shell.
        let is_plain = |character: char| character.is_ascii_alphanumeric() || "/-_.+".contains(character);
        ensure!(
            made.text().is_some_and(|text| text.chars().all(is_plain)),
            "the path '{}' has characters that shells or units take for something else; name another directory",
            made.path.display()
        );
        Ok(made)
    }

    fn text(&self) -> Option<&str> {
        self.path.to_str()
    }

    /// The path of a file in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The path of a file in it, for a text.
    pub(super) fn at(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// The path of the directory itself, for a text.
    pub(super) fn shown(&self) -> String {
        self.path.display().to_string()
    }

    /// Writes a file that everybody may read who gets there.
    pub(super) fn file(&self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        files::write(&self.path(name), 0o644, content, OnConflict::Fail)
    }

    /// Writes a file for its owner alone.
    pub(super) fn secret(&self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        files::write(&self.path(name), 0o600, content, OnConflict::Fail)
    }

    /// Keeps it; returns its path.
    pub(super) fn keep(mut self) -> String {
        self.is_kept = true;
        self.shown()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        // It was empty, so all in it is ours. If it cannot be removed, the next run says that it is not empty.
        match self.was_there {
            false => drop(fs::remove_dir_all(&self.path)),
            true => {
                for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
                    let removed = match entry.file_type() {
                        Ok(kind) if kind.is_dir() => fs::remove_dir_all(entry.path()),
                        _ => fs::remove_file(entry.path()),
                    };
                    drop(removed);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn it_is_whole_or_as_it_was() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("new");
        let made = Directory::make(&path).expect("made");
        made.secret("a", b"1").expect("written");
        assert!(made.secret("a", b"2").is_err());
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o700);
        drop(made);
        assert!(!path.exists());
        Directory::make(&path).expect("made").keep();
        let empty = Directory::make(&path).expect("an empty one");
        empty.file("a", b"1").expect("written");
        fs::create_dir(empty.path("keys")).expect("a directory");
        drop(empty);
        assert_eq!(fs::read_dir(&path).expect("it stays").count(), 0);
        let full = Directory::make(&path).expect("an empty one");
        full.file("a", b"1").expect("written");
        full.keep();
        assert!(Directory::make(&path).is_err());
        assert_eq!(fs::read(path.join("a")).expect("as it was"), b"1");
        for odd in ["a b", "a$b", "a%b", "a'b", "a\"b", "é"] {
            assert!(Directory::make(&place.path().join(odd)).is_err(), "{odd}");
            assert!(!place.path().join(odd).exists(), "{odd}");
        }
        assert!(Directory::make(&place.path().join("no/where")).is_err());
    }
}
