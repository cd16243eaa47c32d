//! Request bodies: reads them within a limit, and parses them as leniently as clients expect.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::StatusCode;
use hyper::body::{Body as _, Incoming};
use zeroize::Zeroizing;

use super::Error;
use crate::crypto::json::{Fields, first_object};

/// How much of a body that no handler reads is received, in bytes.
const IGNORED: u64 = 1_000_000;

/// How long such a body may take to arrive before the request is answered without it.
const IGNORED_FOR: Duration = Duration::from_secs(2);

/// A request body, or the part of a handler's contract that says there is none.
pub trait FromBody: Sized + Send + 'static {
    /// Reads and parses a body of at most `limit` bytes.
    fn read(body: Incoming, limit: u64) -> impl Future<Output = Result<Self, Error>> + Send;
}

/// The body is ignored.
impl FromBody for () {
    async fn read(body: Incoming, _: u64) -> Result<Self, Error> {
        discard(body).await;
        Ok(())
    }
}

/// Receives a body that no handler reads, unless it is large or slow. Answering earlier would end the stream of a
/// client that sends first and reads later: curl, for example, then reports a broken stream instead of the answer.
pub(super) async fn discard(mut body: Incoming) {
    if body.is_end_stream() {
        return;
    }
    let drain = async {
        let mut seen = 0;
        while seen < IGNORED
            && let Some(Ok(frame)) = body.frame().await
        {
            seen += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
    };
    // A client that takes longer gets its answer now.
    let _ = tokio::time::timeout(IGNORED_FOR, drain).await;
}

/// A body that is a JSON object.
pub trait Json: Fields + Send + 'static {
    /// The message to the client when it is not.
    const INVALID: &'static str = "invalid request body";

    /// The value of an empty body, where it may be empty.
    fn empty() -> Option<Self> {
        None
    }

    /// Parses a whole body. Bytes after the first value are ignored, because clients may rely on that.
    ///
    /// # Errors
    /// With [`Json::INVALID`], when the body is not JSON or lacks the expected fields.
    fn parse(body: &[u8]) -> Result<Self, Error> {
        if body.is_empty()
            && let Some(value) = Self::empty()
        {
            return Ok(value);
        }
        first_object(body).map_err(|malformed| invalid::<Self>().caused_by(malformed))
    }
}

impl<T: Json> FromBody for T {
    async fn read(body: Incoming, limit: u64) -> Result<Self, Error> {
        match collect(body, limit).await {
            Ok(body) => T::parse(body.as_ref()),
            Err(error) => Err(invalid::<T>().caused_by(error)),
        }
    }
}

/// A body that the handler parses itself.
impl FromBody for Whole {
    async fn read(body: Incoming, limit: u64) -> Result<Self, Error> {
        collect(body, limit).await.map_err(|error| match error {
            ReadError::TooLarge(_) => Error::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
            ReadError::Broken(_) => Error::bad_request("the body ended early").caused_by(error),
        })
    }
}

fn invalid<T: Json>() -> Error {
    Error::new(StatusCode::BAD_REQUEST, T::INVALID)
}

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("the body is larger than {0} bytes")]
    TooLarge(u64),
    #[error("the body ended early")]
    Broken(#[source] hyper::Error),
}

/// A body in one piece.
pub struct Whole(Pieces);

/// As it arrived, or put together from several pieces in a buffer that is wiped.
enum Pieces {
    One(Bytes),
    Joined(Zeroizing<Vec<u8>>),
}

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        match &self.0 {
            Pieces::One(bytes) => bytes,
            Pieces::Joined(bytes) => bytes,
        }
    }
}

async fn collect(mut body: Incoming, limit: u64) -> Result<Whole, ReadError> {
    if body.size_hint().lower() > limit {
        return Err(ReadError::TooLarge(limit));
    }
    let (mut first, mut others) = (Bytes::new(), Vec::new());
    let mut len = 0;
    while !body.is_end_stream()
        && let Some(frame) = body.frame().await
    {
        let Ok(data) = frame.map_err(ReadError::Broken)?.into_data() else { continue };
        len += data.len() as u64;
        if len > limit {
            return Err(ReadError::TooLarge(limit));
        }
        if first.is_empty() { first = data } else { others.push(data) }
    }
    if others.is_empty() {
        return Ok(Whole(Pieces::One(first)));
    }
    // Allocate the full size at once: a buffer that grew would leave copies behind.
    let mut buffer = Zeroizing::new(Vec::with_capacity(first.len() + others.iter().map(Bytes::len).sum::<usize>()));
    for piece in std::iter::once(first).chain(others) {
        buffer.extend_from_slice(&piece);
    }
    Ok(Whole(Pieces::Joined(buffer)))
}
