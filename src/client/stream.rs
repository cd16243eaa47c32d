//! Log streams: reads one line after the other as the server sends them.

use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::{Endpoint, Error, Failure, Lost};

/// The longest line, in bytes. It bounds the memory that a server can make us use.
const MAX_LINE: usize = 1024 * 1024;

/// The lines of an endless answer.
#[derive(Debug)]
pub struct Lines {
    endpoint: Endpoint,
    body: Incoming,
    buffer: BytesMut,
    /// The length of the beginning of `buffer` that is known to hold no line feed.
    seen: usize,
}

impl Lines {
    pub(super) fn new(endpoint: Endpoint, body: Incoming) -> Self {
        Self { endpoint, body, buffer: BytesMut::new(), seen: 0 }
    }

    /// The next line, without its line feed; `None` when the server has ended the stream.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(end) = self.buffer[self.seen..].iter().position(|b| *b == b'\n') {
                let line = self.buffer.split_to(self.seen + end).freeze();
                self.buffer.advance(1);
                self.seen = 0;
                return Ok(Some(line));
            }
            self.seen = self.buffer.len();
            if self.seen > MAX_LINE {
                let what = format!("a line is longer than {MAX_LINE} bytes");
                return Err(Error::Nonsense { endpoint: self.endpoint.clone(), path: "/v1/log/".into(), what });
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.buffer.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Some(Err(error)) => {
                    let failure = Failure { endpoint: self.endpoint.clone(), cause: Lost::Broken(error) };
                    return Err(Error::Unreachable(vec![failure]));
                }
                None if self.buffer.is_empty() => return Ok(None),
                None => {
                    self.seen = 0;
                    return Ok(Some(self.buffer.split().freeze()));
                }
            }
        }
    }
}
