//! Types that hold secrets: wiped on drop, never printed, compared in constant time.

use std::fmt;

use hkdf::Hkdf;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// A 256-bit key. Boxed, so a move copies a pointer; wiped on drop; `Debug` shows nothing.
pub struct SecretKey(Box<Zeroizing<[u8; 32]>>);

impl SecretKey {
    /// A key that `random` fills in place, so that no copy stays on the stack.
    pub fn generate<E>(random: impl FnOnce(&mut [u8; 32]) -> Result<(), E>) -> Result<Self, E> {
        let mut key = Self(Box::default());
        random(&mut key.0)?;
        Ok(key)
    }

    /// Copies a key out of `bytes`; `None` unless there are exactly 32. The caller wipes `bytes`.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let mut key = Self(Box::default());
        (bytes.len() == key.0.len()).then(|| {
            key.0.copy_from_slice(bytes);
            key
        })
    }

    /// The key that HKDF-SHA-256, without salt, makes of this one for the purpose `info`.
    pub fn hkdf(&self, info: &str) -> Self {
        let hkdf = Hkdf::<Sha256>::new(None, self.expose());
        let derived = Self::generate(|key| hkdf.expand(info.as_bytes(), key));
        derived.expect("32 bytes are fewer than HKDF can make")
    }

    /// The raw bytes. Every call is a place to review.
    pub(crate) fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether both keys are the same, in time that does not depend on where they differ.
    pub fn is_same(&self, other: &Self) -> bool {
        self.expose().ct_eq(other.expose()).into()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(redacted)")
    }
}

/// Secret bytes of any length, such as the value a keystore holds under a key's name.
pub struct Blob(Zeroizing<Vec<u8>>);

impl Blob {
    /// The raw bytes. Every call is a place to review.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The same bytes once more, for a task that outlives this value's owner.
    pub(crate) fn copy(&self) -> Self {
        self.expose().to_vec().into()
    }

    /// Whether both hold the same bytes, in time that depends on nothing but their length.
    pub fn is_same(&self, other: &Self) -> bool {
        self.expose().ct_eq(other.expose()).into()
    }
}

/// Takes the bytes over. A vector that grew while it was filled has left copies behind: reserve its
/// full size first.
impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl From<Zeroizing<Vec<u8>>> for Blob {
    fn from(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes, redacted)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        let key = SecretKey::from_slice(&[0x41; 32]).expect("32 bytes");
        assert_eq!(format!("{key:?}"), "SecretKey(redacted)");
        assert_eq!(format!("{:?}", Blob::from(b"secret".to_vec())), "Blob(6 bytes, redacted)");
    }

    #[test]
    fn a_key_has_32_bytes() {
        assert!(SecretKey::from_slice(&[0; 31]).is_none());
        assert!(SecretKey::from_slice(&[0; 33]).is_none());
    }
}
