//! Keys, ciphertexts and secrets: no I/O, no async, no clock.

mod secret;

pub use secret::{Blob, SecretKey};
