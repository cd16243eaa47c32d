//! A key in transit: everything that its source has of it.

use std::fmt;

use crate::crypto::key::Error;
use crate::crypto::{Blob, Key};

/// A key with all its versions. Key stores have only one.
#[derive(Debug)]
pub struct Material {
    /// In ascending order; never empty.
    pub(super) versions: Vec<Version>,
    /// The number of the next version in its source; 0: the source has no versions.
    pub(super) next: u32,
}

/// A version of a key.
#[derive(Debug)]
pub(super) struct Version {
    /// Its number; 0 in a source without versions.
    pub(super) number: u32,
    /// As a KES stores it.
    pub(super) value: Blob,
    /// Whether it was imported from another system, where its type may have been different.
    pub(super) imported: bool,
}

impl Version {
    pub(super) fn key(&self) -> Result<Key, Error> {
        Key::parse(&self.value)
    }
}

impl Material {
    /// A key without versions, as a key store holds it.
    pub(super) fn single(value: Blob) -> Self {
        Self { versions: vec![Version { number: 0, value, imported: true }], next: 0 }
    }

    /// The value for a key store; none when there are several versions.
    pub(super) fn value(&self) -> Option<&Blob> {
        match self.versions.as_slice() {
            [version] => Some(&version.value),
            _ => None,
        }
    }

    /// The key with this version only (0: the latest), and the numbers of the versions left out; `None` when there is
    /// no such version.
    pub(super) fn only(mut self, number: u32) -> Option<(Self, Vec<u32>)> {
        let at = match number {
            0 => self.versions.len() - 1,
            number => self.versions.iter().position(|version| version.number == number)?,
        };
        let kept = self.versions.swap_remove(at);
        let mut left: Vec<_> = self.versions.iter().map(|version| version.number).collect();
        left.sort_unstable();
        Some((Self { versions: vec![kept], next: self.next }, left))
    }

    /// One version (0: the latest), and the numbers of the others; `None` when there is no such version.
    ///
    /// # Errors
    /// When it is not a valid key.
    pub fn version(self, number: u32) -> Result<Option<(Key, Vec<u32>)>, Error> {
        let Some((only, others)) = self.only(number) else { return Ok(None) };
        only.versions.first().map(|version| Ok((version.key()?, others))).transpose()
    }

    /// Checks that every version is a valid key. Returns a fingerprint of the whole key, for reports.
    ///
    /// # Errors
    /// Why a version is not a valid key.
    pub(super) fn fingerprint(&self) -> Result<String, Error> {
        if let [version] = self.versions.as_slice() {
            return Ok(version.key()?.fingerprint().to_string());
        }
        let mut parts = Vec::with_capacity(self.versions.len());
        for version in &self.versions {
            parts.push(format!("{}:{}", version.number, version.key()?.fingerprint()));
        }
        Ok(parts.join(","))
    }
}

/// Names versions: "version 1", "versions 1, 2, 5".
pub(super) struct Numbers<'a>(pub(super) &'a [u32]);

impl fmt::Display for Numbers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        write!(f, "version{} {}", if list.len() == 1 { "" } else { "s" }, list.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn material(numbers: &[u32]) -> Material {
        let version = |number: &u32| {
            let bytes = crate::crypto::base64::encode(&[u8::try_from(*number).expect("small"); 32]);
            let value = format!(r#"{{"bytes":"{}"}}"#, *bytes).into_bytes().into();
            Version { number: *number, value, imported: false }
        };
        Material { versions: numbers.iter().map(version).collect(), next: 9 }
    }

    #[test]
    fn one_version_is_taken_out_of_many() {
        for (number, kept, left) in [(0, 5, vec![1, 2]), (5, 5, vec![1, 2]), (1, 1, vec![2, 5]), (2, 2, vec![1, 5])] {
            let (only, others) = material(&[1, 2, 5]).only(number).expect("there");
            assert_eq!((only.versions[0].number, others), (kept, left));
            assert!(only.value().is_some());
        }
        assert!(material(&[1, 2, 5]).only(3).is_none() && material(&[1, 2]).value().is_none());
    }

    #[test]
    fn the_fingerprint_of_several_versions_names_each() {
        let whole = material(&[1, 2]).fingerprint().expect("keys");
        let [first, second] = [1, 2].map(|number| material(&[number]).fingerprint().expect("a key"));
        assert_eq!(whole, format!("1:{first},2:{second}"));
    }
}
