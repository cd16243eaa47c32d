//! A directory as key store: one file for each key, `<path>/<name>`, mode 0600, which holds the stored key as it is.
//!
//! If the program or the machine is killed at any moment, a name holds a whole key or none, and acknowledged changes
//! stay. Operators read `docs/keystores.md`.

mod directory;
mod error;
mod group;
mod temporary;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::Deserialize;

use self::directory::{Directory, Place};
use super::{About, Access, Backend, Error, KeyStore, Listing};
use crate::crypto::Blob;
use crate::name::KeyName;
use crate::telemetry::log::causes;

/// The `keystore.fs:` section of the config file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The directory.
    #[serde(deserialize_with = "crate::setting::path")]
    pub path: PathBuf,
}

#[async_trait]
impl Backend for Config {
    async fn connect(&self) -> Result<Arc<dyn KeyStore>, Error> {
        Ok(Arc::new(Store::open(self).await?))
    }

    async fn open(&self) -> Result<Option<Arc<dyn KeyStore>>, Error> {
        Ok(Store::open_existing(self).await?.map(|store| Arc::new(store) as _))
    }
}

/// How many keys one call on a blocking thread handles. It is enough that the switch of threads does not count.
const BATCH: usize = 32;

/// A directory of keys.
///
/// Every operation opens the directory by its path. So a directory that was moved, unmounted or replaced is noticed,
/// and is used again once it is back. File systems can be slow (a sync takes milliseconds, a network may hang). So
/// every operation runs on the runtime's blocking threads, never on one that serves connections.
#[derive(Debug)]
pub struct Store(Arc<Place>);

impl Store {
    /// Opens the directory. A missing directory is made, with its parents. Files that killed processes left
    /// half-written in it are removed.
    pub async fn open(config: &Config) -> Result<Self, Error> {
        let path = config.path.clone();
        let place = blocking(move || {
            let place = Place::make(path)?;
            temporary::remove_leftovers(&place.open()?);
            Ok(place)
        });
        Ok(Self(Arc::new(place.await?)))
    }

    /// Opens the directory without changing anything in or around it; `None` when it is missing.
    pub async fn open_existing(config: &Config) -> Result<Option<Self>, Error> {
        let path = config.path.clone();
        let place = blocking(move || match Place::find(path) {
            Err(error::Error::Vanished(_)) => Ok(None),
            found => found.map(Some),
        });
        Ok(place.await?.map(|place| Self(Arc::new(place))))
    }

    /// The files that killed processes left half-written, which [`Store::open`] removes.
    pub async fn leftovers(&self) -> Result<Vec<String>, Error> {
        self.run(temporary::leftovers).await
    }

    async fn identity(&self) -> Result<String, Error> {
        let (device, inode) = self.run(|directory| directory.identity()).await?;
        Ok(format!("directory with inode {inode} on device {device}"))
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Directory<'_>) -> Result<T, error::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let place = self.0.clone();
        blocking(move || work(&place.open()?)).await
    }

    /// Runs an operation with `count` answers. Without a directory all answers are the same error.
    async fn run_all<T: Send + 'static>(
        &self,
        count: usize,
        work: impl FnOnce(&Directory<'_>) -> Vec<Result<T, error::Error>> + Send + 'static,
    ) -> Vec<Result<T, Error>> {
        let place = self.0.clone();
        let answers = blocking(move || {
            Ok(match place.open() {
                Ok(directory) => work(&directory),
                Err(error) => (0..count).map(|_| Err(error.clone())).collect(),
            })
        });
        match answers.await {
            Ok(answers) => answers.into_iter().map(|answer| answer.map_err(Error::from)).collect(),
            Err(error) => (0..count).map(|_| Err(Error::Failed(causes(&error).into()))).collect(),
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, error::Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(Error::from),
        Err(error) => Err(Error::Failed(error.into())),
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fs: {}", self.0.path().display())
    }
}

#[async_trait]
impl KeyStore for Store {
    async fn create(&self, name: &KeyName, value: &Blob) -> Result<(), Error> {
        let (name, value) = (name.clone(), value.copy());
        self.run(move |directory| directory.create(&name, &value)).await
    }

