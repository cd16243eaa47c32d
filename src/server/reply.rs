//! Replies: status, content type and a body, which may be a stream.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures_util::Stream;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{HeaderMap, Method, Response, StatusCode};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::Error;
use super::connection::{Connection, Sending};
use super::held::{Held, SMALL};
use crate::clock;
use crate::crypto::buffer::Buffer;

/// An answer to a request.
#[derive(Debug)]
pub struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    content: Content,
    /// What it makes the server hold until it has been sent.
    held: Option<Held>,
}

/// What a reply has for a body.
enum Content {
    /// Known from the start; wiped when it has been sent.
    Full(Zeroizing<Vec<u8>>),
    /// Made while it is sent; the reader is cut off when the token is cancelled.
    Stream(Pieces, CancellationToken),
}

impl Reply {
    /// 200 without a body.
    pub fn empty() -> Self {
        Self {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            content: Content::Full(Zeroizing::default()),
            held: None,
        }
    }

    /// 200 with JSON. `capacity` is about how long it is, in bytes.
    pub fn json(value: &impl Serialize, capacity: usize) -> Self {
        let mut json = Buffer::with_capacity(capacity);
        // Writing to memory cannot fail, and our replies hold nothing that JSON cannot express.
        let _ = serde_json::to_writer(&mut json, value);
        Self::written_json(json.into_inner())
    }

    /// 200 with JSON that is already encoded. It is wiped when it has been sent.
    pub fn written_json(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self::with_content("application/json", Content::Full(bytes))
    }

    /// 200 with bytes, which are wiped when they have been sent.
    pub fn bytes(content_type: &'static str, bytes: Zeroizing<Vec<u8>>) -> Self {
        Self::with_content(content_type, Content::Full(bytes))
    }

    /// The same with another status.
    #[must_use]
    pub fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// 200 with text.
    pub fn text(content_type: &'static str, text: impl Into<Vec<u8>>) -> Self {
        Self::with_content(content_type, Content::Full(Zeroizing::new(text.into())))
    }

    /// 200 with a stream of `pieces`. It is cut off when `too_slow` is cancelled, even if the client reads nothing.
    pub fn stream(
        content_type: &'static str,
        pieces: impl Stream<Item = Bytes> + Send + 'static,
        too_slow: CancellationToken,
    ) -> Self {
        Self::with_content(content_type, Content::Stream(Box::pin(pieces), too_slow))
    }

    fn with_content(content_type: &'static str, content: Content) -> Self {
        // Room for the length and the date that hyper adds, too.
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Self { status: StatusCode::OK, headers, content, held: None }
    }

    /// The reply, which is held until it has been sent: as a whole, since the client may take as little at a time as it
    /// likes.
    ///
    /// # Errors
    /// When clients hold too much already.
    pub(super) fn holding(mut self, held: impl FnOnce() -> Held) -> Result<Self, Error> {
        if let Content::Full(bytes) = &self.content
            && bytes.capacity() > SMALL
        {
            let held = held();
            held.grow(bytes.capacity())?;
            self.held = Some(held);
        }
        Ok(self)
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// The stream that is the body, if it is one.
    pub(super) fn stream_mut(&mut self) -> Option<(&mut Pieces, &CancellationToken)> {
        match &mut self.content {
            Content::Stream(pieces, too_slow) => Some((pieces, too_slow)),
            Content::Full(_) => None,
        }
    }

    /// The response to a request with `method` on this connection, which begins to be sent `now`.
    pub(super) fn into_response(
        mut self,
        method: &Method,
        connection: Arc<Connection>,
        now: Instant,
    ) -> Response<ReplyBody> {
        // hyper says how long a body is, unless there is none; then it may stand for one, or clients count on the 0.
        if let Content::Full(bytes) = &self.content
            && (method == Method::HEAD || bytes.is_empty())
            && self.status != StatusCode::NO_CONTENT
        {
            self.headers.insert(CONTENT_LENGTH, bytes.len().into());
        }
        let body = match self.content {
            // hyper would send the body of an answer to HEAD over HTTP/2, which clients take for an error.
            _ if method == Method::HEAD => ReplyBody::Full(None),
            Content::Full(bytes) if bytes.is_empty() => ReplyBody::Full(None),
            Content::Full(bytes) => ReplyBody::Full(Some(Outgoing::of(bytes, self.held, connection, now))),
            Content::Stream(pieces, _) => ReplyBody::Stream(pieces, connection),
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

/// The form of errors that clients expect: `{"message":"…"}`.
impl From<&Error> for Reply {
    fn from(error: &Error) -> Self {
        #[derive(Serialize)]
        struct Message<'a> {
            message: &'a str,
        }
        let mut reply = Self::json(&Message { message: error.message() }, 32 + error.message().len());
        reply.status = error.status();
        reply
    }
}

/// 404 for paths without a route, whoever asks.
pub(super) fn page_not_found() -> Reply {
    let mut reply = Reply::text("text/plain; charset=utf-8", "404 page not found\n");
    reply.status = StatusCode::NOT_FOUND;
    reply.with_header(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))
}

/// What a handler may return.
pub trait IntoReply {
    /// The reply.
    fn into_reply(self) -> Reply;
}

impl IntoReply for Reply {
    fn into_reply(self) -> Reply {
        self
    }
}

impl IntoReply for () {
    fn into_reply(self) -> Reply {
        Reply::empty()
    }
}

/// The body of a response.
pub(super) enum ReplyBody {
    /// Known from the start.
    Full(Option<Bytes>),
    /// Made while it is sent.
    Stream(Pieces, Arc<Connection>),
}

/// Bytes on their way to the client: the connection knows of them until the last one is written, or they are given up.
struct Outgoing<T> {
    // First, so that they are wiped when nobody counts them any more.
    bytes: T,
    _held: Option<Held>,
    _sending: Sending,
}

impl<T: AsRef<[u8]> + Send + 'static> Outgoing<T> {
    fn of(bytes: T, held: Option<Held>, connection: Arc<Connection>, now: Instant) -> Bytes {
        let sending = Sending::begin(connection, bytes.as_ref().len(), now);
        Bytes::from_owner(Self { bytes, _held: held, _sending: sending })
    }
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Outgoing<T> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

/// A body, piece by piece.
pub(super) type Pieces = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Content(redacted)")
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(pieces, connection) => pieces.as_mut().poll_next(context).map(|piece| {
                piece.map(|bytes| Ok(Frame::data(Outgoing::of(bytes, None, connection.clone(), clock::instant()))))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Stream(..) => SizeHint::default(),
        }
    }
}
