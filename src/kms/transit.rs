//! Transit keys: a kind of key of their own, with the formats and rules of the Transit engine of Vault and OpenBao.
//!
//! They share the names of an enclave with its other keys, and nothing else: no key serves two constructions.

pub mod backup;
mod change;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::Error;
use super::ring::{MAKER, VERSIONS};
use super::wire::{TransitKey, TransitVersion};
use crate::crypto::transit::{self, Kind, NotOpened, Secrets};
use crate::crypto::{NoRandom, base64};
use crate::name::TransitName;

pub use self::change::{Change, Config, What};

/// After so many encryptions of one version with random nonces a key should be rotated; at 2^32 it must have been.
const MANY: u64 = 1 << 31;

/// A transit key: one name, its settings, and its versions without a gap.
#[derive(Debug, Clone)]
pub struct Key {
    name: TransitName,
    settings: Settings,
    /// From the first available one to the latest; never empty.
    versions: Vec<Arc<Version>>,
    /// Whether it is about to be deleted: it encrypts nothing more. Only in a cluster is there such a time.
    is_retired: bool,
}

/// What is said of all versions of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// What it encrypts with.
    pub kind: Kind,
    /// Whether each context has a key of its own.
    pub derived: bool,
    /// Whether clients of the Vault-compatible API may delete it.
    pub deletion_allowed: bool,
    /// The first version that still decrypts: 1 or more.
    pub min_decryption: u32,
    /// The first version that still encrypts; 0: the latest only, unless a request names another.
    pub min_encryption: u32,
    /// The first version that was not trimmed; 0: none was.
    pub min_available: u32,
}

/// One version of a key.
#[derive(Debug)]
pub struct Version {
    secrets: Secrets,
    created_at: OffsetDateTime,
    /// Who made it; empty: not known.
    created_by: String,
    /// Encryptions since the start of the server.
    encryptions: AtomicU64,
}

/// Why something is not a transit key. It quotes nothing secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The kind is unknown.
    #[error("this type of key is not supported; write aes256-gcm96, aes128-gcm96 or chacha20-poly1305")]
    Kind,
    /// The bytes of a version have the wrong length.
    #[error("a version of the key, or its HMAC key, has the wrong length")]
    Length,
    /// No version, or too many.
    #[error("a key has 1 to {VERSIONS} versions")]
    Versions,
    /// The first versions that decrypt, encrypt and are available contradict each other.
    #[error("the minimum versions of the key make no sense")]
    Minima,
    /// The text that says who made a version is longer than any identity.
    #[error("the text that says who made a version of the key is longer than {MAKER} bytes")]
    Maker,
}

