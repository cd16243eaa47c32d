//! Private keys encrypted inside their PEM block (`Proc-Type: 4,ENCRYPTED`), as RFC 1423 says.

use aes::{Aes128, Aes192, Aes256};
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockCipherDecrypt, BlockModeDecrypt as _, BlockModeEncrypt as _, KeyInit, KeyIvInit as _};
use des::{Des, TdesEde3};
use md5::{Digest as _, Md5};
use zeroize::Zeroizing;

use super::Error;
use crate::hex;

/// Decrypts a block whose `DEK-Info` header says `encryption`: a cipher's name and an IV in hex.
pub(super) fn decrypt(sealed: &[u8], encryption: &str, password: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    let (cipher, iv) = encryption.split_once(',').ok_or(Error::Malformed)?;
    let iv = hex::decode(iv.trim()).ok_or(Error::Malformed)?;
    match cipher.trim() {
        "AES-128-CBC" => decrypt_with::<Aes128>(sealed, &iv, password),
        "AES-192-CBC" => decrypt_with::<Aes192>(sealed, &iv, password),
        "AES-256-CBC" => decrypt_with::<Aes256>(sealed, &iv, password),
        "DES-EDE3-CBC" => decrypt_with::<TdesEde3>(sealed, &iv, password),
        "DES-CBC" => decrypt_with::<Des>(sealed, &iv, password),
        other => Err(Error::Cipher(other.chars().take(32).collect())),
    }
}

/// The cipher that `encrypt` uses, as `DEK-Info` names it.
pub(super) const CIPHER: &str = "AES-256-CBC";

/// Encrypts a DER document.
pub(super) fn encrypt(der: &[u8], iv: &[u8; 16], password: &[u8]) -> Vec<u8> {
    let key = derive(password, &iv[..8], 32);
    let cipher = cbc::Encryptor::<Aes256>::new_from_slices(&key, iv).expect("key and IV are of the cipher's sizes");
    let mut sealed = der.to_vec();
    sealed.resize(der.len() + 16, 0);
    let len = cipher.encrypt_padded::<Pkcs7>(&mut sealed, der.len()).expect("there is room for the padding").len();
    sealed.truncate(len);
    sealed
}

fn decrypt_with<C: BlockCipherDecrypt + KeyInit>(
    sealed: &[u8],
    iv: &[u8],
    password: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let salt = iv.get(..8).ok_or(Error::Malformed)?;
    let key = derive(password, salt, C::key_size());
    let cipher = cbc::Decryptor::<C>::new_from_slices(&key, iv).map_err(|_| Error::Malformed)?;
    let mut der = Zeroizing::new(sealed.to_vec());
    // Wrong padding is how a wrong password shows; so is what is no ASN.1 sequence of this length.
    let len = cipher.decrypt_padded::<Pkcs7>(&mut der).map_err(|_| Error::WrongPassword)?.len();
    der.truncate(len);
    if is_sequence(&der) { Ok(der) } else { Err(Error::WrongPassword) }
}

/// One round of MD5 for every 16 bytes: `D(n) = MD5(D(n-1) || password || salt)`.
fn derive(password: &[u8], salt: &[u8], len: usize) -> Zeroizing<Vec<u8>> {
    let mut key = Zeroizing::new(Vec::with_capacity(len + 16));
    while key.len() < len {
        let previous = key.len().saturating_sub(16);
        let round = Md5::new().chain_update(&key[previous..]).chain_update(password).chain_update(salt).finalize();
        key.extend_from_slice(&Zeroizing::new(<[u8; 16]>::from(round))[..]);
    }
    key.truncate(len);
    key
}

/// Whether this is one DER sequence and nothing else.
fn is_sequence(der: &[u8]) -> bool {
    match der {
        [0x30, len @ ..=0x7f, rest @ ..] => rest.len() == usize::from(*len),
        [0x30, 0x81, len, rest @ ..] => rest.len() == usize::from(*len),
        [0x30, 0x82, high, low, rest @ ..] => rest.len() == usize::from(u16::from_be_bytes([*high, *low])),
        _ => false,
    }
}
