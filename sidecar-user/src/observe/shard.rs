//! One shard's open flows and counters, behind a lock that only this shard's thread and a reader ever take.
//!
//! Does not merge shards and writes no text.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use super::labels::{LabelTable, Labels};
use super::lock;
use super::ring::Ring;
use super::series::Series;
use super::watch::{Happened, Watchers};
use crate::model::{Direction, Flow, Outcome};

/// What all shards share: each field is made so that shards do not wait for each other.
#[derive(Debug)]
pub(super) struct Shared {
    pub next_id: std::sync::atomic::AtomicU64,
    pub labels: LabelTable,
    pub ring: Ring,
    pub watchers: Watchers,
}

#[derive(Debug)]
pub(super) struct Shard {
    shared: Arc<Shared>,
    state: Mutex<State>,
}

/// The place of an open flow in its shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place(u32);

#[derive(Debug, Default)]
struct State {
    slots: Vec<Slot>,
    /// Head of the list of free slots.
    free: Option<u32>,
    live: usize,
    /// From a label set to its index in `series`.
    index: HashMap<Labels, u32>,
    /// Each with its number in the [`LabelTable`].
    series: Vec<(u32, Series)>,
}

#[derive(Debug)]
enum Slot {
    Free { next: Option<u32> },
    Open(Entry),
}

#[derive(Debug)]
struct Entry {
    /// Boxed, so that closing hands it to the ring without a copy.
    flow: Box<Flow>,
    /// Index in `State::series`, once the flow's labels are settled.
    series: Option<u32>,
    /// Bytes that the series has already: what a scrape took from the open flow is not taken again.
    sent: u64,
    received: u64,
}

/// What the shard knows, added up for the exposition.
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

impl Shard {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            state: Mutex::default(),
        }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) fn open(&self, flow: Box<Flow>) -> Place {
        let entry = Entry {
            flow,
            series: None,
            sent: 0,
            received: 0,
        };
        lock(&self.state).insert(entry)
    }

    pub(super) fn update(&self, place: Place, change: impl FnOnce(&mut Flow)) {
        let mut state = lock(&self.state);
        let entry = state.entry(place);
        change(&mut entry.flow);
        if entry.series.is_some() || entry.flow.connect_time.is_none() {
            return;
        }
        state.settle(place, &self.shared.labels);
        if self.shared.watchers.any() {
            let flow = Flow::clone(&state.entry(place).flow);
            drop(state);
            self.shared.watchers.tell(Happened::Opened, flow);
        }
    }

    pub(super) fn close(&self, place: Place, at: SystemTime, outcome: Outcome) {
        let mut state = lock(&self.state);
        let late = state.entry(place).series.is_none();
        if late {
            state.settle(place, &self.shared.labels);
        }
        let opened = (late && self.shared.watchers.any()).then(|| Flow::clone(&state.entry(place).flow));
        let mut flow = state.remove(place, outcome);
        flow.closed = Some((at, outcome));
        let closed = self.shared.watchers.any().then(|| Flow::clone(&flow));
        // Still under the lock: at no time is the flow in neither list.
        self.shared.ring.push(flow);
        drop(state);
        if let Some(flow) = opened {
            self.shared.watchers.tell(Happened::Opened, flow);
        }
        if let Some(flow) = closed {
            self.shared.watchers.tell(Happened::Closed, flow);
        }
    }

    /// Shows every open flow, and whether its labels are settled. The lock is given up between chunks, so a flow
    /// that comes or goes meanwhile may be seen or not, but none is seen twice.
    pub(super) fn visit(&self, mut see: impl FnMut(&Flow, bool)) {
        let mut start = 0;
        loop {
            let state = lock(&self.state);
            let Some(rest) = state.slots.get(start..) else {
                return;
            };
            if rest.is_empty() {
                return;
            }
            for slot in rest.iter().take(CHUNK) {
                if let Slot::Open(entry) = slot {
                    see(&entry.flow, entry.series.is_some());
                }
            }
            start += CHUNK;
        }
    }

    /// Adds this shard to `tally`. The bytes of open flows are first moved into their series, each byte once, so
    /// totals never count one twice and never go back, however the scrape and the flows interleave.
    pub(super) fn add_to(&self, tally: &mut Tally) {
        let mut start = 0;
        loop {
            let mut state = lock(&self.state);
            if start >= state.slots.len() {
                break;
            }
            state.harvest(start, tally);
            start += CHUNK;
        }
        for (number, series) in &lock(&self.state).series {
            let number = *number as usize;
            if tally.series.len() <= number {
                tally.series.resize_with(number + 1, Series::default);
            }
            tally.series[number].add(series);
        }
    }
}

