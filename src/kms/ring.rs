//! Keys: rings of versions, whose numbers are never used twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use zeroize::Zeroizing;

use super::Error;
use super::wire::{ImportKeyRequest, StoredVersion};
use crate::auth::enclave::Identity;
use crate::crypto::{Algorithm, Key, NotAuthentic};
use crate::name::KeyName;

/// A key as clients see it: one name, and a key of our own for each version.
#[derive(Debug)]
pub struct Ring {
    pub(super) name: KeyName,
    /// The number of the version that is made next.
    pub(super) next: u32,
    versions: Versions,
    /// The version that last decrypted something without being named.
    last_hit: AtomicU32,
}

/// Versions with their numbers, which rise; never none. Most keys have one, and there may be a million keys: so no map.
type Versions = Box<[(u32, Arc<Version>)]>;

/// Why versions make no key.
#[derive(Debug, thiserror::Error)]
pub(super) enum Malformed {
    /// They must have numbers from 1 on, in ascending order, all of them smaller than the next one.
    #[error("the numbers of the key's versions make no sense")]
    Numbers,
    /// One is no key.
    #[error(transparent)]
    Key(#[from] crate::crypto::key::Error),
}

/// One version of a key.
#[derive(Debug)]
pub struct Version {
    pub(super) key: Key,
    /// Whether the key comes from elsewhere, where its type may have been another.
    pub(super) imported: bool,
}

impl Version {
    /// Who made it, as clients see it: those of a KES by the name that they have here. Clients cannot read other texts.
    pub(super) fn created_by(&self) -> String {
        let stored = self.key.created_by().unwrap_or_default();
        let here = || Identity::of(&crate::auth::Identity::parse(stored).ok()?);
        stored.parse().ok().or_else(here).map(|identity| identity.to_string()).unwrap_or_default()
    }

    /// What it encrypts with, as clients see it.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.key.algorithm().unwrap_or(Algorithm::Aes256)
    }

    fn decrypt(&self, ciphertext: &[u8], context: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotAuthentic> {
        if self.imported { self.key.decrypt_either(ciphertext, context) } else { self.key.decrypt(ciphertext, context) }
    }
}

impl Ring {
    /// A key with one version.
    pub fn new(name: KeyName, version: Version) -> Self {
        Self::of(name, 2, Box::new([(1, Arc::new(version))]))
    }

    fn of(name: KeyName, next: u32, versions: Versions) -> Self {
        Self { name, next, versions, last_hit: AtomicU32::new(0) }
    }

    /// The versions with their numbers, from this number on.
    pub(super) fn versions_from(&self, first: u32) -> impl DoubleEndedIterator<Item = (u32, &Version)> {
        let begin = self.versions.partition_point(|(number, _)| *number < first);
        self.versions[begin..].iter().map(|(number, version)| (*number, &**version))
    }

    /// A key with all versions that were stored or exported; a single one without a number is the first.
    ///
    /// # Errors
    /// What is wrong with them. It quotes nothing of a key.
    pub(super) fn of_stored(name: KeyName, next: u32, stored: Vec<StoredVersion>) -> Result<Self, Malformed> {
        let is_single = stored.len() == 1;
        let (mut versions, mut last) = (Vec::with_capacity(stored.len()), 0);
        for mut version in stored {
            let number = if is_single { version.number.max(1) } else { version.number };
            if number <= last {
                return Err(Malformed::Numbers);
            }
            last = number;
            let key = Key::parse(&std::mem::take(&mut version.key).into())?;
            versions.push((number, Arc::new(Version { key, imported: version.imported })));
        }
        let following = last.checked_add(1).ok_or(Malformed::Numbers)?;
        let next = if next == 0 { following } else { next };
        if versions.is_empty() || next < following {
            return Err(Malformed::Numbers);
        }
        Ok(Self::of(name, next, versions.into()))
    }

    /// The request that imports this key elsewhere.
    pub(super) fn to_request(&self) -> ImportKeyRequest {
        ImportKeyRequest::whole(self.name.to_string(), self.to_stored(), self.next)
    }

    /// All versions, to be stored or exported.
    pub(super) fn to_stored(&self) -> Vec<StoredVersion> {
        let stored = |(number, version): (u32, &Version)| StoredVersion {
            number,
            key: version.key.encode().expose().to_vec(),
            imported: version.imported,
        };
        self.versions_from(0).map(stored).collect()
    }

    /// The same key with one more version.
    ///
    /// # Errors
    /// When there are no more numbers.
    pub(super) fn with(&self, version: Version) -> Result<Self, Error> {
        let next = self.next.checked_add(1).ok_or_else(|| Error::invalid("the key has had too many versions"))?;
        let versions = self.versions.iter().cloned().chain([(self.next, Arc::new(version))]).collect();
        Ok(Self::of(self.name.clone(), next, versions))
    }

    /// The same key without this version (0: the latest); none when that was the last one.
    ///
    /// # Errors
    /// When there is no such version.
    pub(super) fn without(&self, number: u32) -> Result<Option<Self>, Error> {
        let (number, _) = self.version(number)?;
        let versions: Versions = self.versions.iter().filter(|(other, _)| *other != number).cloned().collect();
        Ok((!versions.is_empty()).then(|| Self::of(self.name.clone(), self.next, versions)))
    }

