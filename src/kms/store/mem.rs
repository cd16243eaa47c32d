//! A store in memory, which is lost when the process ends.

use std::collections::BTreeMap;

use super::{Batch, Begun, Error, Seals, Store};
use crate::kms::record::Id;

/// Records in memory.
#[derive(Debug, Default)]
pub struct Mem {
    seals: Seals,
    records: BTreeMap<Id, Vec<u8>>,
}

impl Mem {
    /// An empty store with these seals.
    #[cfg(test)]
    pub(in crate::kms) fn with(seals: Seals) -> Self {
        Self { seals, records: BTreeMap::new() }
    }
}

impl Store for Mem {
    fn seals(&self) -> Result<Seals, Error> {
        Ok(self.seals.clone())
    }

    fn get(&self, id: &Id) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.records.get(id).cloned())
    }

    fn for_each(&self, each: &mut dyn FnMut(&Id, &[u8]) -> bool) -> Result<(), Error> {
        self.records.iter().all(|(id, value)| each(id, value));
        Ok(())
    }

    fn settle(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), Error> {
        for id in &batch.removals {
            self.records.remove(id);
        }
        self.records.extend(batch.puts.iter().cloned());
        self.seals.extend(batch.seals.clone());
        Ok(())
    }

    fn begin(&self, seals: &Seals) -> Result<Box<dyn Begun>, Error> {
        Ok(Box::new(Self { seals: seals.clone(), records: BTreeMap::new() }))
    }
}

impl Begun for Mem {
    fn put(&mut self, id: &Id, value: &[u8]) -> Result<(), Error> {
        self.records.insert(*id, value.to_vec());
        Ok(())
    }

    fn read_back(&mut self, each: &mut dyn FnMut(&Id, &[u8]) -> bool) -> Result<Seals, Error> {
        self.for_each(each)?;
        self.seals()
    }

    fn install(self: Box<Self>) -> Result<Box<dyn Store>, Error> {
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance;
    use super::*;

    #[test]
    fn is_a_store() {
        conformance::run(Box::new(Mem::default()));
    }
}