impl State {
    fn insert(&mut self, entry: Entry) -> Place {
        self.live += 1;
        let Some(place) = self.free else {
            self.slots.push(Slot::Open(entry));
            return Place(self.slots.len() as u32 - 1);
        };
        let slot = std::mem::replace(&mut self.slots[place as usize], Slot::Open(entry));
        let Slot::Free { next } = slot else {
            unreachable!("the list of free slots names free slots only")
        };
        self.free = next;
        Place(place)
    }

    fn entry(&mut self, place: Place) -> &mut Entry {
        match &mut self.slots[place.0 as usize] {
            Slot::Open(entry) => entry,
            Slot::Free { .. } => unreachable!("an open flow owns its place until it is closed"),
        }
    }

    /// Finds the series of the flow as it is now and counts it there as opened.
    fn settle(&mut self, place: Place, table: &LabelTable) {
        let labels = Labels::of(&self.entry(place).flow);
        let index = self.series_of(labels, table);
        let Self { slots, series, .. } = self;
        if let Slot::Open(entry) = &mut slots[place.0 as usize] {
            entry.series = Some(index);
            series[index as usize].1.open(&entry.flow);
        }
    }

    fn series_of(&mut self, labels: Labels, table: &LabelTable) -> u32 {
        if let Some(index) = self.index.get(&labels) {
            return *index;
        }
        let Some(number) = table.admit(&labels) else {
            table.count_overflow();
            return self.series_of(labels.overflowed(), table);
        };
        let index = self.series.len() as u32;
        self.series.push((number, Series::default()));
        self.index.insert(labels, index);
        index
    }

    fn remove(&mut self, place: Place, outcome: Outcome) -> Box<Flow> {
        let free = Slot::Free { next: self.free };
        let Slot::Open(entry) = std::mem::replace(&mut self.slots[place.0 as usize], free) else {
            unreachable!("an open flow owns its place until it is closed")
        };
        self.free = Some(place.0);
        self.live -= 1;
        if let Some(index) = entry.series {
            let series = &mut self.series[index as usize].1;
            series.sent += entry.flow.bytes.sent() - entry.sent;
            series.received += entry.flow.bytes.received() - entry.received;
            series.close(outcome);
        }
        if self.live == 0 && self.slots.len() > KEEP_SLOTS {
            self.slots = Vec::new();
            self.free = None;
        }
        entry.flow
    }

    fn harvest(&mut self, start: usize, tally: &mut Tally) {
        let Self { slots, series, .. } = self;
        for slot in slots[start..].iter_mut().take(CHUNK) {
            let Slot::Open(entry) = slot else { continue };
            let Some(index) = entry.series else {
                match entry.flow.direction {
                    Direction::Inbound => tally.pending_inbound += 1,
                    Direction::Outbound => tally.pending_outbound += 1,
                }
                continue;
            };
            let (sent, received) = (entry.flow.bytes.sent(), entry.flow.bytes.received());
            let series = &mut series[index as usize].1;
            series.sent += sent - entry.sent;
            series.received += received - entry.received;
            (entry.sent, entry.received) = (sent, received);
        }
    }
}
