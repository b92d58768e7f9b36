//! Reads what libtest prints and adds it up. Runs nothing.

use std::fmt;
use std::ops::AddAssign;

/// Tests by outcome, over all test programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Follows the output of test programs that run one after the other.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    ended: Totals,
    running: Option<Running>,
}

/// A test program that has not summed itself up yet, and never will if it is killed.
#[derive(Debug)]
struct Running {
    announced: u64,
    reported: Totals,
}

impl Tally {
    pub(crate) fn line(&mut self, line: &str) {
        if let Some(announced) = announced(line) {
            self.cut_off();
            self.running = Some(Running {
                announced,
                reported: Totals::default(),
            });
        } else if let Some(result) = result(line) {
            self.ended += result;
            self.running = None;
        } else if let Some(running) = &mut self.running {
            running.reported += outcome(line);
        }
    }

    pub(crate) fn finish(mut self) -> Totals {
        self.cut_off();
        self.ended
    }

    /// A program that went without a result took its unreported tests with it: they have failed.
    fn cut_off(&mut self) {
        if let Some(Running {
            announced,
            mut reported,
        }) = self.running.take()
        {
            reported.failed = announced.saturating_sub(reported.passed + reported.skipped);
            self.ended += reported;
        }
    }
}

/// `running 3 tests`
fn announced(line: &str) -> Option<u64> {
    let (number, unit) = line.strip_prefix("running ")?.split_once(' ')?;
    matches!(unit, "test" | "tests").then(|| number.parse().ok())?
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`
pub(crate) fn result(line: &str) -> Option<Totals> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |unit: &str| {
        counts
            .split("; ")
            .find_map(|count| count.strip_suffix(unit)?.trim_end().parse().ok())
    };
    Some(Totals {
        passed: count("passed")?,
        failed: count("failed")?,
        skipped: count("ignored")?,
    })
}

/// `test name ... ok`
pub(crate) fn outcome(line: &str) -> Totals {
    let verdict = line
        .strip_prefix("test ")
        .and_then(|rest| rest.rsplit_once(" ... "))
        .map_or("", |(_, verdict)| verdict);
    Totals {
        passed: u64::from(verdict == "ok"),
        failed: u64::from(verdict == "FAILED"),
        skipped: u64::from(verdict.starts_with("ignored")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(output: &str) -> Totals {
        let mut tally = Tally::default();
        output.lines().for_each(|line| tally.line(line));
        tally.finish()
    }

    #[test]
    fn results_of_all_programs_are_added_up() {
        let totals = tally(
            "running 2 tests\ntest a ... ok\ntest b ... FAILED\n\n\
             test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\
             running 3 tests\ntest c ... ok\n\
             test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 1.23s\n",
        );
        assert_eq!(
            totals,
            Totals {
                passed: 3,
                failed: 1,
                skipped: 1
            }
        );
    }

    #[test]
    fn a_program_that_dies_fails_what_it_did_not_report() {
        let totals = tally(
            "running 4 tests\ntest a ... ok\ntest b ... ignored, needs a tape drive\n\
             running 1 test\ntest c ... ok\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        );
        assert_eq!(
            totals,
            Totals {
                passed: 2,
                failed: 2,
                skipped: 1
            }
        );
    }

    #[test]
    fn the_last_program_may_die_too() {
        assert_eq!(
            tally("running 1 test\n"),
            Totals {
                failed: 1,
                ..Totals::default()
            }
        );
    }

    #[test]
    fn what_tests_print_is_not_a_result() {
        assert_eq!(
            tally("running late\ntest result: none\nrunning 5 laps\n"),
            Totals::default()
        );
    }

    #[test]
    fn skipped_tests_are_told_only_when_there_are_any() {
        assert_eq!(
            Totals {
                passed: 5,
                failed: 0,
                skipped: 0
            }
            .to_string(),
            "5 passed, 0 failed"
        );
        assert_eq!(
            Totals {
                passed: 5,
                failed: 1,
                skipped: 2
            }
            .to_string(),
            "5 passed, 1 failed, 2 skipped"
        );
    }
}
