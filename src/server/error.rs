//! Why a request failed: the message for the client, and the cause for the log only.

use std::borrow::Cow;

use hyper::StatusCode;

use crate::auth::Denied;

/// A failed request. `message` goes to the client, `source` only to the log.
#[derive(Debug)]
pub struct Error {
    status: StatusCode,
    message: Cow<'static, str>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    denied: Option<String>,
    is_overload: bool,
}

impl Error {
    /// A failure that the message explains fully.
    pub fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, message: message.into(), source: None, denied: None, is_overload: false }
    }

    /// 503, since answering would take more memory than clients may take.
    pub(super) fn overload(message: &'static str) -> Self {
        Self { is_overload: true, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message) }
    }

    /// 400 with the error's own text.
    pub fn bad_request(error: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error.to_string())
    }

    /// Adds a cause, which is logged and never sent.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Names the part of the request that was denied. It is logged and never sent.
    #[must_use]
    pub fn denying(self, what: String) -> Self {
        Self { denied: Some(what), ..self }
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Whether it is one of those that clients can cause as often as they like.
    pub(super) fn is_overload(&self) -> bool {
        self.is_overload
    }

    /// The message for the client.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The cause, for the log only.
    pub fn source(&self) -> Option<&(dyn std::error::Error + Send + Sync + 'static)> {
        self.source.as_deref()
    }

    /// The part of the request that was denied, where only the handler knows it.
    pub(super) fn denied(&self) -> Option<&str> {
        self.denied.as_deref()
    }
}

impl From<Denied> for Error {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::NoIdentity(error) => Self::bad_request(error),
            Denied::NotAllowed { .. } | Denied::Refused(_) => Self::new(StatusCode::FORBIDDEN, denied.to_string()),
        }
    }
}
