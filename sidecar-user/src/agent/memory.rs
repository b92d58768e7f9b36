//! The flows of all pods that have ended: who asks later is told what was decided on their way. A pure store; time is an
//! argument, and nobody is asked for anything here. Keeps nothing across a restart, and no open flows, which their own
//! proxies know better.
//!
//! Bounds: bytes over all, with a part of them for each kind of client (`kept.rs`), and age. Where bytes run out the
//! pod that holds the most loses its oldest flow, so that no pod loses anything while it holds less than an equal share.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use crate::observe::{FlowReport, FlowsSince};
use kept::{KINDS, Kept, Pod, Record};
use query::Cursor;

mod found;
mod kept;
mod query;
#[cfg(test)]
mod tests;

pub use found::{Found, newest};
pub use query::{Pods, Question};

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of all that is kept, as the allocator is asked for it.
    pub bytes: usize,
    /// Since a flow ended.
    pub age: Duration,
}

/// Some 60,000 flows of a kilobyte each, of the last day.
impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 64 << 20,
            age: Duration::from_secs(24 * 60 * 60),
        }
    }
}

pub struct Memory {
    limits: Limits,
    /// Sorted by name. A pod that has no flow left is not here.
    pods: Vec<Pod>,
    /// Bytes of each kind, over all pods.
    bytes: [usize; KINDS],
    /// Tells this memory's cursors from those of a memory before it.
    start: u64,
    /// The number of the next flow. Flows that are lost before they come here have numbers too.
    next: u64,
    forgotten: Forgotten,
}

/// How many flows there were that are not here, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    pub age: u64,
    /// There was no room for them any more.
    pub room: u64,
    /// Of strangers, left out by a proxy because they came faster than they were read.
    pub skipped: u64,
}

/// Eighths of the bytes. Who has proved nothing cannot push out the flows of those who have.
const SHARES: [usize; KINDS] = [6, 1, 1];

/// Flows that one question by a cursor reads, which takes some milliseconds; the next one goes on after them.
const MOST_READ: u64 = 10_000;

/// How much is kept of one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFlows {
    pub pod: String,
    pub flows: usize,
    /// Of those.
    pub failed: usize,
    pub bytes: usize,
}

impl Memory {
    pub fn new(limits: Limits, now: SystemTime) -> Self {
        Self {
            limits,
            pods: Vec::new(),
            bytes: [0; KINDS],
            start: kept::millis(now),
            next: 1,
            forgotten: Forgotten::default(),
        }
    }

    /// A flow has ended. `instance` tells the proxies of a pod apart that follow one another: each counts its flows from 1.
    pub fn closed(&mut self, pod: &str, instance: u32, flow: FlowReport, now: SystemTime) {
        let kind = match &*flow.standing {
            "own" | "proven" => 0,
            "plaintext" => 1,
            _ => 2,
        };
        let record = Record::new(self.next, instance, flow, now);
        self.next += 1;
        let n = match self.position(pod) {
            Ok(n) => n,
            Err(n) => {
                let pod = Pod {
                    name: pod.into(),
                    kinds: Default::default(),
                };
                self.pods.insert(n, pod);
                n
            }
        };
        self.change(n, kind, |kept| kept.push(record));
        self.make_room(kind);
    }

    /// What a proxy remembers, which is told again to who comes back to it: what is here already is left out.
    pub fn caught_up(&mut self, pod: &str, instance: u32, flows: Vec<FlowReport>, now: SystemTime) {
        let known: HashSet<u64> = match self.position(pod) {
            Ok(n) => self.pods[n]
                .records()
                .filter(|record| record.instance == instance)
                .map(|record| record.id)
                .collect(),
            Err(_) => HashSet::new(),
        };
        for flow in flows {
            if !known.contains(&flow.id) {
                self.closed(pod, instance, flow, now);
            }
        }
    }

    /// So many flows did not come here: a proxy has left them out. Who follows is told.
    pub fn lost(&mut self, flows: u64) {
        self.next += flows;
        self.forgotten.skipped += flows;
    }

