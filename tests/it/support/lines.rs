//! A reader of a stream of lines, such as the log endpoints send.

use std::collections::BTreeMap;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::Protocol;
use super::client::{Client, Guard};

/// An answer whose body goes on.
pub struct Lines {
    pub status: u16,
    /// By lower-case name.
    pub headers: BTreeMap<String, String>,
    body: Incoming,
    rest: Vec<u8>,
    _connection: Guard,
}

impl Lines {
    /// Asks for `target`; returns when the headers are there.
    pub async fn open(client: &Client, target: &str) -> Self {
        let io = TokioIo::new(client.connect().await.expect("a connection"));
        let request = hyper::Request::get(format!("https://localhost{target}"));
        let (response, connection) = match client.protocol() {
            Protocol::H1 => {
                let request = hyper::Request::get(target).header("host", "localhost");
                let request = request.body(Empty::<Bytes>::new()).expect("a request");
                let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("HTTP/1.1");
                let connection = Guard::spawn(connection);
                (sender.send_request(request).await, connection)
            }
            Protocol::H2 => {
                let request = request.body(Empty::<Bytes>::new()).expect("a request");
                let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
                let (mut sender, connection) = handshake.await.expect("HTTP/2");
                let connection = Guard::spawn(connection);
                (sender.send_request(request).await, connection)
            }
        };
        let (head, body) = response.expect("an answer").into_parts();
        let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        Self { status: head.status.as_u16(), headers, body, rest: Vec::new(), _connection: connection }
    }

    /// The next line, without its end; none when the server has ended the stream.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(String::from_utf8(line).expect("a line of text").trim_end().to_owned());
            }
            let frame = self.body.frame().await?.ok()?;
            self.rest.extend_from_slice(frame.data_ref()?);
        }
    }
}
