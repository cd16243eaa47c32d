//! A sorted map that is cheap to copy: a B-tree whose copies share nodes until one of them changes.
//!
//! A lookup among a million keys visits four nodes. A change visits four, too, and copies those that are shared.

use std::borrow::Borrow;
use std::slice;
use std::sync::Arc;

/// The most entries in a node.
const MOST: usize = 64;

/// A node with fewer entries is merged into a neighbour that has room.
const FEW: usize = MOST / 4;

/// The map. Values are shared, too.
#[derive(Debug)]
pub(super) struct Map<K, V> {
    root: Arc<Node<K, V>>,
}

#[derive(Debug)]
enum Node<K, V> {
    Leaf(Vec<(K, Arc<V>)>),
    Branch(Vec<Child<K, V>>),
}

/// A child node, with a key that is greater than all keys before the node and not greater than its first key.
type Child<K, V> = (K, Arc<Node<K, V>>);

impl<K, V> Map<K, V> {
    /// All entries in order.
    pub(super) fn iter(&self) -> Iter<'_, K, V> {
        let mut iter = Iter { branches: Vec::new(), leaf: [].iter() };
        iter.enter(&self.root);
        iter
    }

    /// All entries from the last one to the first.
    pub(super) fn iter_back(&self) -> Back<'_, K, V> {
        Back(self.iter())
    }

    /// All keys in order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All values in the order of their keys.
    pub(super) fn values(&self) -> impl Iterator<Item = &Arc<V>> {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Ord + Clone, V> Map<K, V> {
    /// The map of these entries, which must be sorted and unique.
    pub(super) fn of_sorted(entries: impl Iterator<Item = (K, Arc<V>)>) -> Self {
        let mut nodes = gather(entries, Node::Leaf);
        while nodes.len() > 1 {
            nodes = gather(nodes.into_iter(), Node::Branch);
        }
        nodes.pop().map_or_else(Self::default, |(_, root)| Self { root })
    }

    /// The value of a key.
    pub(super) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&Arc<V>>
    where
        K: Borrow<Q>,
    {
        let mut node = &*self.root;
        loop {
            match node {
                Node::Branch(children) => node = &children[child_of(children, key)].1,
                Node::Leaf(entries) => return Some(&entries[search(entries, key).ok()?].1),
            }
        }
    }

    /// Whether there is such a key.
    pub(super) fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// The entry with the greatest key.
    pub(super) fn last(&self) -> Option<(&K, &Arc<V>)> {
        self.iter_back().next()
    }

    /// The entries from this key on, in order.
    pub(super) fn range_from<Q: Ord + ?Sized>(&self, first: &Q) -> Iter<'_, K, V>
    where
        K: Borrow<Q>,
    {
        let mut branches = Vec::new();
        let mut node = &*self.root;
        loop {
            match node {
                Node::Branch(children) => {
                    let at = child_of(children, first);
                    branches.push(children[at + 1..].iter());
                    node = &children[at].1;
                }
                Node::Leaf(entries) => {
                    let at = search(entries, first).unwrap_or_else(|at| at);
                    return Iter { branches, leaf: entries[at..].iter() };
                }
            }
        }
    }

    /// Adds an entry, or replaces the one with this key.
    pub(super) fn insert(&mut self, key: K, value: Arc<V>) {
        if let Some(right) = insert(&mut self.root, key, value) {
            let left = std::mem::take(&mut self.root);
            self.root = Arc::new(Node::Branch(vec![(left.first().clone(), left), right]));
        }
    }

    /// Removes the entry with this key, if there is one.
    pub(super) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        // Do not copy shared nodes when there is nothing to remove.
        if !self.contains_key(key) {
            return;
        }
        remove(&mut self.root, key);
        while let Node::Branch(children) = &*self.root
            && children.len() <= 1
        {
            self.root = children.first().map(|(_, only)| only.clone()).unwrap_or_default();
        }
    }
}

/// Distributes entries over nodes, with some room left in each. Returns each node with its first key.
fn gather<K: Clone, T, N>(entries: impl Iterator<Item = (K, T)>, node: impl Fn(Vec<(K, T)>) -> N) -> Vec<(K, Arc<N>)> {
    let mut entries = entries.peekable();
    let mut nodes = Vec::new();
    while let Some((first, _)) = entries.peek() {
        let first = first.clone();
        let mut of_node = Vec::with_capacity(MOST * 3 / 4);
        of_node.extend(entries.by_ref().take(MOST * 3 / 4));
        of_node.shrink_to_fit();
        nodes.push((first, Arc::new(node(of_node))));
    }
    nodes
}

