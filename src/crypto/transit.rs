//! Keys and ciphertexts of the Transit engine of Vault and OpenBao. `docs/formats.md` states the formats.

use aes_gcm::aead::consts::{U12, U16};
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes128Gcm, Aes256Gcm};
use chacha20poly1305::ChaCha20Poly1305;
use hkdf::Hkdf;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::mac::MacKey;
use super::{Blob, NoRandom, SecretKey, base64, random};

/// Bytes of a nonce.
const NONCE: usize = 12;
/// Bytes of an authentication tag.
const TAG: usize = 16;
/// How many bytes a body is longer than its plaintext.
const OVERHEAD: usize = NONCE + TAG;
/// What every ciphertext and every HMAC begins with; then the number of the version follows.
const PREFIX: &str = "vault:v";

/// What a key encrypts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// AES-256-GCM.
    Aes256Gcm,
    /// AES-128-GCM.
    Aes128Gcm,
    /// ChaCha20-Poly1305.
    ChaCha20Poly1305,
}

/// The kinds, their names, and their numbers in a backup.
const KINDS: [(Kind, &str, u64); 3] = [
    (Kind::Aes256Gcm, "aes256-gcm96", 0),
    (Kind::ChaCha20Poly1305, "chacha20-poly1305", 5),
    (Kind::Aes128Gcm, "aes128-gcm96", 8),
];

impl Kind {
    /// The kind with this name.
    pub fn parse(name: &str) -> Option<Self> {
        KINDS.into_iter().find(|(_, other, _)| *other == name).map(|(kind, ..)| kind)
    }

    /// The kind with this number in a backup.
    pub fn of_number(number: u64) -> Option<Self> {
        KINDS.into_iter().find(|(.., other)| *other == number).map(|(kind, ..)| kind)
    }

    /// The name.
    pub fn as_str(self) -> &'static str {
        self.row().1
    }

    /// The number in a backup.
    pub fn number(self) -> u64 {
        self.row().2
    }

    /// The length of a key, in bytes.
    pub fn key_len(self) -> usize {
        if self == Self::Aes128Gcm { 16 } else { 32 }
    }

    fn row(self) -> (Self, &'static str, u64) {
        KINDS.into_iter().find(|(kind, ..)| *kind == self).expect("the table has every kind")
    }
}

/// The secrets of one version of a key.
pub struct Secrets {
    kind: Kind,
    key: Blob,
    hmac: MacKey,
}

/// Why a body does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotOpened {
    /// It is shorter than a nonce.
    TooShort,
    /// It was made by another key, for another context or with other associated data, or was changed.
    NotAuthentic,
}

