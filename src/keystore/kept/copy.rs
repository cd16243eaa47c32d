//! The copy of a key that is being replaced: its format, and what it tells about the value under the name.

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::clock;
use crate::crypto::{Blob, random};
use crate::hex;
use crate::keystore::Error;
use crate::name::KeyName;

/// The value under a reserved name: `{"claviger_old":{"name":"…","value":"…","owner":"…","at":…,"new":"…"}}`.
#[derive(Serialize, Deserialize)]
struct Wrapper<T> {
    claviger_old: T,
}

/// The old value of a key, and what replaces it.
#[derive(Deserialize)]
pub(super) struct Copy {
    /// The key.
    pub(super) name: String,
    value: SecretString,
    /// The SHA-256 of the new value, in hex. None: a version of this program wrote the copy that did not note it.
    new: Option<String>,
}

/// A copy as it is written. `owner` is random, so that no two copies are the same; `at` (seconds since 1970) is for people.
#[derive(Serialize)]
struct Draft<'a> {
    name: &'a str,
    value: &'a str,
    owner: &'a str,
    at: i64,
    new: &'a str,
}

/// The value under the name of a key that has a copy.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// No value: only the copy exists.
    Nothing,
    /// The old value.
    Old,
    /// The new value.
    New,
    /// A value that is neither the old nor the new one.
    Another,
}

impl Copy {
    /// Encodes a copy of `old`, which `new` will replace.
    pub(super) fn encode(name: &KeyName, old: &Blob, new: &Blob) -> Result<Blob, Error> {
        let value = std::str::from_utf8(old.expose()).map_err(|_| Error::Failed("the old value is no text".into()))?;
        let mut owner = [0; 8];
        random::fill(&mut owner).map_err(|error| Error::Failed(error.into()))?;
        let (owner, new) = (hex::encode(&owner), digest(new));
        let at = clock::now().unix_timestamp();
        let copy = Wrapper { claviger_old: Draft { name: name.as_str(), value, owner: &owner, at, new: &new } };
        // Room for every character escaped: a buffer that grows leaves copies behind.
        let mut json = Zeroizing::new(Vec::with_capacity(512 + 6 * value.len()));
        serde_json::to_writer(&mut *json, &copy).expect("writing texts to memory does not fail");
        Ok(json.into())
    }

    /// Parses the value under the reserved name `kept`.
    pub(super) fn parse(kept: &KeyName, stored: &Blob) -> Result<Self, Error> {
        let wrapper: Wrapper<Self> = serde_json::from_slice(stored.expose())
            .map_err(|_| Error::Failed(format!("'{kept}' is no copy of a key that is being replaced").into()))?;
        Ok(wrapper.claviger_old)
    }

    /// The old value.
    pub(super) fn value(&self) -> Blob {
        self.value.expose_secret().as_bytes().to_vec().into()
    }

    /// Classifies `stored`, the value under the name.
    pub(super) fn standing(&self, stored: Option<&Blob>) -> Standing {
        match stored {
            None => Standing::Nothing,
            Some(stored) if stored.is_same(&self.value()) => Standing::Old,
            Some(stored) if self.new.as_ref().is_some_and(|new| *new == digest(stored)) => Standing::New,
            Some(_) => Standing::Another,
        }
    }

    /// The value for readers: the old one from the copy until the new one is there.
    pub(super) fn read(&self, stored: Option<Blob>) -> Blob {
        match (self.standing(stored.as_ref()), stored) {
            (Standing::New, Some(stored)) => stored,
            // Such a copy does not know the new value.
            (Standing::Another, Some(stored)) if self.new.is_none() => stored,
            _ => self.value(),
        }
    }

    /// Whether `stored` certainly belongs to another process.
    pub(super) fn is_in_conflict(&self, stored: Option<&Blob>) -> bool {
        self.new.is_some() && self.standing(stored) == Standing::Another
    }

    /// The error for a replacement that cannot be completed because another value is under the name.
    pub(super) fn conflict(&self, kept: &KeyName) -> Error {
        let name = &self.name;
        let what = match self.new {
            Some(_) => format!(
                "'{name}' holds a value that is neither the old nor the new one of a replacement that was cut off; \
                 somebody created it meanwhile. '{kept}' keeps the old value, which Claviger's servers use. Save both \
                 entries, delete '{name}' in the key store itself (not through a server), and run again: that restores \
                 the old value"
            ),
            None => format!(
                "'{kept}' keeps the old value of '{name}', and does not say which value replaces it: an older version of \
                 Claviger began this replacement. Save both entries. If '{name}' is the right key (compare it with the \
                 source by 'claviger verify'), delete '{kept}' in the key store itself; otherwise delete '{name}' there \
                 (not through a server), and run again: that restores the old value"
            ),
        };
        Error::Failed(what.into())
    }
}

fn digest(value: &Blob) -> String {
    hex::encode(&Sha256::digest(value.expose()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(text: &str) -> Blob {
        text.as_bytes().to_vec().into()
    }

    #[test]
    fn a_copy_knows_the_old_and_the_new_value_alone() {
        let name = KeyName::parse("my-key").expect("a name");
        let kept = KeyName::kept(&name);
        let written = Copy::encode(&name, &blob("old \"one\""), &blob("new")).expect("text");
        let copy = Copy::parse(&kept, &written).expect("ours");
        assert_eq!(copy.name, "my-key");
        assert!(copy.value().is_same(&blob("old \"one\"")));
        let standing = |stored: &str| copy.standing(Some(&blob(stored)));
        assert_eq!(copy.standing(None), Standing::Nothing);
        assert_eq!(["old \"one\"", "new", "ne"].map(standing), [Standing::Old, Standing::New, Standing::Another]);
        let again = Copy::encode(&name, &blob("old \"one\""), &blob("new")).expect("text");
        assert!(!again.is_same(&written), "each is told from all others");
    }

    #[test]
    fn a_copy_of_before_there_were_hashes_is_read() {
        let kept = KeyName::kept(&KeyName::parse("my-key").expect("a name"));
        let written = br#"{"claviger_old":{"name":"my-key","value":"old","owner":"0011223344556677","at":1700000000}}"#;
        let copy = Copy::parse(&kept, &written.to_vec().into()).expect("ours");
        assert_eq!(copy.standing(Some(&blob("old"))), Standing::Old);
        assert_eq!(copy.standing(Some(&blob("new"))), Standing::Another, "nobody knows");
        assert!(copy.read(Some(blob("new"))).is_same(&blob("new")), "as servers have read it until now");
        assert!(copy.read(None).is_same(&blob("old")));
        for other in ["", "{}", "null", r#"{"bytes":"AAAA"}"#] {
            assert!(matches!(Copy::parse(&kept, &blob(other)), Err(Error::Failed(_))), "{other}");
        }
    }
}
