//! HSM keys: a key written as text that takes the place of a hardware security module.

use zeroize::Zeroizing;

use crate::auth::enclave::ApiKey;
use crate::crypto::{NoRandom, Sealer, SecretKey, base64};

/// The prefix of a soft HSM key.
pub const HSM_KEY: &str = "hsm:aes256:";

/// The text is not an HSM key. The error quotes nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an HSM key: one is 'hsm:aes256:' and the base64 of 32 bytes; 'claviger kms --soft-hsm' makes one")]
pub struct NoHsmKey;

/// A key that takes the place of an HSM. Anyone who has it can open what it has sealed.
#[derive(Debug)]
pub struct HsmKey(pub(super) SecretKey);

impl HsmKey {
    /// A new random key.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn generate() -> Result<Self, NoRandom> {
        SecretKey::random().map(Self)
    }

    /// Parses `hsm:aes256:` and base64.
    ///
    /// # Errors
    /// When the text has another form.
    pub fn parse(text: &str) -> Result<Self, NoHsmKey> {
        let key = text.strip_prefix(HSM_KEY).and_then(|key| base64::decode(key.as_bytes()));
        key.and_then(|key| SecretKey::from_slice(&key)).map(Self).ok_or(NoHsmKey)
    }

    /// The key as text. Every call is a place to review.
    pub fn expose(&self) -> Zeroizing<String> {
        let key = base64::encode(self.0.expose());
        let mut text = Zeroizing::new(String::with_capacity(HSM_KEY.len() + key.len()));
        text.push_str(HSM_KEY);
        text.push_str(&key);
        text
    }

    /// The API key of the administrator where none is configured. It is derived from the HSM key.
    pub fn root_api_key(&self) -> ApiKey {
        ApiKey::from_seed(&self.0.hkdf("claviger kms root api key v1"))
    }

    fn sealer(&self) -> Sealer {
        Sealer::new(self.0.hkdf("claviger kms seal v1"))
    }

    /// Seals the root key under the name of this provider.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn seal(&self, root: &SecretKey, name: &str) -> Result<Vec<u8>, NoRandom> {
        self.sealer().seal(root.expose(), name.as_bytes())
    }

    pub(super) fn unseal(&self, sealed: &[u8], name: &str) -> Option<SecretKey> {
        SecretKey::from_slice(&self.sealer().open(sealed, name.as_bytes()).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> HsmKey {
        HsmKey(SecretKey::from_slice(&[byte; 32]).expect("32 bytes"))
    }

    #[test]
    fn a_key_is_read_as_written() {
        let text = "hsm:aes256:KioqKioqKioqKioqKioqKioqKioqKioqKioqKioqKio=";
        assert_eq!(HsmKey::parse(text).expect("a key").expose().as_str(), text);
        for bad in
            ["", "hsm:aes256:", "hsm:aes128:KioqKg==", "hsm:aes256:KioqKg==", &text[4..], &text[..text.len() - 1]]
        {
            assert!(HsmKey::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_root_api_key_is_the_same_again() {
        assert_eq!(key(1).root_api_key().expose(), key(1).root_api_key().expose());
        assert_ne!(key(1).root_api_key().expose(), key(2).root_api_key().expose());
    }
}