/// The index of the child that holds the key, if any does.
fn child_of<K: Borrow<Q>, Q: Ord + ?Sized, T>(children: &[(K, T)], key: &Q) -> usize {
    children.partition_point(|(first, _)| first.borrow() <= key).saturating_sub(1)
}

fn search<K: Borrow<Q>, Q: Ord + ?Sized, T>(entries: &[(K, T)], key: &Q) -> Result<usize, usize> {
    entries.binary_search_by(|(other, _)| other.borrow().cmp(key))
}

/// The upper half of a node that was split.
type Split<K, V> = Option<Child<K, V>>;

fn insert<K: Ord + Clone, V>(node: &mut Arc<Node<K, V>>, key: K, value: Arc<V>) -> Split<K, V> {
    match Arc::make_mut(node) {
        Node::Leaf(entries) => match search(entries, &key) {
            Ok(at) => {
                entries[at].1 = value;
                None
            }
            Err(at) => {
                entries.insert(at, (key, value));
                split(entries, at, Node::Leaf)
            }
        },
        Node::Branch(children) => {
            let at = child_of(children, &key);
            let right = insert(&mut children[at].1, key, value)?;
            children.insert(at + 1, right);
            split(children, at + 1, Node::Branch)
        }
    }
}

/// Splits a node that has become too large: in half, or, when keys arrive in order, just before the new entry.
fn split<K: Clone, V, T>(
    entries: &mut Vec<(K, T)>,
    grown_at: usize,
    node: impl Fn(Vec<(K, T)>) -> Node<K, V>,
) -> Split<K, V> {
    if entries.len() <= MOST {
        return None;
    }
    let at = if grown_at + 1 == entries.len() { grown_at } else { entries.len() / 2 };
    let right = entries.split_off(at);
    Some((right[0].0.clone(), Arc::new(node(right))))
}

fn remove<K: Ord + Clone + Borrow<Q>, V, Q: Ord + ?Sized>(node: &mut Arc<Node<K, V>>, key: &Q) {
    match Arc::make_mut(node) {
        Node::Leaf(entries) => {
            if let Ok(at) = search(entries, key) {
                entries.remove(at);
            }
        }
        Node::Branch(children) => {
            let at = child_of(children, key);
            remove(&mut children[at].1, key);
            let left = at.saturating_sub(1);
            match children[at].1.len() {
                0 => drop(children.remove(at)),
                1..FEW if children.len() > 1 && children[left].1.len() + children[left + 1].1.len() <= MOST => {
                    let (_, right) = children.remove(left + 1);
                    Arc::make_mut(&mut children[left].1).append(Arc::unwrap_or_clone(right));
                }
                _ => {}
            }
        }
    }
}

impl<K, V> Node<K, V> {
    fn len(&self) -> usize {
        match self {
            Self::Leaf(entries) => entries.len(),
            Self::Branch(children) => children.len(),
        }
    }

    fn first(&self) -> &K {
        match self {
            Self::Leaf(entries) => &entries[0].0,
            Self::Branch(children) => &children[0].0,
        }
    }

    /// Appends the entries of the node to the right.
    fn append(&mut self, right: Self) {
        match (self, right) {
            (Self::Leaf(entries), Self::Leaf(mut more)) => entries.append(&mut more),
            (Self::Branch(children), Self::Branch(mut more)) => children.append(&mut more),
            _ => unreachable!("neighbours are as far from the root"),
        }
    }
}

impl<K, V> Default for Node<K, V> {
    fn default() -> Self {
        Self::Leaf(Vec::new())
    }
}

impl<K: Clone, V> Clone for Node<K, V> {
    fn clone(&self) -> Self {
        match self {
            Self::Leaf(entries) => Self::Leaf(entries.clone()),
            Self::Branch(children) => Self::Branch(children.clone()),
        }
    }
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Self { root: Arc::default() }
    }
}

impl<K, V> Clone for Map<K, V> {
    fn clone(&self) -> Self {
        Self { root: self.root.clone() }
    }
}

