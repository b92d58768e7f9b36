//! The last closed flows of the process. Keeps nothing across a restart.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::lock;
use crate::model::Flow;

/// A ring with a lock for each place, so that two shards closing flows at the same time do not meet.
#[derive(Debug)]
pub(super) struct Ring {
    next: AtomicUsize,
    places: Box<[Mutex<Option<Closed>>]>,
}

/// A flow, and which one in the row of all closed flows it was.
#[derive(Debug)]
struct Closed {
    turn: usize,
    flow: Box<Flow>,
}

impl Ring {
    pub(super) fn new(len: usize) -> Self {
        Self {
            next: AtomicUsize::new(0),
            places: (0..len.max(1)).map(|_| Mutex::default()).collect(),
        }
    }

    pub(super) fn push(&self, flow: Box<Flow>) {
        let turn = self.next.fetch_add(1, Relaxed);
        let before = lock(&self.places[turn % self.places.len()]).replace(Closed { turn, flow });
        // Freed outside the lock.
        drop(before);
    }

    /// The newest flows that `wanted` accepts, oldest first, at most `limit`, and how many it accepted in all.
    pub(super) fn newest(&self, limit: usize, wanted: impl Fn(&Flow) -> bool) -> (Vec<Flow>, usize) {
        let mut found: Vec<(usize, Flow)> = Vec::new();
        for place in &self.places {
            if let Some(Closed { turn, flow }) = &*lock(place)
                && wanted(flow)
            {
                found.push((*turn, Flow::clone(flow)));
            }
        }
        found.sort_unstable_by_key(|(turn, _)| *turn);
        let total = found.len();
        let kept = found.split_off(total - total.min(limit));
        (kept.into_iter().map(|(_, flow)| flow).collect(), total)
    }
}
