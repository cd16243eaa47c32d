//! A store in memory, which is lost when the process ends.

use std::collections::BTreeMap;

use super::{Batch, Error, Seals, Store};
use crate::kms::record::Id;

/// Records in memory.
#[derive(Debug, Default)]
pub struct Mem {
    seals: Seals,
    records: BTreeMap<Id, Vec<u8>>,
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

    fn commit(&mut self, batch: &Batch) -> Result<(), Error> {
        if batch.clears {
            self.records.clear();
        }
        for id in &batch.removals {
            self.records.remove(id);
        }
        self.records.extend(batch.puts.iter().cloned());
        if let Some(seals) = &batch.seals {
            self.seals.clone_from(seals);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance;
    use super::*;

    #[test]
    fn is_a_store() {
        conformance::run(&mut Mem::default());
    }
}
