//! The storage of a database that nothing is written to while it is held: what would be written stays in memory.
//!
//! The database writes when it is opened, and again when it has to be repaired after a crash. A file that is not ours to
//! open, or that is damaged, must not change.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use redb::{BackendError, StorageBackend};

/// The size of what is kept as one piece, in bytes.
const PIECE: u64 = 4_096;

/// A file, or what it would be if it had been written to. Every clone is the same one.
#[derive(Debug, Clone)]
pub(super) struct Storage(Arc<Inner>);

struct Inner {
    file: Box<dyn StorageBackend>,
    held: RwLock<Option<Held>>,
}

/// What would have been written.
struct Held {
    len: u64,
    /// Where the file's own content ends that still counts.
    ends: u64,
    /// Pieces that differ from the file, by their numbers.
    pieces: BTreeMap<u64, Vec<u8>>,
}

impl Storage {
    /// A file that is written to.
    pub(super) fn new(file: Box<dyn StorageBackend>) -> Self {
        Self(Arc::new(Inner { file, held: RwLock::new(None) }))
    }

    /// A file that is not written to until [`Storage::release`].
    ///
    /// # Errors
    /// When its length cannot be had.
    pub(super) fn held(file: Box<dyn StorageBackend>) -> io::Result<Self> {
        let len = file.len()?;
        let held = Held { len, ends: len, pieces: BTreeMap::new() };
        Ok(Self(Arc::new(Inner { file, held: RwLock::new(Some(held)) })))
    }

    /// Forgets what would have been written, and lets the next database write.
    pub(super) fn release(&self) {
        *self.0.held.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn read_held(&self) -> RwLockReadGuard<'_, Option<Held>> {
        self.0.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is held; none if nothing is.
    fn change<T>(&self, change: impl FnOnce(&mut Held, &dyn StorageBackend) -> io::Result<T>) -> Option<io::Result<T>> {
        let mut held = self.0.held.write().unwrap_or_else(PoisonError::into_inner);
        held.as_mut().map(|held| change(held, &*self.0.file))
    }
}

impl Held {
    /// A piece as it is now.
    fn piece(&self, number: u64, file: &dyn StorageBackend) -> io::Result<Vec<u8>> {
        if let Some(piece) = self.pieces.get(&number) {
            return Ok(piece.clone());
        }
        let mut piece = vec![0; size(PIECE)];
        let begin = number * PIECE;
        let len = self.ends.saturating_sub(begin).min(PIECE);
        if len > 0 {
            file.read(begin, &mut piece[..size(len)])?;
        }
        Ok(piece)
    }

    fn read(&self, offset: u64, out: &mut [u8], file: &dyn StorageBackend) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= self.len);
        end.ok_or(io::ErrorKind::UnexpectedEof)?;
        for part in parts(offset, out.len()) {
            let piece = self.piece(part.number, file)?;
            out[part.of_whole].copy_from_slice(&piece[part.of_piece]);
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8], file: &dyn StorageBackend) -> io::Result<()> {
        for part in parts(offset, data.len()) {
            let mut piece = self.piece(part.number, file)?;
            piece[part.of_piece].copy_from_slice(&data[part.of_whole]);
            self.pieces.insert(part.number, piece);
        }
        self.len = self.len.max(offset + data.len() as u64);
        Ok(())
    }

    fn set_len(&mut self, len: u64, file: &dyn StorageBackend) -> io::Result<()> {
        if len < self.len {
            // What is cut off is zero, should it ever be there again.
            let (last, rest) = (len / PIECE, size(len % PIECE));
            let mut piece = self.piece(last, file)?;
            piece[rest..].fill(0);
            self.pieces.split_off(&last);
            self.pieces.insert(last, piece);
            self.ends = self.ends.min(len);
        }
        self.len = len;
        Ok(())
    }
}

/// A part of a range that lies in one piece.
struct Part {
    number: u64,
    of_piece: std::ops::Range<usize>,
    of_whole: std::ops::Range<usize>,
}

fn parts(offset: u64, len: usize) -> impl Iterator<Item = Part> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let begin = size(at % PIECE);
        let count = (len - done).min(size(PIECE) - begin);
        let part = Part { number: at / PIECE, of_piece: begin..begin + count, of_whole: done..done + count };
        done += count;
        (count > 0).then_some(part)
    })
}

/// What is no more than [`PIECE`], as a size in memory.
fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

impl StorageBackend for Storage {
    fn len(&self) -> io::Result<u64> {
        match &*self.read_held() {
            Some(held) => Ok(held.len),
            None => self.0.file.len(),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match &*self.read_held() {
            Some(held) => held.read(offset, out, &*self.0.file),
            None => self.0.file.read(offset, out),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|held, file| held.set_len(len, file)).unwrap_or_else(|| self.0.file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.read_held().is_some() { Ok(()) } else { self.0.file.sync_data() }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(|held, file| held.write(offset, data, file)).unwrap_or_else(|| self.0.file.write(offset, data))
    }

    /// Keeps the locks while it is held: the next database takes over, and nobody comes between.
    fn close(&self) -> io::Result<()> {
        if self.read_held().is_some() { Ok(()) } else { self.0.file.close() }
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.query_lock_range(start, end)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage").field("file", &self.file).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redb::backends::InMemoryBackend;

    use super::*;

    #[derive(Debug, Clone)]
    enum Change {
        Write(u64, Vec<u8>),
        Len(u64),
    }

    fn change() -> impl Strategy<Value = Change> {
        let data = prop::collection::vec(any::<u8>(), 0..9_000);
        prop_oneof![
            (0..20_000_u64, data).prop_map(|(at, data)| Change::Write(at, data)),
            (0..20_000_u64).prop_map(Change::Len)
        ]
    }

    fn content(storage: &dyn StorageBackend) -> Vec<u8> {
        let mut bytes = vec![0; size(storage.len().expect("a length"))];
        storage.read(0, &mut bytes).expect("readable");
        bytes
    }

    proptest! {
        #[test]
        fn it_is_read_as_if_it_had_been_written(begins_with: Vec<u8>, changes in prop::collection::vec(change(), 0..20)) {
            let file = InMemoryBackend::new();
            file.set_len(begins_with.len() as u64).expect("room");
            file.write(0, &begins_with).expect("written");
            let storage = Storage::held(Box::new(file)).expect("a length");
            let mut model = begins_with.clone();
            for change in changes {
                match change {
                    Change::Len(len) => {
                        storage.set_len(len).expect("in memory");
                        model.resize(size(len), 0);
                    }
                    Change::Write(at, data) => {
                        storage.write(at, &data).expect("in memory");
                        let (at, end) = (size(at), size(at) + data.len());
                        model.resize(model.len().max(end), 0);
                        model[at..end].copy_from_slice(&data);
                    }
                }
                prop_assert!(content(&storage) == model);
            }
            let past = storage.read(model.len() as u64, &mut [0]);
            prop_assert!(past.is_err());
            storage.release();
            prop_assert!(content(&storage) == begins_with, "the file is what it was");
        }
    }
}
