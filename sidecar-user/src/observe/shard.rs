//! One shard's open flows and counters, behind a lock that only this shard's thread and a reader ever take.
//!
//! Does not merge shards and writes no text.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use super::label_table::LabelTable;
use super::labels::Labels;
use super::lock;
use super::ring::ClosedFlows;
use super::series::Series;
use super::series_table::SeriesTable;
use super::watch::{Happened, Watchers};
use crate::model::{Direction, Flow, Outcome};

/// What all shards record into: each field is made so that shards do not wait for each other.
#[derive(Debug)]
pub(super) struct Common {
    pub next_id: std::sync::atomic::AtomicU64,
    pub labels: LabelTable,
    pub closed: ClosedFlows,
    pub watchers: Arc<Watchers>,
}

#[derive(Debug)]
pub(super) struct Shard {
    common: Arc<Common>,
    state: Mutex<State>,
}

/// An open flow's index in its shard; another flow has it later.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotId(u32);

#[derive(Debug, Default)]
struct State {
    slots: Vec<Slot>,
    /// Head of the list of free slots.
    free: Option<u32>,
    live: usize,
    series: SeriesTable,
}

#[derive(Debug)]
enum Slot {
    Free { next: Option<u32> },
    Open(OpenRecord),
}

#[derive(Debug)]
struct OpenRecord {
    /// Boxed, so that closing hands it to the ring without a copy.
    flow: Box<Flow>,
    /// The number that it is counted under, once its labels are settled.
    series: Option<u32>,
    /// Bytes that the series has already: what a scrape took from the open flow is not taken again.
    sent: u64,
    received: u64,
}

/// What the shards know, added up for the exposition.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// At the index of the label set's number.
    pub series: Vec<Series>,
    pub pending_inbound: u64,
    pub pending_outbound: u64,
}

/// A reader looks at this many flows before it lets the shard's thread have the lock: some 10 µs.
const CHUNK: usize = 256;

/// An empty shard gives back the table of a burst above this many slots.
const KEEP_SLOTS: usize = 1024;

/// Adds up all shards, with the label set of each sum.
pub(super) fn tally(common: &Common, shards: &[Arc<Shard>]) -> (Vec<(Labels, Series)>, Tally) {
    let mut tally = Tally::default();
    for shard in shards {
        shard.add_to(&mut tally);
    }
    // After the shards: every number in the tally has its labels by now.
    let labels = common.labels.all().into_iter();
    let sum = |(number, labels)| {
        let series = tally.series.get_mut(number as usize);
        (labels, series.map(std::mem::take).unwrap_or_default())
    };
    (labels.map(sum).collect(), tally)
}

impl Shard {
    pub(super) fn new(common: Arc<Common>) -> Self {
        Self {
            common,
            state: Mutex::default(),
        }
    }

    pub(super) fn common(&self) -> &Common {
        &self.common
    }

    pub(super) fn open(&self, flow: Box<Flow>) -> SlotId {
        let record = OpenRecord {
            flow,
            series: None,
            sent: 0,
            received: 0,
        };
        lock(&self.state).insert(record)
    }

    pub(super) fn update(&self, id: SlotId, change: impl FnOnce(&mut Flow)) {
        let mut state = lock(&self.state);
        let record = state.record(id);
        change(&mut record.flow);
        if record.series.is_some() || !record.flow.is_usable() {
            return;
        }
        state.settle(id, &self.common.labels);
        if self.common.watchers.any() {
            let flow = Flow::clone(&state.record(id).flow);
            drop(state);
            self.common.watchers.tell(Happened::Opened, flow);
        }
    }

    pub(super) fn close(&self, id: SlotId, at: SystemTime, outcome: Outcome) {
        let mut state = lock(&self.state);
        let late = state.record(id).series.is_none();
        if late {
            state.settle(id, &self.common.labels);
        }
        let opened = (late && self.common.watchers.any()).then(|| Flow::clone(&state.record(id).flow));
        let mut flow = state.remove(id, outcome);
        flow.closed = Some((at, outcome));
        let closed = self.common.watchers.any().then(|| Flow::clone(&flow));
        // Still under the lock: at no time is the flow in neither list.
        self.common.closed.push(flow);
        drop(state);
        if let Some(flow) = opened {
            self.common.watchers.tell(Happened::Opened, flow);
        }
        if let Some(flow) = closed {
            self.common.watchers.tell(Happened::Closed, flow);
        }
    }

