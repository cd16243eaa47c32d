//! The ciphertext formats of earlier versions. `None` means: not of that format.

use rmp::decode::{read_bin_len, read_marker, read_str_len};

use super::Ciphertext;
use crate::crypto::Algorithm;
use crate::crypto::json::{Bytes, fields, object};

/// The first byte of the MessagePack format: an array of five elements.
pub(super) const MSGPACK: u8 = 0x95;

#[derive(Default)]
struct Json {
    aead: Option<String>,
    iv: Bytes,
    nonce: Bytes,
    bytes: Bytes,
}

// Not its `id`, a hash of the key, which nothing checks.
fields!(Json { Text aead, Bytes iv, Bytes nonce, Bytes bytes });

/// Up to v0.19.1: `{"aead","id","iv","nonce","bytes"}`.
pub(super) fn json(ciphertext: &[u8]) -> Option<Ciphertext<'static>> {
    let json: Json = object(ciphertext).ok()?;
    let algorithm = match json.aead?.as_str() {
        "AES-256-GCM-HMAC-SHA-256" => Algorithm::Aes256,
        "ChaCha20Poly1305" => Algorithm::ChaCha20,
        _ => return None,
    };
    Some(Ciphertext {
        algorithm: Some(algorithm),
        iv: (*json.iv).try_into().ok()?,
        nonce: (*json.nonce).try_into().ok()?,
        sealed: std::mem::take(&mut *json.bytes.into_inner()).into(),
    })
}

/// v0.19.2 to 2024-01-11: an array of algorithm, id, iv, nonce and sealed message.
pub(super) fn msgpack(ciphertext: &[u8]) -> Option<Ciphertext<'_>> {
    let mut rest = ciphertext;
    read_marker(&mut rest).ok()?;
    let algorithm = take(&mut rest, |rest| read_str_len(rest).ok())?;
    let _id = take(&mut rest, |rest| read_str_len(rest).ok())?;
    let iv = take(&mut rest, |rest| read_bin_len(rest).ok())?;
    let nonce = take(&mut rest, |rest| read_bin_len(rest).ok())?;
    let sealed = take(&mut rest, |rest| read_bin_len(rest).ok())?;
    if !rest.is_empty() {
        return None;
    }
    Some(Ciphertext {
        algorithm: Some(Algorithm::parse(str::from_utf8(algorithm).ok()?)?),
        iv: iv.try_into().ok()?,
        nonce: nonce.try_into().ok()?,
        sealed: sealed.into(),
    })
}

/// Takes an element off `rest`, whose length `read_len` reads; never more than there is.
fn take<'a>(rest: &mut &'a [u8], read_len: impl FnOnce(&mut &'a [u8]) -> Option<u32>) -> Option<&'a [u8]> {
    let len = usize::try_from(read_len(rest)?).ok()?;
    rest.split_off(..len)
}