impl Secrets {
    /// New random secrets.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn generate(kind: Kind) -> Result<Self, NoRandom> {
        let mut key = Zeroizing::new(vec![0; kind.key_len()]);
        random::fill(&mut key)?;
        Ok(Self { kind, key: key.into(), hmac: MacKey::new(SecretKey::random()?) })
    }

    /// The secrets with these bytes; `None` when one of them has the wrong length.
    pub fn of(kind: Kind, key: &[u8], hmac: &[u8]) -> Option<Self> {
        if key.len() != kind.key_len() {
            return None;
        }
        Some(Self { kind, key: key.to_vec().into(), hmac: MacKey::new(SecretKey::from_slice(hmac)?) })
    }

    /// What they encrypt with.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The key and the HMAC key. Every call is a place to review.
    pub(crate) fn expose(&self) -> (&[u8], &[u8; 32]) {
        (self.key.expose(), self.hmac.key().expose())
    }

    /// Encrypts; with the key that is derived for `context`, if there is one.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn seal(&self, context: Option<&[u8]>, associated: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, NoRandom> {
        let mut nonce = [0; NONCE];
        random::fill(&mut nonce)?;
        Ok(self.seal_with(&nonce, context, associated, plaintext))
    }

    fn seal_with(&self, nonce: &[u8; NONCE], context: Option<&[u8]>, associated: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let mut body = vec![0; plaintext.len() + OVERHEAD];
        let (head, rest) = body.split_at_mut(NONCE);
        let (text, tag) = rest.split_at_mut(plaintext.len());
        head.copy_from_slice(nonce);
        let message = InOutBuf::new(plaintext, text).expect("equally long");
        let key = self.key(context);
        tag.copy_from_slice(&match self.kind {
            Kind::Aes256Gcm => seal_with::<Aes256Gcm>(&key, nonce, associated, message),
            Kind::Aes128Gcm => seal_with::<Aes128Gcm>(&key, nonce, associated, message),
            Kind::ChaCha20Poly1305 => seal_with::<ChaCha20Poly1305>(&key, nonce, associated, message),
        });
        body
    }

    /// Decrypts.
    ///
    /// # Errors
    /// When the body is not what [`Self::seal`] makes for the same context and associated data.
    pub fn open(
        &self,
        context: Option<&[u8]>,
        associated: &[u8],
        body: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, NotOpened> {
        let (nonce, rest) = body.split_first_chunk::<NONCE>().ok_or(NotOpened::TooShort)?;
        let (text, tag) = rest.split_last_chunk::<TAG>().ok_or(NotOpened::NotAuthentic)?;
        let mut plaintext = Zeroizing::new(vec![0; text.len()]);
        let message = InOutBuf::new(text, &mut plaintext).expect("equally long");
        let key = self.key(context);
        let is_authentic = match self.kind {
            Kind::Aes256Gcm => open_with::<Aes256Gcm>(&key, nonce, associated, message, tag),
            Kind::Aes128Gcm => open_with::<Aes128Gcm>(&key, nonce, associated, message, tag),
            Kind::ChaCha20Poly1305 => open_with::<ChaCha20Poly1305>(&key, nonce, associated, message, tag),
        };
        is_authentic.then_some(plaintext).ok_or(NotOpened::NotAuthentic)
    }

    /// The HMAC-SHA-256 of a message.
    pub fn hmac(&self, message: &[u8]) -> [u8; 32] {
        let mut tag = [0; 32];
        self.hmac.sign(message, &mut tag);
        tag
    }

    /// Whether `tag` is the HMAC-SHA-256 of a message. The time says nothing of where they differ.
    pub fn verify_hmac(&self, message: &[u8], tag: &[u8]) -> bool {
        self.hmac(message).ct_eq(tag).into()
    }

    /// The key itself, or the one derived for a context: HKDF-SHA-256 without salt.
    fn key(&self, context: Option<&[u8]>) -> Zeroizing<Vec<u8>> {
        let Some(context) = context else { return Zeroizing::new(self.key.expose().to_vec()) };
        let mut derived = Zeroizing::new(vec![0; self.kind.key_len()]);
        let hkdf = Hkdf::<Sha256>::new(None, self.key.expose());
        hkdf.expand(context, &mut derived).expect("HKDF makes many more bytes than a key has");
        derived
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({}, redacted)", self.kind.as_str())
    }
}

/// AEADs that have nonces of 12 and tags of 16 bytes.
trait Aead: AeadInOut<NonceSize = U12, TagSize = U16> + KeyInit {}

impl Aead for Aes256Gcm {}
impl Aead for Aes128Gcm {}
impl Aead for ChaCha20Poly1305 {}

fn seal_with<A: Aead>(key: &[u8], nonce: &[u8; NONCE], associated: &[u8], message: InOutBuf<'_, '_, u8>) -> [u8; TAG] {
    let cipher = A::new_from_slice(key).expect("the key is as long as its kind says");
    let tag = cipher.encrypt_inout_detached(nonce.into(), associated, message);
    tag.expect("a request is shorter than the 64 GiB that AES-GCM can take").into()
}

fn open_with<A: Aead>(
    key: &[u8],
    nonce: &[u8; NONCE],
    associated: &[u8],
    message: InOutBuf<'_, '_, u8>,
    tag: &[u8; TAG],
) -> bool {
    let cipher = A::new_from_slice(key).expect("the key is as long as its kind says");
    cipher.decrypt_inout_detached(nonce.into(), associated, message, tag.into()).is_ok()
}

/// Why a text is not a ciphertext, as Vault says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It does not begin with `vault:v`.
    #[error("invalid ciphertext: no prefix")]
    Prefix,
    /// There is no colon behind the number.
    #[error("invalid ciphertext: wrong number of fields")]
    Fields,
    /// No number.
    #[error("invalid ciphertext: version number could not be decoded")]
    Version,
}

