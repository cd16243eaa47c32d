//! Fingerprints: tell keys apart in reports, without revealing them.

use std::fmt;

use sha2::{Digest as _, Sha256};

use super::Key;
use crate::crypto::Algorithm;

/// 64 bits that tell keys apart and are no help in guessing one: a hash, used for nothing else, of a
/// key's algorithm, bytes and HMAC key. Keys that are the same have the same fingerprint, whatever
/// their format, owner and age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 8]);

impl Fingerprint {
    pub(super) fn of(key: &Key) -> Self {
        let algorithm = match key.algorithm {
            None => 0,
            Some(Algorithm::Aes256) => 1,
            Some(Algorithm::ChaCha20) => 2,
        };
        let hash = Sha256::new()
            .chain_update(b"claviger key fingerprint v1\0")
            .chain_update([algorithm])
            .chain_update(key.secret.key().expose())
            .chain_update(key.hmac.as_ref().map_or(&[][..], |hmac| hmac.expose()));
        let mut short = [0; 8];
        short.copy_from_slice(&hash.finalize()[..8]);
        Self(short)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::hex::encode(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::super::{Decoded, Origin};
    use super::*;
    use crate::crypto::SecretKey;

    fn secret(byte: u8) -> SecretKey {
        SecretKey::from_slice(&[byte; 32]).expect("32 bytes")
    }

    #[test]
    fn tells_keys_apart_and_nothing_else() {
        let made = |byte, algorithm, hmac: Option<u8>| {
            let at = datetime!(2020-01-01 00:00 UTC);
            let origin = Origin { created_at: Some(at), created_by: Some("someone".into()) };
            Key::new(Decoded { secret: secret(byte), algorithm, hmac: hmac.map(secret), origin })
        };
        let keys = [
            made(1, None, None),
            made(2, None, None),
            made(1, Some(Algorithm::Aes256), None),
            made(1, Some(Algorithm::ChaCha20), None),
            made(1, None, Some(1)),
            made(1, None, Some(2)),
        ];
        for (i, a) in keys.iter().enumerate() {
            for (j, b) in keys.iter().enumerate() {
                assert_eq!(a.fingerprint() == b.fingerprint(), i == j, "{i} {j}");
                assert_eq!(a.is_same(b), i == j, "{i} {j}");
            }
        }
        assert_eq!(keys[0].fingerprint(), Key::untyped(secret(1)).fingerprint());
    }

    #[test]
    fn is_the_same_for_ever() {
        // SHA-256("claviger key fingerprint v1\0" + 00 + 32 times 01), computed with coreutils.
        assert_eq!(Key::untyped(secret(1)).fingerprint().to_string(), "2cf30074f79e36b9");
    }
}
