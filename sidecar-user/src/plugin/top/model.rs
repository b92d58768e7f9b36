//! Who talks to whom now: events and lists of open flows go in, rows come out. Pure: time is an argument, in seconds since the view began, and
//! whom they come from is a number. Reads no stream and draws nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::super::edges::graph::{NO_TUNNEL, median, plaintext, security};
use super::super::edges::naming::is_outbound;
use super::ends::{Ends, Pair};
use super::rates::{Counts, Rates, Recent};
use crate::observe::{FlowReport, WatchEvent};

#[derive(Debug, Default)]
pub(super) struct Model {
    ends: Ends,
    pairs: HashMap<Pair, Seen>,
    open: HashMap<FlowId, Open>,
    /// The newest last; those that failed are not pushed out by those that did not.
    failed: VecDeque<(Pair, FlowReport)>,
    ended: VecDeque<(Pair, FlowReport)>,
    /// When each of those that are asked began to tell.
    since: HashMap<usize, f64>,
}

/// A process counts its flows from 1, so the time tells two of them apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct FlowId {
    target: usize,
    pod: Option<String>,
    id: u64,
    opened: String,
}

#[derive(Debug)]
struct Open {
    pair: Pair,
    flow: FlowReport,
    /// Lists in a row that did not have it. An event may be newer than the list that comes after it.
    missed: u8,
}

/// What is known of a pair.
#[derive(Debug, Default)]
struct Seen {
    /// As the proxies of the source tell, and as those of the destination do.
    sides: [Side; 2],
    service: Option<String>,
    tls: BTreeSet<String>,
    reason: Option<&'static str>,
    /// When it was last heard of.
    at: f64,
}

#[derive(Debug, Default)]
struct Side {
    open: u64,
    connections: u64,
    failed: u64,
    failures: BTreeMap<(String, String), u64>,
    last_failure: Option<(String, String)>,
    recent: Recent,
    /// Of the last one that ended.
    rtt: Option<f64>,
}

/// A pair, as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) pair: Pair,
    pub(super) source: String,
    pub(super) destination: String,
    pub(super) service: Option<String>,
    pub(super) security: String,
    pub(super) is_secured: bool,
    pub(super) tls: Vec<String>,
    pub(super) reason: Option<&'static str>,
    pub(super) open: u64,
    /// Since the view began.
    pub(super) connections: u64,
    pub(super) failed: u64,
    /// Cause, by whom, how often; the most frequent first.
    pub(super) failures: Vec<(String, String, u64)>,
    pub(super) last_failure: Option<(String, String)>,
    pub(super) rates: Rates,
    pub(super) rtt: Option<f64>,
}

/// Flows that have ended, of each kind, all pairs together: some 4 MB.
const REMEMBERED: usize = 1_000;
/// Seconds after which a pair of which nothing is open is no longer shown.
const STALE: f64 = 300.0;
/// Two lists in a row were asked for after its last event.
const GONE: u8 = 2;

impl Model {
    pub(super) fn event(&mut self, target: usize, event: WatchEvent, now: f64) {
        match event {
            WatchEvent::Opened { flow } => self.flow(target, flow, now),
            WatchEvent::Closed { flow } => self.closed(target, flow, now),
            WatchEvent::Skipped { .. } | WatchEvent::Dropped { .. } => {}
        }
    }

    /// All that is open at a target, or only some of it.
    pub(super) fn open_flows(&mut self, target: usize, flows: Vec<FlowReport>, is_whole: bool, now: f64) {
        for open in self.open.iter_mut().filter(|(id, _)| id.target == target) {
            open.1.missed += u8::from(is_whole);
        }
        for flow in flows {
            self.flow(target, flow, now);
        }
        let gone = self.open.extract_if(|_, open| open.missed >= GONE);
        for (_, open) in gone {
            if let Some(seen) = self.pairs.get_mut(&open.pair) {
                seen.side(&open.flow).gone();
            }
        }
        self.pairs
            .retain(|_, seen| now - seen.at < STALE || seen.sides.iter().any(|side| side.open > 0));
    }

