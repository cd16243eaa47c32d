//! The embedded store: one file. A transaction is on disk when its commit returns.

use std::fs::{self, DirBuilder};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, ReadOnlyDatabase, ReadableDatabase, ReadableTable as _, StorageBackend, TableDefinition,
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{Batch, Error, Seals, Store};
use crate::kms::record::Id;

/// The name of the file in the data directory.
const FILE: &str = "claviger.kms";

/// The prefix of files that are not complete yet.
const BEGUN: &str = "claviger.kms.new-";

const RECORDS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("records");
const SEALS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("seals");

/// The size of the page cache, in bytes. It is small, because the state itself is in memory anyway.
const CACHE: usize = 4 * 1024 * 1024;

/// A database file. Only this process has it open.
pub struct Redb {
    database: Database,
    path: PathBuf,
}

impl Redb {
    /// Opens the file in `directory`, and makes the directory or the file where it is missing.
    ///
    /// # Errors
    /// When that fails, or another process has the file open.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let path = directory.join(FILE);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|error| cannot_open(&path, error.into()))?;
        if !path.exists() {
            return Self::create(directory, &path);
        }
        let file = fs::File::options().read(true).write(true).open(&path);
        let file = file.map_err(|error| cannot_open(&path, error.into()))?;
        let file = FileBackend::new(file).map_err(|error| cannot_open(&path, error))?;
        std::thread::scope(|scope| {
            // Read the file once from start to end, so that the operating system has it cached: the library reads pages
            // in random order.
            scope.spawn(|| fs::File::open(&path).and_then(|mut file| io::copy(&mut file, &mut io::sink())));
            Self::on(file, path.clone())
        })
    }

    /// Makes the file under a temporary name, and renames it when it is complete: a power cut must not leave half of
    /// it.
    fn create(directory: &Path, path: &Path) -> Result<Self, Error> {
        let failed = |error: io::Error| cannot_open(path, error.into());
        let number = RandomState::new().hash_one(std::process::id());
        let begun = directory.join(format!("{BEGUN}{number:016x}"));
        let file = fs::File::options().read(true).write(true).create_new(true).mode(0o600).open(&begun);
        let file = FileBackend::new(file.map_err(failed)?).map_err(|error| cannot_open(path, error))?;
        let store = Self::on(file, path.to_owned())?;
        renameat_with(CWD, &begun, CWD, path, RenameFlags::NOREPLACE).map_err(|error| failed(error.into()))?;
        // Make the name of the file durable, too.
        fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
        // Remove files that interrupted starts have left.
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(BEGUN.as_bytes()) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(store)
    }

    /// Opens the database in `storage`. Errors name it by `path`.
    ///
    /// # Errors
    /// As [`Redb::open`].
    pub(in crate::kms) fn on(storage: impl StorageBackend, path: PathBuf) -> Result<Self, Error> {
        let database = Self::builder().create_with_backend(storage);
        let store = Self { database: database.map_err(|error| cannot_open(&path, error))?, path };
        store.create_tables().map_err(|error| store.failed(error))?;
        Ok(store)
    }

    fn builder() -> redb::Builder {
        let mut builder = Database::builder();
        // All data is read at the start anyway, and a manipulated file must be an error.
        builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
        builder
    }

    /// The seals in the file in `directory`, without writing to it. `None` when there is no file, or it cannot be read
    /// without writing, as after a crash. Opening it then says what is wrong.
    pub fn peek(directory: &Path) -> Option<Seals> {
        let path = directory.join(FILE);
        // The library panics on manipulated files. Hide the panic message: it would look like a defect of this program.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let seals = std::panic::catch_unwind(|| {
            let database = ReadOnlyDatabase::open(&path).ok()?;
            read_seals(&database).ok()
        });
        std::panic::set_hook(hook);
        seals.ok().flatten()
    }

    fn create_tables(&self) -> Result<(), redb::Error> {
        let read = self.database.begin_read()?;
        if read.open_table(RECORDS).is_ok() && read.open_table(SEALS).is_ok() {
            return Ok(());
        }
        let transaction = self.database.begin_write()?;
        transaction.open_table(RECORDS)?;
        transaction.open_table(SEALS)?;
        Ok(transaction.commit()?)
    }

    fn failed(&self, error: redb::Error) -> Error {
        Error::new(format!("failed to use '{}'", self.path.display()), error)
    }

    fn try_get(&self, id: &Id) -> Result<Option<Vec<u8>>, redb::Error> {
        let table = self.database.begin_read()?.open_table(RECORDS)?;
        Ok(table.get(id)?.map(|value| value.value().to_vec()))
    }

    fn try_for_each(&self, each: &mut dyn FnMut(&Id, &[u8]) -> bool) -> Result<(), redb::Error> {
        let table = self.database.begin_read()?.open_table(RECORDS)?;
        for entry in table.iter()? {
            let (id, value) = entry?;
            if !each(id.value(), value.value()) {
                break;
            }
        }
        Ok(())
    }

    fn try_commit(&self, batch: &Batch) -> Result<(), redb::Error> {
        // Durable when committed: redb's default.
        let transaction = self.database.begin_write()?;
        if batch.clears {
            transaction.delete_table(RECORDS)?;
        }
        {
            let mut records = transaction.open_table(RECORDS)?;
            for id in &batch.removals {
                records.remove(id)?;
            }
            for (id, value) in &batch.puts {
                records.insert(id, value.as_slice())?;
            }
        }
        if let Some(seals) = &batch.seals {
            transaction.delete_table(SEALS)?;
            let mut table = transaction.open_table(SEALS)?;
            for (name, seal) in seals {
                table.insert(name.as_str(), seal.as_slice())?;
            }
        }
        Ok(transaction.commit()?)
    }
}