/// Why a key does not do what it is asked, in the words of Vault, which clients look for.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The text is no ciphertext.
    #[error(transparent)]
    Malformed(#[from] transit::Malformed),
    /// There is no such version yet.
    #[error("invalid ciphertext: version is too new")]
    TooNew,
    /// The version is older than `min_decryption`.
    #[error("ciphertext or signature version is disallowed by policy (too old)")]
    TooOld,
    /// The body is not base64.
    #[error("invalid ciphertext: could not decode base64")]
    NoBase64,
    /// The body is shorter than a nonce.
    #[error("invalid ciphertext length")]
    TooShort,
    /// The tag does not fit.
    #[error("{0}: message authentication failed")]
    NotAuthentic(&'static str),
    /// A derived key needs a context.
    #[error(
        "missing 'context' for key derivation; the key was created using a derived key, which means additional, \
         per-request information must be included in order to perform operations with the key"
    )]
    NoContext,
    /// The requested version is negative.
    #[error("requested version for encryption is negative")]
    Negative,
    /// There is no such version yet.
    #[error("requested version for encryption is higher than the latest key version")]
    NotYet,
    /// The version is older than `min_encryption`.
    #[error("requested version for encryption is less than the minimum encryption key version")]
    NoMore,
    /// There is no such version yet to sign with.
    #[error("key version does not exist; latest key version is {0}")]
    NoVersion(u32),
    /// What should be an HMAC is none, or of a version that must not be used.
    #[error("{0}")]
    Hmac(&'static str),
    /// The key is about to be deleted.
    #[error("key is being deleted")]
    Retired,
    /// The operating system gave no random bytes.
    #[error("internal server error")]
    NoRandom(#[from] NoRandom),
}

impl Refused {
    fn opening(kind: Kind, not_opened: NotOpened) -> Self {
        match not_opened {
            NotOpened::TooShort => Self::TooShort,
            NotOpened::NotAuthentic if kind == Kind::ChaCha20Poly1305 => Self::NotAuthentic("chacha20poly1305"),
            NotOpened::NotAuthentic => Self::NotAuthentic("cipher"),
        }
    }

    /// The same about an HMAC.
    fn of_hmac(self) -> Self {
        Self::Hmac(match self {
            Self::Malformed(transit::Malformed::Prefix) => "invalid HMAC to verify: no prefix",
            Self::Malformed(transit::Malformed::Fields) => "invalid HMAC: wrong number of fields",
            Self::Malformed(transit::Malformed::Version) => "invalid HMAC: version number could not be decoded",
            Self::TooNew => "invalid HMAC: version is too new",
            Self::TooOld => "cannot verify HMAC: version is too old (disallowed by policy)",
            Self::NoBase64 => "invalid base64 value",
            refused => return refused,
        })
    }
}

impl Version {
    /// A new version with random secrets.
    pub(super) fn generate(kind: Kind, created_at: OffsetDateTime, created_by: String) -> Result<Self, NoRandom> {
        Ok(Self { secrets: Secrets::generate(kind)?, created_at, created_by, encryptions: AtomicU64::new(0) })
    }

    fn of_message(kind: Kind, message: &TransitVersion) -> Result<Self, Malformed> {
        if message.created_by.len() > MAKER {
            return Err(Malformed::Maker);
        }
        let secrets = Secrets::of(kind, &message.key, &message.hmac_key).ok_or(Malformed::Length)?;
        let created_at = message.created_at.unwrap_or_default().to_time();
        Ok(Self { secrets, created_at, created_by: message.created_by.clone(), encryptions: AtomicU64::new(0) })
    }

    fn to_message(&self) -> TransitVersion {
        let (key, hmac_key) = self.secrets.expose();
        TransitVersion {
            key: key.to_vec(),
            hmac_key: hmac_key.to_vec(),
            created_at: Some(self.created_at.into()),
            created_by: self.created_by.clone(),
        }
    }

    /// When it was made.
    pub fn created_at(&self) -> OffsetDateTime {
        self.created_at
    }

    /// Who made it; empty: not known.
    pub fn created_by(&self) -> &str {
        &self.created_by
    }
}

impl Settings {
    /// The settings of a new key.
    pub fn new(kind: Kind, derived: bool) -> Self {
        Self { kind, derived, deletion_allowed: false, min_decryption: 1, min_encryption: 0, min_available: 0 }
    }

    /// Whether they fit a key with this latest version.
    fn fit(&self, latest: u32) -> bool {
        let Self { min_decryption, min_encryption, min_available, .. } = *self;
        (1..=latest).contains(&min_decryption)
            && (min_encryption == 0 || (min_decryption..=latest).contains(&min_encryption))
            && min_available <= min_decryption
            && (min_available == 0 || min_available <= min_encryption)
    }
}

impl Key {
    /// A key with one version.
    pub(super) fn new(name: TransitName, derived: bool, version: Version) -> Self {
        let settings = Settings::new(version.secrets.kind(), derived);
        Self { name, settings, versions: vec![Arc::new(version)], is_retired: false }
    }

    /// The key that a message describes.
    ///
    /// # Errors
    /// When it describes none.
    pub fn of_message(name: TransitName, message: &TransitKey) -> Result<Self, Malformed> {
        let kind = Kind::parse(&message.kind).ok_or(Malformed::Kind)?;
        if message.versions.is_empty() || message.versions.len() > VERSIONS {
            return Err(Malformed::Versions);
        }
        let versions = message.versions.iter().map(|version| Version::of_message(kind, version).map(Arc::new));
        let TransitKey { derived, deletion_allowed, min_decryption, min_encryption, min_available, .. } = *message;
        let settings = Settings { kind, derived, deletion_allowed, min_decryption, min_encryption, min_available };
        let key = Self { name, settings, versions: versions.collect::<Result<_, _>>()?, is_retired: false };
        // The next version must have a number, too.
        let latest = key.first().checked_add(key.count()).map(|next| next - 1).ok_or(Malformed::Versions)?;
        if settings.fit(latest) { Ok(key) } else { Err(Malformed::Minima) }
    }

    /// The same key, about to be deleted.
    pub(super) fn retiring(self) -> Self {
        Self { is_retired: true, ..self }
    }

    /// Whether it is about to be deleted.
    pub(super) fn is_retired(&self) -> bool {
        self.is_retired
    }

    /// The whole key, to be stored or exported.
    pub fn to_message(&self) -> TransitKey {
        let Settings { kind, derived, deletion_allowed, min_decryption, min_encryption, min_available } = self.settings;
        TransitKey {
            kind: kind.as_str().to_owned(),
            derived,
            deletion_allowed,
            min_decryption,
            min_encryption,
            min_available,
            versions: self.versions.iter().map(|version| version.to_message()).collect(),
        }
    }

    /// The name.
    pub fn name(&self) -> &TransitName {
        &self.name
    }

    /// What is said of all versions.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The versions with their numbers, from this number on.
    pub fn versions_from(&self, first: u32) -> impl Iterator<Item = (u32, &Version)> {
        let numbered = (self.first()..).zip(self.versions.iter().map(|version| &**version));
        numbered.skip_while(move |(number, _)| *number < first)
    }

    /// The number of the latest version.
    pub fn latest(&self) -> u32 {
        self.first() + self.count() - 1
    }

    /// The version with this number, or the latest for 0.
    pub fn version(&self, number: u32) -> Option<(u32, &Version)> {
        let number = if number == 0 { self.latest() } else { number };
        let at = number.checked_sub(self.first()).and_then(|at| usize::try_from(at).ok())?;
        self.versions.get(at).map(|version| (number, &**version))
    }

    fn first(&self) -> u32 {
        self.settings.min_available.max(1)
    }

    fn count(&self) -> u32 {
        u32::try_from(self.versions.len()).expect("a key has few versions")
    }

    /// Encrypts with a version, or the latest for 0; for a derived key with the key of the context. Returns the number
    /// of the version and the ciphertext.
    ///
    /// # Errors
    /// When that version must not encrypt, or the context is missing.
    pub fn encrypt(
        &self,
        version: i64,
        context: Option<&[u8]>,
        associated: &[u8],
        plaintext: &[u8],
    ) -> Result<(u32, String), Refused> {
        let (number, version) = self.encrypting(version)?;
        let context = self.context(context)?;
        let body = version.secrets.seal(context, associated, plaintext)?;
        if version.encryptions.fetch_add(1, Ordering::Relaxed) + 1 == MANY && context.is_none() {
            tracing::warn!(key = %self.name, version = number, "a version of a transit key has encrypted 2^31 times since the start; rotate the key before 2^32 encryptions");
        }
        Ok((number, transit::join(number, &body)))
    }

    /// The version that encrypts for a request.
    fn encrypting(&self, number: i64) -> Result<(u32, &Version), Refused> {
        if self.is_retired {
            return Err(Refused::Retired);
        }
        if number < 0 {
            return Err(Refused::Negative);
        }
        let number = u32::try_from(number).map_err(|_| Refused::NotYet)?;
        let number = if number == 0 { self.latest() } else { number };
        if number > self.latest() {
            return Err(Refused::NotYet);
        }
        if number < self.settings.min_encryption {
            return Err(Refused::NoMore);
        }
        self.version(number).ok_or(Refused::NoMore)
    }

    /// Decrypts a ciphertext.
    ///
    /// # Errors
    /// When it is none of this key for this context and associated data, or of a version that must not decrypt.
    pub fn decrypt(
        &self,
        ciphertext: &str,
        context: Option<&[u8]>,
        associated: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Refused> {
        let (number, body) = transit::split(ciphertext)?;
        let version = self.decrypting(number)?;
        let context = self.context(context)?;
        let body = base64::decode(body.as_bytes()).ok_or(Refused::NoBase64)?;
        let opened = version.secrets.open(context, associated, &body);
        opened.map_err(|not_opened| Refused::opening(self.settings.kind, not_opened))
    }

    fn decrypting(&self, number: i64) -> Result<&Version, Refused> {
        if number > i64::from(self.latest()) {
            return Err(Refused::TooNew);
        }
        if number < i64::from(self.settings.min_decryption) {
            return Err(Refused::TooOld);
        }
        let found = u32::try_from(number).ok().and_then(|number| self.version(number));
        found.map(|(_, version)| version).ok_or(Refused::TooOld)
    }

    /// The HMAC of a message under the HMAC key of a version, or of the latest for 0.
    ///
    /// # Errors
    /// When that version must not be used.
    pub fn hmac(&self, version: i64, message: &[u8]) -> Result<String, Refused> {
        let (number, version) = self.encrypting(version).map_err(|refused| match refused {
            Refused::NoMore => Refused::Hmac("cannot generate HMAC: version is too old (disallowed by policy)"),
            Refused::Retired => Refused::Retired,
            _ => Refused::NoVersion(self.latest()),
        })?;
        Ok(transit::join(number, &version.secrets.hmac(message)))
    }

    /// Whether `hmac` is what [`Self::hmac`] made of the message.
    ///
    /// # Errors
    /// When it is none, or of a version that must not be used.
    pub fn verify_hmac(&self, hmac: &str, message: &[u8]) -> Result<bool, Refused> {
        let verify = || {
            let (number, tag) = transit::split(hmac)?;
            let version = self.decrypting(number)?;
            let tag = base64::decode(tag.as_bytes()).ok_or(Refused::NoBase64)?;
            Ok(version.secrets.verify_hmac(message, &tag))
        };
        verify().map_err(Refused::of_hmac)
    }

    /// The context that counts: none of a key that is not derived, whatever a client sends.
    fn context<'c>(&self, context: Option<&'c [u8]>) -> Result<Option<&'c [u8]>, Refused> {
        match context {
            _ if !self.settings.derived => Ok(None),
            Some(context) if !context.is_empty() => Ok(Some(context)),
            _ => Err(Refused::NoContext),
        }
    }

    /// The same key with one more version.
    ///
    /// # Errors
    /// When it has as many versions as a key can have.
    pub(super) fn with(&self, version: Version) -> Result<Self, Error> {
        if self.versions.len() >= VERSIONS || self.latest().checked_add(2).is_none() {
            let many = format!("the key has {VERSIONS} versions already, and no key can have more; trim it first");
            return Err(Error::Conflict(many.into()));
        }
        let mut key = self.clone();
        key.versions.push(Arc::new(version));
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(kind: Kind) -> Version {
        Version::generate(kind, OffsetDateTime::UNIX_EPOCH, String::new()).expect("random bytes")
    }

    fn key(derived: bool) -> Key {
        Key::new(TransitName::parse("my.key").expect("a name"), derived, made(Kind::Aes256Gcm))
    }

    #[test]
    fn every_version_decrypts_what_it_encrypted() {
        let mut key = key(false);
        let mut ciphertexts = Vec::new();
        for number in 1..=3 {
            let (by, ciphertext) = key.encrypt(0, None, b"bound", b"message").expect("encrypted");
            assert_eq!(by, number);
            assert!(ciphertext.starts_with(&format!("vault:v{number}:")));
            ciphertexts.push(ciphertext);
            key = key.with(made(Kind::Aes256Gcm)).expect("rotated");
        }
        for ciphertext in &ciphertexts {
            assert_eq!(key.decrypt(ciphertext, None, b"bound").expect("decrypted").as_slice(), b"message");
            // The context of a key that is not derived is passed over.
            assert_eq!(key.decrypt(ciphertext, Some(b"any"), b"bound").expect("decrypted").as_slice(), b"message");
            assert!(matches!(key.decrypt(ciphertext, None, b""), Err(Refused::NotAuthentic(_))));
        }
        assert_eq!(key.encrypt(2, None, b"", b"").expect("encrypted").0, 2);
        assert!(matches!(key.encrypt(5, None, b"", b""), Err(Refused::NotYet)));
        assert!(matches!(key.encrypt(-1, None, b"", b""), Err(Refused::Negative)));
        assert!(matches!(key.encrypt(i64::MAX, None, b"", b""), Err(Refused::NotYet)));
        assert!(matches!(key.decrypt("vault:v5:AAAA", None, b""), Err(Refused::TooNew)));
        assert!(matches!(key.decrypt("vault:v-1:AAAA", None, b""), Err(Refused::TooOld)));
        assert!(matches!(key.decrypt("vault:v1:A", None, b""), Err(Refused::NoBase64)));
        assert!(matches!(key.decrypt("vault:v1:AAAA", None, b""), Err(Refused::TooShort)));
    }

    #[test]
    fn a_derived_key_needs_the_context() {
        let key = key(true);
        assert!(matches!(key.encrypt(0, None, b"", b"m"), Err(Refused::NoContext)));
        assert!(matches!(key.encrypt(0, Some(b""), b"", b"m"), Err(Refused::NoContext)));
        let (_, ciphertext) = key.encrypt(0, Some(b"one"), b"", b"m").expect("encrypted");
        assert_eq!(key.decrypt(&ciphertext, Some(b"one"), b"").expect("decrypted").as_slice(), b"m");
        assert!(matches!(key.decrypt(&ciphertext, Some(b"two"), b""), Err(Refused::NotAuthentic(_))));
    }

    #[test]
    fn hmacs_are_verified() {
        let key = key(false).with(made(Kind::Aes256Gcm)).expect("rotated");
        let old = key.hmac(1, b"input").expect("signed");
        assert!(old.starts_with("vault:v1:") && key.verify_hmac(&old, b"input").expect("an HMAC"));
        assert!(!key.verify_hmac(&old, b"other").expect("an HMAC"));
        assert!(!key.verify_hmac(&old.replace(":v1:", ":v2:"), b"input").expect("an HMAC"));
        assert!(!key.verify_hmac("vault:v1:AAAA", b"input").expect("an HMAC"));
        assert!(matches!(key.verify_hmac("AAAA", b"input"), Err(Refused::Hmac(_))));
    }

    #[test]
    fn a_message_holds_all_of_a_key_and_nonsense_is_refused() {
        let key = key(true).with(made(Kind::Aes256Gcm)).expect("rotated");
        let message = key.to_message();
        let again = Key::of_message(key.name.clone(), &message).expect("a key");
        assert_eq!(again.to_message(), message);
        let wrong = |change: fn(&mut TransitKey)| {
            let mut message = message.clone();
            change(&mut message);
            Key::of_message(key.name.clone(), &message).expect_err("refused")
        };
        assert_eq!(wrong(|key| key.kind = "xchacha20-poly1305".into()), Malformed::Kind);
        assert_eq!(wrong(|key| key.kind = "aes128-gcm96".into()), Malformed::Length);
        assert_eq!(wrong(|key| key.versions.clear()), Malformed::Versions);
        assert_eq!(wrong(|key| key.versions[0].created_by = "x".repeat(MAKER + 1)), Malformed::Maker);
        for (decryption, encryption, available) in
            [(0, 0, 0), (3, 0, 0), (1, 3, 0), (2, 1, 0), (1, 0, 1), (1, 2, 2), (4, 4, 5), (1, 0, u32::MAX)]
        {
            let mut message = message.clone();
            (message.min_decryption, message.min_encryption) = (decryption, encryption);
            message.min_available = available;
            assert!(Key::of_message(key.name.clone(), &message).is_err(), "{decryption} {encryption} {available}");
        }
    }
}
