//! What an answer of etcd means.

use std::error::Error as StdError;
use std::fmt;

use tonic::{Code, Status};

use crate::foreign::{cut, printable};
use crate::http::untrusted;

/// How much of a text of others is shown, in bytes.
const MOST: usize = 600;

/// What a caller can act on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No usable answer. It may pass by itself. It is unknown whether a write was done.
    #[error(transparent)]
    Unreachable(Trouble),
    /// The user has no right to it.
    #[error(transparent)]
    Denied(Trouble),
    /// The revision that was asked for is no longer kept.
    #[error(transparent)]
    Compacted(Trouble),
    /// There was no such revision yet.
    #[error(transparent)]
    Future(Trouble),
    /// There is no such lease: it has ended.
    #[error(transparent)]
    NoLease(Trouble),
    /// It will not work without an operator.
    #[error(transparent)]
    Failed(Trouble),
}

/// A call that failed.
#[derive(Debug)]
pub struct Trouble {
    /// Its path.
    pub call: &'static str,
    /// The member that was asked.
    pub endpoint: String,
    /// What happened.
    pub what: String,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { call, endpoint, what } = self;
        let call = call.rsplit('.').next().unwrap_or(call);
        write!(f, "{call} at {endpoint}: {what}")
    }
}

impl StdError for Trouble {}

/// An error, with the code and whether the token is to blame.
pub(super) struct Judged {
    pub(super) error: Error,
    pub(super) code: Code,
    about_token: bool,
}

impl Judged {
    pub(super) fn unreachable(trouble: Trouble) -> Self {
        Self { error: Error::Unreachable(trouble), code: Code::Unavailable, about_token: false }
    }

    pub(super) fn failed(trouble: Trouble) -> Self {
        Self { error: Error::Failed(trouble), code: Code::Internal, about_token: false }
    }

    /// Whether a new token may help. Then nothing was done.
    pub(super) fn is_about_token(&self) -> bool {
        self.about_token
    }
}

impl From<Judged> for Error {
    fn from(judged: Judged) -> Self {
        judged.error
    }
}

/// What a status means. Releases of etcd differ in codes, so texts count, too.
pub(super) fn judge(status: &Status, trouble: impl Fn(String) -> Trouble) -> Judged {
    let (code, text) = (status.code(), status.message());
    let says = |part: &str| text.contains(part);
    let with = |advice: &str| trouble(format!("{}{advice}", describe(status)));
    let about_token = code == Code::Unauthenticated
        || code == Code::InvalidArgument && (says("user name is empty") || says("revision of auth store is old"));
    let error = match code {
        Code::Ok => Error::Failed(with("; the answer is not one of etcd")),
        // None of these says that a write was not done.
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Internal | Code::Unknown => {
            Error::Unreachable(with(""))
        }
        Code::ResourceExhausted if says("too many requests") => Error::Unreachable(with("")),
        Code::ResourceExhausted if says("database space exceeded") => Error::Failed(with(
            "; etcd is full: compact and defragment it or raise --quota-backend-bytes, then 'etcdctl alarm disarm'",
        )),
        Code::OutOfRange if says("compacted") => Error::Compacted(with("")),
        Code::OutOfRange if says("future revision") => Error::Future(with("")),
        Code::NotFound if says("lease not found") => Error::NoLease(with("")),
        Code::PermissionDenied => Error::Denied(with("")),
        Code::Unauthenticated => Error::Failed(with("; etcd refuses each token that it gives")),
        Code::InvalidArgument if says("authentication failed") => {
            Error::Failed(with("; correct 'credentials': the user's name or password is wrong"))
        }
        Code::InvalidArgument if says("user name is empty") => Error::Failed(with(
            "; etcd knows users: set 'credentials', or a client certificate whose common name is the user's",
        )),
        _ => Error::Failed(with("")),
    };
    Judged { error, code, about_token }
}

/// The text of a status with its causes, and with what to do about a certificate that is not trusted.
fn describe(status: &Status) -> String {
    let mut text = cut(&printable(status.message()), MOST).into_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        let next = printable(&error.to_string());
        if !text.ends_with(&next) {
            text = if text.is_empty() { next } else { format!("{text}: {next}") };
        }
        cause = error.source();
    }
    if status.source().and_then(untrusted).is_some() {
        text.push_str("; its certificate is not trusted: name the CA that issued it under tls.ca");
    }
    cut(&text, 2 * MOST).into_owned()
}
