//! Replies: status, content type and a body, which may be a stream.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use zeroize::Zeroizing;

use super::Error;

/// An answer to a request.
#[derive(Debug)]
pub struct Reply {
    status: StatusCode,
    content_type: Option<HeaderValue>,
    body: ReplyBody,
}

impl Reply {
    /// 200 without a body.
    pub fn empty() -> Self {
        Self { status: StatusCode::OK, content_type: None, body: ReplyBody::full(Bytes::new()) }
    }

    /// 200 with JSON. `capacity` is the size reserved for it, in bytes: a reply that holds secrets must
    /// fit, since a buffer that grew leaves copies behind.
    pub fn json(value: &impl Serialize, capacity: usize) -> Self {
        let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
        // Writing to memory cannot fail, and our replies hold nothing that JSON cannot express.
        let _ = serde_json::to_writer(&mut *bytes, value);
        Self {
            status: StatusCode::OK,
            content_type: Some(HeaderValue::from_static("application/json")),
            body: ReplyBody::full(Bytes::from_owner(bytes)),
        }
    }

    /// 200 with text.
    pub fn text(content_type: &'static str, text: String) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: Some(HeaderValue::from_static(content_type)),
            body: ReplyBody::full(text.into()),
        }
    }

    /// 200 with whatever `stream` delivers, for as long as it does.
    pub fn stream(content_type: &'static str, stream: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: Some(HeaderValue::from_static(content_type)),
            body: ReplyBody::Stream(Box::pin(stream)),
        }
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The body, and a response without one.
    pub(super) fn into_response(self) -> Response<ReplyBody> {
        let mut response = Response::new(self.body);
        *response.status_mut() = self.status;
        if let Some(content_type) = self.content_type {
            response.headers_mut().insert(CONTENT_TYPE, content_type);
        }
        response
    }
}

/// What clients know errors by: `{"message":"…"}`.
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

/// 404 for paths that are nobody's, whoever asks.
pub(super) fn page_not_found() -> Reply {
    let mut reply = Reply::text("text/plain; charset=utf-8", "404 page not found\n".into());
    reply.status = StatusCode::NOT_FOUND;
    reply
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
    /// Known from the start.
    Full(Option<Bytes>),
    /// Made while it is sent.
    Stream(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

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
            Self::Stream(stream) => {
                stream.as_mut().poll_next(context).map(|item| item.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}
