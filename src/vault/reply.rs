//! The form of answers: the envelope around data, errors, and "not there".

use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderValue};
use serde::Serialize;

use crate::crypto::buffer::Buffer;
use crate::crypto::random;
use crate::kms;
use crate::server::{Error, Reply};

/// About how long an envelope is, in bytes.
const ENVELOPE: usize = 256;

/// What stands around data.
#[derive(Serialize)]
struct Envelope<'a, D, A> {
    request_id: &'a str,
    lease_id: &'a str,
    renewable: bool,
    lease_duration: u64,
    data: Option<D>,
    wrap_info: Option<()>,
    warnings: Option<&'a [&'a str]>,
    auth: Option<A>,
}

/// 200 with data, which takes about `capacity` bytes.
pub(super) fn data(data: impl Serialize, capacity: usize) -> Reply {
    envelope(Some(data), None::<()>, capacity)
}

/// 200 with a list of names; 404 when there are none.
pub(super) fn names(names: &[&str]) -> Result<Reply, Error> {
    #[derive(Serialize)]
    struct Names<'n> {
        keys: &'n [&'n str],
    }
    if names.is_empty() {
        return Err(not_there());
    }
    let size = names.iter().map(|name| name.len() + 3).sum();
    Ok(data(Names { keys: names }, size))
}

/// 200 with data that stands at the top, too.
pub(super) fn data_twice<D: Serialize>(data: &D, capacity: usize) -> Reply {
    #[derive(Serialize)]
    struct Twice<'d, D> {
        #[serde(flatten)]
        envelope: Envelope<'d, &'d D, ()>,
        #[serde(flatten)]
        data: &'d D,
    }
    let id = request_id();
    plain(&Twice { envelope: Envelope::of(&id, Some(data), None), data }, ENVELOPE + 2 * capacity)
}

/// 200 with what a client gets of a session.
pub(super) fn auth(auth: &impl Serialize) -> Reply {
    envelope(None::<()>, Some(auth), 1_024)
}

fn envelope(data: Option<impl Serialize>, auth: Option<impl Serialize>, capacity: usize) -> Reply {
    let id = request_id();
    plain(&Envelope::of(&id, data, auth), ENVELOPE + capacity)
}

impl<'a, D, A> Envelope<'a, D, A> {
    fn of(request_id: &'a str, data: Option<D>, auth: Option<A>) -> Self {
        let (wrap_info, warnings) = (None, None);
        Self { request_id, lease_id: "", renewable: false, lease_duration: 0, data, wrap_info, warnings, auth }
    }
}

/// 200 with JSON and no envelope.
pub(super) fn plain(value: &impl Serialize, capacity: usize) -> Reply {
    let mut json = Buffer::with_capacity(capacity + 1);
    // Writing to memory cannot fail, and answers hold nothing that JSON cannot express.
    let _ = serde_json::to_writer(&mut json, value);
    json.push(b'\n');
    uncached(Reply::written_json(json.into_inner()))
}

/// 204: done, and there is nothing to say.
pub(super) fn nothing() -> Reply {
    uncached(Reply::empty().with_status(StatusCode::NO_CONTENT))
}

/// An error, as clients read it; "not there" has no text.
pub(super) fn error(status: StatusCode, message: &str) -> Reply {
    #[derive(Serialize)]
    struct Errors<'a> {
        errors: &'a [&'a str],
    }
    let errors: &[&str] = if message.is_empty() { &[] } else { &[message] };
    plain(&Errors { errors }, 64 + 2 * message.len()).with_status(status)
}

/// 404: not there.
pub(super) fn not_there() -> Error {
    Error::new(StatusCode::NOT_FOUND, "")
}

/// 404: no engine has this path.
pub(super) fn no_route(path: &str) -> Error {
    let path = crate::foreign::cut(path, 256);
    Error::new(StatusCode::NOT_FOUND, format!("no handler for route \"{path}\". route entry not found."))
}

/// An error in the form in which Vault lists several.
pub(super) fn listed(status: StatusCode, reason: &str) -> Error {
    Error::new(status, format!("1 error occurred:\n\t* {reason}\n\n"))
}

/// 400 with the reason.
pub(super) fn bad(reason: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(StatusCode::BAD_REQUEST, reason)
}

/// The error for a client of a change that was refused. What the state forbids is 400: no client of Vault knows 409.
pub(super) fn refused(error: kms::Error) -> Error {
    match error {
        kms::Error::Denied | kms::Error::DeniedCommand(_) => denied(),
        kms::Error::Conflict(reason) => bad(reason),
        error => error.into(),
    }
}

/// The one answer to everybody who may not ask, for whatever reason.
pub(super) fn denied() -> Error {
    Error::new(StatusCode::FORBIDDEN, "permission denied")
}

fn uncached(reply: Reply) -> Reply {
    reply.with_header(CACHE_CONTROL, HeaderValue::from_static("no-store"))
}

/// A random UUID; of zeros when the system gives no random bytes, for it protects nothing.
fn request_id() -> String {
    let mut bytes = [0; 16];
    let _ = random::fill(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let number = u128::from_be_bytes(bytes);
    let part = |shift: u32, digits: u32| (number >> shift) & ((1 << (4 * digits)) - 1);
    format!("{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", part(96, 8), part(80, 4), part(64, 4), part(48, 4), part(0, 12))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_random_uuids() {
        let (one, other) = (request_id(), request_id());
        assert_ne!(one, other);
        assert_eq!((one.len(), &one[14..15]), (36, "4"));
        assert_eq!(one.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
    }
}