    /// Shows every open flow, and whether its labels are settled. The lock is given up between chunks, so a flow
    /// that comes or goes meanwhile may be seen or not, but none is seen twice.
    pub(super) fn visit(&self, mut see: impl FnMut(SlotId, &Flow, bool)) {
        let mut start = 0;
        loop {
            let state = lock(&self.state);
            let Some(rest) = state.slots.get(start..) else {
                return;
            };
            if rest.is_empty() {
                return;
            }
            for (n, slot) in (start..).zip(rest).take(CHUNK) {
                if let Slot::Open(record) = slot {
                    see(SlotId(n as u32), &record.flow, record.series.is_some());
                }
            }
            start += CHUNK;
        }
    }

    /// The open flow in this slot now, whichever it is.
    pub(super) fn get(&self, id: SlotId) -> Option<Flow> {
        match lock(&self.state).slots.get(id.0 as usize) {
            Some(Slot::Open(record)) => Some(Flow::clone(&record.flow)),
            _ => None,
        }
    }

    /// Adds this shard to `tally`. The bytes of open flows are first moved into their series, each byte once, so
    /// totals never count one twice and never go back, however the scrape and the flows interleave.
    fn add_to(&self, tally: &mut Tally) {
        let mut start = 0;
        loop {
            let mut state = lock(&self.state);
            if start >= state.slots.len() {
                break;
            }
            state.harvest(start, tally);
            start += CHUNK;
        }
        lock(&self.state).series.add_to(&mut tally.series);
    }

    pub(super) fn collect_used(&self, used: &mut HashSet<u32>) {
        lock(&self.state).series.collect_used(used);
    }

    pub(super) fn release(&self, number: u32, sum: &mut Series) -> bool {
        // Under the lock: no connection of this shard brings the set back between the two tables.
        lock(&self.state).series.release(number, &self.common.labels, sum)
    }

    pub(super) fn take_back(&self, number: u32, sum: &Series) -> bool {
        lock(&self.state).series.take_back(number, sum)
    }
}

impl State {
    fn insert(&mut self, record: OpenRecord) -> SlotId {
        self.live += 1;
        let Some(free) = self.free else {
            self.slots.push(Slot::Open(record));
            return SlotId(self.slots.len() as u32 - 1);
        };
        let slot = std::mem::replace(&mut self.slots[free as usize], Slot::Open(record));
        let Slot::Free { next } = slot else {
            unreachable!("the list of free slots names free slots only")
        };
        self.free = next;
        SlotId(free)
    }

    fn record(&mut self, id: SlotId) -> &mut OpenRecord {
        match &mut self.slots[id.0 as usize] {
            Slot::Open(record) => record,
            Slot::Free { .. } => unreachable!("an open flow owns its slot until it is closed"),
        }
    }

    /// Finds the series of the flow as it is now and counts it there as opened.
    fn settle(&mut self, id: SlotId, table: &LabelTable) {
        let labels = Labels::of(&self.record(id).flow);
        let number = self.series.number_of(labels, table);
        let Self { slots, series, .. } = self;
        if let Slot::Open(record) = &mut slots[id.0 as usize] {
            record.series = Some(number);
            series.touch(number).open(&record.flow);
        }
    }

    fn remove(&mut self, id: SlotId, outcome: Outcome) -> Box<Flow> {
        let free = Slot::Free { next: self.free };
        let Slot::Open(record) = std::mem::replace(&mut self.slots[id.0 as usize], free) else {
            unreachable!("an open flow owns its slot until it is closed")
        };
        self.free = Some(id.0);
        self.live -= 1;
        if let Some(number) = record.series {
            let series = self.series.touch(number);
            series.sent += record.flow.bytes.sent() - record.sent;
            series.received += record.flow.bytes.received() - record.received;
            series.close(&record.flow, outcome);
        }
        if self.live == 0 && self.slots.len() > KEEP_SLOTS {
            self.slots = Vec::new();
            self.free = None;
        }
        record.flow
    }

    fn harvest(&mut self, start: usize, tally: &mut Tally) {
        let Self { slots, series, .. } = self;
        for slot in slots[start..].iter_mut().take(CHUNK) {
            let Slot::Open(record) = slot else { continue };
            let Some(number) = record.series else {
                match record.flow.direction {
                    Direction::Inbound => tally.pending_inbound += 1,
                    Direction::Outbound => tally.pending_outbound += 1,
                }
                continue;
            };
            let (sent, received) = (record.flow.bytes.sent(), record.flow.bytes.received());
            let series = series.touch(number);
            series.sent += sent - record.sent;
            series.received += received - record.received;
            (record.sent, record.received) = (sent, received);
        }
    }
}
