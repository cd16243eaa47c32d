//! Keys: rings of versions, whose numbers are never used twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use zeroize::Zeroizing;

use super::Error;
use super::map::Map;
use super::turn::Turn;
use super::wire::{ImportKeyRequest, StoredVersion};
use crate::auth::enclave::Identity;
use crate::crypto::{Algorithm, Blob, Key, NotAuthentic, key};
use crate::name::KeyName;

/// The most versions of a key. It allows daily rotation for eleven years, and the request that imports the key
/// elsewhere stays within its size limit.
pub(super) const VERSIONS: usize = 4_000;

/// The longest text that says who made a version of a key that is imported, in bytes. Identities have at most 80.
pub(super) const MAKER: usize = 256;

/// A key as clients see it: one name, and a master key for each version.
#[derive(Debug)]
pub struct Ring {
    pub(super) name: KeyName,
    /// The number of the next version.
    pub(super) next: u32,
    latest: (u32, Arc<Version>),
    /// All other versions. Most keys have none, and there may be a million keys.
    older: Option<Map<u32, Version>>,
    /// How many versions there are.
    count: u32,
    /// The numbers of the versions that are about to be deleted: they encrypt nothing more. Only in a cluster is there
    /// such a time.
    retired: Option<Arc<Vec<u32>>>,
    /// The version that last decrypted a ciphertext for a request without a version number.
    last_hit: AtomicU32,
}

/// Why stored versions are not a valid key.
#[derive(Debug, thiserror::Error)]
pub(super) enum Malformed {
    /// The numbers must be 1 or more, in ascending order, and smaller than that of the next version.
    #[error("the numbers of the key's versions make no sense")]
    Numbers,
    /// There are more than [`VERSIONS`].
    #[error("a key has at most {VERSIONS} versions")]
    TooMany,
    /// The text that says who made a version is longer than any identity.
    #[error("the text that says who made a version of the key is longer than {MAKER} bytes")]
    Maker,
    /// A version is not a valid key.
    #[error(transparent)]
    Key(#[from] key::Error),
}

/// One version of a key.
#[derive(Debug)]
pub struct Version {
    pub(super) key: Key,
    /// Whether the key was imported from another system, where its type may have been different.
    pub(super) imported: bool,
}

impl Version {
    /// Who made it. An identity in the form of a KES is converted, because clients can only read the key manager's
    /// form.
    pub(super) fn created_by(&self) -> String {
        let stored = self.key.created_by().unwrap_or_default();
        let here = || Identity::of(&crate::auth::Identity::parse(stored).ok()?);
        stored.parse().ok().or_else(here).map(|identity| identity.to_string()).unwrap_or_default()
    }

    /// The algorithm that clients see.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.key.algorithm().unwrap_or(Algorithm::Aes256)
    }

    /// Decrypts what it has encrypted.
    ///
    /// # Errors
    /// When it has not encrypted it.
    pub(super) fn decrypt(&self, ciphertext: &[u8], context: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotAuthentic> {
        if self.imported { self.key.decrypt_either(ciphertext, context) } else { self.key.decrypt(ciphertext, context) }
    }
}

impl Ring {
    /// A key with one version.
    pub fn new(name: KeyName, version: Version) -> Self {
        Self::of(name, 2, (1, Arc::new(version)), None, 1)
    }

    fn of(name: KeyName, next: u32, latest: (u32, Arc<Version>), older: Option<Map<u32, Version>>, count: u32) -> Self {
        Self { name, next, latest, older, count, retired: None, last_hit: AtomicU32::new(0) }
    }

    /// The same key of which these versions, and no others, encrypt nothing more. Numbers without a version are ignored.
    pub(super) fn retiring(mut self, numbers: &[u32]) -> Self {
        let retired: Vec<_> = numbers.iter().copied().filter(|number| self.has(*number)).collect();
        self.retired = (!retired.is_empty()).then(|| Arc::new(retired));
        self
    }

