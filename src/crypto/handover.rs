//! Sends secrets to one recipient: sealed by HPKE (RFC 9180) to a public key that the recipient made for this transfer.

use std::fmt;

use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256 as SUITE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke as _, HpkePrivateKey, HpkePublicKey};
use zeroize::Zeroizing;

use super::{NoRandom, NotAuthentic};

/// What the messages are for, so that nothing else opens with the same keys.
const INFO: &[u8] = b"claviger key export v1";

/// The length of a public key, in bytes.
const PUBLIC: usize = 32;

/// The recipient of messages. Its private key is made for one transfer, and wiped on drop.
pub struct Recipient {
    public: HpkePublicKey,
    private: HpkePrivateKey,
}

/// A sealed message.
pub struct Handed {
    /// What its recipient needs beside the private key: 32 bytes.
    pub encapsulated: Vec<u8>,
    /// The message, sealed.
    pub sealed: Vec<u8>,
}

impl Recipient {
    /// A recipient with a new key.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn generate() -> Result<Self, NoRandom> {
        let (public, private) = SUITE.generate_key_pair().map_err(|_| NoRandom::unexplained())?;
        Ok(Self { public, private })
    }

    /// The public key, for who seals: 32 bytes of X25519.
    pub fn public(&self) -> &[u8] {
        &self.public.0
    }

    /// Opens what was sealed to this recipient, and for `place`.
    ///
    /// # Errors
    /// When it was sealed to somebody else or for another place, or was changed since.
    pub fn open(&self, handed: Handed, place: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotAuthentic> {
        let encapsulated = EncapsulatedSecret(handed.encapsulated);
        let opened = SUITE.open(&encapsulated, INFO, place, &handed.sealed, &self.private);
        opened.map(Zeroizing::new).map_err(|_| NotAuthentic)
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recipient(redacted)")
    }
}

/// Seals a message to who has this public key, for `place`; none when that is no key.
pub fn seal(public: &[u8], place: &[u8], message: &[u8]) -> Option<Handed> {
    let public = (public.len() == PUBLIC).then(|| HpkePublicKey(public.to_vec()))?;
    let (EncapsulatedSecret(encapsulated), sealed) = SUITE.seal(INFO, place, message, &public).ok()?;
    Some(Handed { encapsulated, sealed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_recipient_opens_it_and_in_its_place() {
        let [recipient, other] = [0, 1].map(|_| Recipient::generate().expect("random bytes"));
        let handed = || seal(recipient.public(), b"here", b"message").expect("a key");
        assert_eq!(recipient.open(handed(), b"here").expect("sealed to it").as_slice(), b"message");
        assert!(recipient.open(handed(), b"there").is_err());
        assert!(other.open(handed(), b"here").is_err());
        for at in 0..handed().sealed.len() {
            let mut changed = handed();
            changed.sealed[at] ^= 1;
            assert!(recipient.open(changed, b"here").is_err(), "byte {at}");
        }
        let twice = [handed().encapsulated, handed().encapsulated];
        assert_ne!(twice[0], twice[1]);
    }

    #[test]
    fn what_is_no_key_gets_nothing() {
        for public in [&[][..], &[1; 31], &[1; 33], &[0; 32]] {
            assert!(seal(public, b"", b"message").is_none(), "{public:?}");
        }
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Recipient::generate().expect("random bytes")), "Recipient(redacted)");
    }
}
