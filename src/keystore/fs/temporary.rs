//! Temporary files: those being written, and those that a killed process left.
//!
//! A value is written to `.claviger-<random>`, synced, and only then given its name. Its writer holds a lock on the
//! file. The kernel releases the lock when the process ends, however it ends and in whatever container it ran. So a
//! file that can be locked belongs to no process and may be removed.

use std::os::fd::OwnedFd;

use rustix::fs::{
    AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags, flock, fstat, fsync, linkat, openat, renameat,
    renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

use super::directory::Directory;
use super::error::Error;
use crate::crypto::{Blob, random};
use crate::hex;
use crate::name::KeyName;

/// How the names of temporary files begin.
const PREFIX: &str = ".claviger-";

/// The most attempts to make a file, when another process removes it as a leftover before it is locked.
const ATTEMPTS: usize = 16;

/// A file under a temporary name, which is removed unless it gets another one.
pub(super) struct Temporary<'a> {
    directory: &'a Directory<'a>,
    name: String,
    file: OwnedFd,
    is_there: bool,
}

impl<'a> Temporary<'a> {
    /// A new file that holds `value`, on disk.
    pub(super) fn write(directory: &'a Directory<'a>, value: &Blob) -> Result<Self, Error> {
        let file = Self::create(directory)?;
        let mut rest = value.expose();
        while !rest.is_empty() {
            match rustix::io::write(&file.file, rest) {
                Ok(count) => rest = &rest[count..],
                Err(Errno::INTR) => {}
                Err(source) => return Err(file.io("write", source)),
            }
        }
        fsync(&file.file).map_err(|source| file.io("write", source))?;
        Ok(file)
    }

    fn create(directory: &'a Directory<'a>) -> Result<Self, Error> {
        for _ in 0..ATTEMPTS {
            let name = random_name(directory)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = match openat(&directory.fd, &name, flags, Mode::RUSR | Mode::WUSR) {
                Ok(file) => Self { directory, name, file, is_there: true },
                Err(Errno::NOENT) => return Err(directory.vanished()),
                Err(Errno::EXIST) => continue,
                Err(source) => return Err(directory.io("create", &name, source)),
            };
            if file.lock()? {
                return Ok(file);
            }
        }
        Err(directory.io("create", PREFIX, Errno::AGAIN))
    }

    /// Locks the file to mark it as in use; `false` when another process has just removed it as a leftover.
    fn lock(&self) -> Result<bool, Error> {
        match flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(false),
            // Then nobody can lock leftovers either, and they stay.
            Err(errno) if has_no_locks(errno) => {}
            Err(source) => return Err(self.io("lock", source)),
        }
        Ok(fstat(&self.file).map_err(|source| self.io("create", source))?.st_nlink > 0)
    }

    /// Gives the file its name unless that is taken. It has it on disk once the directory is synced.
    pub(super) fn publish(mut self, name: &KeyName) -> Result<(), Error> {
        let fd = &self.directory.fd;
        match renameat_with(fd, &self.name, fd, name.as_str(), RenameFlags::NOREPLACE) {
            Ok(()) => {
                self.is_there = false;
                Ok(())
            }
            // For example, NFS lacks this operation.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.link(name),
            Err(errno) => Err(self.not_named(name, errno)),
        }
    }

    fn link(&mut self, name: &KeyName) -> Result<(), Error> {
        let fd = &self.directory.fd;
        match linkat(fd, &self.name, fd, name.as_str(), AtFlags::empty()) {
            Ok(()) => {}
            // The answer got lost on the network and the call was made again.
            Err(Errno::EXIST) if self.has(name) => {}
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {
                return Err(Error::Unsafe(self.directory.path(&self.name)));
            }
            Err(errno) => return Err(self.not_named(name, errno)),
        }
        self.remove();
        Ok(())
    }

    /// Whether the name is already this file's.
    fn has(&self, name: &KeyName) -> bool {
        let named = statat(&self.directory.fd, name.as_str(), AtFlags::SYMLINK_NOFOLLOW);
        match (named, fstat(&self.file)) {
            (Ok(named), Ok(ours)) => (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino),
            _ => false,
        }
    }

    /// Gives the file a name in place of the file that has it, in one step, and waits until that is on disk.
    pub(super) fn replace(mut self, name: &KeyName) -> Result<(), Error> {
        let fd = &self.directory.fd;
        renameat(fd, &self.name, fd, name.as_str()).map_err(|errno| self.not_named(name, errno))?;
        self.is_there = false;
        self.directory.sync()
    }

    fn not_named(&self, name: &KeyName, errno: Errno) -> Error {
        match errno {
            Errno::EXIST => Error::Exists,
            Errno::NOENT => self.directory.vanished(),
            source => self.directory.io("create", name.as_str(), source),
        }
    }

    fn remove(&mut self) {
        self.is_there = false;
        // Should it stay, the next start removes it.
        let _ = unlinkat(&self.directory.fd, &self.name, AtFlags::empty());
    }

    fn io(&self, action: &'static str, source: Errno) -> Error {
        self.directory.io(action, &self.name, source)
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if self.is_there {
            self.remove();
        }
    }
}

