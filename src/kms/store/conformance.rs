//! Tests what every store must do. A new store is done when this passes.

use super::{Batch, Seals, Store};
use crate::kms::record::Id;

/// Tries a store that is empty.
pub(super) fn run(store: &mut dyn Store) {
    an_empty_store_has_nothing(store);
    a_batch_is_made_as_a_whole(store);
    a_record_is_replaced(store);
    a_removal_of_nothing_is_no_error(store);
    a_listing_stops_when_told(store);
    seals_change_together(store);
    clearing_leaves_what_the_batch_writes(store);
}

fn put(id: u8, value: &[u8]) -> (Id, Vec<u8>) {
    ([id; 32], value.to_vec())
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

fn seals_change_together(store: &mut dyn Store) {
    let seals =
        |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), name.as_bytes().to_vec())).collect::<Seals>();
    for names in [&["a", "b"][..], &["b", "c"]] {
        store.commit(&Batch { seals: Some(seals(names)), ..Batch::default() }).expect("committed");
        assert_eq!(store.seals().expect("readable"), seals(names));
    }
    store.commit(&Batch::default()).expect("committed");
    assert_eq!(store.seals().expect("readable"), seals(&["b", "c"]));
}

fn clearing_leaves_what_the_batch_writes(store: &mut dyn Store) {
    store.commit(&Batch { clears: true, puts: vec![put(5, b"five")], ..Batch::default() }).expect("committed");
    assert_eq!(all(store), [put(5, b"five")]);
    assert!(!store.seals().expect("readable").is_empty(), "seals are no records");
}
