//! Names at the end of a path.

use crate::auth::Identity;
use crate::name::{KeyName, Pattern, PolicyName};
use crate::server::Error;

/// Names at the end of a path.
pub trait Name: Sized + Send + 'static {
    /// Parses the decoded rest of the path.
    fn parse(text: &str) -> Result<Self, Error>;
}

impl Name for () {
    fn parse(_: &str) -> Result<Self, Error> {
        Ok(())
    }
}

/// Any text: the handler checks it.
impl Name for String {
    fn parse(text: &str) -> Result<Self, Error> {
        Ok(text.to_owned())
    }
}

impl Name for KeyName {
    fn parse(text: &str) -> Result<Self, Error> {
        Self::parse(text).map_err(Error::bad_request)
    }
}

impl Name for PolicyName {
    fn parse(text: &str) -> Result<Self, Error> {
        Self::parse(text).map_err(Error::bad_request)
    }
}

impl Name for Identity {
    fn parse(text: &str) -> Result<Self, Error> {
        Self::parse(text).map_err(Error::bad_request)
    }
}

impl Name for Pattern {
    fn parse(text: &str) -> Result<Self, Error> {
        Self::parse(text).map_err(Error::bad_request)
    }
}
