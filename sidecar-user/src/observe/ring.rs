//! The last closed flows of the process. Keeps nothing across a restart.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::SystemTime;

use super::lock;
use super::standing::Standing;
use crate::model::Flow;

/// A ring for each kind of client, so that nobody pushes out the flows of those who have proved more than he has.
#[derive(Debug)]
pub(super) struct ClosedFlows {
    /// Of the pod's own application, and of peers with an identity.
    mesh: Ring,
    plaintext: Ring,
    strangers: Ring,
}

/// Which flow, as long as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClosedId {
    closed: SystemTime,
    turn: usize,
    ring: usize,
}

/// A lock for each flow, so that two shards closing flows at the same time do not meet.
#[derive(Debug)]
struct Ring {
    next: AtomicUsize,
    kept: Box<[Mutex<Option<Closed>>]>,
}

/// A flow, and which one in the row of all closed flows it was.
#[derive(Debug)]
struct Closed {
    turn: usize,
    flow: Box<Flow>,
}

impl ClosedFlows {
    /// Keeps `len` flows of each kind.
    pub(super) fn new(len: usize) -> Self {
        Self {
            mesh: Ring::new(len),
            plaintext: Ring::new(len),
            strangers: Ring::new(len),
        }
    }

    pub(super) fn push(&self, flow: Box<Flow>) {
        let ring = match Standing::of(&flow) {
            Standing::Own | Standing::Proven => &self.mesh,
            Standing::Plaintext => &self.plaintext,
            Standing::Stranger => &self.strangers,
        };
        ring.push(flow);
    }

    /// The newest flows that `wanted` accepts, oldest first, at most `limit` of each kind, and whether it accepted more.
    pub(super) fn newest(&self, limit: usize, wanted: impl Fn(&Flow) -> bool) -> (Vec<ClosedId>, bool) {
        let (mut found, mut is_truncated) = (Vec::new(), false);
        for (n, ring) in self.rings().into_iter().enumerate() {
            let mut of_this = ring.find(n, &wanted);
            of_this.sort_unstable_by_key(|id| id.turn);
            is_truncated |= of_this.len() > limit;
            found.extend_from_slice(&of_this[of_this.len() - of_this.len().min(limit)..]);
        }
        found.sort_unstable();
        (found, is_truncated)
    }

    /// `None` once it was pushed out.
    pub(super) fn get(&self, id: ClosedId) -> Option<Flow> {
        let ring = self.rings()[id.ring];
        match &*lock(&ring.kept[id.turn % ring.kept.len()]) {
            Some(closed) if closed.turn == id.turn => Some(Flow::clone(&closed.flow)),
            _ => None,
        }
    }

    fn rings(&self) -> [&Ring; 3] {
        [&self.mesh, &self.plaintext, &self.strangers]
    }
}

impl Ring {
    fn new(len: usize) -> Self {
        Self {
            next: AtomicUsize::new(0),
            kept: (0..len.max(1)).map(|_| Mutex::default()).collect(),
        }
    }

    fn push(&self, flow: Box<Flow>) {
        let turn = self.next.fetch_add(1, Relaxed);
        let before = lock(&self.kept[turn % self.kept.len()]).replace(Closed { turn, flow });
        // Freed outside the lock.
        drop(before);
    }

    fn find(&self, ring: usize, wanted: impl Fn(&Flow) -> bool) -> Vec<ClosedId> {
        let mut found = Vec::new();
        for kept in &self.kept {
            if let Some(Closed { turn, flow }) = &*lock(kept)
                && wanted(flow)
            {
                found.push(ClosedId {
                    closed: flow.closed.map_or(flow.opened, |(at, _)| at),
                    turn: *turn,
                    ring,
                });
            }
        }
        found
    }
}
