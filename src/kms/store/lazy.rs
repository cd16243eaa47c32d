//! A store that keeps what was committed in memory, and writes it to another store when it is told to.

use std::collections::BTreeMap;

use super::{Batch, Begun, Error, Seals, Store};
use crate::kms::record::Id;

/// A store in front of another one. It is for data that others have, too: a crash loses what was not flushed.
pub struct Lazy {
    inner: Box<dyn Store>,
    /// Records that were changed since the last flush; none inside: removed.
    changed: BTreeMap<Id, Option<Vec<u8>>>,
    /// Seals that were added since.
    seals: Seals,
}

impl Lazy {
    /// Puts one in front of a store.
    pub fn new(inner: Box<dyn Store>) -> Self {
        Self { inner, changed: BTreeMap::new(), seals: Seals::new() }
    }
}

impl Store for Lazy {
    fn seals(&self) -> Result<Seals, Error> {
        let mut seals = self.inner.seals()?;
        seals.extend(self.seals.clone());
        Ok(seals)
    }

    fn get(&self, id: &Id) -> Result<Option<Vec<u8>>, Error> {
        match self.changed.get(id) {
            Some(value) => Ok(value.clone()),
            None => self.inner.get(id),
        }
    }

    fn for_each(&self, each: &mut dyn FnMut(&Id, &[u8]) -> bool) -> Result<(), Error> {
        let mut goes_on = true;
        self.inner.for_each(&mut |id, value| {
            if !self.changed.contains_key(id) {
                goes_on = each(id, value);
            }
            goes_on
        })?;
        if goes_on {
            let mut new = self.changed.iter().filter_map(|(id, value)| Some((id, value.as_ref()?)));
            new.all(|(id, value)| each(id, value));
        }
        Ok(())
    }

    /// What was committed since the last flush stays in memory.
    fn settle(&mut self) -> Result<(), Error> {
        self.inner.settle()
    }

    /// Keeps it in memory until the next flush.
    fn commit(&mut self, batch: &Batch) -> Result<(), Error> {
        self.changed.extend(batch.removals.iter().map(|id| (*id, None)));
        self.changed.extend(batch.puts.iter().map(|(id, value)| (*id, Some(value.clone()))));
        self.seals.extend(batch.seals.clone());
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        if self.changed.is_empty() && self.seals.is_empty() {
            return Ok(());
        }
        let mut batch = Batch { seals: self.seals.clone(), ..Batch::default() };
        for (id, value) in std::mem::take(&mut self.changed) {
            match value {
                Some(value) => batch.puts.push((id, value)),
                None => batch.removals.push(id),
            }
        }
        match self.inner.commit(&batch) {
            Ok(()) => self.seals.clear(),
            Err(error) => {
                self.commit(&batch)?;
                return Err(error);
            }
        }
        self.inner.flush()
    }

    fn begin(&self, seals: &Seals) -> Result<Box<dyn Begun>, Error> {
        Ok(Box::new(Fresh(self.inner.begin(seals)?)))
    }
}

/// One that is being made.
struct Fresh(Box<dyn Begun>);

impl Begun for Fresh {
    fn put(&mut self, id: &Id, value: &[u8]) -> Result<(), Error> {
        self.0.put(id, value)
    }

    fn read_back(&mut self, each: &mut dyn FnMut(&Id, &[u8]) -> bool) -> Result<Seals, Error> {
        self.0.read_back(each)
    }