/// Entries in order.
pub(super) struct Iter<'m, K, V> {
    /// The rest of each node on the path to the leaf.
    branches: Vec<slice::Iter<'m, Child<K, V>>>,
    leaf: slice::Iter<'m, (K, Arc<V>)>,
}

impl<'m, K, V> Iter<'m, K, V> {
    fn enter(&mut self, node: &'m Node<K, V>) {
        match node {
            Node::Leaf(entries) => self.leaf = entries.iter(),
            Node::Branch(children) => self.branches.push(children.iter()),
        }
    }
}

impl<'m, K, V> Iterator for Iter<'m, K, V> {
    type Item = (&'m K, &'m Arc<V>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.leaf.next() {
                return Some((key, value));
            }
            match self.branches.last_mut()?.next() {
                Some((_, child)) => self.enter(child),
                None => {
                    self.branches.pop();
                }
            }
        }
    }
}

/// Entries from the last one to the first.
pub(super) struct Back<'m, K, V>(Iter<'m, K, V>);

impl<'m, K, V> Iterator for Back<'m, K, V> {
    type Item = (&'m K, &'m Arc<V>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.0.leaf.next_back() {
                return Some((key, value));
            }
            match self.0.branches.last_mut()?.next_back() {
                Some((_, child)) => self.0.enter(child),
                None => {
                    self.0.branches.pop();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn entries(map: &Map<u16, u32>) -> Vec<(u16, u32)> {
        map.iter().map(|(key, value)| (*key, **value)).collect()
    }

    /// The depth of every leaf is the same, no node but the root is empty, none is too large.
    fn check(node: &Node<u16, u32>, is_root: bool) -> usize {
        assert!(is_root || node.len() > 0);
        assert!(node.len() <= MOST);
        match node {
            Node::Leaf(_) => 0,
            Node::Branch(children) => {
                let depths: Vec<_> = children.iter().map(|(_, child)| check(child, false)).collect();
                assert!(depths.iter().all(|depth| *depth == depths[0]));
                1 + depths[0]
            }
        }
    }

    proptest! {
        #[test]
        fn it_is_a_sorted_map(
            begins_with in prop::collection::btree_map(any::<u16>(), any::<u32>(), 0..3_000),
            changes: Vec<(u16, Option<u32>)>,
            removals in any::<u16>(),
        ) {
            let mut map = Map::of_sorted(begins_with.iter().map(|(key, value)| (*key, Arc::new(*value))));
            let mut model: BTreeMap<u16, u32> = begins_with;
            let copy = map.clone();
            let before = entries(&copy);
            // What is there, too, and many in a row, so that nodes join.
            let there: Vec<_> = model.keys().copied().filter(|key| *key < removals).collect();
            let changes = there.into_iter().map(|key| (key, None)).chain(changes);
            for (key, value) in changes {
                match value {
                    Some(value) => {
                        map.insert(key, Arc::new(value));
                        model.insert(key, value);
                    }
                    None => {
                        map.remove(&key);
                        model.remove(&key);
                    }
                }
                prop_assert_eq!(map.get(&key).map(|value| **value), model.get(&key).copied());
            }
            check(&map.root, true);
            prop_assert!(map.iter_back().map(|(key, _)| key).eq(model.keys().rev()));
            prop_assert_eq!(map.last().map(|(key, _)| key), model.keys().last());
            prop_assert_eq!(entries(&map), model.iter().map(|(key, value)| (*key, *value)).collect::<Vec<_>>());
            for first in [0, removals, u16::MAX] {
                let range: Vec<_> = map.range_from(&first).map(|(key, _)| *key).collect();
                prop_assert_eq!(range, model.range(first..).map(|(key, _)| *key).collect::<Vec<_>>());
            }
            prop_assert_eq!(entries(&copy), before, "a copy does not change");
        }
    }

    #[test]
    fn many_in_any_order_are_all_there_and_go_again() {
        let many: Vec<u16> = (0..=u16::MAX).collect();
        let scattered: Vec<u16> = many.iter().map(|n| n.wrapping_mul(40_503)).collect();
        for order in [&many, &scattered] {
            let mut map = Map::default();
            for key in order {
                map.insert(*key, Arc::new(u32::from(*key)));
            }
            assert!(check(&map.root, true) <= 3);
            assert!(map.keys().eq(&many));
            for key in order.iter().take(65_000) {
                map.remove(key);
            }
            check(&map.root, true);
            assert_eq!(map.iter().count(), 536);
        }
    }
}
