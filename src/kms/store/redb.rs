//! The embedded store: one file. A transaction is on disk when its commit returns.

mod held;
mod place;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError, TableDefinition, WriteTransaction,
};

use self::held::Storage;
use self::place::Directory;
use super::{Batch, Begun, Error, Seals, Store};
use crate::kms::record::Id;

pub(in crate::kms) use self::place::{Nameless, Place};

const RECORDS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("records");
const SEALS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("seals");

/// How much of the file is kept in memory, in bytes: all that is asked for again and again is elsewhere.
const CACHE: usize = 4 * 1024 * 1024;

/// How many records of a new file are handed over at once.
const TOGETHER: usize = 1_024;

/// A database file that this process alone has open.
pub struct Redb {
    place: Arc<dyn Place>,
    /// None: there is no file yet, or it could not be opened again.
    database: Option<Database>,
    /// Held: nothing has been written since it was opened.
    storage: Option<Storage>,
    is_settled: bool,
}

impl Redb {
    /// Opens the file in `directory`, which is made if it is missing, and reads all of it once to see that it is whole.
    /// Nothing is written before [`Store::settle`].
    ///
    /// # Errors
    /// When that cannot be done, another process has the file open, or it is damaged.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let place = Directory::new(directory)
            .map_err(|error| Error::new(format!("failed to use the directory '{}'", directory.display()), error))?;
        std::thread::scope(|scope| {
            let path = place.path().to_owned();
            // All of it is needed now, and the library asks for one page after the other, from all over the file.
            scope.spawn(move || std::fs::File::open(path).and_then(|mut file| io::copy(&mut file, &mut io::sink())));
            Self::at(Arc::new(place))
        })
    }

    /// Opens the file at a place.
    ///
    /// # Errors
    /// As [`Redb::open`].
    pub(in crate::kms) fn at(place: Arc<dyn Place>) -> Result<Self, Error> {
        let cannot = |error: DatabaseError| cannot_open(place.path(), error);
        let Some(file) = place.open().map_err(|error| cannot(error.into()))? else {
            return Ok(Self { place, database: None, storage: None, is_settled: false });
        };
        if file.len().map_err(|error| cannot(error.into()))? == 0 {
            return Err(Error::damaged(place.path(), "it is empty"));
        }
        let storage = Storage::held(file).map_err(|error| cannot(error.into()))?;
        // The library promises an error for a file that was altered, and panics where it is wrong about that.
        let open = || builder().set_check_integrity_on_open(true).create_with_backend(storage.clone());
        let opened = catch_unwind(AssertUnwindSafe(open));
        let database = opened.map_err(|_| Error::damaged(place.path(), NONSENSE))?.map_err(cannot)?;
        Ok(Self { place: place.clone(), database: Some(database), storage: Some(storage), is_settled: false })
    }

    fn failed(&self, error: redb::Error) -> Error {
        let path = self.place.path();
        match error {
            redb::Error::Corrupted(cause) => Error::damaged(path, cause),
            redb::Error::PreviousIo => {
                Error::new(failed_to_use(path), "an earlier write failed; see to the disk and start the server again")
            }
            error => Error::new(failed_to_use(path), error),
        }
    }

    /// Reads something of the file; none where there is no file. While nothing has been written, a panic is the file's
    /// fault.
    fn read<T>(&self, read: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<Option<T>, Error> {
        let Some(database) = &self.database else { return Ok(None) };
        if self.is_settled {
            return read(database).map(Some).map_err(|error| self.failed(error));
        }
        let read = catch_unwind(AssertUnwindSafe(|| read(database)));
        let read = read.map_err(|_| Error::damaged(self.place.path(), NONSENSE))?;
        read.map(Some).map_err(|error| self.failed(error))
    }

    /// Opens the file for writing, where that was not done yet. Nobody else can have had it in between.
    fn release(&mut self) -> Result<(), Error> {
        let Some(storage) = self.storage.take() else { return Ok(()) };
        self.database = None;
        storage.release();
        let database = builder().create_with_backend(storage);
        self.database = Some(database.map_err(|error| cannot_open(self.place.path(), error))?);
        Ok(())
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE);
    builder
}

