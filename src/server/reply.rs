//! Replies: status, content type and a body, which may be a stream.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{HeaderMap, Method, Response, StatusCode};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::Error;
use crate::crypto::buffer::Buffer;

/// An answer to a request.
#[derive(Debug)]
pub struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: ReplyBody,
}

impl Reply {
    /// 200 without a body.
    pub fn empty() -> Self {
        Self { status: StatusCode::OK, headers: HeaderMap::new(), body: ReplyBody::full(Bytes::new()) }
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
        Self::with_body("application/json", ReplyBody::full(Bytes::from_owner(bytes)))
    }

    /// 200 with bytes, which are wiped when they have been sent.
    pub fn bytes(content_type: &'static str, bytes: Zeroizing<Vec<u8>>) -> Self {
        Self::with_body(content_type, ReplyBody::full(Bytes::from_owner(bytes)))
    }

    /// The same with another status.
    #[must_use]
    pub fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// 200 with text.
    pub fn text(content_type: &'static str, text: impl Into<Bytes>) -> Self {
        Self::with_body(content_type, ReplyBody::full(text.into()))
    }

    /// 200 with a stream of `pieces`. It is cut off when `too_slow` is cancelled, even if the client reads nothing.
    pub fn stream(
        content_type: &'static str,
        pieces: impl Stream<Item = Bytes> + Send + 'static,
        too_slow: CancellationToken,
    ) -> Self {
        Self::with_body(content_type, ReplyBody::Stream(Box::pin(pieces), too_slow))
    }

    fn with_body(content_type: &'static str, body: ReplyBody) -> Self {
        // With room for the length and the date that hyper adds.
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Self { status: StatusCode::OK, headers, body }
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Adds a header.
    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// The stream that is the body, if it is one.
    pub(super) fn stream_mut(&mut self) -> Option<(&mut Pieces, &CancellationToken)> {
        match &mut self.body {
            ReplyBody::Stream(pieces, too_slow) => Some((pieces, too_slow)),
            ReplyBody::Full(_) => None,
        }
    }

    /// The response to a request with `method`.
    pub(super) fn into_response(mut self, method: &Method) -> Response<ReplyBody> {
        // hyper sets the length of a body, but not of an empty one. Clients rely on the 0, and an answer to HEAD has
        // the length of the body that it leaves out.
        if (method == Method::HEAD || self.body.is_end_stream())
            && let Some(len) = self.body.size_hint().exact()
        {
            self.headers.insert(CONTENT_LENGTH, len.into());
        }
        // Over HTTP/2 hyper would send the body of an answer to HEAD, which clients treat as an error.
        let body = if method == Method::HEAD { ReplyBody::Full(None) } else { self.body };
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
pub enum ReplyBody {
    /// All bytes are known.
    Full(Option<Bytes>),
    /// Produced while it is sent. The reader is cut off when the token is cancelled.
    Stream(Pieces, CancellationToken),
}

/// A body, piece by piece.
pub(super) type Pieces = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

impl ReplyBody {
    fn full(bytes: Bytes) -> Self {
        Self::Full(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

impl std::fmt::Debug for ReplyBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReplyBody(redacted)")
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(pieces, _) => {
                pieces.as_mut().poll_next(context).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
            }
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
