//! Keys, ciphertexts and secrets: no I/O, no async, no clock.

pub mod buffer;
pub mod handover;
pub mod json;
pub mod key;
pub mod pem;
pub mod transit;

mod aead;
mod algorithm;
pub(crate) mod base64;
mod ciphertext;
mod mac;
pub(crate) mod random;
mod sealed;
mod secret;
#[cfg(test)]
mod vectors;

pub use algorithm::Algorithm;
pub use ciphertext::{DataKey, NotAuthentic, OVERHEAD};
pub use key::Key;
pub use random::NoRandom;
#[cfg(feature = "pkcs11")]
pub(crate) use random::fill;
pub use sealed::Sealer;
pub use secret::{Blob, SecretKey};
