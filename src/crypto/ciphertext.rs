//! Operations of a master key: encrypt, decrypt, make data keys and HMACs.

mod old;

use std::borrow::Cow;

use aes_gcm::aead::inout::InOutBuf;
use zeroize::Zeroizing;

use super::aead::{self, IV, NONCE, TAG};
use super::{Algorithm, Key, NoRandom, SecretKey, random};

/// How many bytes a ciphertext is longer than its plaintext.
pub const OVERHEAD: usize = TAG + TRAILER;

/// IV and nonce stand behind the sealed message.
const TRAILER: usize = IV + NONCE;

/// The ciphertext was not made by this key with this context, or was changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("ciphertext is not authentic")]
pub struct NotAuthentic;

/// A new key for data, and the same key encrypted.
#[derive(Debug)]
pub struct DataKey {
    /// The key itself, for the client.
    pub plaintext: SecretKey,
    /// What the client stores beside its data.
    pub ciphertext: [u8; 32 + OVERHEAD],
}

impl Key {
    /// Encrypts `plaintext`, bound to `context`, which decryption must repeat.
    pub fn encrypt(&self, plaintext: &[u8], context: &[u8]) -> Result<Vec<u8>, NoRandom> {
        let mut trailer = [0; TRAILER];
        random::fill(&mut trailer)?;
        let mut ciphertext = vec![0; plaintext.len() + OVERHEAD];
        self.seal(plaintext, context, &trailer, &mut ciphertext);
        Ok(ciphertext)
    }

    /// Makes a random key and encrypts it, bound to `context`. The operating system is asked for
    /// random bytes once: that call is a good part of the cost.
    pub fn generate_data_key(&self, context: &[u8]) -> Result<DataKey, NoRandom> {
        let mut bytes = Zeroizing::new([0; 32 + TRAILER]);
        random::fill(&mut *bytes)?;
        let (plaintext, trailer) = bytes.split_first_chunk::<32>().expect("it begins with 32 bytes");
        let trailer = trailer.try_into().expect("the rest of the array");
        let mut ciphertext = [0; 32 + OVERHEAD];
        self.seal(plaintext, context, trailer, &mut ciphertext);
        let plaintext = SecretKey::from_slice(plaintext).expect("32 bytes");
        Ok(DataKey { plaintext, ciphertext })
    }

    /// Decrypts what this key has encrypted with this `context`, in any format since the first version.
    pub fn decrypt(&self, ciphertext: &[u8], context: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotAuthentic> {
        let ciphertext = Ciphertext::parse(ciphertext).ok_or(NotAuthentic)?;
        match (self.algorithm(), ciphertext.algorithm) {
            // The key knows best: what the ciphertext says is covered by no tag.
            (Some(algorithm), _) | (None, Some(algorithm)) => self.open(&ciphertext, context, algorithm),
            // Such a key was used with either algorithm, as each server's CPU liked it; the tag tells.
            (None, None) => self
                .open(&ciphertext, context, Algorithm::Aes256)
                .or_else(|_| self.open(&ciphertext, context, Algorithm::ChaCha20)),
        }
    }

    /// The same for a key whose type may be another than the one it encrypted with at its source: its own is tried
    /// first, then the other. The tag tells.
    pub fn decrypt_either(&self, ciphertext: &[u8], context: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotAuthentic> {
        let ciphertext = Ciphertext::parse(ciphertext).ok_or(NotAuthentic)?;
        let first = self.algorithm().or(ciphertext.algorithm).unwrap_or(Algorithm::Aes256);
        self.open(&ciphertext, context, first).or_else(|_| self.open(&ciphertext, context, first.other()))
    }

    /// The HMAC-SHA-256 of `message`; `None` when the key has no HMAC key.
    pub fn hmac(&self, message: &[u8]) -> Option<[u8; 32]> {
        Some(self.hmac.as_ref()?.hmac(message))
    }

    /// Writes the current format: the sealed message with its tag, IV, nonce.
    fn seal(&self, plaintext: &[u8], context: &[u8], trailer: &[u8; TRAILER], ciphertext: &mut [u8]) {
        let algorithm = self.algorithm().unwrap_or(Algorithm::Aes256);
        let (iv, nonce) = split(trailer);
        let (sealed, rest) = ciphertext.split_at_mut(plaintext.len());
        let (tag, end) = rest.split_at_mut(TAG);
        let message = InOutBuf::new(plaintext, sealed).expect("equally long");
        tag.copy_from_slice(&aead::seal(algorithm, &self.secret, iv, nonce, context, message));
        end.copy_from_slice(trailer);
    }

    fn open(
        &self,
        ciphertext: &Ciphertext<'_>,
        context: &[u8],
        algorithm: Algorithm,
    ) -> Result<Zeroizing<Vec<u8>>, NotAuthentic> {
        let Ciphertext { iv, nonce, sealed, .. } = ciphertext;
        let (sealed, tag) = sealed.split_last_chunk().ok_or(NotAuthentic)?;
        let mut plaintext = Zeroizing::new(vec![0; sealed.len()]);
        let message = InOutBuf::new(sealed, &mut plaintext).expect("equally long");
        let authentic = aead::open(algorithm, &self.secret, iv, nonce, context, message, tag);
        authentic.then_some(plaintext).ok_or(NotAuthentic)
    }
}

/// A ciphertext taken apart.
struct Ciphertext<'a> {
    /// What it says it was made with; the current format says nothing.
    algorithm: Option<Algorithm>,
    iv: [u8; IV],
    nonce: [u8; NONCE],
    /// The encrypted message and its tag.
    sealed: Cow<'a, [u8]>,
}

impl<'a> Ciphertext<'a> {
    /// Recognises the format by the first byte. The current one may begin with any byte, so what
    /// does not parse as an old one is current.
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        match bytes.first() {
            Some(b'{') => old::json(bytes),
            Some(&old::MSGPACK) => old::msgpack(bytes),
            _ => None,
        }
        .or_else(|| Self::current(bytes))
    }

    fn current(bytes: &'a [u8]) -> Option<Self> {
        let (sealed, trailer) = bytes.split_last_chunk::<TRAILER>()?;
        let (iv, nonce) = split(trailer);
        Some(Self { algorithm: None, iv: *iv, nonce: *nonce, sealed: sealed.into() })
    }
}

fn split(trailer: &[u8; TRAILER]) -> (&[u8; IV], &[u8; NONCE]) {
    let (iv, nonce) = trailer.split_first_chunk().expect("the trailer begins with an IV");
    (iv, nonce.try_into().expect("the rest is the nonce"))
}
