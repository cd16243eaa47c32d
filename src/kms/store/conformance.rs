//! Tests what every store must do. A new store is done when this passes.

use super::{Batch, Seals, Store};
use crate::kms::record::Id;

/// Tries a store that is empty.
pub(super) fn run(store: Box<dyn Store>) {
    an_empty_store_has_nothing(&*store);
    let mut store = a_store_that_is_begun_takes_the_place_of_another(store);
    a_batch_is_made_as_a_whole(&mut *store);
    a_record_is_replaced(&mut *store);
    a_removal_of_nothing_is_no_error(&mut *store);
    a_listing_stops_when_told(&*store);
    seals_are_added(&mut *store);
    one_that_is_not_finished_changes_nothing(&*store);
    of_what_was_replaced_nothing_is_left(store);
}

fn put(id: u8, value: &[u8]) -> (Id, Vec<u8>) {
    ([id; 32], value.to_vec())
}

fn seals(names: &[&str]) -> Seals {
    names.iter().map(|name| ((*name).to_owned(), name.as_bytes().to_vec())).collect()
}

fn all(store: &dyn Store) -> Vec<(Id, Vec<u8>)> {
    let mut all = Vec::new();
    store
        .for_each(&mut |id, value| {
            all.push((*id, value.to_vec()));
            true
        })
        .expect("readable");
    all.sort();
    all
}

fn an_empty_store_has_nothing(store: &dyn Store) {
    assert_eq!((all(store), store.seals().expect("readable")), (Vec::new(), Seals::new()));
    assert_eq!(store.get(&[0; 32]).expect("readable"), None);
}

fn a_store_that_is_begun_takes_the_place_of_another(store: Box<dyn Store>) -> Box<dyn Store> {
    let mut begun = store.begin(&seals(&["a"])).expect("begun");
    begun.put(&[1; 32], b"first").expect("put");
    an_empty_store_has_nothing(&*store);
    let mut seen = Vec::new();
    let read = begun.read_back(&mut |id, value| {
        seen.push((*id, value.to_vec()));
        true
    });
    assert_eq!((read.expect("readable"), seen), (seals(&["a"]), vec![put(1, b"first")]));
    let mut store = begun.install().expect("installed");
    store.settle().expect("settled");
    assert_eq!((store.seals().expect("readable"), all(&*store)), (seals(&["a"]), vec![put(1, b"first")]));
    store
}

fn a_batch_is_made_as_a_whole(store: &mut dyn Store) {
    let puts = vec![put(1, b"one"), put(2, b""), put(3, &[7; 100_000])];
    store.commit(&Batch { puts: puts.clone(), ..Batch::default() }).expect("committed");
    assert_eq!(all(store), puts);
}

fn a_record_is_replaced(store: &mut dyn Store) {
    store.commit(&Batch { puts: vec![put(1, b"another")], ..Batch::default() }).expect("committed");
    assert_eq!(store.get(&[1; 32]).expect("readable").as_deref(), Some(&b"another"[..]));
}

fn a_removal_of_nothing_is_no_error(store: &mut dyn Store) {
    let removals = vec![[3; 32], [9; 32]];
    store.commit(&Batch { removals, ..Batch::default() }).expect("committed");
    assert_eq!(all(store), [put(1, b"another"), put(2, b"")]);
}

fn a_listing_stops_when_told(store: &dyn Store) {
    let mut seen = 0;
    store
        .for_each(&mut |_, _| {
            seen += 1;
            false
        })
        .expect("readable");
    assert_eq!(seen, 1);
}

fn seals_are_added(store: &mut dyn Store) {
    store.commit(&Batch { seals: seals(&["b", "c"]), ..Batch::default() }).expect("committed");
    assert_eq!(store.seals().expect("readable"), seals(&["a", "b", "c"]));
    store.commit(&Batch::default()).expect("committed");
    assert_eq!(store.seals().expect("readable"), seals(&["a", "b", "c"]));
}

fn one_that_is_not_finished_changes_nothing(store: &dyn Store) {
    let mut begun = store.begin(&seals(&["other"])).expect("begun");
    begun.put(&[9; 32], b"nine").expect("put");
    begun.read_back(&mut |_, _| true).expect("readable");
    drop(begun);
    assert_eq!(store.seals().expect("readable"), seals(&["a", "b", "c"]));
    assert_eq!(all(store), [put(1, b"another"), put(2, b"")]);
}

fn of_what_was_replaced_nothing_is_left(store: Box<dyn Store>) {
    let mut begun = store.begin(&seals(&["d"])).expect("begun");
    let many: Vec<_> = (10..250).map(|id| put(id, &[id; 1_000])).collect();
    // More than are handed over at once.
    for _ in 0..10 {
        many.iter().for_each(|(id, value)| begun.put(id, value).expect("put"));
    }
    let mut store = begun.install().expect("installed");
    store.settle().expect("settled");
    assert_eq!((store.seals().expect("readable"), all(&*store)), (seals(&["d"]), many.clone()));
    store.commit(&Batch { puts: vec![put(5, b"five")], ..Batch::default() }).expect("committed");
    assert_eq!(store.get(&[5; 32]).expect("readable").as_deref(), Some(&b"five"[..]));
}