/// What a file is that makes the library panic.
const NONSENSE: &str = "its parts do not fit together";

fn failed_to_use(path: &Path) -> String {
    format!("failed to use '{}'", path.display())
}

fn cannot_open(path: &Path, source: DatabaseError) -> Error {
    let what = format!("failed to open '{}'", path.display());
    match source {
        DatabaseError::DatabaseAlreadyOpen => Error::new(what, "another process has it open"),
        DatabaseError::Storage(StorageError::Corrupted(cause)) => Error::damaged(path, cause),
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
            Error::damaged(path, "it does not begin as a data file of the key manager does")
        }
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Error::damaged(path, "its end is missing")
        }
        DatabaseError::RepairAborted => Error::damaged(path, NONSENSE),
        DatabaseError::UpgradeRequired(_) => Error::damaged(path, "its version is one that there is not"),
        source => Error::new(what, source),
    }
}

fn read_seals(database: &Database) -> Result<Seals, redb::Error> {
    let table = database.begin_read()?.open_table(SEALS)?;
    let mut seals = Seals::new();
    for entry in table.iter()? {
        let (name, seal) = entry?;
        seals.insert(name.value().to_owned(), seal.value().to_vec());
    }
    Ok(seals)
}

fn read_all(database: &Database, each: &mut dyn FnMut(&Id, &[u8]) -> bool) -> Result<(), redb::Error> {
    let table = database.begin_read()?.open_table(RECORDS)?;
    for entry in table.iter()? {
        let (id, value) = entry?;
        if !each(id.value(), value.value()) {
            break;
        }
    }
    Ok(())
}

fn read_one(database: &Database, id: &Id) -> Result<Option<Vec<u8>>, redb::Error> {
    let table = database.begin_read()?.open_table(RECORDS)?;
    Ok(table.get(id)?.map(|value| value.value().to_vec()))
}

fn put_seals(transaction: &WriteTransaction, seals: &Seals) -> Result<(), redb::Error> {
    let mut table = transaction.open_table(SEALS)?;
    for (name, seal) in seals {
        table.insert(name.as_str(), seal.as_slice())?;
    }
    Ok(())
}

fn put_records(transaction: &WriteTransaction, puts: &[(Id, Vec<u8>)]) -> Result<(), redb::Error> {
    let mut records = transaction.open_table(RECORDS)?;
    for (id, value) in puts {
        records.insert(id, value.as_slice())?;
    }
    Ok(())
}

fn commit(database: &Database, batch: &Batch) -> Result<(), redb::Error> {
    // Durable when committed: the library's default.
    let transaction = database.begin_write()?;
    {
        let mut records = transaction.open_table(RECORDS)?;
        for id in &batch.removals {
            records.remove(id)?;
        }
    }
    put_records(&transaction, &batch.puts)?;
    put_seals(&transaction, &batch.seals)?;
    Ok(transaction.commit()?)
}

impl Store for Redb {
    fn seals(&self) -> Result<Seals, Error> {
        Ok(self.read(read_seals)?.unwrap_or_default())
    }

    fn get(&self, id: &Id) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.read(|database| read_one(database, id))?.flatten())
    }

    fn for_each(&self, each: &mut dyn FnMut(&Id, &[u8]) -> bool) -> Result<(), Error> {
        self.read(|database| read_all(database, each)).map(drop)
    }

    fn settle(&mut self) -> Result<(), Error> {
        if !self.is_settled {
            self.release()?;
            self.place.settle().map_err(|error| Error::new(failed_to_use(self.place.path()), error))?;
            self.is_settled = true;
        }
        Ok(())
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), Error> {
        self.settle()?;
        let Some(database) = &self.database else {
            return Err(Error::new(failed_to_use(self.place.path()), "it is not open"));
        };
        commit(database, batch).map_err(|error| self.failed(error))
    }

    fn begin(&self, seals: &Seals) -> Result<Box<dyn Begun>, Error> {
        let place = self.place.clone();
        let cannot =
            |error: DatabaseError| Error::new(format!("failed to write a new '{}'", place.path().display()), error);
        let (file, name) = place.begin().map_err(|error| cannot(error.into()))?;
        let whole = Whole { place: self.place.clone(), name, is_first: self.database.is_none(), is_installed: false };
        let database = builder().create_with_backend(Storage::new(file)).map_err(cannot)?;
        let mut begun = Fresh { whole, database, transaction: None, waiting: Vec::new() };
        begun.start(seals).map_err(|error| begun.failed(error))?;
        Ok(Box::new(begun))
    }
}