/// The parts of a ciphertext: the number of the version as it is written, and the base64 of the body.
///
/// # Errors
/// When there are no such parts.
pub fn split(text: &str) -> Result<(i64, &str), Malformed> {
    let rest = text.strip_prefix(PREFIX).ok_or(Malformed::Prefix)?;
    let (number, body) = rest.split_once(':').ok_or(Malformed::Fields)?;
    let number = number.parse().map_err(|_| Malformed::Version)?;
    // The first servers began to count at 0.
    Ok((if number == 0 { 1 } else { number }, body))
}

/// The text of a body that this version made.
pub fn join(version: u32, body: &[u8]) -> String {
    let number = version.to_string();
    let mut text = Vec::with_capacity(PREFIX.len() + number.len() + 1 + base64::encoded_len(body));
    text.extend_from_slice(PREFIX.as_bytes());
    text.extend_from_slice(number.as_bytes());
    text.push(b':');
    base64::append(body, &mut text);
    String::from_utf8(text).expect("it was made of ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_for_its_context_and_with_its_associated_data_only() {
        for (kind, ..) in KINDS {
            let secrets = Secrets::generate(kind).expect("random bytes");
            for context in [None, Some(&b"context"[..])] {
                let body = secrets.seal(context, b"bound", b"message").expect("random bytes");
                assert_eq!(secrets.open(context, b"bound", &body).expect("authentic").as_slice(), b"message");
                assert_eq!(secrets.open(context, b"", &body), Err(NotOpened::NotAuthentic));
                assert_eq!(secrets.open(Some(b"other"), b"bound", &body), Err(NotOpened::NotAuthentic));
                for at in 0..body.len() {
                    let mut changed = body.clone();
                    changed[at] ^= 1;
                    assert_eq!(secrets.open(context, b"bound", &changed), Err(NotOpened::NotAuthentic), "byte {at}");
                    let expected = if at < NONCE { NotOpened::TooShort } else { NotOpened::NotAuthentic };
                    assert_eq!(secrets.open(context, b"bound", &body[..at]), Err(expected), "length {at}");
                }
            }
        }
    }

    #[test]
    fn ciphertexts_are_split_as_vault_does() {
        assert_eq!(split("vault:v12:AAAA"), Ok((12, "AAAA")));
        assert_eq!((split("vault:v0:x"), split("vault:v01:x:y")), (Ok((1, "x")), Ok((1, "x:y"))));
        assert_eq!((split("vault:v-1:"), split("vault:v+2:")), (Ok((-1, "")), Ok((2, ""))));
        for (text, why) in [
            ("", Malformed::Prefix),
            ("vault:1:x", Malformed::Prefix),
            ("vault:v1", Malformed::Fields),
            ("vault:v:x", Malformed::Version),
            ("vault:v1a:x", Malformed::Version),
            ("vault:v99999999999999999999:x", Malformed::Version),
        ] {
            assert_eq!(split(text), Err(why), "{text}");
        }
        assert_eq!(join(7, b"\x00\x00\x00"), "vault:v7:AAAA");
    }

    #[test]
    fn a_key_is_as_long_as_its_kind_says() {
        for (kind, name, number) in KINDS {
            assert_eq!((Kind::parse(name), Kind::of_number(number)), (Some(kind), Some(kind)));
            let len = kind.key_len();
            assert!(Secrets::of(kind, &vec![0; len], &[0; 32]).is_some());
            assert!(Secrets::of(kind, &vec![0; len + 1], &[0; 32]).is_none());
            assert!(Secrets::of(kind, &vec![0; len], &[0; 31]).is_none());
        }
        assert_eq!((Kind::parse("xchacha20-poly1305"), Kind::of_number(11)), (None, None));
    }

    #[test]
    fn debug_shows_nothing() {
        let secrets = Secrets::of(Kind::Aes128Gcm, &[0x41; 16], &[0x41; 32]).expect("lengths");
        assert_eq!(format!("{secrets:?}"), "Secrets(aes128-gcm96, redacted)");
    }
}
