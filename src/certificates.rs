//! Files of certificates: reads them, and tells whether they have changed.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::crypto::pem;

/// Why a file of certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file, or the directory, cannot be read.
    #[error("failed to read '{}'", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// The file holds no certificates.
    #[error("failed to read certificates from '{}'", .0.display())]
    Pem(PathBuf, #[source] pem::Error),
}

/// The certificates of a PEM file, in order.
///
/// # Errors
/// When the file cannot be read, or holds none.
pub fn load(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    // A private key may stand there, too.
    let text = std::fs::read(file).map(Zeroizing::new).map_err(|error| Error::Read(file.into(), error))?;
    pem::certificates(&text).map_err(|error| Error::Pem(file.into(), error))
}

/// The certificates of a PEM file, or of every file in a directory, which may have none.
///
/// # Errors
/// When one of them cannot be read, or holds no certificate.
pub fn load_authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let unreadable = |error| Error::Read(path.into(), error);
    if !std::fs::metadata(path).map_err(unreadable)?.is_dir() {
        return load(path);
    }
    let mut all = Vec::new();
    for file in files_in(path).map_err(unreadable)?.iter().filter(|file| file.is_file()) {
        all.extend(load(file)?);
    }
    Ok(all)
}

/// What is in a directory, sorted.
fn files_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = std::fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

/// Tells one version of files from another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fingerprint(Vec<Option<(u64, u64, u64, SystemTime)>>);

impl Fingerprint {
    /// Of these files, and of all files in those that are directories. It changes when one of them does, comes or goes.
    pub fn of<'p>(paths: impl IntoIterator<Item = &'p Path>) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        let version = |path: &Path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.dev(), metadata.ino(), metadata.len(), metadata.modified().ok()?))
        };
        let with_files = |path: &Path| {
            let files = files_in(path).unwrap_or_default();
            [version(path)].into_iter().chain(files.iter().map(|file| version(file))).collect::<Vec<_>>()
        };
        Self(paths.into_iter().flat_map(with_files).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_changes_with_every_file_of_a_directory() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, file) = (directory.path(), directory.path().join("a.crt"));
        let of = || Fingerprint::of([path]);
        let empty = of();
        std::fs::write(&file, "1").expect("written");
        let one = of();
        std::fs::write(&file, "22").expect("written");
        let changed = of();
        std::fs::remove_file(&file).expect("removed");
        assert!(empty != one && one != changed && changed != of());
        assert_eq!(of(), of());
    }

    #[test]
    fn a_directory_may_be_empty_and_its_files_may_not() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(load_authorities(directory.path()).expect("readable").is_empty());
        let file = directory.path().join("a.crt");
        std::fs::write(&file, "no certificate").expect("written");
        assert!(matches!(load_authorities(directory.path()), Err(Error::Pem(path, _)) if path == file));
        assert!(matches!(load_authorities(&directory.path().join("b")), Err(Error::Read(..))));
    }
}
