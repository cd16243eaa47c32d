//! The HTTP API of the real program: a file a resource, and one for each rule that all share.

mod access;
mod body;
mod identity;
mod key;
mod listing;
mod log;
mod method;
mod order;
mod policy;
mod status;
mod timeout;

use crate::support::{Client, Identity, Protocol, Response, TestServer};

const MB: usize = 1_000_000;

const DENIED: &str = "not authorized: insufficient permissions";
const NO_CERTIFICATE: &str = "tls: client certificate is required";

/// A client of the fixture, over HTTP/2.
fn client(server: &TestServer, name: &str) -> Client {
    Client::fixture(server.address(), name)
}

/// A client of the fixture over `protocol`.
fn client_over(server: &TestServer, name: &str, protocol: Protocol) -> Client {
    Client::new(server.address(), Some(Identity::fixture(name)), protocol)
}

/// A client without a certificate.
fn stranger(server: &TestServer) -> Client {
    Client::new(server.address(), None, Protocol::H2)
}

/// Asserts that an answer is an error as clients know it.
#[track_caller]
fn assert_error(answer: &Response, status: u16, message: &str) {
    assert_eq!((answer.status, answer.message().as_str()), (status, message));
    assert_eq!(answer.headers["content-type"], "application/json");
}

/// Asserts that an answer is a success without anything in it.
#[track_caller]
fn assert_empty(answer: &Response) {
    assert_eq!((answer.status, answer.text()), (200, ""));
    assert_eq!(answer.headers["content-length"], "0");
    assert!(!answer.headers.contains_key("content-type"));
}

/// Asserts that an answer is a JSON value.
#[track_caller]
fn assert_json(answer: &Response, value: &serde_json::Value) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.json(), *value);
}
