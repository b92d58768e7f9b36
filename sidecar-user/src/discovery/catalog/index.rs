//! Several values for each key. Most keys have one or two, which a short sorted list holds in a tenth of the memory of a set.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

#[derive(Debug)]
pub(super) struct Index<K, V>(HashMap<K, Vec<V>>);

impl<K, V> Default for Index<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash, V: Ord> Index<K, V> {
    /// Once, however often it is added.
    pub(super) fn add(&mut self, key: K, value: V) {
        let values = self.0.entry(key).or_default();
        if let Err(at) = values.binary_search(&value) {
            values.reserve_exact(1);
            values.insert(at, value);
        }
    }

    pub(super) fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q, value: &V)
    where
        K: Borrow<Q>,
    {
        let Some(values) = self.0.get_mut(key) else {
            return;
        };
        if let Ok(at) = values.binary_search(value) {
            values.remove(at);
        }
        if values.is_empty() {
            self.0.remove(key);
        }
    }

    /// In their order.
    pub(super) fn of<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> &[V]
    where
        K: Borrow<Q>,
    {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_twice_is_removed_once() {
        let mut index = Index::default();
        index.add("a", 2);
        index.add("a", 1);
        index.add("a", 2);
        assert_eq!(index.of("a"), [1, 2]);
        index.remove("a", &2);
        index.remove("b", &2);
        assert_eq!(index.of("a"), [1]);
        index.remove("a", &1);
        assert!(index.0.is_empty());
    }
}
