//! Entries of the key/value engine: small JSON documents under a path, each with its last versions, as version 2 of that
//! engine of Vault and OpenBao has them. No command of the key manager's own protocol shows them.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::Error;
use super::draft::Author;
use super::map::{self, Map};
use super::ring::MAKER;
use super::wire::{SecretEntry, SecretVersion};
use crate::name::SecretPath;

/// How many versions are kept, the last ones.
pub const VERSIONS: u32 = 10;

/// The largest document, in bytes.
pub const DOCUMENT: usize = 64 << 10;

/// The most entries of an enclave.
const ENTRIES: usize = 10_000;

/// What all entries of an enclave may hold together, in bytes: all of it stays in memory.
const ALL: usize = 64 << 20;

/// What a version takes beside its document, in bytes, about.
const OVERHEAD: usize = 256;

/// A JSON document.
#[derive(Clone, PartialEq, Eq)]
pub struct Document(Zeroizing<String>);

impl Document {
    /// A copy of JSON that was parsed.
    pub fn new(json: &str) -> Self {
        Self(Zeroizing::new(json.to_owned()))
    }

    /// The JSON. Every call is a place to review.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Document({} bytes, redacted)", self.0.len())
    }
}

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    path: SecretPath,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
    /// The number of the latest version.
    latest: u32,
    /// The last ones, in order and without a gap; never empty.
    versions: Vec<Arc<Version>>,
}

/// A version of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    created_at: OffsetDateTime,
    created_by: String,
    /// When it was deleted. It can be brought back as long as it is not destroyed.
    deleted_at: Option<OffsetDateTime>,
    /// None: it was destroyed.
    document: Option<Document>,
}

impl Version {
    /// When it was made.
    pub fn created_at(&self) -> OffsetDateTime {
        self.created_at
    }

    /// When it was deleted, if it was.
    pub fn deleted_at(&self) -> Option<OffsetDateTime> {
        self.deleted_at
    }

    /// Whether it was destroyed.
    pub fn is_destroyed(&self) -> bool {
        self.document.is_none()
    }

    /// What clients may read of it.
    pub fn document(&self) -> Option<&Document> {
        self.document.as_ref().filter(|_| self.deleted_at.is_none())
    }
}

