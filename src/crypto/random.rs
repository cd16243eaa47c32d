//! Random bytes, always straight from the operating system.

use super::SecretKey;

/// The operating system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct NoRandom(#[source] getrandom::Error);

impl NoRandom {
    /// A library that asks the operating system by itself got none, and does not say why.
    pub(super) fn unexplained() -> Self {
        Self(getrandom::Error::UNEXPECTED)
    }
}

/// Fills `bytes` with one call of the operating system.
pub(crate) fn fill(bytes: &mut [u8]) -> Result<(), NoRandom> {
    getrandom::fill(bytes).map_err(NoRandom)
}

impl SecretKey {
    /// A new random key.
    pub fn random() -> Result<Self, NoRandom> {
        Self::generate(|bytes| fill(bytes))
    }
}
