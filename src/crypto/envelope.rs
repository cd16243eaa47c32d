//! One message under a key that is used for few: AES-256-GCM with a random nonce, as `nonce ‖ sealed ‖ tag`.

use aes_gcm::Aes256Gcm;
use zeroize::Zeroizing;

use super::aead::{NONCE, TAG, open_with, seal_with};
use super::{NoRandom, SecretKey, random};

/// Encrypts `message` and binds it to `context`.
pub(crate) fn seal(key: &SecretKey, context: &[u8], message: &[u8]) -> Result<Vec<u8>, NoRandom> {
    let mut sealed = vec![0; NONCE + message.len() + TAG];
    let (nonce, rest) = sealed.split_first_chunk_mut::<NONCE>().expect("there is room for it");
    random::fill(nonce)?;
    let (body, tag) = rest.split_at_mut(message.len());
    // It is encrypted where it lies: no other copy is left behind.
    body.copy_from_slice(message);
    tag.copy_from_slice(&seal_with::<Aes256Gcm>(key.expose(), nonce, context, body.into()));
    Ok(sealed)
}

/// What [`seal`] encrypted; none unless key, context and every bit are the same.
pub(crate) fn open(key: &SecretKey, context: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, rest) = sealed.split_first_chunk::<NONCE>()?;
    let (body, tag) = rest.split_last_chunk::<TAG>()?;
    let mut message = Zeroizing::new(body.to_vec());
    open_with::<Aes256Gcm>(key.expose(), nonce, context, message.as_mut_slice().into(), tag).then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_and_nothing_else_does() {
        let key = SecretKey::random().expect("random");
        let sealed = seal(&key, b"context", b"message").expect("random");
        assert_eq!(open(&key, b"context", &sealed).as_deref().map(Vec::as_slice), Some(&b"message"[..]));
        assert!(open(&key, b"other", &sealed).is_none());
        assert!(open(&SecretKey::random().expect("random"), b"context", &sealed).is_none());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(open(&key, b"context", &changed).is_none(), "byte {at}");
            assert!(open(&key, b"context", &sealed[..at]).is_none(), "{at} bytes");
        }
        assert!(open(&key, b"", &seal(&key, b"", b"").expect("random")).is_some_and(|message| message.is_empty()));
    }
}
