//! Where the file of a store is, and how another one takes its place.

use std::ffi::OsString;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use redb::StorageBackend;
use redb::backends::FileBackend;
use rustix::fs::{CWD, RenameFlags, renameat_with};

/// The name of the file in the data directory.
pub(super) const FILE: &str = "claviger.kms";

/// What the name of a file begins with that is not whole yet.
pub(super) const BEGUN: &str = "claviger.kms.new-";

/// A file that has no name yet.
pub(in crate::kms) type Nameless = OsString;

/// Where a store has its one file.
pub(in crate::kms) trait Place: Send + Sync {
    /// What errors call the file.
    fn path(&self) -> &Path;

    /// The file; none where there is none yet.
    ///
    /// # Errors
    /// When it cannot be opened.
    fn open(&self) -> io::Result<Option<Box<dyn StorageBackend>>>;

    /// Begins another file, which has no name until it is whole: a power cut must not leave half of one.
    ///
    /// # Errors
    /// When there is no room for it.
    fn begin(&self) -> io::Result<(Box<dyn StorageBackend>, Nameless)>;

    /// Gives a file that was begun the name; whoever had it is gone. It may be so even when this fails.
    ///
    /// # Errors
    /// When that cannot be done, or when there is a file though `is_first`.
    fn install(&self, begun: &Nameless, is_first: bool) -> io::Result<()>;

    /// Forgets a file that was begun.
    fn discard(&self, begun: &Nameless);

    /// Makes sure that the name stays where it is, and clears away what was begun and never installed.
    ///
    /// # Errors
    /// When that is not sure.
    fn settle(&self) -> io::Result<()>;
}

/// A directory.
pub(super) struct Directory {
    path: PathBuf,
}

impl Directory {
    /// The place in `directory`, which is made if it is missing.
    ///
    /// # Errors
    /// When that cannot be done.
    pub(super) fn new(directory: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let path = directory.join(FILE);
        // Where the file itself is: a link must not be replaced by what it leads to.
        Ok(Self { path: fs::canonicalize(&path).unwrap_or(path) })
    }

    fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    fn at(&self, begun: &Nameless) -> PathBuf {
        self.directory().join(begun)
    }
}

impl Place for Directory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self) -> io::Result<Option<Box<dyn StorageBackend>>> {
        match fs::File::options().read(true).write(true).open(&self.path) {
            Ok(file) => Ok(Some(backend(file)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn begin(&self) -> io::Result<(Box<dyn StorageBackend>, Nameless)> {
        let number = RandomState::new().hash_one(std::process::id());
        let begun = OsString::from(format!("{BEGUN}{number:016x}"));
        let file = fs::File::options().read(true).write(true).create_new(true).mode(0o600).open(self.at(&begun))?;
        Ok((backend(file)?, begun))
    }

    fn install(&self, begun: &Nameless, is_first: bool) -> io::Result<()> {
        let flags = if is_first { RenameFlags::NOREPLACE } else { RenameFlags::empty() };
        Ok(renameat_with(CWD, self.at(begun), CWD, &self.path, flags)?)
    }

    fn discard(&self, begun: &Nameless) {
        let _ = fs::remove_file(self.at(begun));
    }

    fn settle(&self) -> io::Result<()> {
        // What a process has left that was killed meanwhile. No other one is at work: the file is ours.
        for entry in fs::read_dir(self.directory()).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(BEGUN.as_bytes()) {
                let _ = fs::remove_file(entry.path());
            }
        }
        fs::File::open(self.directory())?.sync_all()
    }
}

fn backend(file: fs::File) -> io::Result<Box<dyn StorageBackend>> {
    Ok(Box::new(FileBackend::new(file).map_err(io::Error::other)?))
}
