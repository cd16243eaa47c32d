//! The embedded store: one file, written by transactions that are on disk before they are done.

use std::fs::{self, DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Database, ReadOnlyDatabase, ReadableDatabase, ReadableTable as _, TableDefinition};

use super::{Batch, Error, Seals, Store};
use crate::kms::record::Id;

/// The name of the file in the data directory.
const FILE: &str = "claviger.kms";

const RECORDS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("records");
const SEALS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("seals");

/// How much of the file is kept in memory, in bytes: all that is asked for again and again is elsewhere.
const CACHE: usize = 4 * 1024 * 1024;

/// A database file that this process alone has open.
pub struct Redb {
    database: Database,
    path: PathBuf,
}

impl Redb {
    /// Opens the file in `directory`; makes either where it is missing.
    ///
    /// # Errors
    /// When that cannot be done, or another process has the file open.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let path = directory.join(FILE);
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(format!("failed to open '{}'", path.display()), source)
        };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|error| failed(error.into()))?;
        let is_new = !path.exists();
        // Made here, so that nobody else can read it at any time.
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(|error| failed(error.into()))?;
        let backend = FileBackend::new(file);
        let database = backend.and_then(|file| Self::builder().create_with_backend(file));
        let database = database.map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => failed("another process has it open".into()),
            error => failed(error.into()),
        })?;
        if is_new {
            // The file's name is to last as its content does.
            fs::File::open(directory)
                .and_then(|directory| directory.sync_all())
                .map_err(|error| failed(error.into()))?;
        }
        let store = Self { database, path };
        store.create_tables().map_err(|error| store.failed(error))?;
        Ok(store)
    }

    fn builder() -> redb::Builder {
        let mut builder = Database::builder();
        // Everything is read at the start anyway, and a file that was altered is to be an error.
        builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
        builder
    }

    /// The seals in the file in `directory`, without writing to it; none where there is no file, or none that can be
    /// read like this: after a crash it must be opened for writing, and an altered one says so then.
    pub fn peek(directory: &Path) -> Option<Seals> {
        let path = directory.join(FILE);
        // The library panics on files that were altered. That is no defect of ours, and nobody is to be told so.
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
