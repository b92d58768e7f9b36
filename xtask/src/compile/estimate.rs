//! How long the rest of a build takes. Pure: time is an argument. Hears of finished steps; knows nothing of cargo.
//!
//! The steps of a build are not alike: the last one of some three hundred links the program, and is a quarter of the time. So a build
//! was measured: how long it took when so many steps were left. The same of this one, and the pace at which it passes through those
//! seconds, say what the rest takes. Between two steps the estimate goes down with the clock.

use std::time::Duration;

/// A build that was measured, on two cores with little else to do: how many steps were left, few first, and how many seconds that took.
pub(crate) struct Reference(&'static [(usize, f32)]);

/// `cargo build --release --bin outrigger`; `cargo build --timings` tells when each step was finished. The last is the link, and before it
/// come our library and the build script that compiles the programs of the kernel.
pub(crate) const OUTRIGGER: Reference = Reference(&[
    (1, 65.7),
    (2, 115.1),
    (3, 132.5),
    (20, 150.1),
    (30, 151.4),
    (60, 162.9),
    (120, 187.5),
    (180, 202.6),
    (200, 208.7),
    (250, 231.1),
    (339, 254.5),
]);

/// `cargo install bpf-linker`, as `setup` does it.
pub(crate) const BPF_LINKER: Reference =
    Reference(&[(1, 2.5), (11, 5.0), (33, 13.0), (73, 21.0), (115, 29.0)]);

/// What nobody has measured: all steps alike.
pub(crate) const ANY: Reference = Reference(&[(100, 30.0)]);

impl Reference {
    fn seconds_left(&self, steps: usize) -> f32 {
        let steps = steps as f32;
        let (mut fewer, mut less) = (0.0, 0.0);
        for &(more, seconds) in self.0 {
            let more = more as f32;
            if steps <= more {
                return less + (seconds - less) * (steps - fewer) / (more - fewer);
            }
            (fewer, less) = (more, seconds);
        }
        // More than there were: as long as the others, in the mean.
        less * steps / fewer
    }
}

/// So many seconds are believed to have passed at the measured pace, until this build has shown its own.
const BELIEVED: f32 = 10.0;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// How many steps there are is not known yet.
    Unknown,
    About(Duration),
    /// The time is over that was estimated.
    Longer,
}

pub(crate) struct Estimate<'a> {
    reference: &'a Reference,
    steps: Option<usize>,
    done: usize,
    /// Steps that were done before something was really to be done.
    fresh: Option<usize>,
    /// When a step finished last that was really to be done.
    last: Duration,
}

impl<'a> Estimate<'a> {
    pub(crate) fn new(reference: &'a Reference) -> Self {
        Self {
            reference,
            steps: None,
            done: 0,
            fresh: None,
            last: Duration::ZERO,
        }
    }

    /// How many there are, as soon as somebody says so.
    pub(crate) fn steps(&mut self, steps: Option<usize>) {
        self.steps = steps.or(self.steps);
    }

    pub(crate) fn finished(&mut self, fresh: bool, at: Duration) {
        if !fresh {
            self.fresh.get_or_insert(self.done);
            self.last = at;
        }
        self.done += 1;
    }

    /// Whether anything was to be done.
    pub(crate) fn worked(&self) -> bool {
        self.fresh.is_some()
    }

    /// How many steps of how many are done.
    pub(crate) fn of(&self) -> Option<(usize, usize)> {
        self.steps.map(|steps| (self.done.min(steps), steps))
    }

    pub(crate) fn left(&self, at: Duration) -> Left {
        let Some(steps) = self.steps else {
            return Left::Unknown;
        };
        let after = |done: usize| self.reference.seconds_left(steps.saturating_sub(done));
        let left = after(self.done);
        let passed = after(self.fresh.unwrap_or(self.done)) - left;
        let pace = (BELIEVED + self.last.as_secs_f32()) / (BELIEVED + passed);
        let end = self.last + Duration::from_secs_f32(left * pace);
        match end.checked_sub(at) {
            Some(left) if left >= Duration::from_secs(1) => Left::About(left),
            _ => Left::Longer,
        }
    }
}

