//! What a key store holds.

use crate::name::{KeyName, is_reserved};

/// What a keystore holds.
#[derive(Debug, Default)]
pub struct Listing {
    /// The names of the keys, sorted and unique.
    pub names: Vec<KeyName>,
    /// Entries that cannot be keys. Names that begin with a dot are left out.
    pub foreign: Vec<Foreign>,
}

impl Listing {
    /// Adds an entry: as a key, or as foreign when its name is not the name of a key.
    pub fn insert(&mut self, name: &str) {
        match KeyName::parse(name) {
            Ok(name) => self.names.push(name),
            Err(_) if is_reserved(name) => self.refuse(name, "a value that a replacement of a key keeps"),
            Err(_) => self.refuse(name, "not the name of a key"),
        }
    }

    /// Adds an entry that cannot be a key, unless its name begins with a dot.
    pub fn refuse(&mut self, name: &str, reason: &'static str) {
        if !name.starts_with('.') {
            self.foreign.push(Foreign { name: name.into(), reason });
        }
    }

    /// The listing with its entries in order, each once.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.names.sort_unstable();
        self.names.dedup();
        self.foreign.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        self.foreign.dedup();
        self
    }
}

/// An entry of a keystore that cannot be a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// The entry's name as the store gives it.
    pub name: String,
    /// Why it is not a key, such as "a directory".
    pub reason: &'static str,
}
