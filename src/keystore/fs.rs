//! A directory as keystore: one file a key.

use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::Deserialize;

use super::{Access, Error, KeyStore, Listing};
use crate::crypto::Blob;
use crate::name::KeyName;

/// The `keystore.fs:` section of the config file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The directory.
    pub path: PathBuf,
}

/// A directory of keys.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
}

impl Store {
    /// Opens the directory.
    pub fn open(config: &Config) -> Result<Self, Error> {
        std::fs::create_dir_all(&config.path).map_err(|error| Error::Failed(error.into()))?;
        Ok(Self { path: config.path.clone() })
    }

    /// Opens the directory without changing anything in or around it; `None` when it is missing.
    pub fn open_existing(config: &Config) -> Result<Option<Self>, Error> {
        match std::fs::metadata(&config.path) {
            Ok(place) if place.is_dir() => Ok(Some(Self { path: config.path.clone() })),
            Ok(_) => Err(Error::Failed(format!("'{}' is not a directory", config.path.display()).into())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::Failed(error.into())),
        }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fs: {}", self.path.display())
    }
}

// A first sketch, to be replaced by the crash-safe one.
#[async_trait]
impl KeyStore for Store {
    async fn create(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        let file = std::fs::OpenOptions::new().write(true).create_new(true).open(self.path.join(name.as_str()));
        let mut file = file.map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => Error::Exists,
            _ => Error::Failed(error.into()),
        })?;
        std::io::Write::write_all(&mut file, value.expose()).map_err(|error| Error::Failed(error.into()))
    }

    async fn get(&self, name: &KeyName) -> Result<Blob, Error> {
        std::fs::read(self.path.join(name.as_str())).map(Into::into).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::NotFound,
            _ => Error::Failed(error.into()),
        })
    }

    async fn replace(&self, _: &KeyName, _: &Blob, _: &Blob) -> Result<(), Error> {
        Err(Error::Failed("not there yet".into()))
    }

    async fn delete(&self, name: &KeyName) -> Result<(), Error> {
        std::fs::remove_file(self.path.join(name.as_str())).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::NotFound,
            _ => Error::Failed(error.into()),
        })
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        let mut listing = Listing::default();
        for entry in std::fs::read_dir(&self.path).map_err(|error| Error::Unreachable(error.into()))? {
            let name = entry.map_err(|error| Error::Failed(error.into()))?.file_name();
            let name = name.to_str().and_then(|name| KeyName::parse(name).ok());
            listing.names.extend(name.filter(|name| name.as_str().starts_with(prefix)));
        }
        listing.names.sort();
        Ok(listing)
    }

    async fn status(&self) -> Result<Duration, Error> {
        let started = Instant::now();
        std::fs::metadata(&self.path).map_err(|error| Error::Unreachable(error.into()))?;
        Ok(started.elapsed())
    }

    async fn check(&self, access: Access) -> Result<(), Error> {
        let (rights, right) = match access {
            Access::Read => (rustix::fs::Access::READ_OK | rustix::fs::Access::EXEC_OK, "read"),
            Access::Create | Access::Replace => (rustix::fs::Access::all(), "write"),
        };
        rustix::fs::access(&self.path, rights).map_err(|error| {
            let path = self.path.display();
            Error::Failed(format!("this user may not {right} the directory '{path}': {error}").into())
        })
    }

    async fn identity(&self) -> Result<String, Error> {
        let place = std::fs::metadata(&self.path).map_err(|error| Error::Unreachable(error.into()))?;
        Ok(format!("directory with inode {} on device {}", place.ino(), place.dev()))
    }
}
