//! Storage of records: a trait, and the stores that implement it.

#[cfg(test)]
mod conformance;
mod lazy;
mod mem;
mod note;
mod redb;

use std::collections::BTreeMap;
use std::path::Path;

use super::record::Id;

pub use self::lazy::Lazy;
pub use self::mem::Mem;
pub use self::note::Note;
pub use self::redb::Redb;
#[cfg(test)]
pub(super) use self::redb::{Nameless, Place};

/// How to go back to a backup.
pub(super) const WAY_BACK: &str = "to go back to a backup, move the file away, start the server with the HSM key of the \
     backup, and run 'claviger kms restore FILE'";

/// The store failed. Its own error is the source.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Error {
    what: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub(super) fn new(what: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { what: what.into(), source: Some(source.into()) }
    }

    /// The file is not what was written.
    fn damaged(path: &Path, how: impl std::fmt::Display) -> Self {
        let what = format!("the data file '{}' is damaged: {how}. It was left as it is; {WAY_BACK}", path.display());
        Self { what, source: None }
    }
}

/// Changes that are made together.
#[derive(Debug, Default)]
pub struct Batch {
    /// Records to write.
    pub puts: Vec<(Id, Vec<u8>)>,
    /// Records to remove. A record that does not exist is no error.
    pub removals: Vec<Id>,
    /// Seals to add.
    pub seals: Seals,
}

/// The root key as each provider has sealed it, by the provider's name.
pub type Seals = BTreeMap<String, Vec<u8>>;

/// Durable storage of records. Records are encrypted before they get here. Only one thread uses a store.
pub trait Store: Send + 'static {
    /// The seals; none in a store that was never written to.
    ///
    /// # Errors
    /// When they cannot be read.
    fn seals(&self) -> Result<Seals, Error>;

    /// The value of a record, if it is there.
    ///
    /// # Errors
    /// When the record cannot be read.
    fn get(&self, id: &Id) -> Result<Option<Vec<u8>>, Error>;

    /// Calls `each` with every record, until it returns `false`.
    ///
    /// # Errors
    /// When a record cannot be read.
    fn for_each(&self, each: &mut dyn FnMut(&Id, &[u8]) -> bool) -> Result<(), Error>;

    /// Makes what is there durable, and ready for changes. A store that was opened writes nothing before this.
    ///
    /// # Errors
    /// When that is not certain.
    fn settle(&mut self) -> Result<(), Error>;

    /// Makes all of the changes or none of them, also across a crash. When it returns, they are durable.
    ///
    /// # Errors
    /// When it is not certain that they are durable. Then either all or none of them have been made.
    fn commit(&mut self, batch: &Batch) -> Result<(), Error>;

    /// Writes what [`Store::commit`] may have kept in memory. Only a store that says so keeps anything there.
    ///
    /// # Errors
    /// When it is not certain that all of it is durable. It is still there.
    fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Begins a store with these seals and no record, which is to take the place of this one. Until then, this one is what
    /// it was, and so it stays if the new one is dropped.
    ///
    /// # Errors
    /// When there is no room for it.
    fn begin(&self, seals: &Seals) -> Result<Box<dyn Begun>, Error>;
}

/// A store that is being made.
pub trait Begun {
    /// Writes a record.
    ///
    /// # Errors
    /// When that fails.
    fn put(&mut self, id: &Id, value: &[u8]) -> Result<(), Error>;

    /// Shows all that has been written to `each`, until that says to stop, and hands back the seals.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read_back(&mut self, each: &mut dyn FnMut(&Id, &[u8]) -> bool) -> Result<Seals, Error>;

    /// Puts it in the place of the store that it was begun for, of which nothing can be read any more: wholly or not at
    /// all, whatever happens. Only once it is settled is it sure to stay. The other one must be used no more.
    ///
    /// # Errors
    /// When that cannot be done. Then the other one is what it was.
    fn install(self: Box<Self>) -> Result<Box<dyn Store>, Error>;
}
