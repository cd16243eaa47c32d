//! Services that are busy and say when to come again.

use std::time::Duration;

use hyper::header::{HeaderMap, RETRY_AFTER};

use crate::keystore::{BoxError, Error};

/// Why a service did not answer, and when it wants to be asked again.
#[derive(Debug, thiserror::Error)]
#[error("{said}")]
struct Later {
    said: String,
    after: Duration,
}

/// A failure that may pass, of an answer with these headers.
pub(in crate::keystore) fn later(said: String, headers: &HeaderMap) -> Error {
    match retry_after(headers) {
        Some(after) => Error::Unreachable(Later { said, after }.into()),
        None => Error::Unreachable(said.into()),
    }
}

/// The pause that the service wants before the next attempt.
pub(in crate::keystore) fn wanted(cause: &BoxError) -> Duration {
    cause.downcast_ref::<Later>().map_or(Duration::ZERO, |later| later.after)
}

/// A number of seconds; a date is not looked at, since no service that we know sends one.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u32 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn a_service_says_in_seconds_when_to_come_again() {
        for (sent, after) in [
            ("7", 7),
            (" 30 ", 30),
            ("4294967295", 4_294_967_295),
            ("4294967296", 0),
            ("-1", 0),
            ("1.5", 0),
            ("soon", 0),
            ("", 0),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(sent))]);
            let Error::Unreachable(cause) = later("busy".into(), &headers) else { panic!("it may pass") };
            assert_eq!((wanted(&cause), cause.to_string().as_str()), (Duration::from_secs(after), "busy"), "{sent}");
        }
        assert_eq!(wanted(&"busy".into()), Duration::ZERO);
    }
}
