//! A small file beside the data: what a node of a cluster notes that is no record.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::kms::keeper::Notes;

/// The name of the file in the data directory, and of one that is not whole yet.
const FILE: &str = "replica";
const BEGUN: &str = "replica.new";

/// The most bytes that are read.
const MOST: u64 = 64 << 10;

/// The file in a data directory, which the process that has the data open may use.
#[derive(Debug)]
pub struct Note {
    directory: PathBuf,
}

impl Note {
    /// The one in this directory, which need not be there.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// What was written last; none: nothing was.
    ///
    /// # Errors
    /// When it cannot be read, or is larger than any that was written.
    pub fn read(&self) -> io::Result<Option<Vec<u8>>> {
        let file = match fs::File::open(self.directory.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut note = Vec::new();
        file.take(MOST + 1).read_to_end(&mut note)?;
        if note.len() as u64 > MOST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too large"));
        }
        Ok(Some(note))
    }

    /// Writes it in the place of the last one: wholly or not at all, whatever happens.
    ///
    /// # Errors
    /// When it is not certain that it is there to stay.
    pub fn write(&mut self, note: &[u8]) -> io::Result<()> {
        let begun = self.directory.join(BEGUN);
        let mut file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&begun)?;
        file.write_all(note)?;
        file.sync_all()?;
        fs::rename(begun, self.directory.join(FILE))?;
        fs::File::open(&self.directory)?.sync_all()
    }
}

impl Notes for Note {
    fn read(&self) -> io::Result<Option<Vec<u8>>> {
        Self::read(self)
    }

    fn write(&mut self, note: &[u8]) -> io::Result<()> {
        Self::write(self, note)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_was_written_last_is_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut note = Note::new(directory.path());
        assert_eq!(note.read().expect("readable"), None);
        // What a crash has left does not matter.
        fs::write(directory.path().join(BEGUN), vec![7; 100]).expect("written");
        for text in [&b"one"[..], b"", b"another"] {
            note.write(text).expect("written");
            assert_eq!(Note::new(directory.path()).read().expect("readable").as_deref(), Some(text));
        }
        let file = directory.path().join(FILE);
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
        assert!(!directory.path().join(BEGUN).exists());
        fs::write(&file, vec![7; 65_537]).expect("written");
        assert!(note.read().is_err());
        assert!(Note::new(&directory.path().join("nowhere")).write(b"x").is_err());
    }
}