fn cannot_open(path: &Path, source: DatabaseError) -> Error {
    let what = format!("failed to open '{}'", path.display());
    match source {
        DatabaseError::DatabaseAlreadyOpen => Error::new(what, "another process has it open"),
        source => Error::new(what, source),
    }
}

fn read_seals(database: &impl ReadableDatabase) -> Result<Seals, redb::Error> {
    let table = database.begin_read()?.open_table(SEALS)?;
    let mut seals = Seals::new();
    for entry in table.iter()? {
        let (name, seal) = entry?;
        seals.insert(name.value().to_owned(), seal.value().to_vec());
    }
    Ok(seals)
}

impl Store for Redb {
    fn seals(&self) -> Result<Seals, Error> {
        read_seals(&self.database).map_err(|error| self.failed(error))
    }

    fn get(&self, id: &Id) -> Result<Option<Vec<u8>>, Error> {
        self.try_get(id).map_err(|error| self.failed(error))
    }

    fn for_each(&self, each: &mut dyn FnMut(&Id, &[u8]) -> bool) -> Result<(), Error> {
        self.try_for_each(each).map_err(|error| self.failed(error))
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), Error> {
        self.try_commit(batch).map_err(|error| self.failed(error))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::conformance;
    use super::*;

    #[test]
    fn is_a_store() {
        let directory = tempfile::tempdir().expect("a directory");
        conformance::run(&mut Redb::open(directory.path()).expect("opened"));
    }

    #[test]
    fn what_is_committed_is_there_when_it_is_opened_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("data");
        let mut store = Redb::open(&path).expect("opened");
        store.commit(&Batch { puts: vec![([1; 32], b"one".to_vec())], ..Batch::default() }).expect("committed");
        drop(store);
        let store = Redb::open(&path).expect("opened");
        assert_eq!(store.get(&[1; 32]).expect("read").as_deref(), Some(&b"one"[..]));
    }

    #[test]
    fn what_a_first_start_has_left_half_made_is_cleared_away() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join(format!("{BEGUN}1")), b"half").expect("written");
        let store = Redb::open(directory.path()).expect("opened");
        let names = fs::read_dir(directory.path()).expect("there").map(|entry| entry.expect("readable").file_name());
        assert_eq!(names.collect::<Vec<_>>(), [FILE]);
        drop(store);
        Redb::open(directory.path()).map(drop).expect("opened again");
    }

    #[test]
    fn the_file_is_nobody_elses() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("data");
        let store = Redb::open(&path).expect("opened");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join(FILE))), (0o700, 0o600));
        let Err(second) = Redb::open(&path) else { panic!("opened twice") };
        assert!(crate::telemetry::log::causes(&second).contains("another process has it open"), "{second:?}");
        drop(store);
        Redb::open(&path).map(drop).expect("free again");
    }
}