    async fn get(&self, name: &KeyName) -> Result<Blob, Error> {
        let name = name.clone();
        self.run(move |directory| directory.get(&name)).await
    }

    async fn replace(&self, name: &KeyName, expected: &Blob, value: &Blob) -> Result<(), Error> {
        let (name, expected, value) = (name.clone(), expected.copy(), value.copy());
        self.run(move |directory| directory.replace(&name, &expected, &value)).await
    }

    async fn delete(&self, name: &KeyName) -> Result<(), Error> {
        let name = name.clone();
        self.run(move |directory| directory.delete(&name)).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        let prefix = prefix.to_owned();
        self.run(move |directory| directory.list(&prefix)).await
    }

    async fn status(&self) -> Result<Duration, Error> {
        let started = Instant::now();
        self.run(|_| Ok(())).await?;
        Ok(started.elapsed())
    }

    fn behind(&self) -> Option<&dyn KeyStore> {
        None
    }

    fn about(&self) -> About<'_> {
        About::new(Box::pin(self.identity()))
    }

    async fn check(&self, access: Access) -> Result<(), Error> {
        let writes = access != Access::Read;
        self.run(move |directory| directory.check(writes)).await
    }

    fn batch(&self) -> usize {
        BATCH
    }

    async fn get_batch(&self, names: &[KeyName]) -> Vec<Result<Blob, Error>> {
        let names = names.to_vec();
        self.run_all(names.len(), move |directory| names.iter().map(|name| directory.get(name)).collect()).await
    }

    async fn create_batch(&self, keys: &[(&KeyName, &Blob)]) -> Vec<Result<(), Error>> {
        let keys: Vec<_> = keys.iter().map(|(name, value)| ((*name).clone(), value.copy())).collect();
        self.run_all(keys.len(), move |directory| directory.create_all(&keys)).await
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;

    use super::super::{Foreign, conformance};
    use super::*;

    async fn open(path: &Path) -> Store {
        Store::open(&Config { path: path.into() }).await.expect("opens")
    }

    async fn open_existing(path: &Path) -> Option<Store> {
        Store::open_existing(&Config { path: path.into() }).await.expect("no trouble")
    }

    /// An empty store, and its directory.
    async fn store() -> (Store, tempfile::TempDir) {
        let directory = tempfile::tempdir().expect("a directory");
        (open(directory.path()).await, directory)
    }

    fn name(text: &str) -> KeyName {
        KeyName::parse(text).expect("valid")
    }

    fn blob(text: &str) -> Blob {
        text.as_bytes().to_vec().into()
    }

    fn files(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path).expect("readable");
        entries.map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8")).collect()
    }

    #[tokio::test]
    async fn passes_the_suite() {
        let (store, directory) = store().await;
        conformance::run(&store).await;
        assert_eq!(files(directory.path()), [""; 0], "nor is a temporary file left");
    }

