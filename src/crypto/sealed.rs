//! Sealed bytes: encrypted and authenticated under a local key, and bound to the place where they are stored.

use std::fmt;

use aes_gcm::aead::inout::InOutBuf;
use zeroize::Zeroizing;

use super::aead::{self, IV, NONCE, TAG};
use super::mac::MacKey;
use super::{Algorithm, NoRandom, NotAuthentic, SecretKey, random};

/// How many bytes sealed bytes are longer.
const OVERHEAD: usize = TAG + IV + NONCE;

/// Seals and opens: AES-256-GCM under a subkey for each message, in the layout of ciphertexts
/// (`sealed ‖ iv ‖ nonce`), so that a key serves for more messages than a store will ever hold.
pub struct Sealer(MacKey);

impl Sealer {
    /// A sealer with this key, which must be used for nothing else.
    pub fn new(key: SecretKey) -> Self {
        Self(MacKey::new(key))
    }

    /// Seals `message` for `place`.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn seal(&self, message: &[u8], place: &[u8]) -> Result<Vec<u8>, NoRandom> {
        let mut trailer = [0; IV + NONCE];
        random::fill(&mut trailer)?;
        Ok(self.seal_with(message, place, &trailer))
    }

    fn seal_with(&self, message: &[u8], place: &[u8], trailer: &[u8; IV + NONCE]) -> Vec<u8> {
        let (iv, nonce) = split(trailer);
        let mut sealed = vec![0; message.len() + OVERHEAD];
        let (text, rest) = sealed.split_at_mut(message.len());
        let (tag, end) = rest.split_at_mut(TAG);
        let message = InOutBuf::new(message, text).expect("equally long");
        tag.copy_from_slice(&aead::seal(Algorithm::Aes256, &self.0, iv, nonce, place, message));
        end.copy_from_slice(trailer);
        sealed
    }

    /// Opens what was sealed for `place`.
    ///
    /// # Errors
    /// When it was sealed with another key or for another place, or was changed since.
    pub fn open(&self, sealed: &[u8], place: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotAuthentic> {
        let (rest, trailer) = sealed.split_last_chunk::<{ IV + NONCE }>().ok_or(NotAuthentic)?;
        let (text, tag) = rest.split_last_chunk().ok_or(NotAuthentic)?;
        let (iv, nonce) = split(trailer);
        let mut message = Zeroizing::new(vec![0; text.len()]);
        let buffers = InOutBuf::new(text, &mut message).expect("equally long");
        let authentic = aead::open(Algorithm::Aes256, &self.0, iv, nonce, place, buffers, tag);
        authentic.then_some(message).ok_or(NotAuthentic)
    }

    /// The HMAC-SHA-256 of `parts`, one after the other: a name that says nothing, for whoever has not the key.
    pub fn sign(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut tag = [0; 32];
        self.0.sign(&parts.concat(), &mut tag);
        tag
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(redacted)")
    }
}

fn split(trailer: &[u8; IV + NONCE]) -> (&[u8; IV], &[u8; NONCE]) {
    let (iv, nonce) = trailer.split_first_chunk().expect("the trailer begins with an IV");
    (iv, nonce.try_into().expect("the rest is the nonce"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(byte: u8) -> Sealer {
        Sealer::new(SecretKey::from_slice(&[byte; 32]).expect("32 bytes"))
    }

    #[test]
    fn what_is_sealed_opens_in_its_place_only() {
        let sealed = sealer(1).seal(b"message", b"here").expect("random bytes");
        assert_eq!(sealer(1).open(&sealed, b"here").expect("authentic").as_slice(), b"message");
        assert_eq!(sealer(1).open(&sealed, b"there"), Err(NotAuthentic));
        assert_eq!(sealer(2).open(&sealed, b"here"), Err(NotAuthentic));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(sealer(1).open(&changed, b"here"), Err(NotAuthentic), "byte {at}");
            assert_eq!(sealer(1).open(&sealed[..at], b"here"), Err(NotAuthentic), "length {at}");
        }
    }
}