    /// The version with this number, or the latest for 0.
    ///
    /// # Errors
    /// When there is no such version.
    pub fn version(&self, number: u32) -> Result<(u32, &Version), Error> {
        if number == 0 {
            return Ok(self.latest());
        }
        self.versions_from(number).next().filter(|(found, _)| *found == number).ok_or(Error::NoKey)
    }

    /// The latest version.
    pub fn latest(&self) -> (u32, &Version) {
        let (number, version) = self.versions.last().expect("a key has a version");
        (*number, version)
    }

    /// Decrypts with this version, or with whichever does it for 0: the one that did it last, then from the newest
    /// to the oldest.
    ///
    /// # Errors
    /// When there is no such version, or none decrypts it.
    pub fn decrypt(&self, number: u32, ciphertext: &[u8], context: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        if number != 0 {
            let (_, version) = self.version(number)?;
            return Ok(version.decrypt(ciphertext, context)?);
        }
        let hit = self.last_hit.load(Ordering::Relaxed);
        let first = self.versions_from(hit).next().filter(|(number, _)| *number == hit);
        let others = self.versions_from(0).rev().filter(|(number, _)| *number != hit);
        for (number, version) in first.into_iter().chain(others) {
            if let Ok(plaintext) = version.decrypt(ciphertext, context) {
                if number != hit {
                    self.last_hit.store(number, Ordering::Relaxed);
                }
                return Ok(plaintext);
            }
        }
        Err(Error::InvalidCiphertext)
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::crypto::SecretKey;

    fn made() -> Version {
        let key = Key::generate(Algorithm::Aes256, OffsetDateTime::UNIX_EPOCH, "").expect("random bytes");
        Version { key, imported: false }
    }

    fn ring() -> Ring {
        Ring::new(KeyName::parse("my-key").expect("a name"), made())
    }

    fn numbers(ring: &Ring) -> Vec<u32> {
        ring.versions_from(0).map(|(number, _)| number).collect()
    }

    #[test]
    fn numbers_are_never_used_twice() {
        let ring = ring().with(made()).expect("added").with(made()).expect("added");
        assert_eq!(numbers(&ring), [1, 2, 3]);
        let ring = ring.without(0).expect("there").expect("not the last");
        assert_eq!((numbers(&ring), ring.latest().0), (vec![1, 2], 2));
        let ring = ring.with(made()).expect("added");
        assert_eq!(numbers(&ring), [1, 2, 4]);
        let ring = ring.without(1).expect("there").expect("not the last").without(2).expect("there").expect("one left");
        assert!(matches!(ring.without(3), Err(Error::NoKey)));
        assert!(ring.without(4).expect("there").is_none());
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        let parse = |next, numbers: &[u32]| {
            let key = || made().key.encode().expose().to_vec();
            let stored = |number: &u32| StoredVersion { number: *number, key: key(), imported: false };
            Ring::of_stored(KeyName::parse("k").expect("a name"), next, numbers.iter().map(stored).collect()).is_ok()
        };
        assert!(parse(4, &[1, 3]) && parse(9, &[2]));
        assert!(!parse(3, &[1, 3]) && !parse(4, &[3, 1]) && !parse(4, &[1, 1]) && !parse(4, &[]));
    }

    #[test]
    fn every_version_decrypts_what_it_encrypted_also_when_it_is_not_named() {
        let mut ring = ring();
        let mut ciphertexts = Vec::new();
        for number in 1..=5 {
            let (latest, version) = ring.version(0).expect("the latest");
            assert_eq!(latest, number);
            ciphertexts.push(version.key.encrypt(b"message", b"context").expect("random bytes"));
            ring = ring.with(made()).expect("added");
        }
        for (at, ciphertext) in ciphertexts.iter().enumerate().chain(ciphertexts.iter().enumerate().rev()) {
            let number = u32::try_from(at).expect("few") + 1;
            assert_eq!(ring.decrypt(0, ciphertext, b"context").expect("decrypted").as_slice(), b"message");
            assert_eq!(ring.last_hit.load(Ordering::Relaxed), number);
            assert!(ring.decrypt(number, ciphertext, b"context").is_ok());
            assert!(matches!(ring.decrypt(number % 5 + 1, ciphertext, b"context"), Err(Error::InvalidCiphertext)));
            assert!(matches!(ring.decrypt(0, ciphertext, b"other"), Err(Error::InvalidCiphertext)));
            assert!(matches!(ring.decrypt(9, ciphertext, b"context"), Err(Error::NoKey)));
        }
    }

    #[test]
    fn an_imported_key_decrypts_whatever_its_bytes_encrypted() {
        let secret = || SecretKey::from_slice(&[7; 32]).expect("32 bytes");
        let at = OffsetDateTime::UNIX_EPOCH;
        for (source, target) in [(Algorithm::ChaCha20, Algorithm::Aes256), (Algorithm::Aes256, Algorithm::ChaCha20)] {
            let source = Key::import(secret(), source, at, "").expect("random bytes");
            let ciphertext = source.encrypt(b"message", b"").expect("random bytes");
            let key = || Key::import(secret(), target, at, "").expect("random bytes");
            let name = || KeyName::parse("k").expect("a name");
            let ring = Ring::new(name(), Version { key: key(), imported: true });
            assert_eq!(ring.decrypt(0, &ciphertext, b"").expect("decrypted").as_slice(), b"message");
            let ring = Ring::new(name(), Version { key: key(), imported: false });
            assert!(ring.decrypt(0, &ciphertext, b"").is_err());
        }
    }
}