fn random_name(directory: &Directory<'_>) -> Result<String, Error> {
    let mut bytes = [0; 8];
    random::fill(&mut bytes).map_err(|_| directory.io("create", PREFIX, Errno::AGAIN))?;
    Ok(format!("{PREFIX}{}", hex::encode(&bytes)))
}

fn has_no_locks(errno: Errno) -> bool {
    matches!(errno, Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL)
}

/// Removes the half-written files of dead processes. A file that cannot be removed does no harm: it is logged.
pub(super) fn remove_leftovers(directory: &Directory<'_>) {
    let found = match unfinished(directory) {
        Ok(found) => found,
        Err(error) => {
            let error = crate::telemetry::log::causes(&error);
            return tracing::warn!(error, "cannot look for unfinished files in the directory of keys");
        }
    };
    for name in found {
        match remove_leftover(directory, &name) {
            Ok(true) => tracing::info!(file = name, "removed an unfinished file that a killed process left"),
            Ok(false) => {}
            Err(error) => {
                let error = crate::telemetry::log::causes(&error);
                tracing::warn!(error, file = name, "cannot remove an unfinished file that a killed process left");
            }
        }
    }
}

/// The names of the files that [`remove_leftovers`] would remove, as far as this user can tell.
pub(super) fn leftovers(directory: &Directory<'_>) -> Result<Vec<String>, Error> {
    let mut found = unfinished(directory)?;
    found.retain(|name| is_leftover(directory, name));
    found.sort_unstable();
    Ok(found)
}

/// The names of all temporary files.
fn unfinished(directory: &Directory<'_>) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    directory.each(|name, kind| {
        if name.starts_with(PREFIX) && matches!(kind, FileType::RegularFile | FileType::Unknown) {
            found.push(name.to_owned());
        }
    })?;
    Ok(found)
}

/// Whether no process holds the file's lock. A writer that is about to lock it will take another name.
fn is_leftover(directory: &Directory<'_>, name: &str) -> bool {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(&directory.fd, name, flags, Mode::empty());
    file.is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared).is_ok())
}

/// Whether the file was a leftover, and is removed.
fn remove_leftover(directory: &Directory<'_>, name: &str) -> Result<bool, Error> {
    // Opened for writing, because network file systems give exclusive locks only to writers.
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match openat(&directory.fd, name, flags, Mode::empty()) {
        Ok(file) => file,
        // Its writer was quicker.
        Err(Errno::NOENT) => return Ok(false),
        Err(source) => return Err(directory.io("open", name, source)),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(false),
        Err(source) => return Err(directory.io("lock", name, source)),
    }
    match unlinkat(&directory.fd, name, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(source) => Err(directory.io("delete", name, source)),
    }
}