/// Why an entry on the disk is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl Secret {
    /// The path.
    pub fn path(&self) -> &SecretPath {
        &self.path
    }

    /// When its first version was made.
    pub fn created_at(&self) -> OffsetDateTime {
        self.created_at
    }

    /// When its latest version was made.
    pub fn updated_at(&self) -> OffsetDateTime {
        self.updated_at
    }

    /// The number of the latest version.
    pub fn latest(&self) -> u32 {
        self.latest
    }

    /// The number of the first version that is kept, as Vault counts: 0 until the next version takes the place of one.
    pub fn oldest(&self) -> u32 {
        if self.latest < VERSIONS { 0 } else { self.first() }
    }

    fn first(&self) -> u32 {
        self.latest + 1 - u32::try_from(self.versions.len()).expect("they are few")
    }

    /// All versions that are kept, with their numbers.
    pub fn versions(&self) -> impl Iterator<Item = (u32, &Version)> {
        (self.first()..).zip(self.versions.iter().map(|version| &**version))
    }

    /// The version with this number, or the latest for 0 and for what is below.
    pub fn version(&self, number: i64) -> Option<(u32, &Version)> {
        let number = if number <= 0 { i64::from(self.latest) } else { number };
        self.versions().find(|(other, _)| i64::from(*other) == number)
    }

    /// About what it takes in memory, in bytes.
    fn size(&self) -> usize {
        let document = |version: &Arc<Version>| version.document.as_ref().map_or(0, |document| document.0.len());
        let versions: usize = self.versions.iter().map(|version| OVERHEAD + document(version)).sum();
        OVERHEAD + self.path.as_str().len() + versions
    }

    /// The entry with one more version. The oldest one goes where there are too many.
    fn with(existing: Option<&Self>, path: &SecretPath, document: &Document, author: Author) -> Result<Self, Error> {
        let (now, created_by) = (author.now, author.caller.to_string());
        let version = Version { created_at: now, created_by, deleted_at: None, document: Some(document.clone()) };
        let mut secret = existing.cloned().unwrap_or_else(|| Self {
            path: path.clone(),
            created_at: now,
            updated_at: now,
            latest: 0,
            versions: Vec::new(),
        });
        let full = || Error::Conflict("this entry can have no more versions".into());
        secret.latest = secret.latest.checked_add(1).filter(|latest| *latest < u32::MAX).ok_or_else(full)?;
        secret.updated_at = now;
        let gone = (secret.versions.len() + 1).saturating_sub(VERSIONS as usize);
        secret.versions.drain(..gone);
        secret.versions.push(Arc::new(version));
        Ok(secret)
    }

    /// The entry with some of its versions changed.
    fn changed(&self, numbers: &[i64], change: impl Fn(&mut Version)) -> Self {
        let (mut secret, first) = (self.clone(), i64::from(self.first()));
        for (number, version) in (first..).zip(&mut secret.versions) {
            if numbers.contains(&number) {
                change(Arc::make_mut(version));
            }
        }
        secret
    }

    /// What stands on the disk.
    pub(super) fn to_message(&self) -> SecretEntry {
        let version = |version: &Arc<Version>| SecretVersion {
            created_at: Some(version.created_at.into()),
            created_by: version.created_by.clone(),
            deleted_at: version.deleted_at.map(Into::into),
            is_destroyed: version.is_destroyed(),
            document: version.document.as_ref().map_or_else(String::new, |document| document.0.to_string()),
        };
        SecretEntry {
            created_at: Some(self.created_at.into()),
            updated_at: Some(self.updated_at.into()),
            latest: self.latest,
            versions: self.versions.iter().map(version).collect(),
        }
    }

    /// The entry that a message describes.
    ///
    /// # Errors
    /// When it describes none.
    pub(super) fn of_message(path: SecretPath, mut message: SecretEntry) -> Result<Self, Malformed> {
        let count = u32::try_from(message.versions.len()).map_err(|_| Malformed)?;
        if !(1..=VERSIONS).contains(&count) || message.latest < count || message.latest == u32::MAX {
            return Err(Malformed);
        }
        let version = |version: &mut SecretVersion| {
            if version.created_by.len() > MAKER {
                return Err(Malformed);
            }
            let document = Document(Zeroizing::new(std::mem::take(&mut version.document)));
            Ok(Arc::new(Version {
                created_at: version.created_at.unwrap_or_default().to_time(),
                created_by: std::mem::take(&mut version.created_by),
                deleted_at: version.deleted_at.map(|at| at.to_time()),
                document: (!version.is_destroyed).then_some(document),
            }))
        };
        Ok(Self {
            path,
            created_at: message.created_at.unwrap_or_default().to_time(),
            updated_at: message.updated_at.unwrap_or_default().to_time(),
            latest: message.latest,
            versions: message.versions.iter_mut().map(version).collect::<Result<_, _>>()?,
        })
    }
}

/// A change of one entry.
#[derive(Debug, Clone)]
pub struct Change {
    /// The path of the entry.
    pub path: SecretPath,
    /// What becomes of it.
    pub what: What,
}

/// What becomes of an entry. Where there is none, all but the first change nothing.
#[derive(Debug, Clone)]
pub enum What {
    /// It gets one more version.
    Write {
        /// The document.
        document: Document,
        /// The number of the latest version, or 0 for none, if the change is to be refused when that is another one.
        expected: Option<i64>,
        /// Is told the number of the new version.
        number: Number,
    },
    /// Versions with these numbers, or the latest one, can no longer be read.
    Delete(Option<Vec<i64>>),
    /// Versions with these numbers can be read again.
    Undelete(Vec<i64>),
    /// The documents of versions with these numbers are removed.
    Destroy(Vec<i64>),
    /// The entry is removed with all versions.
    Remove,
}