    #[tokio::test]
    async fn a_key_is_a_file_of_its_own_that_only_its_owner_reads() {
        let (store, directory) = store().await;
        store.create(&name("my-key"), &blob("value")).await.expect("created");
        let path = directory.path().join("my-key");
        assert_eq!(fs::read(&path).expect("readable"), b"value");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o7777, 0o600);
        store.replace(&name("my-key"), &blob("value"), &blob("other")).await.expect("replaced");
        assert_eq!(fs::read(&path).expect("readable"), b"other");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o7777, 0o600);
        assert_eq!(files(directory.path()), ["my-key"]);
    }

    #[tokio::test]
    async fn the_directory_is_made_for_a_server_and_never_for_a_reader() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a/b/keys");
        assert!(open_existing(&path).await.is_none());
        assert!(!directory.path().join("a").exists());

        open(&path).await;
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o755);
        assert!(open_existing(&path).await.is_some());
    }

    #[tokio::test]
    async fn leftovers_are_removed_by_a_server_unless_their_writer_lives() {
        let directory = tempfile::tempdir().expect("a directory");
        for name in [".claviger-left", ".claviger-live", ".other", "my-key"] {
            fs::write(directory.path().join(name), "half").expect("written");
        }
        fs::create_dir(directory.path().join(".claviger-directory")).expect("made");
        let live = fs::File::open(directory.path().join(".claviger-live")).expect("opens");
        live.lock().expect("locked");

        let all = files(directory.path()).len();
        let reader = open_existing(directory.path()).await.expect("there");
        assert_eq!(reader.leftovers().await.expect("listed"), [".claviger-left"]);
        assert_eq!(files(directory.path()).len(), all, "a reader removes nothing");

        open(directory.path()).await;
        let mut left = files(directory.path());
        left.sort();
        assert_eq!(left, [".claviger-directory", ".claviger-live", ".other", "my-key"]);
        drop(live);
        open(directory.path()).await;
        assert!(!directory.path().join(".claviger-live").exists());
    }

    #[tokio::test]
    async fn only_what_can_be_a_key_is_listed() {
        let (store, directory) = store().await;
        let path = |name: &str| directory.path().join(name);
        for name in ["b", "a", ".hidden", "a.b", "-lead", "_", "claviger-old-0011223344556677"] {
            fs::write(path(name), "x").expect("written");
        }
        fs::create_dir(path("directory")).expect("made");
        fs::create_dir(path(".directory")).expect("made");
        symlink("a", path("link")).expect("made");
        symlink("nowhere", path("dangling")).expect("made");
        symlink("directory", path("to-directory")).expect("made");
        symlink("a", directory.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9"))).expect("made");
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).expect("made");

        let listing = store.list("").await.expect("listed");
        assert_eq!(listing.names, ["a", "b", "link"].map(name));
        let foreign = |name: &str, reason| Foreign { name: name.into(), reason };
        let expected = [
            foreign("-lead", "not the name of a key"),
            foreign("_", "not the name of a key"),
            foreign("a.b", "not the name of a key"),
            foreign("caf\u{fffd}", "not the name of a key"),
            foreign("claviger-old-0011223344556677", "a value that a replacement of a key keeps"),
            foreign("dangling", "a link that leads to no file"),
            foreign("directory", "a directory"),
            foreign("socket", "a socket"),
            foreign("to-directory", "a directory"),
        ];
        assert_eq!(listing.foreign, expected);
        let listing = store.list("a").await.expect("listed");
        assert_eq!((listing.names, listing.foreign), (vec![name("a")], vec![foreign("a.b", "not the name of a key")]));
    }

    #[tokio::test]
    async fn a_file_that_is_too_large_is_no_key() {
        let (store, directory) = store().await;
        fs::write(directory.path().join("large"), vec![b'x'; (1 << 20) + 1]).expect("written");
        fs::write(directory.path().join("largest"), vec![b'x'; 1 << 20]).expect("written");
        let error = store.get(&name("large")).await.expect_err("too large");
        assert!(matches!(error, Error::Failed(_)) && causes(&error).contains("larger than 1048576 bytes"), "{error:?}");
        assert!(store.get(&name("largest")).await.is_ok());
    }

    #[tokio::test]
    async fn a_link_is_replaced_by_a_file_and_what_it_led_to_stays() {
        let (store, directory) = store().await;
        let target = directory.path().join("target");
        fs::write(&target, "old").expect("written");
        symlink("target", directory.path().join("link")).expect("made");
        store.replace(&name("link"), &blob("old"), &blob("new")).await.expect("replaced");
        assert_eq!(fs::read(&target).expect("readable"), b"old");
        assert!(store.get(&name("link")).await.expect("there").is_same(&blob("new")));
    }
}
