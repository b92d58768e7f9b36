//! From samples to a number, and how sure it is. Pure.

use serde::Serialize;

/// A median with the interval that holds it in 95 of 100 runs like this one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Estimate {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

const RESAMPLES: usize = 2000;

/// Disturbances come in bursts: neighbours are resampled together, in runs of at most this many.
const LONGEST_RUN: usize = 10;

/// By bootstrap. `values` are in the order they were measured; there is at least one.
pub(super) fn estimate(values: &[f64]) -> Estimate {
    let run = (values.len() / 4).clamp(1, LONGEST_RUN);
    let mut random = Random::new(values.len() as u64);
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let mut resample = Vec::with_capacity(values.len() + run);
            while resample.len() < values.len() {
                let begin = random.below(values.len());
                resample.extend((begin..begin + run).map(|n| values[n % values.len()]));
            }
            resample.truncate(values.len());
            median(&resample)
        })
        .collect();
    medians.sort_unstable_by(f64::total_cmp);
    let rank = |share: f64| medians[((RESAMPLES - 1) as f64 * share).round() as usize];
    Estimate {
        median: median(values),
        low: rank(0.025),
        high: rank(0.975),
    }
}

pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    }
}

/// SplitMix64: the same turns and the same interval from the same figures, on every machine.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The bias of the remainder is far below what any interval here could show.
    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_or_between_two() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn equal_values_leave_no_doubt() {
        let estimate = estimate(&[2.0; 40]);
        assert_eq!((estimate.median, estimate.low, estimate.high), (2.0, 2.0, 2.0));
    }

    #[test]
    fn an_interval_holds_the_median_and_narrows_with_more_values() {
        let mut random = Random::new(1);
        let mut noise =
            |count: usize| -> Vec<f64> { (0..count).map(|_| random.below(1000) as f64).collect() };
        let (few, many) = (estimate(&noise(20)), estimate(&noise(2000)));
        for e in [few, many] {
            assert!(e.low <= e.median && e.median <= e.high, "{e:?}");
        }
        assert!(many.high - many.low < few.high - few.low, "{many:?} {few:?}");
        assert!((450.0..550.0).contains(&many.median), "{many:?}");
    }

    #[test]
    fn a_shuffle_keeps_every_item_and_gives_each_its_turn() {
        let mut random = Random::new(7);
        let mut first = [0; 3];
        for _ in 0..300 {
            let mut turns = [0, 1, 2];
            random.shuffle(&mut turns);
            first[turns[0]] += 1;
            turns.sort_unstable();
            assert_eq!(turns, [0, 1, 2]);
        }
        assert!(first.iter().all(|count| (50..150).contains(count)), "{first:?}");
    }
}