/// The number of the version that a change has made.
#[derive(Debug, Clone, Default)]
pub struct Number(Arc<AtomicU32>);

impl Number {
    /// The number; 0: there is none yet.
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Change {
    pub(super) fn name(&self) -> &str {
        self.path.as_str()
    }

    /// Details for the log.
    pub(super) fn detail(&self) -> Cow<'static, str> {
        match &self.what {
            What::Write { .. } => "new version".into(),
            What::Delete(None) => "latest version".into(),
            What::Delete(Some(numbers)) => format!("{} versions", numbers.len()).into(),
            What::Undelete(numbers) => format!("{} versions brought back", numbers.len()).into(),
            What::Destroy(numbers) => format!("{} versions destroyed", numbers.len()).into(),
            What::Remove => "all versions".into(),
        }
    }

    /// What the entry is after the change; none: it goes.
    ///
    /// # Errors
    /// When the change is refused.
    pub(super) fn apply(&self, existing: Option<&Secret>, author: Author) -> Result<Option<Secret>, Error> {
        let secret = match (&self.what, existing) {
            (What::Write { document, expected, number }, existing) => {
                let latest = existing.map_or(0, |secret| i64::from(secret.latest));
                if expected.is_some_and(|expected| expected != latest) {
                    return Err(Error::invalid("check-and-set parameter did not match the current version"));
                }
                let secret = Secret::with(existing, &self.path, document, author)?;
                number.0.store(secret.latest, Ordering::Relaxed);
                secret
            }
            (_, None) | (What::Remove, _) => return Ok(None),
            (What::Delete(numbers), Some(secret)) => {
                let latest = [i64::from(secret.latest)];
                let numbers = numbers.as_deref().unwrap_or(&latest);
                let delete = |version: &mut Version| {
                    if !version.is_destroyed() {
                        version.deleted_at.get_or_insert(author.now);
                    }
                };
                secret.changed(numbers, delete)
            }
            (What::Undelete(numbers), Some(secret)) => secret.changed(numbers, |version| {
                if !version.is_destroyed() {
                    version.deleted_at = None;
                }
            }),
            (What::Destroy(numbers), Some(secret)) => secret.changed(numbers, |version| version.document = None),
        };
        Ok(Some(secret))
    }
}

/// All entries of an enclave.
#[derive(Debug, Clone, Default)]
pub(super) struct Secrets {
    entries: Map<SecretPath, Secret>,
    count: usize,
    /// What they hold together.
    bytes: usize,
}

impl Secrets {
    /// The entry with this path.
    pub(super) fn get(&self, path: &SecretPath) -> Option<&Arc<Secret>> {
        self.entries.get(path)
    }

    /// All paths, in order.
    pub(super) fn paths(&self) -> impl Iterator<Item = &SecretPath> {
        self.entries.keys()
    }

    /// All entries from this path on.
    pub(super) fn range_from(&self, first: &str) -> map::Iter<'_, SecretPath, Secret> {
        self.entries.range_from(first)
    }

    /// Adds an entry, or replaces it.
    pub(super) fn insert(&mut self, secret: Arc<Secret>) {
        self.remove(&secret.path);
        self.count += 1;
        self.bytes += secret.size();
        self.entries.insert(secret.path.clone(), secret);
    }

    /// Removes an entry.
    pub(super) fn remove(&mut self, path: &SecretPath) {
        if let Some(size) = self.entries.get(path).map(|secret| secret.size()) {
            self.count -= 1;
            self.bytes -= size;
            self.entries.remove(path);
        }
    }

    /// Checks that they are not too many, and not too large together.
    ///
    /// # Errors
    /// When they are.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.count > ENTRIES {
            return Err(Error::Conflict(
                format!("the enclave has {ENTRIES} entries already; remove some first").into(),
            ));
        }
        if self.bytes > ALL {
            let text = format!("the entries of the enclave hold {} MiB already; destroy old versions first", ALL >> 20);
            return Err(Error::Conflict(text.into()));
        }
        Ok(())
    }
}
