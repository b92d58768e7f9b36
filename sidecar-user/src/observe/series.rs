//! The counters of one label set. Plain numbers: the shard that owns them holds its lock.

use std::time::Duration;

use crate::model::{Bottleneck, Flow, Outcome};

/// Upper bounds in seconds, 100 µs to 10 s: a connect inside a node takes some 100 µs, a handshake about 1 ms,
/// and connect attempts are given up after seconds. Steps of 2 to 2.5 keep the error of a quantile below that.
pub(super) const BOUNDS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Upper bounds of a ratio. One lost segment in a thousand is where long distances become slow, one in ten where everybody
/// notices.
pub(super) const RATIO_BOUNDS: [f64; 16] = [
    0.0, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0,
];

#[derive(Clone, Debug, Default)]
pub(super) struct Series {
    pub opened: u64,
    pub active: u64,
    pub closed: Vec<(Outcome, u64)>,
    pub sent: u64,
    pub received: u64,
    pub connect: Histogram,
    pub handshake: Histogram,
    pub rtt: Histogram,
    /// Of [`RATIO_BOUNDS`].
    pub retransmits: Histogram,
    /// By the position in [`Bottleneck::ALL`].
    pub bottlenecks: [u64; Bottleneck::ALL.len()],
}

#[derive(Clone, Debug, Default)]
pub(super) struct Histogram {
    pub sum: f64,
    pub counts: [u64; BOUNDS.len() + 1],
}

impl Series {
    pub(super) fn open(&mut self, flow: &Flow) {
        self.opened += 1;
        self.active += 1;
        if let Some(time) = flow.connect_time {
            self.connect.observe(time);
        }
        if let Some(time) = flow.handshake_time {
            self.handshake.observe(time);
        }
    }

    pub(super) fn close(&mut self, flow: &Flow, outcome: Outcome) {
        self.active -= 1;
        self.count_closed(outcome, 1);
        if let Some(leg) = flow.peer_leg() {
            if let Some(rtt) = leg.tcp.rtt {
                self.rtt.observe(rtt);
            }
            if let Some(ratio) = leg.tcp.retransmit_ratio() {
                self.retransmits.observe_in(&RATIO_BOUNDS, ratio);
            }
        }
        if let Some(bottleneck) = flow.bottleneck {
            self.bottlenecks[bottleneck as usize] += 1;
        }
    }

    pub(super) fn add(&mut self, other: &Series) {
        self.opened += other.opened;
        self.active += other.active;
        self.sent += other.sent;
        self.received += other.received;
        self.connect.add(&other.connect);
        self.handshake.add(&other.handshake);
        self.rtt.add(&other.rtt);
        self.retransmits.add(&other.retransmits);
        for (count, more) in self.bottlenecks.iter_mut().zip(other.bottlenecks) {
            *count += more;
        }
        for (outcome, n) in &other.closed {
            self.count_closed(*outcome, *n);
        }
    }

    /// A label set sees a handful of outcomes, so a scan beats a map.
    fn count_closed(&mut self, outcome: Outcome, n: u64) {
        match self.closed.iter_mut().find(|(known, _)| *known == outcome) {
            Some((_, count)) => *count += n,
            None => self.closed.push((outcome, n)),
        }
    }
}

impl Histogram {
    fn observe(&mut self, time: Duration) {
        self.observe_in(&BOUNDS, time.as_secs_f64());
    }

    fn observe_in(&mut self, bounds: &[f64; BOUNDS.len()], value: f64) {
        self.sum += value;
        self.counts[bounds.partition_point(|bound| *bound < value)] += 1;
    }

    fn add(&mut self, other: &Histogram) {
        self.sum += other.sum;
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Upper bound and count of each bucket, not cumulative.
    pub(super) fn buckets(&self, bounds: &[f64; BOUNDS.len()]) -> Vec<(f64, u64)> {
        bounds
            .iter()
            .copied()
            .chain([f64::INFINITY])
            .zip(self.counts)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_belongs_to_that_bucket() {
        let mut histogram = Histogram::default();
        for micros in [1, 100, 101, 20_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let filled: Vec<_> = histogram
            .buckets(&BOUNDS)
            .into_iter()
            .filter(|(_, n)| *n > 0)
            .collect();
        assert_eq!(filled, [(0.0001, 2), (0.00025, 1), (f64::INFINITY, 1)]);
        assert_eq!(histogram.count(), 4);
    }
}
