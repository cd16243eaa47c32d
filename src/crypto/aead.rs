//! Authenticated encryption of one message under a subkey of its own.

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::consts::{U12, U16, U32};
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit, KeySizeUser};
use chacha20::{R20, hchacha};
use chacha20poly1305::ChaCha20Poly1305;
use zeroize::{Zeroize as _, Zeroizing};

use super::Algorithm;
use super::mac::MacKey;

/// Bytes of an authentication tag.
pub(super) const TAG: usize = 16;
/// Bytes that choose the subkey.
pub(super) const IV: usize = 16;
/// Bytes of a nonce.
pub(super) const NONCE: usize = 12;

/// Encrypts `message` into the equally long `sealed` and returns the tag.
pub(super) fn seal(
    algorithm: Algorithm,
    key: &MacKey,
    iv: &[u8; IV],
    nonce: &[u8; NONCE],
    context: &[u8],
    message: InOutBuf<'_, '_, u8>,
) -> [u8; TAG] {
    let subkey = subkey(algorithm, key, iv);
    match algorithm {
        Algorithm::Aes256 => seal_with::<Aes256Gcm>(&subkey, nonce, context, message),
        Algorithm::ChaCha20 => seal_with::<ChaCha20Poly1305>(&subkey, nonce, context, message),
    }
}

/// Decrypts `message` if `tag` proves that it was sealed with this key and context; otherwise
/// writes nothing.
pub(super) fn open(
    algorithm: Algorithm,
    key: &MacKey,
    iv: &[u8; IV],
    nonce: &[u8; NONCE],
    context: &[u8],
    message: InOutBuf<'_, '_, u8>,
    tag: &[u8; TAG],
) -> bool {
    let subkey = subkey(algorithm, key, iv);
    match algorithm {
        Algorithm::Aes256 => open_with::<Aes256Gcm>(&subkey, nonce, context, message, tag),
        Algorithm::ChaCha20 => open_with::<ChaCha20Poly1305>(&subkey, nonce, context, message, tag),
    }
}

fn subkey(algorithm: Algorithm, key: &MacKey, iv: &[u8; IV]) -> Zeroizing<[u8; 32]> {
    let mut subkey = Zeroizing::new([0; 32]);
    match algorithm {
        Algorithm::Aes256 => key.sign(iv, &mut subkey),
        Algorithm::ChaCha20 => {
            let mut output = hchacha::<R20>(key.key().expose().into(), iv.into());
            subkey.copy_from_slice(&output);
            output.zeroize();
        }
    }
    subkey
}

/// AEADs that have keys of 32, nonces of 12 and tags of 16 bytes.
trait Aead: AeadInOut<NonceSize = U12, TagSize = U16> + KeyInit + KeySizeUser<KeySize = U32> {}

impl Aead for Aes256Gcm {}
impl Aead for ChaCha20Poly1305 {}

fn seal_with<A: Aead>(
    subkey: &[u8; 32],
    nonce: &[u8; NONCE],
    context: &[u8],
    message: InOutBuf<'_, '_, u8>,
) -> [u8; TAG] {
    let tag = A::new(subkey.into()).encrypt_inout_detached(nonce.into(), context, message);
    tag.expect("a request is shorter than the 64 GiB that AES-GCM can take").into()
}

fn open_with<A: Aead>(
    subkey: &[u8; 32],
    nonce: &[u8; NONCE],
    context: &[u8],
    message: InOutBuf<'_, '_, u8>,
    tag: &[u8; TAG],
) -> bool {
    A::new(subkey.into()).decrypt_inout_detached(nonce.into(), context, message, tag.into()).is_ok()
}
