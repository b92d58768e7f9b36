//! The open flows that an answer tells: found at once, and copied one by one when they are written, so that a long list
//! takes little memory. One that closes meanwhile is left out.

use std::sync::Arc;

use super::filter::FlowFilter;
use super::observer::Observer;
use super::shard::{Shard, SlotId};
use crate::model::Flow;

pub(super) struct OpenFlows {
    shards: Vec<Arc<Shard>>,
    /// Oldest first.
    found: Vec<Found>,
    next: usize,
}

struct Found {
    id: u64,
    /// There are 64 at most.
    shard: u16,
    slot: SlotId,
    is_told: bool,
}

impl OpenFlows {
    /// The newest flows that pass, at most `limit`, and whether more passed. `settled` leaves out those whose upstream is
    /// not usable yet.
    pub(super) fn find(
        observer: &Observer,
        filter: &FlowFilter,
        limit: usize,
        settled: bool,
    ) -> (Self, bool) {
        let shards = observer.shards();
        let mut found = Vec::new();
        for (shard, of) in (0..).zip(&shards) {
            of.visit(|slot, flow, is_settled| {
                if (is_settled || !settled) && filter.passes(flow) {
                    found.push(Found {
                        id: flow.id,
                        shard,
                        slot,
                        is_told: false,
                    });
                }
            });
        }
        found.sort_unstable_by_key(|found| found.id);
        let spare = found.len().saturating_sub(limit);
        found.drain(..spare);
        found.shrink_to_fit();
        let (next, is_truncated) = (0, spare > 0);
        (Self { shards, found, next }, is_truncated)
    }

    pub(super) fn none() -> Self {
        Self {
            shards: Vec::new(),
            found: Vec::new(),
            next: 0,
        }
    }

    /// The next one that is still open; it counts as told.
    pub(super) fn next(&mut self) -> Option<Flow> {
        while let Some(found) = self.found.get_mut(self.next) {
            self.next += 1;
            if found.is_told {
                continue;
            }
            if let Some(flow) = self.shards[usize::from(found.shard)].get(found.slot)
                && flow.id == found.id
            {
                found.is_told = true;
                return Some(flow);
            }
        }
        None
    }

    /// Was it found?
    pub(super) fn contains(&self, id: u64) -> bool {
        self.position(id).is_some()
    }

    pub(super) fn is_told(&self, id: u64) -> bool {
        self.position(id).is_some_and(|n| self.found[n].is_told)
    }

    /// It was told without being asked for here.
    pub(super) fn set_told(&mut self, id: u64) {
        if let Some(n) = self.position(id) {
            self.found[n].is_told = true;
        }
    }

    fn position(&self, id: u64) -> Option<usize> {
        self.found.binary_search_by_key(&id, |found| found.id).ok()
    }
}
