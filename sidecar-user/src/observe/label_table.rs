//! The label sets of the process: their numbers, the cap on how many there may be, and which of them go because nobody
//! uses them. Holds no counters and has no clock.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use super::labels::{Labels, Names};

/// Shards ask it once for each set that they meet, and tell it when they forget one.
#[derive(Debug)]
pub(super) struct LabelTable {
    cap: usize,
    sets: RwLock<Sets>,
    overflowed: AtomicU64,
}

#[derive(Debug, Default)]
struct Sets {
    by_labels: HashMap<Labels, Set>,
    /// Numbers below `by_labels.len() + free.len()` that no set has.
    free: Vec<u32>,
}

#[derive(Debug)]
struct Set {
    number: u32,
    /// Shards that count under this number.
    holders: usize,
    /// When a look found it in use; `None` before the first look.
    used: Option<Instant>,
}

impl LabelTable {
    pub(super) fn new(cap: usize) -> Self {
        Self {
            cap,
            sets: RwLock::default(),
            overflowed: AtomicU64::new(0),
        }
    }

    /// The number of a label set for a shard that does not hold it yet; `None` when it is new and the table is full. The
    /// overflow sets are always let in: there are as many as directions times transports.
    pub(super) fn admit(&self, labels: &Labels) -> Option<u32> {
        // Each connection past the cap asks again, so that answer takes no more than a shared lock.
        let is_refused = |sets: &Sets| {
            !sets.by_labels.contains_key(labels)
                && labels.names != Names::Overflow
                && sets.by_labels.len() >= self.cap
        };
        if is_refused(&self.read()) {
            return None;
        }
        let mut sets = self.write();
        if is_refused(&sets) {
            return None;
        }
        let Sets { by_labels, free } = &mut *sets;
        let next = by_labels.len() as u32;
        let set = by_labels.entry(labels.clone()).or_insert_with(|| Set {
            number: free.pop().unwrap_or(next),
            holders: 0,
            used: None,
        });
        set.holders += 1;
        Some(set.number)
    }

    /// A shard no longer counts under this number.
    pub(super) fn release(&self, number: u32) {
        if let Some(set) = self.write().by_labels.values_mut().find(|s| s.number == number) {
            set.holders -= 1;
        }
    }

    /// Notes which sets are in use now and answers those that may go, the longest unused first: nobody has used them for
    /// `idle`, and without them the table is half full. The other half stays, however old: a series that ends and
    /// begins again hides its first connection from whoever computes a rate.
    pub(super) fn idle(&self, now: Instant, used: &HashSet<u32>, idle: Duration) -> Vec<u32> {
        let mut sets = self.write();
        let spare = sets.by_labels.len().saturating_sub(self.cap / 2);
        let mut unused = Vec::new();
        for (labels, set) in &mut sets.by_labels {
            let since = *set.used.get_or_insert(now);
            if used.contains(&set.number) {
                set.used = Some(now);
            } else if labels.names != Names::Overflow && now.duration_since(since) >= idle {
                unused.push((since, set.number));
            }
        }
        unused.sort_unstable();
        unused.truncate(spare);
        unused.into_iter().map(|(_, number)| number).collect()
    }

    /// Forgets a set that no shard holds; `false` when one does.
    pub(super) fn forget(&self, number: u32) -> bool {
        let mut sets = self.write();
        let before = sets.by_labels.len();
        sets.by_labels
            .retain(|_, set| set.number != number || set.holders > 0);
        let is_gone = sets.by_labels.len() < before;
        if is_gone {
            sets.free.push(number);
        }
        is_gone
    }

    pub(super) fn count_overflow(&self) {
        self.overflowed.fetch_add(1, Relaxed);
    }

    pub(super) fn overflowed(&self) -> u64 {
        self.overflowed.load(Relaxed)
    }

    /// Each label set with its number.
    pub(super) fn all(&self) -> Vec<(u32, Labels)> {
        let sets = self.read();
        let mut all: Vec<_> = sets
            .by_labels
            .iter()
            .map(|(labels, set)| (set.number, labels.clone()))
            .collect();
        all.sort_unstable_by_key(|(number, _)| *number);
        all
    }

    fn read(&self) -> RwLockReadGuard<'_, Sets> {
        self.sets.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Sets> {
        self.sets.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Direction, ServiceName, Transport};

    const IDLE: Duration = Duration::from_secs(600);

    fn named(service: &str) -> Labels {
        Labels {
            direction: Direction::Outbound,
            transport: Transport::Plain,
            names: Names::Known {
                source: None,
                destination: None,
                service: Some(ServiceName {
                    namespace: "demo".into(),
                    hostname: service.into(),
                }),
            },
        }
    }

    #[test]
    fn a_full_table_still_knows_the_old_and_admits_the_overflow() {
        let table = LabelTable::new(1);
        assert_eq!(table.admit(&named("a")), Some(0));
        assert_eq!(table.admit(&named("b")), None);
        assert_eq!(table.admit(&named("a")), Some(0));
        assert_eq!(table.admit(&named("b").overflowed()), Some(1));
        assert_eq!(table.all(), [(0, named("a")), (1, named("b").overflowed())]);
    }

    #[test]
    fn what_is_idle_goes_oldest_first_until_the_table_is_half_full() {
        let table = LabelTable::new(4);
        for service in ["a", "b", "c", "d"] {
            table.admit(&named(service));
        }
        let start = Instant::now();
        assert!(
            table.idle(start, &HashSet::new(), IDLE).is_empty(),
            "seen just now"
        );
        let used = HashSet::from([0, 3]);
        assert!(table.idle(start + IDLE / 2, &used, IDLE).is_empty());
        assert_eq!(table.idle(start + IDLE, &HashSet::new(), IDLE), [1, 2]);
        let later = start + IDLE * 2;
        let oldest = table.idle(later, &HashSet::from([1]), IDLE);
        assert_eq!(oldest.len(), 2);
        assert_eq!(oldest[0], 2, "the longest unused");
    }

    #[test]
    fn a_set_goes_only_when_no_shard_holds_it_and_its_number_is_used_again() {
        let table = LabelTable::new(2);
        table.admit(&named("a"));
        table.admit(&named("a"));
        table.admit(&named("b"));
        table.release(0);
        assert!(!table.forget(0), "the other shard still counts under it");
        table.release(0);
        assert!(table.forget(0));
        assert_eq!(table.admit(&named("c")), Some(0));
        assert_eq!(table.admit(&named("a")), None, "full again");
        assert_eq!(table.all(), [(0, named("c")), (1, named("b"))]);
    }
}
