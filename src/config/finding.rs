//! A finding in the config file: a warning, and its line and column.

use std::fmt;
use std::path::{Path as FilePath, PathBuf};

use serde::ser::{Serialize, SerializeMap as _, Serializer};

use super::yaml::Position;

/// A place in the config file: file, line, column and key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub(super) file: PathBuf,
    pub(super) position: Option<Position>,
    /// The path to the value; empty when the place is no value.
    pub(super) key: String,
}

impl Place {
    /// A whole file.
    pub fn of(file: &FilePath) -> Self {
        Self { file: file.into(), position: None, key: String::new() }
    }
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

/// How bad a finding is that keeps no server from starting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Weight {
    /// As bad as whoever reports it says.
    #[default]
    Plain,
    /// The server does less than the file promises, where somebody relies on it: no check lets it pass.
    Danger,
}

/// An error in the config file, or a warning about it: where, what, and what to write instead. It never shows a
/// value of the file, since any of them may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct Finding {
    pub(super) place: Place,
    pub(super) message: String,
    pub(super) weight: Weight,
}

/// `{"file":"config.yml","line":7,"column":12,"key":"policy.my-app.allow[0]","message":"…"}`
impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { place: Place { file, position, key }, message, .. } = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("file", &file.to_string_lossy())?;
        if let Some(Position { line, column }) = position {
            map.serialize_entry("line", line)?;
            map.serialize_entry("column", column)?;
        }
        if !key.is_empty() {
            map.serialize_entry("key", key)?;
        }
        map.serialize_entry("message", message)?;
        map.end()
    }
}

impl Finding {
    /// Something at a place.
    pub fn new(place: Place, message: impl Into<String>) -> Self {
        Self { place, message: message.into(), weight: Weight::Plain }
    }

    /// Changes what it says.
    pub fn reword(&mut self, reword: impl FnOnce(String) -> String) {
        self.message = reword(std::mem::take(&mut self.message));
    }

    /// Whether a check must not let it pass.
    pub fn is_danger(&self) -> bool {
        self.weight == Weight::Danger
    }

    /// The path to the value, such as `tls.cert`; empty when it is about the whole file.
    pub fn key(&self) -> &str {
        &self.place.key
    }
}

/// Everything that is wrong with a config file, as far as it can be seen at once: at least one finding.
#[derive(Debug, PartialEq, Eq)]
pub struct Errors(pub(super) Vec<Finding>);

impl Errors {
    /// In the order of what is looked at.
    pub fn findings(&self) -> &[Finding] {
        &self.0
    }
}

/// One finding a line.
impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, finding) in self.0.iter().enumerate() {
            if nth > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{finding}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

impl From<Vec<Finding>> for Errors {
    fn from(findings: Vec<Finding>) -> Self {
        Self(findings)
    }
}

impl From<Finding> for Errors {
    fn from(finding: Finding) -> Self {
        Self(vec![finding])
    }
}
