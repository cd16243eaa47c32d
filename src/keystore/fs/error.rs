//! Errors of a directory of keys, and what the operator can do about each.

use std::path::PathBuf;

use rustix::io::Errno;

use crate::keystore;

/// The largest file that can be a key, in bytes. Stored keys in all formats are smaller than 1 KiB.
pub(super) const MAX_LEN: usize = 1 << 20;

/// Why an operation on the directory failed.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Error {
    /// The name is taken, by an entry of any type.
    #[error("key already exists")]
    Exists,
    /// The directory is there, and has no such entry.
    #[error("key does not exist")]
    NotFound,
    /// The directory is gone, or another one is in its place.
    #[error("the directory '{}' has vanished; bring it back, or mount it again", .0.display())]
    Vanished(PathBuf),
    /// The path is not a directory.
    #[error("'{}' is no directory; the keys are expected in one", .0.display())]
    NotADirectory(PathBuf),
    /// An entry that is not a file.
    #[error("'{}' is {kind} and no key; remove it from the directory of keys", .path.display())]
    NotAKey {
        /// The entry.
        path: PathBuf,
        /// Such as "a directory".
        kind: &'static str,
    },
    /// A file that is too large for a key.
    #[error("'{}' is larger than {MAX_LEN} bytes and no key; remove it from the directory of keys", .0.display())]
    TooLarge(PathBuf),
    /// `replace` found another value than the expected one.
    #[error("'{}' holds another value than expected", .0.display())]
    Changed(PathBuf),
    /// The file system has no operation that gives a file a name without overwriting another.
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

/// Whether the error may pass by itself: network file systems that lost their server, and limits that other work has
/// reached. `EIO` does not pass: it is a broken disk, or a network file system that gave up after long retries of its
/// own.
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
