//! Seals: the root key as each provider has encrypted it, and the providers.

mod hsm;
mod remote;

use std::collections::BTreeMap;

use super::store::Seals;
use crate::crypto::SecretKey;
use crate::telemetry::log::causes;

pub use self::hsm::{HSM_KEY, HsmKey, NoHsmKey};
pub use self::remote::Remote;

/// The name of the provider whose key is in `MINIO_KMS_HSM_KEY`.
pub const ENVIRONMENT: &str = "env";

/// A provider: it can seal the root key, and open what it has sealed.
#[derive(Debug)]
pub enum Provider {
    /// An HSM key that this server holds.
    Hsm(HsmKey),
    /// A provider that can seal key stores, too.
    Remote(Remote),
    /// A provider that could not be reached, and why.
    Lost(String),
}

/// The providers of this server, by name.
pub type Providers = BTreeMap<String, Provider>;

/// The root key could not be sealed.
#[derive(Debug, thiserror::Error)]
#[error("the HSM '{name}' does not seal the root key")]
pub struct NotSealed {
    name: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl Provider {
    /// Seals the root key under the name of this provider, and checks that the seal opens: one that does not would be
    /// noticed at the next start only. It may block, so async tasks must not call it.
    ///
    /// # Errors
    /// When the provider does not answer, or refuses.
    pub fn seal(&self, root: &SecretKey, name: &str) -> Result<Vec<u8>, NotSealed> {
        let not_sealed = |source| NotSealed { name: name.to_owned(), source };
        let sealed = match self {
            Self::Hsm(key) => key.seal(root, name).map_err(Into::into),
            Self::Remote(remote) => remote.seal(root).map_err(Into::into),
            Self::Lost(why) => Err(why.as_str().into()),
        };
        let sealed = sealed.map_err(not_sealed)?;
        match self.unseal(&Seals::from([(name.to_owned(), sealed.clone())])) {
            Ok(opened) if opened.is_same(root) => Ok(sealed),
            Ok(_) => Err(not_sealed("it opens to another key than the one that was sealed".into())),
            Err(why) => Err(not_sealed(format!("it seals, but does not open what it has sealed: {why}").into())),
        }
    }

    /// Opens the root key if this provider made any of the seals. It tries all of them, because the provider may have
    /// had another name then.
    fn unseal(&self, seals: &Seals) -> Result<SecretKey, String> {
        match self {
            Self::Hsm(key) => seals.iter().find_map(|(name, sealed)| key.unseal(sealed, name)).ok_or_else(not_its_own),
            Self::Remote(remote) => {
                let mut opened = Err(not_its_own());
                // Only seals of remote providers begin like this; those of HSM keys are binary.
                for sealed in seals.values().filter(|sealed| sealed.first() == Some(&b'{')) {
                    opened = remote.unseal(sealed).map_err(|error| causes(&error));
                    if opened.is_ok() {
                        break;
                    }
                }
                opened
            }
            Self::Lost(why) => Err(why.clone()),
        }
    }
}

fn not_its_own() -> String {
    "none of the seals is its own".into()
}

/// No provider opens any of the seals.
#[derive(Debug, thiserror::Error)]
#[error(
    "the data cannot be opened: {tried}. It was sealed with {sealed}. Nothing was changed; start again with the key or \
     HSM that sealed it"
)]
pub struct Sealed {
    tried: String,
    sealed: String,
}

/// Opens the root key with any provider that can. It may block, so async tasks must not call it.
///
/// # Errors
/// When no provider can.
pub fn unseal(seals: &Seals, providers: &Providers) -> Result<SecretKey, Sealed> {
    let mut tried = Vec::new();
    // Remote providers come last: when a local key opens the seal, none of them need be reachable.
    let (keys, others): (Vec<_>, Vec<_>) = providers.iter().partition(|(_, p)| matches!(p, Provider::Hsm(_)));
    for (name, provider) in keys.into_iter().chain(others) {
        match (provider.unseal(seals), provider) {
            (Ok(root), _) => return Ok(root),
            (Err(_), Provider::Hsm(_)) if name == ENVIRONMENT => {
                tried.push("the HSM key in MINIO_KMS_HSM_KEY is not the one that sealed it".to_owned());
            }
            (Err(_), Provider::Hsm(_)) => tried.push(format!("the HSM key '{name}' is not the one that sealed it")),
            (Err(why), _) => tried.push(format!("the HSM '{name}' does not open it: {why}")),
        }
    }
    if tried.is_empty() {
        tried.push("no HSM was given".to_owned());
    }
    let by = |name: &String| match name.as_str() {
        ENVIRONMENT => "the MINIO_KMS_HSM_KEY of that time".to_owned(),
        name => format!("'{name}'"),
    };
    let sealed: Vec<_> = seals.keys().map(by).collect();
    Err(Sealed { tried: tried.join("; "), sealed: sealed.join(" and ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> HsmKey {
        HsmKey(SecretKey::from_slice(&[byte; 32]).expect("32 bytes"))
    }

    fn providers(keys: &[(&str, u8)]) -> Providers {
        keys.iter().map(|(name, byte)| ((*name).to_owned(), Provider::Hsm(key(*byte)))).collect()
    }

    #[test]
    fn one_provider_that_has_sealed_is_enough() {
        let root = SecretKey::from_slice(&[9; 32]).expect("32 bytes");
        let seals: Seals = [("one", 1), ("two", 2)]
            .map(|(name, byte)| (name.to_owned(), key(byte).seal(&root, name).expect("sealed")))
            .into();
        for given in [&[("one", 1)][..], &[("two", 2)], &[("other", 2)], &[("one", 8), ("two", 2)]] {
            assert!(unseal(&seals, &providers(given)).expect("unsealed").is_same(&root), "{given:?}");
        }
        for given in [&[][..], &[("one", 3)]] {
            let error = unseal(&seals, &providers(given)).expect_err("no such key").to_string();
            assert!(error.contains("sealed with 'one' and 'two'"), "{error}");
        }
    }
}
