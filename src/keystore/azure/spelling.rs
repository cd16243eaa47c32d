//! The spelling of names. A vault folds case: `Key` and `key` are one secret, and whoever may use the one could use the
//! other. So a key is only served under the spelling in which it is stored.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::keystore::Error;

/// What is known of the spelling of names.
#[derive(Debug, Default)]
pub(super) struct Spelling(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Whether answers have the spelling of the request rather than the stored one; none: not known yet.
    is_echoed: Option<bool>,
    /// The stored spelling by the name in lower case.
    stored: HashMap<String, String>,
}

/// What must be done to know the stored spelling of a name that was answered as it was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Nothing: this is it.
    None,
    /// To ask for a listed name in another spelling, and see what is answered.
    Probe,
    /// To list all names.
    List,
}

impl Spelling {
    /// What must be done about this name.
    ///
    /// # Errors
    /// It is stored in another spelling.
    pub(super) fn check(&self, name: &str) -> Result<Doubt, Error> {
        let state = self.lock();
        match (state.is_echoed, state.stored.get(&name.to_ascii_lowercase())) {
            (Some(false), _) => Ok(Doubt::None),
            (Some(true), Some(stored)) if stored == name => Ok(Doubt::None),
            (Some(true), Some(stored)) => Err(differs(name, stored)),
            (Some(true), None) => Ok(Doubt::List),
            (None, _) => Ok(Doubt::Probe),
        }
    }

    /// Notes what a probe has found.
    pub(super) fn probed(&self, is_echoed: bool) {
        self.lock().is_echoed = Some(is_echoed);
    }

    /// Notes stored names.
    pub(super) fn note<'n>(&self, names: impl Iterator<Item = &'n str>) {
        self.lock().stored.extend(names.map(|name| (name.to_ascii_lowercase(), name.to_owned())));
    }

    /// Forgets a name that was deleted: it may be created in another spelling.
    pub(super) fn forget(&self, name: &str) {
        self.lock().stored.remove(&name.to_ascii_lowercase());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The error for a name that is stored in another spelling.
pub(super) fn differs(name: &str, stored: &str) -> Error {
    let (name, stored) = (crate::keystore::rest::shown(name), crate::keystore::rest::shown(stored));
    let why = format!(
        "'{name}' is stored as '{stored}'; to a key vault both are one name, so ask for it as it is stored, or choose \
         another name"
    );
    Error::Failed(why.into())
}

/// The name with upper case for lower case and the other way round; none if it has no letters.
pub(super) fn swapped(name: &str) -> Option<String> {
    let swap = |char: char| match char.is_ascii_lowercase() {
        true => char.to_ascii_uppercase(),
        false => char.to_ascii_lowercase(),
    };
    let swapped: String = name.chars().map(swap).collect();
    (swapped != name).then_some(swapped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vault_that_tells_the_stored_spelling_is_believed() {
        let spelling = Spelling::default();
        assert_eq!(spelling.check("key").expect("no doubt"), Doubt::Probe);
        spelling.probed(false);
        assert_eq!(spelling.check("key").expect("no doubt"), Doubt::None);
    }

    #[test]
    fn where_requests_are_echoed_the_listing_decides() {
        let spelling = Spelling::default();
        spelling.probed(true);
        assert_eq!(spelling.check("key").expect("unknown"), Doubt::List);
        spelling.note(["Key", "other"].into_iter());
        assert_eq!(spelling.check("Key").expect("listed"), Doubt::None);
        assert!(spelling.check("key").is_err() && spelling.check("KEY").is_err());
        spelling.forget("kEY");
        assert_eq!(spelling.check("key").expect("unknown"), Doubt::List);
    }

    #[test]
    fn names_without_letters_have_one_spelling() {
        assert_eq!(swapped("aB-1").as_deref(), Some("Ab-1"));
        assert_eq!(swapped("1-2"), None);
    }
}