    /// The same key.
    pub(super) fn same(&self) -> Self {
        let (latest, older) = (self.latest.clone(), self.older.clone());
        Self::of(self.name.clone(), self.next, latest, older, self.count).retiring(self.retired())
    }

    /// The same key of which these versions, and no others, encrypt nothing more.
    pub(super) fn same_retiring(&self, numbers: &[u32]) -> Self {
        self.same().retiring(numbers)
    }

    /// The numbers of the versions that encrypt nothing more.
    pub(super) fn retired(&self) -> &[u32] {
        self.retired.as_ref().map_or(&[], |retired| retired)
    }

    fn has(&self, number: u32) -> bool {
        number != 0 && self.version(number).is_ok()
    }

    /// The version with this number, or the newest one for 0, if it may encrypt.
    ///
    /// # Errors
    /// When there is no such version, or it is about to be deleted.
    pub fn encrypting(&self, number: u32) -> Result<(u32, &Version), Error> {
        let Some(retired) = &self.retired else { return self.version(number) };
        let (number, version) = match number {
            0 => self.newest_first().find(|(number, _)| !retired.contains(number)).ok_or(Error::KeyRetired)?,
            number => self.version(number)?,
        };
        if retired.contains(&number) { Err(Error::KeyRetired) } else { Ok((number, version)) }
    }

    fn newest_first(&self) -> impl Iterator<Item = (u32, &Version)> {
        let older = self.older.iter().flat_map(Map::iter_back).map(|(number, version)| (*number, &**version));
        std::iter::once(self.latest()).chain(older)
    }

    /// How many versions there are.
    pub(super) fn count(&self) -> usize {
        usize::try_from(self.count).unwrap_or(usize::MAX)
    }

    /// The versions with their numbers, from this number on.
    pub(super) fn versions_from(&self, first: u32) -> impl Iterator<Item = (u32, &Version)> {
        let older = self.older.iter().flat_map(move |older| older.range_from(&first));
        let latest = Some((&self.latest.0, &self.latest.1)).filter(|(number, _)| **number >= first);
        older.chain(latest).map(|(number, version)| (*number, &**version))
    }

    /// A key with all its stored versions. A single version without a number is version 1.
    ///
    /// # Errors
    /// What is wrong with the versions. It contains no key material.
    pub(super) fn of_stored(name: KeyName, next: u32, stored: Vec<StoredVersion>) -> Result<Self, Malformed> {
        Self::parse(name, next, stored, |value| Ok(Key::parse(value)?))
    }

    /// A key with all its versions from a request. It must obey the limits of keys that are made here, and nothing of
    /// it is lost or changed.
    ///
    /// # Errors
    /// What is wrong with it. It contains no key material.
    pub(super) fn of_request(name: KeyName, next: u32, versions: Vec<StoredVersion>) -> Result<Self, Malformed> {
        if versions.len() > VERSIONS {
            return Err(Malformed::TooMany);
        }
        Self::parse(name, next, versions, |value| {
            let key = Key::parse_new(value)?;
            let maker = key.created_by().unwrap_or_default();
            if maker.len() > MAKER { Err(Malformed::Maker) } else { Ok(key) }
        })
    }

    fn parse(
        name: KeyName,
        next: u32,
        stored: Vec<StoredVersion>,
        parse: impl Fn(&Blob) -> Result<Key, Malformed>,
    ) -> Result<Self, Malformed> {
        let is_single = stored.len() == 1;
        let (mut versions, mut last) = (Vec::with_capacity(stored.len()), 0);
        for mut version in stored {
            let number = if is_single { version.number.max(1) } else { version.number };
            if number <= last {
                return Err(Malformed::Numbers);
            }
            last = number;
            let key = parse(&std::mem::take(&mut version.key).into())?;
            versions.push((number, Arc::new(Version { key, imported: version.imported })));
        }
        let count = u32::try_from(versions.len()).map_err(|_| Malformed::Numbers)?;
        let latest = versions.pop().ok_or(Malformed::Numbers)?;
        let following = last.checked_add(1).ok_or(Malformed::Numbers)?;
        let next = if next == 0 { following } else { next };
        if next < following {
            return Err(Malformed::Numbers);
        }
        let older = (!versions.is_empty()).then(|| Map::of_sorted(versions.into_iter()));
        Ok(Self::of(name, next, latest, older, count))
    }

