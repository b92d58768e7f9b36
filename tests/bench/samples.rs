//! Latencies, kept exactly: a slice is short, and a sorted list has no buckets to explain.

use std::time::Duration;

use serde::Serialize;

/// Enough for a slice of some seconds; more only grows the list.
const ROOM: usize = 1 << 16;

/// Nanoseconds, of one slice. Keeps its room from slice to slice.
#[derive(Debug)]
pub(crate) struct Samples(Vec<u32>);

#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    p50: u32,
    p90: u32,
    p99: u32,
    p999: u32,
    max: u32,
}

impl Samples {
    pub(crate) fn new() -> Self {
        Self(Vec::with_capacity(ROOM))
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn add(&mut self, sample: Duration) {
        self.0.push(u32::try_from(sample.as_nanos()).unwrap_or(u32::MAX));
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// Nothing where there is no sample.
    pub(crate) fn latency(&mut self) -> Option<Latency> {
        self.0.sort_unstable();
        let max = *self.0.last()?;
        let rank = |thousandths: usize| self.0[(self.0.len() * thousandths).div_ceil(1000) - 1];
        Some(Latency {
            p50: rank(500),
            p90: rank(900),
            p99: rank(990),
            p999: rank(999),
            max,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples_by_rank() {
        let mut samples = Samples::new();
        assert!(samples.latency().is_none());
        for n in (1..=1000).rev() {
            samples.add(Duration::from_nanos(n));
        }
        let latency = samples.latency().unwrap();
        let Latency {
            p50,
            p90,
            p99,
            p999,
            max,
        } = latency;
        assert_eq!([p50, p90, p99, p999, max], [500, 900, 990, 999, 1000]);
    }

    #[test]
    fn one_sample_is_every_percentile() {
        let mut samples = Samples::new();
        samples.add(Duration::from_nanos(7));
        let latency = samples.latency().unwrap();
        assert_eq!((latency.p50, latency.max), (7, 7));
    }
}