    /// Forgets what has become too old.
    pub fn expire(&mut self, now: SystemTime) {
        let age = u64::try_from(self.limits.age.as_millis()).unwrap_or(u64::MAX);
        let oldest = kept::millis(now).saturating_sub(age);
        for n in 0..self.pods.len() {
            for kind in 0..KINDS {
                let mut gone = 0;
                self.change(n, kind, |kept| {
                    while kept.oldest().is_some_and(|record| record.at < oldest) {
                        kept.pop();
                        gone += 1;
                    }
                });
                self.forgotten.age += gone;
            }
        }
        self.pods.retain(|pod| !pod.is_empty());
    }

    /// What may pass, newest first: what takes reading each flow is for [`newest`], which needs no lock.
    pub fn found(&self, question: &Question) -> Vec<Found> {
        let mut all = Vec::new();
        for pod in &self.pods {
            let asked = pod
                .records()
                .filter(|record| question.asks_for(&pod.name, record.at));
            all.extend(asked.map(|record| Found::new(&pod.name, record)));
        }
        all.sort_unstable_by_key(Found::age);
        all
    }

    /// Where who follows begins.
    pub fn cursor(&self) -> String {
        self.cursor_at(self.next - 1)
    }

    /// What has come since the question's cursor, at most as many as its limit; without a cursor from the oldest on.
    pub fn follow(&self, question: &Question) -> FlowsSince {
        let asked = question.after.unwrap_or(Cursor {
            start: self.start,
            number: self.oldest().saturating_sub(1),
        });
        let restarted = asked.start != self.start;
        let after = match restarted {
            true => self.oldest().saturating_sub(1),
            false => asked.number.min(self.next - 1),
        };
        let all = self
            .pods
            .iter()
            .flat_map(|pod| pod.records().map(|record| (&pod.name, record)));
        let mut since: Vec<_> = all.filter(|(_, record)| record.number > after).collect();
        since.sort_unstable_by_key(|(_, record)| record.number);
        let (mut flows, mut seen, mut until) = (Vec::new(), 0, self.next - 1);
        for (pod, record) in since {
            if flows.len() == question.limit() || seen == MOST_READ {
                until = record.number - 1;
                break;
            }
            seen += 1;
            if question.asks_for(pod, record.at)
                && let Some(flow) = Found::new(pod, record).report()
                && question.passes(&flow)
            {
                flows.push(flow);
            }
        }
        FlowsSince {
            flows,
            cursor: self.cursor_at(until),
            lost: until - after - seen,
            restarted,
        }
    }

    pub fn pods(&self) -> Vec<PodFlows> {
        let pods = self.pods.iter().map(|pod| PodFlows {
            pod: pod.name.to_string(),
            flows: pod.kinds.iter().map(Kept::len).sum(),
            failed: pod.records().filter(|record| record.has_failed).count(),
            bytes: pod.kinds.iter().map(|kept| kept.bytes(&pod.name)).sum(),
        });
        pods.collect()
    }

    /// Of all that is kept.
    pub fn bytes(&self) -> usize {
        self.bytes.iter().sum()
    }

    pub fn limit(&self) -> usize {
        self.limits.bytes
    }

    pub fn forgotten(&self) -> Forgotten {
        self.forgotten
    }

    fn oldest(&self) -> u64 {
        let all = self.pods.iter().flat_map(Pod::records);
        all.map(|record| record.number).min().unwrap_or(self.next)
    }

    fn cursor_at(&self, number: u64) -> String {
        let start = self.start;
        Cursor { start, number }.to_string()
    }

    fn position(&self, pod: &str) -> Result<usize, usize> {
        self.pods.binary_search_by(|other| (*other.name).cmp(pod))
    }

    fn change(&mut self, n: usize, kind: usize, change: impl FnOnce(&mut Kept)) {
        let Pod { name, kinds } = &mut self.pods[n];
        let before = kinds[kind].bytes(name);
        change(&mut kinds[kind]);
        self.bytes[kind] = self.bytes[kind] - before + kinds[kind].bytes(name);
    }

    fn make_room(&mut self, kind: usize) {
        while self.bytes[kind] > self.limits.bytes / 8 * SHARES[kind] {
            let held = |pod: &Pod| pod.kinds[kind].bytes(&pod.name);
            let Some(n) = (0..self.pods.len()).max_by_key(|n| held(&self.pods[*n])) else {
                return;
            };
            self.change(n, kind, Kept::pop);
            self.forgotten.room += 1;
            if self.pods[n].is_empty() {
                self.pods.remove(n);
            }
        }
    }
}