    fn install(self: Box<Self>) -> Result<Box<dyn Store>, Error> {
        Ok(Box::new(Lazy::new(self.0.install()?)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use proptest::prelude::*;

    use super::super::{Mem, Redb, conformance};
    use super::*;

    #[test]
    fn is_a_store() {
        conformance::run(Box::new(Lazy::new(Box::new(Mem::default()))));
        let directory = tempfile::tempdir().expect("a directory");
        conformance::run(Box::new(Lazy::new(Box::new(Redb::open(directory.path()).expect("opened")))));
    }

    /// A store whose disk may be broken.
    struct Broken(Mem, Arc<AtomicBool>);

    impl Store for Broken {
        fn seals(&self) -> Result<Seals, Error> {
            self.0.seals()
        }

        fn get(&self, id: &Id) -> Result<Option<Vec<u8>>, Error> {
            self.0.get(id)
        }

        fn for_each(&self, each: &mut dyn FnMut(&Id, &[u8]) -> bool) -> Result<(), Error> {
            self.0.for_each(each)
        }

        fn settle(&mut self) -> Result<(), Error> {
            self.0.settle()
        }

        fn commit(&mut self, batch: &Batch) -> Result<(), Error> {
            if self.1.load(Relaxed) {
                return Err(Error::new("failed to write", "the disk is broken"));
            }
            self.0.commit(batch)
        }

        fn begin(&self, seals: &Seals) -> Result<Box<dyn Begun>, Error> {
            self.0.begin(seals)
        }
    }

    fn all(store: &dyn Store) -> (Seals, BTreeMap<Id, Vec<u8>>) {
        let mut all = BTreeMap::new();
        let mut see = |id: &Id, value: &[u8]| {
            assert_eq!(all.insert(*id, value.to_vec()), None, "once");
            true
        };
        store.for_each(&mut see).expect("readable");
        (store.seals().expect("readable"), all)
    }

    #[derive(Debug, Clone)]
    enum Step {
        Commit(Vec<(u8, Vec<u8>)>, Vec<u8>, Option<u8>),
        Flush,
        Break(bool),
        Replace(Vec<(u8, Vec<u8>)>),
    }

    fn step() -> impl Strategy<Value = Step> {
        let puts = || prop::collection::vec((0..12_u8, prop::collection::vec(any::<u8>(), 0..3)), 0..5);
        prop_oneof![
            6 => (puts(), prop::collection::vec(0..12_u8, 0..4), prop::option::of(0..3_u8))
                .prop_map(|(puts, removals, seal)| Step::Commit(puts, removals, seal)),
            3 => Just(Step::Flush),
            1 => any::<bool>().prop_map(Step::Break),
            1 => puts().prop_map(Step::Replace),
        ]
    }

    fn id(n: u8) -> Id {
        [n; 32]
    }

    proptest! {
        #[test]
        fn it_is_read_as_if_everything_had_been_written(steps in prop::collection::vec(step(), 0..40)) {
            let broken = Arc::new(AtomicBool::new(false));
            let inner = Broken(Mem::default(), broken.clone());
            let (mut lazy, mut model): (Box<dyn Store>, Box<dyn Store>) =
                (Box::new(Lazy::new(Box::new(inner))), Box::new(Mem::default()));
            let mut is_replaced = false;
            for step in steps {
                match step {
                    Step::Commit(puts, removals, seal) => {
                        let puts: BTreeMap<_, _> = puts.into_iter().collect();
                        let removals = removals.into_iter().filter(|n| !puts.contains_key(n)).map(id).collect();
                        let seals = seal.map(|n| (n.to_string(), vec![n])).into_iter().collect();
                        let puts = puts.iter().map(|(n, value)| (id(*n), value.clone())).collect();
                        let batch = Batch { puts, removals, seals };
                        lazy.commit(&batch).expect("in memory");
                        model.commit(&batch).expect("in memory");
                    }
                    Step::Flush => {
                        let flushed = lazy.flush();
                        prop_assert!(flushed.is_ok() || broken.load(Relaxed) && !is_replaced);
                    }
                    Step::Break(is_broken) => broken.store(is_broken, Relaxed),
                    Step::Replace(puts) => {
                        is_replaced = true;
                        let seals = Seals::from([("new".to_owned(), vec![9])]);
                        let begin = |store: &dyn Store| {
                            let mut begun = store.begin(&seals).expect("begun");
                            puts.iter().for_each(|(n, value)| begun.put(&id(*n), value).expect("put"));
                            begun.install().expect("installed")
                        };
                        (lazy, model) = (begin(&*lazy), begin(&*model));
                    }
                }
                prop_assert_eq!(all(&*lazy), all(&*model));
                for n in 0..12 {
                    prop_assert_eq!(lazy.get(&id(n)).expect("readable"), model.get(&id(n)).expect("readable"));
                }
            }
        }
    }

    #[test]
    fn what_was_flushed_is_on_disk_and_what_was_not_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let open = || Lazy::new(Box::new(Redb::open(directory.path()).expect("opened")));
        let mut store = open().begin(&Seals::new()).expect("begun").install().expect("installed");
        let put = |n: u8| Batch { puts: vec![(id(n), vec![n])], ..Batch::default() };
        store.settle().expect("settled");
        store.commit(&put(1)).expect("in memory");
        store.flush().expect("written");
        store.commit(&put(2)).expect("in memory");
        assert_eq!(all(&*store).1.len(), 2);
        drop(store);
        assert_eq!(all(&open()).1.into_keys().collect::<Vec<_>>(), [id(1)]);
    }
}
