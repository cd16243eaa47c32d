//! The directory and the operations on its files. All of them block the calling thread.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    Access, AtFlags, FileType, FlockOperation, Mode, OFlags, RawDir, StatxAttributes, StatxFlags, accessat, flock,
    fstat, fsync, mkdir, open, openat, stat, statat, statx, unlinkat,
};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::error::{Error, MAX_LEN};
use super::group::Syncs;
use super::temporary::Temporary;
use crate::crypto::Blob;
use crate::keystore::Listing;
use crate::name::{KeyName, is_valid};

/// How much of a directory is read at a time, in bytes.
const LIST_BUFFER: usize = 64 * 1024;

/// Where the directory is.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    /// Whether a file system was mounted at this path. If it is not mounted any more, the directory there is the one
    /// below the mount, and a key missing in it proves nothing.
    mounted: bool,
    syncs: Syncs,
}

impl Place {
    /// Opens an existing directory.
    pub(super) fn find(path: PathBuf) -> Result<Self, Error> {
        let mut place = Self { path, mounted: false, syncs: Syncs::default() };
        place.mounted = is_mount(&place.open()?.fd);
        Ok(place)
    }

    /// Opens a directory, and makes it with its parents when it is missing.
    pub(super) fn make(path: PathBuf) -> Result<Self, Error> {
        make_directory(&path)?;
        Self::find(path)
    }

    /// The path as configured.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the directory that is at the path now.
    pub(super) fn open(&self) -> Result<Directory<'_>, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = open(&self.path, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOENT => Error::Vanished(self.path.clone()),
            Errno::NOTDIR => Error::NotADirectory(self.path.clone()),
            source => Error::Io { action: "open", path: self.path.clone(), source },
        })?;
        if self.mounted && !is_mount(&fd) {
            return Err(Error::Vanished(self.path.clone()));
        }
        Ok(Directory { place: self, fd })
    }
}

/// Makes a directory and its parents. All of them are on disk before this returns: a key is only as durable as the
/// directories above it.
fn make_directory(path: &Path) -> Result<(), Error> {
    if stat(path).is_ok() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        make_directory(parent)?;
    }
    match mkdir(path, Mode::from_raw_mode(0o755)) {
        Ok(()) => Place::find(parent.unwrap_or(Path::new(".")).to_owned())?.open()?.sync(),
        Err(Errno::EXIST) => Ok(()),
        Err(source) => Err(Error::Io { action: "create the directory", path: path.to_owned(), source }),
    }
}

/// Whether a file system is mounted here. Kernels before 5.8 do not say; then it counts as no mount.
fn is_mount(fd: &OwnedFd) -> bool {
    statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::empty())
        .is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// The open directory.
pub(super) struct Directory<'a> {
    place: &'a Place,
    pub(super) fd: OwnedFd,
}

