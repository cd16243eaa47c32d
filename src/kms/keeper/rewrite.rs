//! Writing everything anew, into a store that takes the place of the old one when all of it is there and has been read
//! back.

use super::Error;
use crate::kms::record::{Cipher, Damaged, Id, Place, Record, State};
use crate::kms::store::{self, Begun, Seals, Store};

/// A store that is being filled.
pub(super) struct Rewrite<'c> {
    begun: Box<dyn Begun>,
    seals: Seals,
    cipher: &'c Cipher,
    /// The place of the record of the state.
    state_id: Id,
    state: State,
}

/// What was written, and is in its place.
pub(super) struct Written {
    pub(super) store: Box<dyn Store>,
    pub(super) state: State,
}

impl<'c> Rewrite<'c> {
    /// Begins to write records under `cipher`.
    pub(super) fn begin(store: &dyn Store, seals: &Seals, cipher: &'c Cipher) -> Result<Self, Error> {
        let (begun, state_id) = (store.begin(seals)?, cipher.id(&Place::state()));
        Ok(Self { begun, seals: seals.clone(), cipher, state_id, state: State::default() })
    }

    /// Writes a record. That of the state is made when all others are there.
    pub(super) fn put(&mut self, id: &Id, value: &[u8]) -> Result<(), store::Error> {
        if *id == self.state_id {
            return Ok(());
        }
        self.state.records += 1;
        self.state.toggle(&self.cipher.mark(id, value));
        self.begun.put(id, value)
    }

    /// Writes what `change` makes of each record of a store, which must be as it was last written.
    pub(super) fn copy(
        &mut self,
        from: &dyn Store,
        cipher: &Cipher,
        as_written: &State,
        mut change: impl FnMut(&Id, &[u8]) -> Result<Option<(Id, Vec<u8>)>, Error>,
    ) -> Result<(), Error> {
        let state_id = cipher.id(&Place::state());
        let (mut seen, mut copied) =
            (State { commit: as_written.commit, epoch: as_written.epoch, ..State::default() }, Ok(()));
        from.for_each(&mut |id, value| {
            if *id == state_id {
                return true;
            }
            seen.records += 1;
            seen.toggle(&cipher.mark(id, value));
            copied = change(id, value).and_then(|changed| match changed {
                Some((id, value)) => Ok(self.put(&id, &value)?),
                None => Ok(()),
            });
            copied.is_ok()
        })?;
        copied?;
        if seen == *as_written { Ok(()) } else { Err(Damaged::Incomplete.into()) }
    }

    /// Writes the state, reads everything back, and puts it in the place of the old store.
    pub(super) fn finish(mut self, commit: u64, epoch: u64) -> Result<Written, Error> {
        (self.state.commit, self.state.epoch) = (commit, epoch);
        let (id, value) = self.cipher.seal(&Record::State(self.state))?;
        self.begun.put(&id, &value)?;
        self.check()?;
        Ok(Written { store: self.begun.install()?, state: self.state })
    }

    /// Whether what can be read of it is all that was written.
    fn check(&mut self) -> Result<(), Error> {
        let (cipher, mut seen, mut written, mut damage) = (self.cipher, State::default(), None, Ok(()));
        let seals = self.begun.read_back(&mut |id, value| {
            match cipher.open(id, value) {
                Ok(Record::State(state)) => written = Some(state),
                Ok(_) => {
                    seen.records += 1;
                    seen.toggle(&cipher.mark(id, value));
                }
                Err(error) => damage = Err(error),
            }
            damage.is_ok()
        })?;
        damage?;
        (seen.commit, seen.epoch) = (self.state.commit, self.state.epoch);
        let is_whole = seen == self.state && written == Some(self.state) && seals == self.seals;
        if is_whole { Ok(()) } else { Err(Damaged::Incomplete.into()) }
    }
}