/// No more exact than it is.
pub(crate) fn about(left: Duration) -> String {
    let seconds = left.as_secs();
    match seconds {
        0..=10 => "about 10 s".into(),
        11..=90 => format!("about {} s", seconds.div_ceil(10) * 10),
        _ => {
            let halves = seconds.div_ceil(30);
            let half = if halves % 2 == 1 { "½" } else { "" };
            format!("about {}{half} min", halves / 2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The measured build: when each step finished, and its name.
    const MEASURED: &str = include_str!("measured.txt");

    fn measured() -> Vec<f32> {
        let times = MEASURED.lines().map(|line| line.split(' ').next().unwrap());
        times.map(|at| at.parse().unwrap()).collect()
    }

    fn seconds(seconds: f32) -> Duration {
        Duration::from_secs_f32(seconds)
    }

    /// What is estimated in each second of a build that takes so many times as long, and what was really left then.
    fn replay(slower: f32) -> Vec<(f32, f32)> {
        let steps = measured();
        let end = steps.last().unwrap() * slower;
        let mut estimate = Estimate::new(&OUTRIGGER);
        estimate.steps(Some(steps.len()));
        let mut pending = steps.into_iter().peekable();
        let mut told = Vec::new();
        for now in 0..end as u32 {
            let now = now as f32;
            while let Some(at) = pending.next_if(|at| at * slower <= now) {
                estimate.finished(false, seconds(at * slower));
            }
            let left = match estimate.left(seconds(now)) {
                Left::About(left) => left.as_secs_f32(),
                Left::Longer => 0.0,
                Left::Unknown => panic!("{now}: unknown"),
            };
            told.push((left, end - now));
        }
        told
    }

    /// How wrong the estimates are from this part of the time on, at worst: in parts of what is left, where more than half a minute is.
    fn worst(told: &[(f32, f32)], from: f32) -> f32 {
        let first = (told.len() as f32 * from) as usize;
        let errors = told[first..]
            .iter()
            .map(|(estimated, real)| (estimated - real).abs() / real.max(30.0));
        errors.fold(0.0, f32::max)
    }

    #[test]
    fn the_measured_build_is_estimated_well_from_its_beginning() {
        let worst = worst(&replay(1.0), 0.0);
        assert!(worst < 0.25, "{worst}");
    }

    #[test]
    fn a_machine_of_another_pace_is_known_for_it_before_half_of_the_time_is_over() {
        for slower in [0.4, 3.0] {
            let told = replay(slower);
            let (at_first, later) = (worst(&told, 0.0), worst(&told, 0.4));
            assert!(later < 0.3, "{slower}: {later}");
            // So that this test could fail: nobody knows at the first moment.
            assert!(at_first > 0.5, "{slower}: {at_first}");
        }
    }

    #[test]
    fn counting_steps_alone_would_be_wrong_by_a_minute() {
        let times = measured();
        let (last, others) = times.split_last().unwrap();
        let mut estimate = Estimate::new(&ANY);
        estimate.steps(Some(times.len()));
        for at in others {
            estimate.finished(false, seconds(*at));
        }
        let at = others.last().unwrap();
        let estimated = match estimate.left(seconds(*at)) {
            Left::About(left) => left.as_secs_f32(),
            _ => 0.0,
        };
        assert!(last - at > 60.0 + estimated, "{estimated}");
    }

    #[test]
    fn nothing_is_estimated_before_the_number_of_steps_is_known() {
        let mut estimate = Estimate::new(&OUTRIGGER);
        estimate.finished(false, seconds(2.0));
        assert_eq!(estimate.left(seconds(2.0)), Left::Unknown);
        assert_eq!(estimate.of(), None);
        estimate.steps(Some(300));
        estimate.steps(None);
        assert_eq!(estimate.of(), Some((1, 300)));
        assert!(matches!(estimate.left(seconds(2.0)), Left::About(_)));
    }

    #[test]
    fn what_was_there_already_takes_no_time_and_sets_no_pace() {
        let mut estimate = Estimate::new(&OUTRIGGER);
        estimate.steps(Some(339));
        for _ in 0..338 {
            estimate.finished(true, seconds(0.5));
        }
        assert!(!estimate.worked());
        let link = OUTRIGGER.0[0].1;
        assert_eq!(estimate.left(Duration::ZERO), Left::About(seconds(link)));
        estimate.finished(false, seconds(link));
        assert!(estimate.worked());
        assert_eq!(estimate.left(seconds(link)), Left::Longer);
    }

    #[test]
    fn between_two_steps_it_goes_down_with_the_clock_and_then_owns_that_it_was_wrong() {
        let mut estimate = Estimate::new(&ANY);
        estimate.steps(Some(100));
        for _ in 0..60 {
            estimate.finished(false, seconds(15.0));
        }
        let Left::About(left) = estimate.left(seconds(15.0)) else {
            panic!("no estimate");
        };
        let later = estimate.left(seconds(15.0) + left / 2);
        assert_eq!(later, Left::About(left - left / 2));
        assert_eq!(estimate.left(seconds(15.0) + left), Left::Longer);
    }

    #[test]
    fn more_steps_than_were_told_are_no_harm() {
        let mut estimate = Estimate::new(&ANY);
        estimate.steps(Some(1));
        estimate.finished(false, seconds(1.0));
        estimate.finished(false, seconds(2.0));
        assert_eq!(estimate.of(), Some((1, 1)));
        assert_eq!(estimate.left(seconds(2.0)), Left::Longer);
    }

    #[test]
    fn between_the_measured_points_it_is_in_between_and_beyond_in_proportion() {
        let reference = Reference(&[(1, 10.0), (3, 20.0)]);
        let told = [0, 1, 2, 3, 6].map(|steps| reference.seconds_left(steps));
        assert_eq!(told, [0.0, 10.0, 15.0, 20.0, 40.0]);
    }

    #[test]
    fn an_estimate_is_told_no_more_exactly_than_it_is() {
        let told = [3, 11, 88, 91, 120, 121, 331].map(|seconds| about(Duration::from_secs(seconds)));
        assert_eq!(
            told,
            [
                "about 10 s",
                "about 20 s",
                "about 90 s",
                "about 2 min",
                "about 2 min",
                "about 2½ min",
                "about 6 min"
            ]
        );
    }
}
