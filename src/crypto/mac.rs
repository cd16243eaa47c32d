//! HMAC-SHA-256 under a key that is used again and again.

use std::fmt;

use hmac::digest::FixedOutput as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::SecretKey;

/// A key with its HMAC-SHA-256 state worked out once: that halves the hashing of every short
/// message. Boxed, so a move copies pointers; both parts are wiped on drop.
pub(super) struct MacKey {
    key: SecretKey,
    state: Box<Hmac<Sha256>>,
}

impl MacKey {
    pub(super) fn new(key: SecretKey) -> Self {
        let state = Hmac::new_from_slice(key.expose()).expect("HMAC takes keys of any length");
        Self { key, state: Box::new(state) }
    }

    pub(super) fn key(&self) -> &SecretKey {
        &self.key
    }

    /// Writes the HMAC of `message` to `tag`, which may itself be a secret: no copy stays behind.
    pub(super) fn sign(&self, message: &[u8], tag: &mut [u8; 32]) {
        let mut mac = Hmac::clone(&self.state);
        mac.update(message);
        mac.finalize_into(tag.into());
    }
}

impl SecretKey {
    /// The HMAC-SHA-256 of `message`, for keys that sign little.
    pub(super) fn hmac(&self, message: &[u8]) -> [u8; 32] {
        let mac = Hmac::<Sha256>::new_from_slice(self.expose()).expect("HMAC takes keys of any length");
        mac.chain_update(message).finalize_fixed().into()
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 4231, test case 1. Its key has 20 bytes: zeros up to the block size change nothing in HMAC.
    #[test]
    fn signs_as_rfc_4231_says() {
        let mut key = [0; 32];
        key[..20].fill(0x0b);
        let mac = MacKey::new(SecretKey::from_slice(&key).expect("32 bytes"));
        let expected = [
            0xb0, 0x34, 0x4c, 0x61, 0xd8, 0xdb, 0x38, 0x53, 0x5c, 0xa8, 0xaf, 0xce, 0xaf, 0x0b, 0xf1, 0x2b, //
            0x88, 0x1d, 0xc2, 0x00, 0xc9, 0x83, 0x3d, 0xa7, 0x26, 0xe9, 0x37, 0x6c, 0x2e, 0x32, 0xcf, 0xf7,
        ];
        for _ in 0..2 {
            let mut tag = [0; 32];
            mac.sign(b"Hi There", &mut tag);
            assert_eq!(tag, expected);
        }
    }
}