/// A file that is being made.
struct Fresh {
    database: Database,
    transaction: Option<WriteTransaction>,
    waiting: Vec<(Id, Vec<u8>)>,
    whole: Whole,
}

/// The name that a file is to have; without it, the file goes.
struct Whole {
    place: Arc<dyn Place>,
    name: Nameless,
    is_first: bool,
    is_installed: bool,
}

impl Drop for Whole {
    fn drop(&mut self) {
        if !self.is_installed {
            self.place.discard(&self.name);
        }
    }
}

impl Fresh {
    fn start(&mut self, seals: &Seals) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        put_seals(&transaction, seals)?;
        put_records(&transaction, &[])?;
        self.transaction = Some(transaction);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), redb::Error> {
        if let Some(transaction) = &self.transaction {
            put_records(transaction, &self.waiting)?;
            self.waiting.clear();
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), redb::Error> {
        self.flush()?;
        match self.transaction.take() {
            Some(transaction) => Ok(transaction.commit()?),
            None => Ok(()),
        }
    }

    fn failed(&self, error: redb::Error) -> Error {
        Error::new(format!("failed to write a new '{}'", self.whole.place.path().display()), error)
    }
}

impl Begun for Fresh {
    fn put(&mut self, id: &Id, value: &[u8]) -> Result<(), Error> {
        self.waiting.push((*id, value.to_vec()));
        if self.waiting.len() < TOGETHER {
            return Ok(());
        }
        self.flush().map_err(|error| self.failed(error))
    }

    fn read_back(&mut self, each: &mut dyn FnMut(&Id, &[u8]) -> bool) -> Result<Seals, Error> {
        self.write().map_err(|error| self.failed(error))?;
        let read = read_all(&self.database, each).and_then(|()| read_seals(&self.database));
        read.map_err(|error| self.failed(error))
    }

    fn install(mut self: Box<Self>) -> Result<Box<dyn Store>, Error> {
        self.write().map_err(|error| self.failed(error))?;
        let Self { database, mut whole, .. } = *self;
        let installed = whole.place.install(&whole.name, whole.is_first);
        installed
            .map_err(|error| Error::new(format!("failed to replace '{}'", whole.place.path().display()), error))?;
        whole.is_installed = true;
        Ok(Box::new(Redb { place: whole.place.clone(), database: Some(database), storage: None, is_settled: false }))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::conformance;
    use super::place::{BEGUN, FILE};
    use super::*;

    /// A store with a file.
    fn made(directory: &Path) -> Box<dyn Store> {
        let store = Redb::open(directory).expect("opened");
        let mut store = store.begin(&Seals::new()).expect("begun").install().expect("installed");
        store.settle().expect("settled");
        store
    }

    fn names(directory: &Path) -> Vec<std::ffi::OsString> {
        fs::read_dir(directory).expect("there").map(|entry| entry.expect("readable").file_name()).collect()
    }

    #[test]
    fn is_a_store() {
        let directory = tempfile::tempdir().expect("a directory");
        conformance::run(Box::new(Redb::open(directory.path()).expect("opened")));
    }

    #[test]
    fn what_is_committed_is_there_when_it_is_opened_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("data");
        let mut store = made(&path);
        store.commit(&Batch { puts: vec![([1; 32], b"one".to_vec())], ..Batch::default() }).expect("committed");
        drop(store);
        let store = Redb::open(&path).expect("opened");
        assert_eq!(store.get(&[1; 32]).expect("read").as_deref(), Some(&b"one"[..]));
    }

