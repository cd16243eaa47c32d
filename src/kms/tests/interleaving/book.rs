//! What the journal holds, what clients were told, and whether both go together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::kms::Error;
use crate::kms::journal::shared::Cluster;
use crate::kms::record::{Cipher, Id, Record};
use crate::kms::ring::Ring;
use crate::kms::seal;

/// Which of all versions that were ever made: the key itself.
type Uid = Vec<u8>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kms::tests) struct Version {
    pub(super) number: u32,
    pub(super) uid: Uid,
    is_retired: bool,
    /// The request that made it.
    by: usize,
}

/// The keys of the enclave at one head.
pub(in crate::kms::tests) type Keys = BTreeMap<String, Vec<Version>>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asks {
    Create(String),
    Rotate(String),
    /// None: all versions.
    Delete(String, Option<u32>),
}

/// What is broken.
pub(super) type Broken = String;

/// The time of a request is its number, so that what it makes tells who has made it.
pub(super) struct Book {
    cluster: Arc<Cluster>,
    cipher: Cipher,
    rings: BTreeMap<Id, Arc<Ring>>,
    /// The keys at each head.
    heads: Vec<Keys>,
    asked: Vec<Request>,
    /// How many versions each request has made.
    made: BTreeMap<usize, usize>,
    /// The versions that each number of each key was given to, while there is such a key.
    numbers: BTreeMap<String, BTreeMap<u32, Uid>>,
    /// Versions that somebody relies on: their making was acknowledged, or they have encrypted, and nobody has asked to
    /// delete them.
    relied: BTreeMap<Uid, (String, u32)>,
}

struct Request {
    asks: Asks,
    /// The head when it was asked.
    since: usize,
    /// What a deletion is about.
    aims: BTreeSet<Uid>,
    is_over: bool,
}

impl Asks {
    fn hits(&self, name: &str, number: u32) -> bool {
        matches!(self, Self::Delete(of, which) if of == name && which.is_none_or(|which| which == number))
    }

    fn name(&self) -> &str {
        let (Self::Create(name) | Self::Rotate(name) | Self::Delete(name, _)) = self;
        name
    }

    /// Whether another key took the place of the one that it is about.
    fn is_replaced(&self, before: &Keys, after: &Keys) -> bool {
        let (Some(before), Some(after)) = (before.get(self.name()), after.get(self.name())) else { return false };
        before.iter().all(|one| after.iter().all(|other| one.uid != other.uid))
    }

    /// Whether it can be refused in this way by this state.
    fn is_refused_by(&self, keys: &Keys, error: &Error) -> bool {
        let versions = keys.get(self.name());
        match (self, error) {
            (Self::Create(_), Error::KeyExists) => versions.is_some(),
            (Self::Rotate(_), Error::NoKey) => versions.is_none(),
            (Self::Rotate(_), Error::KeyRetired) => {
                versions.is_some_and(|versions| versions.iter().all(|version| version.is_retired))
            }
            (Self::Delete(_, number), Error::NoKey) => versions.is_none_or(|versions| {
                number.is_some_and(|number| versions.iter().all(|version| version.number != number))
            }),
            _ => false,
        }
    }
}

/// The versions of a key.
pub(in crate::kms::tests) fn versions(ring: &Ring) -> Vec<Version> {
    let version = |(number, version): (u32, &crate::kms::ring::Version)| Version {
        number,
        uid: version.key.encode().expose().to_vec(),
        is_retired: ring.retired().contains(&number),
        by: usize::try_from(version.key.created_at().unix_timestamp()).expect("a number of a request"),
    };
    ring.versions_from(0).map(version).collect()
}

impl Book {
    pub(super) fn new(cluster: &Arc<Cluster>) -> Self {
        let root = seal::unseal(&cluster.seals(), &super::providers(&[("env", super::HSM)])).expect("our own");
        Self {
            cluster: cluster.clone(),
            cipher: Cipher::new(&root),
            rings: BTreeMap::new(),
            heads: Vec::new(),
            asked: Vec::new(),
            made: BTreeMap::new(),
            numbers: BTreeMap::new(),
            relied: BTreeMap::new(),
        }
    }

    pub(super) fn newest(&self) -> &Keys {
        self.heads.last().expect("there is one")
    }

    /// How many heads there have been.
    pub(super) fn heads(&self) -> usize {
        self.heads.len()
    }

    /// Reads what was written since.
    pub(super) fn read(&mut self) -> Result<(), Broken> {
        for commit in self.cluster.commits(self.heads.len()) {
            for (id, value) in &commit.changes.records {
                let Some(value) = value else {
                    self.rings.remove(id);
                    continue;
                };
                if let Record::Key(_, ring) = self.cipher.open(id, value).map_err(|error| error.to_string())? {
                    self.rings.insert(*id, ring);
                }
            }
            let keys = self.rings.values().map(|ring| (ring.name.to_string(), versions(ring))).collect();
            self.add(keys)?;
        }
        Ok(())
    }

