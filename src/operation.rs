//! Operations of an HTTP API, as its server and its clients know them.

use hyper::Method;

/// A method and a path that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    /// The method that clients use.
    pub method: &'static Method,
    /// The path; one that ends with `/` is followed by a name.
    pub path: &'static str,
    /// Whether asking twice may do something else than asking once.
    pub changes: bool,
}

const GET: &Method = &Method::GET;
const PUT: &Method = &Method::PUT;
const POST: &Method = &Method::POST;
const DELETE: &Method = &Method::DELETE;

impl Operation {
    /// An operation that reads.
    pub const fn get(path: &'static str) -> Self {
        Self { method: GET, path, changes: false }
    }

    /// An operation that computes. Servers take POST for it, too.
    pub const fn put(path: &'static str) -> Self {
        Self { method: PUT, path, changes: false }
    }

    /// The same, where asking twice may do something else than asking once.
    pub const fn change(path: &'static str) -> Self {
        Self { method: PUT, path, changes: true }
    }

    /// An operation that takes orders.
    pub const fn post(path: &'static str) -> Self {
        Self { method: POST, path, changes: false }
    }

    /// An operation that deletes.
    pub const fn delete(path: &'static str) -> Self {
        Self { method: DELETE, path, changes: true }
    }
}
