//! Storage of records: a trait, and the stores that implement it.

#[cfg(test)]
mod conformance;
mod mem;
mod redb;

use std::collections::BTreeMap;

use super::record::Id;

pub use self::mem::Mem;
pub use self::redb::Redb;

/// Why the store does not do what it should. The store's own error is in the source.
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
    /// Records to remove; those that are not there are none the less gone.
    pub removals: Vec<Id>,
    /// Removes every other record.
    pub clears: bool,
    /// All seals from now on, where they change.
    pub seals: Option<Seals>,
}

/// The root key as each provider has sealed it, by the provider's name.
pub type Seals = BTreeMap<String, Vec<u8>>;

/// Durable storage of records. What it is handed is encrypted already. One thread uses it.
pub trait Store: Send + 'static {
    /// The seals.
    ///
    /// # Errors
    /// When they cannot be read.
    fn seals(&self) -> Result<Seals, Error>;

    /// The value of a record, if it is there.
    ///
    /// # Errors
    /// When that cannot be read.
    fn get(&self, id: &Id) -> Result<Option<Vec<u8>>, Error>;

    /// Shows every record to `each`, until that says to stop.
    ///
    /// # Errors
    /// When not all can be read.
    fn for_each(&self, each: &mut dyn FnMut(&Id, &[u8]) -> bool) -> Result<(), Error>;

    /// Makes all of the changes or none of them, whatever happens in between; when it returns they have been made, and
    /// stay.
    ///
    /// # Errors
    /// When that is not sure. Then they may have been made; nothing else has been.
    fn commit(&mut self, batch: &Batch) -> Result<(), Error>;
}
