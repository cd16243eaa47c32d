//! Storage of records: a trait, and the stores that implement it.

#[cfg(test)]
mod conformance;
mod mem;
mod redb;

use std::collections::BTreeMap;

use super::record::Id;

pub use self::mem::Mem;
pub use self::redb::Redb;

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
}

/// Changes that are made together.
#[derive(Debug, Default)]
pub struct Batch {
    /// Records to write.
    pub puts: Vec<(Id, Vec<u8>)>,
    /// Records to remove. A record that does not exist is no error.
    pub removals: Vec<Id>,
    /// Whether to remove all other records.
    pub clears: bool,
    /// The new seals, if they change. They replace all old ones.
    pub seals: Option<Seals>,
}

/// The root key as each provider has sealed it, by the provider's name.
pub type Seals = BTreeMap<String, Vec<u8>>;

/// Durable storage of records. Records are encrypted before they get here. Only one thread uses a store.
pub trait Store: Send + 'static {
    /// The seals.
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

    /// Makes all of the changes or none of them, also across a crash. When it returns, they are durable.
    ///
    /// # Errors
    /// When it is not certain that they are durable. Then either all or none of them have been made.
    fn commit(&mut self, batch: &Batch) -> Result<(), Error>;
}
