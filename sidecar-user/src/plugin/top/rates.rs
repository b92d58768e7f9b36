//! What happened in the last seconds, in steps of one second. Time is an argument: seconds since the view began.

use std::collections::VecDeque;

/// A round trip of the question for open flows is two seconds, so that a shorter window would jump.
pub(super) const WINDOW: f64 = 10.0;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counts {
    pub(super) connections: u64,
    pub(super) failed: u64,
    pub(super) sent: u64,
    pub(super) received: u64,
}

#[derive(Debug, Default)]
pub(super) struct Recent {
    /// Seconds in which something happened, oldest first.
    steps: VecDeque<(u64, Counts)>,
}

/// A second each.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) connections: f64,
    pub(super) failed: f64,
    pub(super) sent: f64,
    pub(super) received: f64,
}

impl Recent {
    pub(super) fn add(&mut self, counts: Counts, now: f64) {
        let step = now as u64;
        self.forget(now);
        match self.steps.back_mut() {
            Some((at, sum)) if *at >= step => sum.add(counts),
            _ => self.steps.push_back((step, counts)),
        }
    }

    fn forget(&mut self, now: f64) {
        let first = first(now);
        while self.steps.front().is_some_and(|(at, _)| *at < first) {
            self.steps.pop_front();
        }
    }

    /// Over the window, or over the time that the view runs while that is shorter, but for no less than a second.
    pub(super) fn rates(&self, now: f64) -> Rates {
        let first = first(now);
        let mut sum = Counts::default();
        for (_, counts) in self.steps.iter().filter(|(at, _)| *at >= first) {
            sum.add(*counts);
        }
        let seconds = (now - first as f64).max(1.0);
        let rate = |count: u64| count as f64 / seconds;
        Rates {
            connections: rate(sum.connections),
            failed: rate(sum.failed),
            sent: rate(sum.sent),
            received: rate(sum.received),
        }
    }
}

/// The oldest second of the window, whole.
fn first(now: f64) -> u64 {
    (now - WINDOW + 1.0).max(0.0) as u64
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.connections += other.connections;
        self.failed += other.failed;
        self.sent += other.sent;
        self.received += other.received;
    }
}

impl Rates {
    pub(super) fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.failed += other.failed;
        self.sent += other.sent;
        self.received += other.received;
    }

    /// Both ways.
    pub(super) fn bytes(&self) -> f64 {
        self.sent + self.received
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(n: u64) -> Counts {
        Counts {
            connections: n,
            ..Counts::default()
        }
    }

    #[test]
    fn a_rate_is_over_the_window_and_what_is_older_is_forgotten() {
        let mut recent = Recent::default();
        for second in 0..30 {
            recent.add(connections(5), f64::from(second) + 0.5);
            assert!(recent.steps.len() <= 10, "{recent:?}");
        }
        let rate = |now| recent.rates(now).connections;
        assert!((rate(30.0) - 5.0).abs() < 0.6, "{}", rate(30.0));
        assert!(rate(35.0) < 3.0 && rate(35.0) > 1.5, "{}", rate(35.0));
        assert_eq!(rate(45.0), 0.0);
    }

    #[test]
    fn a_view_that_has_just_begun_does_not_divide_by_what_has_not_been() {
        let mut recent = Recent::default();
        recent.add(connections(4), 0.1);
        assert_eq!(recent.rates(0.1).connections, 4.0);
        assert_eq!(recent.rates(2.0).connections, 2.0);
    }
}