    /// What was open there is not known any more, and what opens until it is asked again is not new.
    pub(super) fn lost(&mut self, target: usize) {
        self.since.remove(&target);
        for (_, open) in self.open.extract_if(|id, _| id.target == target) {
            if let Some(seen) = self.pairs.get_mut(&open.pair) {
                seen.side(&open.flow).gone();
            }
        }
    }

    /// One that is open now.
    fn flow(&mut self, target: usize, flow: FlowReport, now: f64) {
        let is_new = self.is_new(target, &flow, now);
        // It is not known yet whereto.
        if flow.state == "connecting" {
            return;
        }
        let id = FlowId::of(target, &flow);
        if let Some(open) = self.open.get_mut(&id) {
            open.missed = 0;
            let counts = Counts {
                sent: flow.bytes_sent.saturating_sub(open.flow.bytes_sent),
                received: flow.bytes_received.saturating_sub(open.flow.bytes_received),
                ..Counts::default()
            };
            let seen = self.pairs.entry(open.pair.clone()).or_default();
            seen.add(&flow, counts, now);
            open.flow = flow;
            return;
        }
        let pair = self.ends.pair(&flow);
        let seen = self.pairs.entry(pair.clone()).or_default();
        seen.add(&flow, Counts::of_new(&flow, is_new), now);
        seen.side(&flow).open += 1;
        let missed = 0;
        self.open.insert(id, Open { pair, flow, missed });
    }

    fn closed(&mut self, target: usize, flow: FlowReport, now: f64) {
        let is_new = self.is_new(target, &flow, now);
        let (pair, mut counts) = match self.open.remove(&FlowId::of(target, &flow)) {
            Some(open) => {
                let counts = Counts {
                    sent: flow.bytes_sent.saturating_sub(open.flow.bytes_sent),
                    received: flow.bytes_received.saturating_sub(open.flow.bytes_received),
                    ..Counts::default()
                };
                if let Some(seen) = self.pairs.get_mut(&open.pair) {
                    seen.side(&flow).gone();
                }
                (open.pair, counts)
            }
            None => (self.ends.pair(&flow), Counts::of_new(&flow, is_new)),
        };
        let is_failed = flow.close_cause.as_deref().is_some_and(|cause| cause != "eof");
        counts.failed = u64::from(is_failed);
        let seen = self.pairs.entry(pair.clone()).or_default();
        seen.add(&flow, counts, now);
        seen.side(&flow).end(&flow, is_failed);
        let ended = match is_failed {
            true => &mut self.failed,
            false => &mut self.ended,
        };
        if ended.len() == REMEMBERED {
            ended.pop_front();
        }
        ended.push_back((pair, flow));
    }

    /// Whether it was opened since its target began to tell. What was there before brings no rates.
    fn is_new(&mut self, target: usize, flow: &FlowReport, now: f64) -> bool {
        let since = *self.since.entry(target).or_insert(now);
        flow.age_seconds < now - since
    }

    /// In no order.
    pub(super) fn rows(&self, now: f64) -> Vec<Row> {
        let mut rtts: HashMap<&Pair, [Vec<f64>; 2]> = HashMap::new();
        for open in self.open.values() {
            if let Some(rtt) = open.flow.peer_leg().and_then(|leg| leg.rtt_seconds) {
                rtts.entry(&open.pair).or_default()[side_of(&open.flow)].push(rtt);
            }
        }
        let rows = self.pairs.iter().map(|(pair, seen)| {
            // The side that tells more has seen what the other one has.
            let [source, destination] = [0, 1].map(|n| seen.sides[n].connections + seen.sides[n].open);
            let told = usize::from(destination > source);
            let rtts = rtts.get_mut(pair).map(|sides| std::mem::take(&mut sides[told]));
            self.row(pair, seen, told, rtts.and_then(median), now)
        });
        rows.collect()
    }

