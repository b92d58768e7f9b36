//! What the programs count. They alone write it.

use sidecar_ebpf::abi::{COUNTER_ROWS, Counter};

use super::mapped::Mapped;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Counters(Mapped<u64>);

impl Counters {
    pub(super) fn new(rows: Mapped<u64>) -> Self {
        Self(rows)
    }

    /// What all CPUs have counted.
    pub(super) fn sum(&self, counter: Counter) -> u64 {
        let rows = 0..COUNTER_ROWS as u32;
        rows.map(|cpu| self.0.get(counter.slot(cpu))).sum()
    }

    /// All of them, by name.
    pub(super) fn read(&self) -> Vec<(&'static str, u64)> {
        let all = Counter::ALL.iter();
        all.map(|(counter, name)| (*name, self.sum(*counter))).collect()
    }
}
