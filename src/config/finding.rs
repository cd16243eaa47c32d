//! A finding in the config file: a warning, and its line and column.

use std::fmt;
use std::path::PathBuf;

use super::yaml::Position;

/// A place in the config file: file, line, column and key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub(super) file: PathBuf,
    pub(super) position: Option<Position>,
    /// The path to the value; empty when the place is no value.
    pub(super) key: String,
}

/// `config.yml:7:12: policy.my-app.allow[0]`
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(Position { line, column }) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        Ok(())
    }
}

/// An error in the config file, or a warning about it: where, what, and what to write instead. It never shows a
/// value of the file, since any of them may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct Finding {
    pub(super) place: Place,
    pub(super) message: String,
}

impl Finding {
    /// The path to the value, such as `tls.cert`; empty when it is about the whole file.
    pub fn key(&self) -> &str {
        &self.place.key
    }
}