    fn add(&mut self, keys: Keys) -> Result<(), Broken> {
        let before = self.heads.last().cloned().unwrap_or_default();
        let old: BTreeSet<&Uid> = before.values().flatten().map(|version| &version.uid).collect();
        for version in keys.values().flatten().filter(|version| !old.contains(&version.uid)) {
            let made = self.made.entry(version.by).or_default();
            *made += 1;
            if *made > 1 {
                return Err(format!("request {} has made two versions", version.by));
            }
        }
        self.numbers.retain(|name, _| {
            keys.get(name).is_some_and(|versions| versions.iter().any(|version| old.contains(&version.uid)))
        });
        for (name, versions) in &keys {
            let numbers = self.numbers.entry(name.clone()).or_default();
            for Version { number, uid, .. } in versions {
                if numbers.insert(*number, uid.clone()).is_some_and(|other| other != *uid) {
                    return Err(format!("number {number} of '{name}' was given twice"));
                }
            }
        }
        let there: BTreeSet<&Uid> = keys.values().flatten().map(|version| &version.uid).collect();
        if let Some((name, number)) = self.relied.iter().find(|(uid, _)| !there.contains(uid)).map(|(_, of)| of) {
            return Err(format!("version {number} of '{name}' is gone, and somebody relies on it"));
        }
        self.heads.push(keys);
        Ok(())
    }

    /// A request begins. Returns its number.
    pub(super) fn ask(&mut self, asks: &Asks) -> Result<usize, Broken> {
        self.read()?;
        self.relied.retain(|_, (name, number)| !asks.hits(name, *number));
        let all = self.newest().iter().flat_map(|(name, versions)| versions.iter().map(move |version| (name, version)));
        let aims = all.filter(|(name, version)| asks.hits(name, version.number));
        let aims = aims.map(|(_, version)| version.uid.clone()).collect();
        self.asked.push(Request { asks: asks.clone(), since: self.heads.len() - 1, aims, is_over: false });
        Ok(self.asked.len() - 1)
    }

    /// A request was answered.
    pub(super) fn answered(&mut self, number: usize, answer: &Result<(), Error>) -> Result<(), Broken> {
        self.read()?;
        let Request { asks, since, aims, .. } = &self.asked[number];
        let what = format!("request {number}, {asks:?}");
        match answer {
            // It may have been done, and may still be done.
            Err(Error::Uncertain(_) | Error::Unavailable(_) | Error::Overtaken) => return Ok(()),
            Err(refused) => {
                let heads = &self.heads[*since..];
                // Between two heads it was absent for a moment, if nothing of it is in both.
                let replaced = heads.windows(2).any(|pair| asks.is_replaced(&pair[0], &pair[1]));
                let is_right = |keys: &Keys| asks.is_refused_by(keys, refused);
                if !(heads.iter().any(is_right) || replaced && is_right(&Keys::new())) {
                    return Err(format!("{what} was refused, which was right at no moment: {refused}"));
                }
                if self.made.contains_key(&number) {
                    return Err(format!("{what} was refused, and was done"));
                }
            }
            Ok(()) => {
                if self.newest().values().flatten().any(|version| aims.contains(&version.uid)) {
                    return Err(format!("{what} was acknowledged, and something of it is still there"));
                }
                let name = match asks {
                    Asks::Create(name) | Asks::Rotate(name) => Some(name.clone()),
                    Asks::Delete(..) => None,
                };
                if let Some(name) = name {
                    if !self.made.contains_key(&number) {
                        return Err(format!("{what} was acknowledged, and was not done"));
                    }
                    let made = self.newest().get(&name).into_iter().flatten().find(|version| version.by == number);
                    match made.cloned() {
                        Some(version) => self.rely(&name, &version),
                        None if self
                            .asked
                            .iter()
                            .any(|other| matches!(&other.asks, Asks::Delete(of, _) if *of == name)) => {}
                        None => return Err(format!("{what} was acknowledged, and what it made is gone")),
                    }
                }
            }
        }
        self.asked[number].is_over = true;
        Ok(())
    }

    /// Somebody relies on a version from now on, unless somebody may be deleting it.
    fn rely(&mut self, name: &str, version: &Version) {
        if !self.asked.iter().any(|request| !request.is_over && request.asks.hits(name, version.number)) {
            self.relied.insert(version.uid.clone(), (name.to_owned(), version.number));
        }
    }

    /// Something was encrypted with a version.
    pub(super) fn encrypted(&mut self, name: &str, version: &Version) -> Result<(), Broken> {
        self.read()?;
        if !self.newest().values().flatten().any(|there| there.uid == version.uid) {
            return Err(format!("version {} of '{name}' has encrypted, and is gone", version.number));
        }
        self.rely(name, version);
        Ok(())
    }

    /// What of a key somebody relies on.
    pub(super) fn relied(&self, name: &str) -> BTreeMap<u32, Uid> {
        let of = self.relied.iter().filter(|(_, (of, _))| of == name);
        of.map(|(uid, (_, number))| (*number, uid.clone())).collect()
    }

    /// A version was said not to be there, or to encrypt nothing, by an answer to a question of when this was the head.
    pub(super) fn denied(&mut self, name: &str, uid: &Uid, since: usize, error: &Error) -> Result<(), Broken> {
        self.read()?;
        let is_absent = matches!(error, Error::NoKey | Error::NoEnclave);
        let is_there = |keys: &Keys| keys.values().flatten().any(|version| version.uid == *uid);
        if is_absent && (self.relied.contains_key(uid) || self.heads[since.saturating_sub(1)..].iter().all(is_there)) {
            return Err(format!("a version of '{name}' was said to be absent, and somebody relies on it"));
        }
        Ok(())
    }
}