    /// The request that imports this key elsewhere.
    ///
    /// # Errors
    /// When a version is about to be deleted.
    pub(super) fn to_request(&self) -> Result<ImportKeyRequest, Error> {
        if self.retired.is_some() {
            return Err(Error::KeyRetired);
        }
        Ok(ImportKeyRequest::whole(self.name.to_string(), self.to_stored(), self.next))
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
    /// When it has as many versions as a key can have, no number is left, or all of it is about to be deleted.
    pub(super) fn with(&self, version: Version) -> Result<Self, Error> {
        self.encrypting(0)?;
        if self.count() >= VERSIONS {
            let many = format!("the key has {VERSIONS} versions already, and no key can have more; delete some first");
            return Err(Error::Conflict(many.into()));
        }
        let next = self.next.checked_add(1).ok_or_else(|| Error::invalid("the key has had too many versions"))?;
        let mut older = self.older.clone().unwrap_or_default();
        older.insert(self.latest.0, self.latest.1.clone());
        let latest = (self.next, Arc::new(version));
        Ok(Self::of(self.name.clone(), next, latest, Some(older), self.count + 1).retiring(self.retired()))
    }

    /// The same key without this version (0: the latest); `None` when no version is left.
    ///
    /// # Errors
    /// When there is no such version.
    pub(super) fn without(&self, number: u32) -> Result<Option<Self>, Error> {
        let (number, _) = self.version(number)?;
        let Some(mut older) = self.older.clone() else { return Ok(None) };
        let latest = if number == self.latest.0 {
            let last = older.last().map(|(number, version)| (*number, version.clone()));
            let Some(last) = last else { return Ok(None) };
            older.remove(&last.0);
            last
        } else {
            older.remove(&number);
            self.latest.clone()
        };
        let older = Some(older).filter(|older| older.last().is_some());
        let ring = Self::of(self.name.clone(), self.next, latest, older, self.count.saturating_sub(1));
        Ok(Some(ring.retiring(self.retired())))
    }

    /// The version with this number, or the latest for 0.
    ///
    /// # Errors
    /// When there is no such version.
    pub fn version(&self, number: u32) -> Result<(u32, &Version), Error> {
        if number == 0 || number == self.latest.0 {
            return Ok(self.latest());
        }
        let older = self.older.as_ref().and_then(|older| older.get(&number));
        older.map(|version| (number, &**version)).ok_or(Error::NoKey)
    }

    /// The latest version.
    pub fn latest(&self) -> (u32, &Version) {
        (self.latest.0, &self.latest.1)
    }

    /// Decrypts what any of the versions has encrypted; returns the number of that version, too. It pauses for others.
    ///
    /// # Errors
    /// When none has encrypted it.
    pub(super) async fn decrypt_any(
        &self,
        ciphertext: &[u8],
        context: &[u8],
        turn: &mut Turn,
    ) -> Result<(u32, Zeroizing<Vec<u8>>), NotAuthentic> {
        for (number, version) in self.likeliest() {
            if let Ok(plaintext) = version.decrypt(ciphertext, context) {
                self.hit(number);
                return Ok((number, plaintext));
            }
            turn.pass().await;
        }
        Err(NotAuthentic)
    }

    /// All versions, in the order in which to try them: first the one that succeeded last, then from the newest to the
    /// oldest.
    fn likeliest(&self) -> impl Iterator<Item = (u32, &Version)> {
        let hit = self.last_hit.load(Ordering::Relaxed);
        let first = if hit == 0 { None } else { self.version(hit).ok() };
        let others = self.newest_first().filter(move |(number, _)| *number != hit);
        first.into_iter().chain(others)
    }

    /// Notes that this version has decrypted something.
    fn hit(&self, number: u32) {
        // Written only when it changes, because other threads read it all the time.
        if self.last_hit.load(Ordering::Relaxed) != number {
            self.last_hit.store(number, Ordering::Relaxed);
        }
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
    fn what_is_about_to_be_deleted_encrypts_nothing_more() {
        let ring = ring().with(made()).expect("added").with(made()).expect("added").retiring(&[3, 9]);
        assert_eq!((ring.retired(), ring.latest().0), (&[3][..], 3));
        assert_eq!(ring.encrypting(0).expect("one is left").0, 2);
        assert!(
            matches!(ring.encrypting(3), Err(Error::KeyRetired)) && matches!(ring.encrypting(9), Err(Error::NoKey))
        );
        assert!(ring.encrypting(1).is_ok() && ring.version(3).is_ok() && ring.to_request().is_err());
        let ring = ring.with(made()).expect("another is left");
        assert_eq!((ring.retired(), ring.encrypting(0).expect("the new one").0), (&[3][..], 4));
        let ring = ring.without(3).expect("there").expect("not the last");
        assert!(ring.retired().is_empty() && ring.to_request().is_ok());
        let ring = ring.retiring(&[1, 2, 4]);
        assert!(
            matches!(ring.encrypting(0), Err(Error::KeyRetired)) && matches!(ring.with(made()), Err(Error::KeyRetired))
        );
    }

    #[test]
    fn a_key_has_so_many_versions_and_no_more() {
        let mut ring = ring();
        for _ in 1..VERSIONS {
            ring = ring.with(made()).expect("added");
        }
        assert_eq!(
            (ring.count(), ring.versions_from(0).count(), ring.likeliest().count()),
            (VERSIONS, VERSIONS, VERSIONS)
        );
        assert!(matches!(ring.with(made()), Err(Error::Conflict(_))));
        let again = Ring::of_request(ring.name.clone(), ring.next, ring.to_stored()).expect("it can be imported");
        assert_eq!((numbers(&again), again.next), (numbers(&ring), ring.next));
        let size = prost::Message::encoded_len(&ring.to_request().expect("nothing is retired"));
        assert!(size + VERSIONS * 70 < 1_000_000, "also with the names of who made them it fits a request: {size}");
        let ring = ring.without(7).expect("there").expect("not the last");
        let ring = ring.with(made()).expect("there is room again");
        let mut more = ring.to_stored();
        more.push(StoredVersion { number: ring.next, key: made().key.encode().expose().to_vec(), imported: false });
        assert!(matches!(Ring::of_request(ring.name.clone(), 0, more.clone()), Err(Malformed::TooMany)));
        let stored = Ring::of_stored(ring.name.clone(), 0, more).expect("what is on disk is read");
        assert!(stored.with(made()).is_err());
    }

    #[test]
    fn a_key_that_is_taken_in_names_no_endless_maker() {
        for (len, is_taken) in [(MAKER, true), (MAKER + 1, false)] {
            let key = made().key.of(&"m".repeat(len)).encode().expose().to_vec();
            let stored = StoredVersion { number: 1, key, imported: false };
            assert_eq!(Ring::of_request(KeyName::parse("k").expect("a name"), 0, vec![stored]).is_ok(), is_taken);
        }
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
            let found =
                |context: &[u8]| ring.likeliest().find(|(_, version)| version.decrypt(ciphertext, context).is_ok());
            assert_eq!(found(b"context").map(|(number, _)| number), Some(number));
            assert!(found(b"other").is_none());
            ring.hit(number);
            assert_eq!(ring.likeliest().next().map(|(number, _)| number), Some(number));
            assert_eq!(ring.likeliest().count(), 6);
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
            assert_eq!(ring.latest().1.decrypt(&ciphertext, b"").expect("decrypted").as_slice(), b"message");
            let ring = Ring::new(name(), Version { key: key(), imported: false });
            assert!(ring.latest().1.decrypt(&ciphertext, b"").is_err());
        }
    }
}
