//! What a store says about itself.

use std::future::ready;
use std::time::Duration;

use futures_util::future::BoxFuture;
use time::OffsetDateTime;

use super::Error;
use crate::name::KeyName;

/// An answer that the store is asked for when it is awaited, and not before.
pub type Asked<'a, T> = BoxFuture<'a, Result<T, Error>>;

/// What a store says about itself. Nothing is sent to make one. A wrapper takes that of the store behind it and changes
/// what it must: `About { charges, ..store.about() }`.
pub struct About<'a> {
    /// The same text for the same place, however it is reached. Reports show it; it holds no secret.
    pub identity: Asked<'a, String>,
    /// The time of the store's clock, where it tells. To the second at best.
    pub clock: Asked<'a, Option<OffsetDateTime>>,
    /// Settings that work but are dangerous. The operator must be told.
    pub warnings: &'a [String],
    /// The services that charge for requests to the store, and how many requests each operation takes.
    pub charges: Vec<Charged>,
    /// The age of the token in use, where there is one.
    pub token_age: Option<Duration>,
    /// Which names it can have.
    pub names: Names,
}

/// Which names of keys a store can have.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    /// Why it cannot have a key of this name; none: it can.
    pub refuse: fn(&KeyName) -> Option<&'static str>,
    /// Whether names that differ in case only are one name.
    pub fold_case: bool,
}

impl Names {
    /// Every name of a key.
    pub const ALL: Self = Self { refuse: |_| None, fold_case: false };
}

impl<'a> About<'a> {
    /// Of a store that has only an identity to tell.
    pub fn new(identity: Asked<'a, String>) -> Self {
        Self {
            identity,
            clock: Box::pin(ready(Ok(None))),
            warnings: &[],
            charges: Vec::new(),
            token_age: None,
            names: Names::ALL,
        }
    }

    /// Of a store whose name tells what it is.
    pub fn named(name: String) -> Self {
        Self::new(Box::pin(ready(Ok(name))))
    }
}

/// A service that charges for every request, and the number of requests that operations take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charged {
    /// The service.
    pub by: &'static str,
    /// Requests for a key that is created.
    pub create: usize,
    /// Requests for a key that is read.
    pub get: usize,
    /// Requests for a key that is replaced.
    pub replace: usize,
    /// The most keys that one request lists; none: it takes no part in listings.
    pub page: Option<usize>,
    /// Whether it also charges for every stored key.
    pub keeps: bool,
}
