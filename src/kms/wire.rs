//! The wire format: messages as protobuf or JSON, and the frames around them.

/// Declares that fields of a message are secret: they are wiped on drop, and the message prints nothing.
macro_rules! secret {
    ($message:ident, $($field:ident),+) => {
        impl Drop for $message {
            fn drop(&mut self) {
                $(zeroize::Zeroize::zeroize(&mut self.$field);)+
            }
        }

        impl std::fmt::Debug for $message {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($message), "(redacted)"))
            }
        }
    };
}

mod access;
mod frame;
mod json;
mod key;
mod log;
mod message;
mod server;
mod transfer;

use hyper::header::HeaderValue;
use prost::Message;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::server::route::names;

pub use self::access::*;
pub use self::frame::{Frame, Truncated, append, frames};
pub use self::key::*;
pub use self::log::*;
pub use self::message::*;
pub use self::server::*;
pub use self::transfer::*;

/// How messages are encoded in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Binary, for programs.
    Protobuf,
    /// Text, for people.
    Json,
}

impl Encoding {
    /// The encoding that an `Accept` header asks for.
    pub fn of(accept: Option<&HeaderValue>) -> Self {
        let binary = [Self::Protobuf.content_type(), "application/*"];
        if binary.iter().any(|name| names(accept, name)) { Self::Protobuf } else { Self::Json }
    }

    /// The value of `Content-Type`. Clients compare the whole value.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/octet-stream",
            Self::Json => "application/json",
        }
    }

    /// Encodes a message. The buffer never grows where the message may hold a secret.
    pub fn encode(self, message: &impl Response) -> Zeroizing<Vec<u8>> {
        match self {
            Self::Protobuf => Zeroizing::new(message.encode_to_vec()),
            Self::Json => {
                // With base64 and field names no message becomes ten times as long.
                let mut bytes = Zeroizing::new(Vec::with_capacity(256 + 10 * message.encoded_len()));
                serde_json::to_writer(&mut *bytes, message).expect("messages are texts and numbers");
                bytes
            }
        }
    }
}

/// A message that is an answer.
pub trait Response: Message + Serialize {}

impl<M: Message + Serialize> Response for M {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_names_binary_gets_it() {
        let of = |accept: &'static str| Encoding::of(Some(&HeaderValue::from_static(accept)));
        for accept in ["application/octet-stream", "application/*", "text/plain, application/octet-stream;q=0.5"] {
            assert_eq!(of(accept), Encoding::Protobuf, "{accept}");
        }
        for accept in ["*/*", "application/json", "", "text/html,*/*"] {
            assert_eq!(of(accept), Encoding::Json, "{accept}");
        }
        assert_eq!(Encoding::of(None), Encoding::Json);
    }
}