impl Directory<'_> {
    pub(super) fn create(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        self.create_unsynced(name, value)?;
        self.sync()
    }

    /// [`Directory::create`] for each of these keys. All of them wait for one sync of the directory.
    pub(super) fn create_all(&self, keys: &[(KeyName, Blob)]) -> Vec<Result<(), Error>> {
        let mut answers: Vec<_> = keys.iter().map(|(name, value)| self.create_unsynced(name, value)).collect();
        if answers.iter().any(Result::is_ok)
            && let Err(error) = self.sync()
        {
            answers.iter_mut().filter(|answer| answer.is_ok()).for_each(|answer| *answer = Err(error.clone()));
        }
        answers
    }

    fn create_unsynced(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        // Only saves work for the disk. `publish` decides.
        if self.kind(name.as_str())?.is_some() {
            return Err(Error::Exists);
        }
        Temporary::write(self, value)?.publish(name)
    }

    pub(super) fn get(&self, name: &KeyName) -> Result<Blob, Error> {
        // NONBLOCK: do not wait for the other end of a pipe.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match openat(&self.fd, name.as_str(), flags, Mode::empty()) {
            Ok(file) => self.read(name, &file),
            Err(Errno::NOENT) => Err(match self.kind(name.as_str())? {
                Some(FileType::Symlink) => self.not_a_key(name, "a link that leads nowhere"),
                _ => self.not_found(),
            }),
            Err(Errno::LOOP) => Err(self.not_a_key(name, "a link that leads to itself")),
            Err(Errno::NXIO) => Err(self.not_a_key(name, "a socket or a device")),
            Err(source) => Err(self.io("read", name.as_str(), source)),
        }
    }

    fn read(&self, name: &KeyName, file: &OwnedFd) -> Result<Blob, Error> {
        let io = |source| self.io("read", name.as_str(), source);
        let found = fstat(file).map_err(io)?;
        let kind = FileType::from_raw_mode(found.st_mode);
        if kind != FileType::RegularFile {
            return Err(self.not_a_key(name, describe(kind)));
        }
        let len = usize::try_from(found.st_size).unwrap_or(usize::MAX);
        if len > MAX_LEN {
            return Err(Error::TooLarge(self.path(name.as_str())));
        }
        // Allocate the full size at once, and a byte more to see the end: a vector that grows leaves copies behind.
        let mut value = Zeroizing::new(vec![0; len + 1]);
        let mut filled = 0;
        while filled < value.len() {
            match rustix::io::read(file, &mut value[filled..]) {
                Ok(0) => {
                    value.truncate(filled);
                    return Ok(value.into());
                }
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(source) => return Err(io(source)),
            }
        }
        // The file grew meanwhile: another program is still writing it.
        Err(self.io("read", name.as_str(), Errno::AGAIN))
    }

    pub(super) fn replace(&self, name: &KeyName, expected: &Blob, value: &Blob) -> Result<(), Error> {
        // The lock ends with `self`. Nobody else can replace or delete between the check and the change.
        self.lock(FlockOperation::LockExclusive)?;
        if !self.get(name)?.is_same(expected) {
            return Err(Error::Changed(self.path(name.as_str())));
        }
        Temporary::write(self, value)?.replace(name)
    }

    pub(super) fn delete(&self, name: &KeyName) -> Result<(), Error> {
        self.lock(FlockOperation::LockShared)?;
        match self.kind(name.as_str())? {
            Some(FileType::RegularFile | FileType::Symlink) => {}
            Some(kind) => return Err(self.not_a_key(name, describe(kind))),
            None => return Err(self.not_found()),
        }
        match unlinkat(&self.fd, name.as_str(), AtFlags::empty()) {
            Ok(()) => self.sync(),
            Err(Errno::NOENT) => Err(self.not_found()),
            Err(source) => Err(self.io("delete", name.as_str(), source)),
        }
    }

    pub(super) fn list(&self, prefix: &str) -> Result<Listing, Error> {
        let mut listing = Listing::default();
        self.each(|name, kind| {
            if !name.starts_with(prefix) {
                return;
            }
            match kind {
                FileType::RegularFile => listing.insert(name),
                FileType::Symlink | FileType::Unknown if !is_valid(name) => listing.insert(name),
                // Only links, and entries whose type the file system does not report, need another call.
                FileType::Symlink | FileType::Unknown => match statat(&self.fd, name, AtFlags::empty()) {
                    Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::RegularFile => {
                        listing.insert(name)
                    }
                    Ok(found) => listing.refuse(name, describe(FileType::from_raw_mode(found.st_mode))),
                    // Deleted meanwhile.
                    Err(_) if matches!(self.kind(name), Ok(None)) => {}
                    Err(_) => listing.refuse(name, "a link that leads to no file"),
                },
                other => listing.refuse(name, describe(other)),
            }
        })?;
        // The listing may come from a directory that is being removed.
        if !self.is_in_place()? {
            return Err(Error::Vanished(self.place.path.clone()));
        }
        Ok(listing.sorted())
    }

    /// Whether this user may list and read, and with `writes` also create and replace.
    pub(super) fn check(&self, writes: bool) -> Result<(), Error> {
        let reading = Access::READ_OK | Access::EXEC_OK;
        let (action, rights) = if writes { ("write to", reading | Access::WRITE_OK) } else { ("read", reading) };
        accessat(&self.fd, ".", rights, AtFlags::EACCESS).map_err(|source| self.io(action, "", source))
    }

    /// The device and inode number, which identify this directory on this machine.
    pub(super) fn identity(&self) -> Result<(u64, u64), Error> {
        let found = fstat(&self.fd).map_err(|source| self.io("read", "", source))?;
        Ok((found.st_dev, found.st_ino))
    }

    /// Every entry's name, with invalid UTF-8 replaced, and its type, if the file system reports it.
    pub(super) fn each(&self, mut look: impl FnMut(&str, FileType)) -> Result<(), Error> {
        let mut buffer = vec![MaybeUninit::uninit(); LIST_BUFFER];
        let mut entries = RawDir::new(&self.fd, &mut buffer);
        while let Some(entry) = entries.next() {
            match entry {
                Ok(entry) => look(&entry.file_name().to_string_lossy(), entry.file_type()),
                Err(Errno::NOENT) => return Err(Error::Vanished(self.place.path.clone())),
                Err(source) => return Err(self.io("list", "", source)),
            }
        }
        Ok(())
    }

    /// Waits until all changes of the directory are on disk. Callers that wait at the same time share a sync.
    pub(super) fn sync(&self) -> Result<(), Error> {
        self.place.syncs.share(self.identity()?, || self.sync_now())
    }

    fn sync_now(&self) -> Result<(), Error> {
        match fsync(&self.fd) {
            // Some network file systems have nothing to sync in a directory.
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(source) => Err(Error::NotSynced { path: self.place.path.clone(), source }),
        }
    }

    /// Locks the directory as long as it is open. Some network file systems cannot lock directories.
    fn lock(&self, operation: FlockOperation) -> Result<(), Error> {
        match flock(&self.fd, operation) {
            Ok(()) | Err(Errno::BADF | Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
            Err(source) => Err(self.io("lock", "", source)),
        }
    }

    /// The type of the entry with this name. Links are not followed.
    fn kind(&self, name: &str) -> Result<Option<FileType>, Error> {
        match statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(FileType::from_raw_mode(found.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(source) => Err(self.io("read", name, source)),
        }
    }

    /// The error for a missing entry. Only a directory that is still in its place proves that a key does not exist.
    fn not_found(&self) -> Error {
        match self.is_in_place() {
            Ok(true) => Error::NotFound,
            Ok(false) => Error::Vanished(self.place.path.clone()),
            Err(error) => error,
        }
    }

    fn is_in_place(&self) -> Result<bool, Error> {
        match stat(&self.place.path) {
            Ok(now) => Ok((now.st_dev, now.st_ino) == self.identity()?),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(source) => Err(self.io("read", "", source)),
        }
    }

    fn not_a_key(&self, name: &KeyName, kind: &'static str) -> Error {
        Error::NotAKey { path: self.path(name.as_str()), kind }
    }

    /// A failed system call; `action` as in "cannot read '/keys/a'".
    pub(super) fn io(&self, action: &'static str, name: &str, source: Errno) -> Error {
        Error::Io { action, path: self.path(name), source }
    }

    pub(super) fn vanished(&self) -> Error {
        Error::Vanished(self.place.path.clone())
    }

    /// The path of a file; without a name, of the directory.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.place.path.clone() } else { self.place.path.join(name) }
    }
}

fn describe(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a link",
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "of an unknown kind",
    }
}
