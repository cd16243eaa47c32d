//! Request bodies: reads them within a limit, and parses them as leniently as clients expect.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::header::EXPECT;
use hyper::{HeaderMap, StatusCode};
use zeroize::Zeroizing;

use super::Error;
use super::held::{Held, SMALL};
use crate::crypto::json::{Fields, first_object};

/// How much of a body that no handler reads is received, in bytes: several times what the largest may have.
const IGNORED: u64 = 16 << 20;

/// The least that is reserved for a body that comes in pieces, in bytes.
const LEAST: usize = 1 << 10;

/// How long such a body may take to arrive before the request is answered without it.
const IGNORED_FOR: Duration = Duration::from_secs(2);

/// A request body, or the part of a handler's contract that says there is none.
pub trait FromBody: Sized + Send + 'static {
    /// Reads and parses a body of at most `limit` bytes, as far as it may be `held`.
    fn read(body: Arriving, limit: u64, held: &Held) -> impl Future<Output = Result<Self, Error>> + Send;
}

/// A body on its way in.
pub struct Arriving {
    body: Incoming,
    /// The client sends it only when it is told to.
    is_held_back: bool,
}

/// The body is ignored.
impl FromBody for () {
    async fn read(mut body: Arriving, _: u64, _: &Held) -> Result<Self, Error> {
        body.discard().await;
        Ok(())
    }
}

impl Arriving {
    /// The body of a request with these headers.
    pub(super) fn new(body: Incoming, headers: &HeaderMap) -> Self {
        let is_held_back = !body.is_end_stream() && headers.contains_key(EXPECT);
        Self { body, is_held_back }
    }

    /// Receives a body that no handler reads, or what is left of it, unless it is large or slow. Answering earlier would
    /// end the stream of a client that sends first and reads later: curl, for example, then reports a broken stream
    /// instead of the answer.
    pub(super) async fn discard(&mut self) {
        if self.body.is_end_stream() || self.is_held_back {
            return;
        }
        let drain = async {
            let mut seen = 0;
            while seen < IGNORED
                && let Some(Ok(frame)) = self.body.frame().await
            {
                seen += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
        };
        // A client that takes longer gets its answer now.
        let _ = tokio::time::timeout(IGNORED_FOR, drain).await;
    }

    /// The whole body. Where it is refused, the client may send the rest of it in vain, and then sees why.
    async fn collect(mut self, limit: u64, held: &Held) -> Result<Whole, ReadError> {
        let read = self.read(limit, held).await;
        if matches!(read, Err(ReadError::TooLarge(_) | ReadError::NoRoom(_))) {
            self.discard().await;
        }
        read
    }

    async fn read(&mut self, limit: u64, held: &Held) -> Result<Whole, ReadError> {
        let announced = self.body.size_hint();
        if announced.lower() > limit {
            return Err(ReadError::TooLarge(limit));
        }
        let most = announced.upper().unwrap_or(limit).min(limit);
        // Whoever waits to be told is told by the first look.
        self.is_held_back = false;
        let mut joined = Zeroizing::new(Vec::new());
        while !self.body.is_end_stream()
            && let Some(frame) = self.body.frame().await
        {
            let Ok(data) = frame.map_err(ReadError::Broken)?.into_data() else { continue };
            let len = joined.len() + data.len();
            if len as u64 > limit {
                return Err(ReadError::TooLarge(limit));
            }
            if joined.is_empty() && self.body.is_end_stream() {
                if len > SMALL {
                    held.grow(len).map_err(ReadError::NoRoom)?;
                }
                return Ok(Whole(Pieces::One(data)));
            }
            reserve(&mut joined, len, usize::try_from(most).unwrap_or(usize::MAX), held)?;
            joined.extend_from_slice(&data);
        }
        Ok(Whole(Pieces::Joined(joined)))
    }
}

/// Makes room for `len` bytes, of `most` that may come. Pieces are copied at once: as they came, each may keep a much
/// larger buffer.
fn reserve(joined: &mut Zeroizing<Vec<u8>>, len: usize, most: usize, held: &Held) -> Result<(), ReadError> {
    let has = joined.capacity();
    if len > has {
        let capacity = (2 * has).max(LEAST).min(most).max(len);
        held.grow(capacity - has).map_err(ReadError::NoRoom)?;
        // A vector that grows by itself leaves a copy behind that nobody wipes.
        let mut larger = Zeroizing::new(Vec::with_capacity(capacity));
        larger.extend_from_slice(joined);
        *joined = larger;
    }
    Ok(())
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
    async fn read(body: Arriving, limit: u64, held: &Held) -> Result<Self, Error> {
        match body.collect(limit, held).await {
            Ok(body) => T::parse(body.as_ref()),
            Err(ReadError::NoRoom(overload)) => Err(overload),
            Err(error) => Err(invalid::<T>().caused_by(error)),
        }
    }
}

/// A body that the handler parses itself.
impl FromBody for Whole {
    async fn read(body: Arriving, limit: u64, held: &Held) -> Result<Self, Error> {
        body.collect(limit, held).await.map_err(|error| match error {
            ReadError::NoRoom(overload) => overload,
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
    #[error("there is no room for the body")]
    NoRoom(Error),
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
