//! Errors of a directory of keys, and what the operator can do about each.

use std::path::PathBuf;

use rustix::io::Errno;

use crate::keystore;

/// The largest file that is taken for a key, in bytes. The stored keys of all versions are smaller
/// than 1 KiB.
pub(super) const MAX_LEN: usize = 1 << 20;

/// Why an operation on the directory failed.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Error {
    /// The name is taken, by whatever it may be.
    #[error("key already exists")]
    Exists,
    /// The directory is there, and has no such entry.
    #[error("key does not exist")]
    NotFound,
    /// Nothing is where the directory was, or another directory.
    #[error("the directory '{}' has vanished; bring it back, or mount it again", .0.display())]
    Vanished(PathBuf),
    /// Something that can hold no keys.
    #[error("'{}' is no directory; the keys are expected in one", .0.display())]
    NotADirectory(PathBuf),
    /// An entry that is no file.
    #[error("'{}' is {kind} and no key; remove it from the directory of keys", .path.display())]
    NotAKey {
        /// The entry.
        path: PathBuf,
        /// Such as "a directory".
        kind: &'static str,
    },
    /// An entry that is no key.
    #[error("'{}' is larger than {MAX_LEN} bytes and no key; remove it from the directory of keys", .0.display())]
    TooLarge(PathBuf),
    /// `replace` found something else than it was told to replace.
    #[error("'{}' holds another value than expected", .0.display())]
    Changed(PathBuf),
    /// The file system can make a file appear in no way that never overwrites another.
    #[error("the file system of '{}' has neither links nor exclusive renames, so keys cannot be created safely; keep the keys on another one", .0.display())]
    Unsafe(PathBuf),
    /// The operation is done, but not on disk.
    #[error("the change of '{}' is made, but may not survive a power cut{}", .path.display(), advice(*.source))]
    NotSynced {
        /// The directory.
        path: PathBuf,
        /// The operating system's reason.
        source: Errno,
    },
    /// Anything else.
    #[error("cannot {action} '{}'{}", .path.display(), advice(*.source))]
    Io {
        /// Such as "read".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's reason.
        source: Errno,
    },
}

impl From<Error> for keystore::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Exists => Self::Exists,
            Error::NotFound => Self::NotFound,
            Error::Vanished(_) => Self::Unreachable(error.into()),
            Error::Io { source, .. } if may_pass(source) => Self::Unreachable(error.into()),
            // Once a key was visible, reading it back proves nothing about the disk: so `NotSynced` never passes.
            _ => Self::Failed(error.into()),
        }
    }
}

/// Whether it may be better in a second without anybody's help: network file systems that lost
/// their server, and limits that other work has reached. `EIO` is none of these: it is a broken
/// disk, or a network file system that has given up after long retries of its own.
fn may_pass(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::STALE
            | Errno::TIMEDOUT
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::NETDOWN
            | Errno::NETUNREACH
            | Errno::NOTCONN
            | Errno::CONNREFUSED
            | Errno::CONNRESET
            | Errno::CONNABORTED
            | Errno::AGAIN
            | Errno::BUSY
            | Errno::INTR
            | Errno::NOMEM
            | Errno::NOBUFS
            | Errno::MFILE
            | Errno::NFILE
    )
}

/// What to do, in brackets, where the operating system's own words do not say it.
fn advice(errno: Errno) -> String {
    let advice = match errno {
        Errno::ACCESS | Errno::PERM => {
            let user = rustix::process::geteuid().as_raw();
            return format!(
                " (this program runs as user {user}, who needs rwx on the directory and rw on the files in it)"
            );
        }
        Errno::NOSPC => "the file system is full; free some space on it, or enlarge it",
        Errno::DQUOT => "the quota is used up; free some space, or raise the quota",
        Errno::ROFS => "the file system is mounted read-only; mount it read-write",
        Errno::IO => "the storage has failed; see the kernel's log",
        Errno::MFILE => "this program has too many open files; raise its limit, LimitNOFILE= with systemd",
        Errno::NFILE => "the machine has too many open files; raise fs.file-max",
        _ => return String::new(),
    };
    format!(" ({advice})")
}