    fn row(&self, pair: &Pair, seen: &Seen, told: usize, rtt: Option<f64>, now: f64) -> Row {
        let side = &seen.sides[told];
        let is_secured = pair.is_mesh && !seen.tls.is_empty();
        let reason = match (is_secured, pair.is_mesh) {
            (true, _) => None,
            (_, true) => Some(NO_TUNNEL),
            _ => seen.reason,
        };
        let mut failures: Vec<(String, String, u64)> = side
            .failures
            .iter()
            .map(|((cause, by), n)| (cause.clone(), by.clone(), *n))
            .collect();
        failures.sort_by_key(|(_, _, n)| std::cmp::Reverse(*n));
        let port = pair.port.map(|port| format!(":{port}")).unwrap_or_default();
        Row {
            source: self.ends.name(&pair.source),
            destination: self.ends.name(&pair.destination) + &port,
            pair: pair.clone(),
            service: seen.service.clone(),
            security: security(is_secured, &seen.tls, reason),
            is_secured,
            tls: seen.tls.iter().filter(|_| pair.is_mesh).cloned().collect(),
            reason,
            open: side.open,
            connections: side.connections,
            failed: side.failed,
            failures,
            last_failure: side.last_failure.clone(),
            rates: side.recent.rates(now),
            rtt: rtt.or(side.rtt),
        }
    }

    /// Those of a pair that are remembered, the newest first.
    pub(super) fn flows(&self, pair: &Pair) -> Vec<&FlowReport> {
        let ended = self.failed.iter().chain(&self.ended);
        let ended = ended.filter(|(of, _)| of == pair).map(|(_, flow)| flow);
        let open = self.open.values().filter(|open| open.pair == *pair);
        let mut flows: Vec<&FlowReport> = ended.chain(open.map(|open| &open.flow)).collect();
        flows.sort_by(|a, b| when(b).cmp(when(a)).then(b.id.cmp(&a.id)));
        flows
    }
}

/// Times of one format are in order as text.
fn when(flow: &FlowReport) -> &str {
    flow.closed.as_deref().unwrap_or(&flow.opened)
}

fn side_of(flow: &FlowReport) -> usize {
    usize::from(!is_outbound(flow))
}

impl FlowId {
    fn of(target: usize, flow: &FlowReport) -> Self {
        Self {
            target,
            pod: flow.pod.clone(),
            id: flow.id,
            opened: flow.opened.clone(),
        }
    }
}

impl Counts {
    fn of_new(flow: &FlowReport, is_new: bool) -> Self {
        match is_new {
            true => Self {
                connections: 1,
                sent: flow.bytes_sent,
                received: flow.bytes_received,
                failed: 0,
            },
            false => Self::default(),
        }
    }
}

impl Seen {
    fn side(&mut self, flow: &FlowReport) -> &mut Side {
        &mut self.sides[side_of(flow)]
    }

    fn add(&mut self, flow: &FlowReport, counts: Counts, now: f64) {
        self.at = now;
        if flow.service.is_some() && (is_outbound(flow) || self.service.is_none()) {
            self.service.clone_from(&flow.service);
        }
        if let Some(tls) = &flow.tls
            && !self.tls.contains(&*tls.version)
        {
            self.tls.insert(tls.version.to_string());
        }
        if flow.transport != "hbone" {
            self.reason = Some(plaintext(flow));
        }
        let side = self.side(flow);
        side.connections += counts.connections;
        side.failed += counts.failed;
        side.recent.add(counts, now);
    }
}

impl Side {
    fn gone(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    fn end(&mut self, flow: &FlowReport, is_failed: bool) {
        self.rtt = flow.peer_leg().and_then(|leg| leg.rtt_seconds).or(self.rtt);
        if is_failed {
            let name = |name: &Option<_>| name.as_deref().unwrap_or("unknown").to_owned();
            let failure = (name(&flow.close_cause), name(&flow.closed_by));
            *self.failures.entry(failure.clone()).or_default() += 1;
            self.last_failure = Some(failure);
        }
    }
}
