//! The flows of one pod and kind, oldest first, and what they cost in memory. Bounds nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::observe::FlowReport;

pub(super) struct Pod {
    pub(super) name: Arc<str>,
    pub(super) kinds: [Kept; KINDS],
}

/// What a client has proved: of the pod's own application or with an identity; let in without one; a stranger.
pub(super) const KINDS: usize = 3;
/// A flow as its JSON: one allocation, whose length is known, and which who reads it shares.
pub(super) struct Record {
    /// Over all pods, in the order in which they came.
    pub(super) number: u64,
    /// Milliseconds since 1970, when it ended.
    pub(super) at: u64,
    pub(super) id: u64,
    pub(super) instance: u32,
    /// Whether it ended other than in order.
    pub(super) has_failed: bool,
    pub(super) json: Arc<str>,
}

#[derive(Default)]
pub(super) struct Kept {
    records: VecDeque<Record>,
    /// Of all their JSON.
    text: usize,
}

/// What an allocator adds to each allocation: a header, and rounding up.
const ALLOCATION: usize = 16;
/// The two counters of an `Arc`, and rounding up to their alignment.
const SHARED: usize = 2 * size_of::<usize>() + size_of::<usize>();

impl Pod {
    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.kinds.iter().flat_map(Kept::records)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kinds.iter().all(|kept| kept.len() == 0)
    }
}

impl Record {
    pub(super) fn new(number: u64, instance: u32, mut flow: FlowReport, now: SystemTime) -> Self {
        // Its pod's name is kept once for all of them.
        flow.pod = None;
        let closed = flow.closed.as_deref();
        let closed = closed.and_then(|closed| humantime::parse_rfc3339(closed).ok());
        Self {
            number,
            at: millis(closed.unwrap_or(now).min(now)),
            id: flow.id,
            instance,
            has_failed: flow.close_cause.as_deref() != Some("eof"),
            // A report holds strings, numbers and options, which JSON can say.
            json: serde_json::to_string(&flow).unwrap_or_default().into(),
        }
    }
}

impl Kept {
    pub(super) fn push(&mut self, record: Record) {
        self.text += record.json.len();
        // A quarter more, not twice as much: spare room is room for flows.
        if self.records.len() == self.records.capacity() {
            self.records.reserve_exact(self.records.len() / 4 + 4);
        }
        self.records.push_back(record);
    }

    pub(super) fn pop(&mut self) {
        if let Some(record) = self.records.pop_front() {
            self.text -= record.json.len();
        }
        if self.records.len() * 2 < self.records.capacity() {
            self.records.shrink_to(self.records.len() / 4 * 5);
        }
    }

    pub(super) fn oldest(&self) -> Option<&Record> {
        self.records.front()
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// With the pod's own entry, of which there may be two in a list that has grown.
    pub(super) fn bytes(&self, pod: &str) -> usize {
        if self.records.is_empty() {
            return self.records.capacity() * size_of::<Record>();
        }
        let texts = self.text + self.records.len() * (ALLOCATION + SHARED);
        let list = self.records.capacity() * size_of::<Record>() + ALLOCATION;
        texts + list + pod.len() + SHARED + 2 * size_of::<Pod>() + ALLOCATION
    }
}

pub(super) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