    #[test]
    fn what_was_left_half_made_is_cleared_away() {
        let directory = tempfile::tempdir().expect("a directory");
        let leave = || fs::write(directory.path().join(format!("{BEGUN}1")), b"half").expect("written");
        leave();
        drop(made(directory.path()));
        assert_eq!(names(directory.path()), [FILE]);
        leave();
        let mut store = Redb::open(directory.path()).expect("opened again");
        store.settle().expect("settled");
        drop(store.begin(&Seals::new()).expect("begun"));
        assert_eq!(names(directory.path()), [FILE]);
    }

    #[test]
    fn the_file_is_nobody_elses() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("data");
        let store = made(&path);
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join(FILE))), (0o700, 0o600));
        let is_taken = || {
            let Err(second) = Redb::open(&path) else { panic!("opened twice") };
            assert!(crate::telemetry::log::causes(&second).contains("another process has it open"), "{second:?}");
        };
        is_taken();
        drop(store);
        let mut store = Redb::open(&path).expect("free again");
        is_taken();
        store.settle().expect("settled");
        is_taken();
        drop(store);
        Redb::open(&path).map(drop).expect("free again");
    }

    #[test]
    fn what_is_only_looked_at_does_not_change_even_after_a_crash() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(FILE);
        let mut store = made(directory.path());
        let crashed = fs::read(&path).expect("readable");
        store.commit(&Batch { puts: vec![([1; 32], vec![1; 9_999])], ..Batch::default() }).expect("committed");
        let later = fs::read(&path).expect("readable");
        drop(store);
        let closed = fs::read(&path).expect("readable");
        assert!(closed != later, "a crash leaves the file as it was, and an end does not");
        for content in [crashed, later, closed] {
            fs::write(&path, &content).expect("written");
            let store = Redb::open(directory.path()).expect("opened");
            store.for_each(&mut |_, _| true).expect("readable");
            drop(store);
            assert!(fs::read(&path).expect("readable") == content, "it was changed");
        }
    }

    #[test]
    fn a_damaged_file_says_so_in_plain_words_names_the_way_back_and_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(FILE);
        let mut store = made(directory.path());
        store.commit(&Batch { puts: vec![([1; 32], vec![1; 99_999])], ..Batch::default() }).expect("committed");
        drop(store);
        let whole = fs::read(&path).expect("readable");
        let (half, mut overwritten) = (whole[..whole.len() / 2].to_vec(), whole.clone());
        overwritten[4_096..].fill(0x55);
        for damaged in [Vec::new(), b"no database".to_vec(), vec![0; 100_000], half, overwritten] {
            fs::write(&path, &damaged).expect("written");
            let error = match Redb::open(directory.path()) {
                Err(error) => crate::telemetry::log::causes(&error),
                Ok(_) => panic!("{} bytes were opened", damaged.len()),
            };
            assert!(error.contains(&format!("'{}' is damaged: ", path.display())), "{error}");
            assert!(error.contains("claviger kms restore"), "{error}");
            assert!(fs::read(&path).expect("readable") == damaged, "it was changed");
        }
    }

    #[test]
    fn a_file_behind_a_link_is_replaced_where_it_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let [here, there] = ["here", "there"].map(|name| directory.path().join(name));
        drop(made(&there));
        fs::create_dir(&here).expect("made");
        std::os::unix::fs::symlink(there.join(FILE), here.join(FILE)).expect("linked");
        let store = Redb::open(&here).expect("opened");
        let mut begun = store.begin(&Seals::new()).expect("begun");
        begun.put(&[1; 32], b"one").expect("put");
        begun.install().expect("installed").settle().expect("settled");
        drop(store);
        assert!(fs::symlink_metadata(here.join(FILE)).expect("there").is_symlink());
        assert!(Redb::open(&there).expect("opened").get(&[1; 32]).expect("read").is_some());
    }
}
