//! Who waits, in the order of arrival. Has no clock, no lock and no waker: it says who is to go.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::limits::{Counts, Limits};
use super::source::Source;

#[derive(Debug)]
pub(super) struct Table<T> {
    next: u64,
    /// By the number of arrival, so that the first is the oldest.
    waiting: BTreeMap<u64, (Source, T)>,
    by_source: HashMap<Source, BTreeSet<u64>>,
    /// The sources by how much they hold; the last has the most places, and of several such ones the oldest guest.
    by_size: BTreeMap<(usize, Reverse<u64>), Source>,
    evicted_by_quota: u64,
    evicted_when_full: u64,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            next: 0,
            waiting: BTreeMap::new(),
            by_source: HashMap::new(),
            by_size: BTreeMap::new(),
            evicted_by_quota: 0,
            evicted_when_full: 0,
        }
    }
}

impl<T> Table<T> {
    /// The number of the new place, and who has to go for it.
    pub(super) fn enter(&mut self, source: Source, guest: T, limits: &Limits) -> (u64, Vec<T>) {
        let mut displaced = Vec::new();
        while self.held_by(source) >= limits.per_source.max(1) {
            let Some(oldest) = self.by_source.get(&source).and_then(|all| all.first().copied()) else {
                break;
            };
            displaced.extend(self.remove(oldest));
            self.evicted_by_quota += 1;
        }
        while self.waiting.len() >= limits.places.max(1) {
            let Some((&(_, Reverse(oldest)), _)) = self.by_size.last_key_value() else {
                break;
            };
            displaced.extend(self.remove(oldest));
            self.evicted_when_full += 1;
        }
        let number = self.next;
        self.next += 1;
        self.waiting.insert(number, (source, guest));
        self.change(source, |all| all.insert(number));
        (number, displaced)
    }

    /// Whether it still had its place.
    pub(super) fn leave(&mut self, source: Source, number: u64) -> bool {
        debug_assert!(self.waiting.get(&number).is_none_or(|(s, _)| *s == source));
        self.remove(number).is_some()
    }

    pub(super) fn is_pressed(&self, source: Source, limits: &Limits) -> bool {
        self.waiting.len() * 2 > limits.places || self.held_by(source) * 2 > limits.per_source
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            waiting: self.waiting.len(),
            evicted_by_quota: self.evicted_by_quota,
            evicted_when_full: self.evicted_when_full,
        }
    }

    fn held_by(&self, source: Source) -> usize {
        self.by_source.get(&source).map_or(0, BTreeSet::len)
    }

    fn remove(&mut self, number: u64) -> Option<T> {
        let (source, guest) = self.waiting.remove(&number)?;
        self.change(source, |all| all.remove(&number));
        Some(guest)
    }

    fn change(&mut self, source: Source, change: impl FnOnce(&mut BTreeSet<u64>) -> bool) {
        let all = self.by_source.entry(source).or_default();
        if let Some(size) = size(all) {
            self.by_size.remove(&size);
        }
        change(all);
        match size(all) {
            Some(size) => drop(self.by_size.insert(size, source)),
            None => drop(self.by_source.remove(&source)),
        }
    }
}

fn size(all: &BTreeSet<u64>) -> Option<(usize, Reverse<u64>)> {
    all.first().map(|oldest| (all.len(), Reverse(*oldest)))
}
