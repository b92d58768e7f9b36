//! Follows what a guest prints, and tells what became of its tests. Runs nothing.
//!
//! A test counts as passed only when its suite says so in its result line: what a guest that died did not report has
//! failed.

use crate::totals::{self, Totals};

use super::suites::Step;

/// What `init.sh` puts before its own lines.
const MARK: &str = "outrigger-vm: ";
const DONE: &str = "done";
/// What a shell makes of SIGKILL, which is how `timeout` ends a step.
const KILLED: i32 = 128 + 9;

pub(super) struct Transcript<'a> {
    steps: Vec<Progress<'a>>,
    running: Option<usize>,
    done: bool,
}

struct Progress<'a> {
    step: &'a Step,
    /// One by one, for a suite that is cut off.
    reported: Totals,
    /// The suite's last result line: earlier ones are of tests that ran themselves again and failed.
    result: Option<Totals>,
    status: Option<i32>,
}

impl<'a> Transcript<'a> {
    pub(super) fn new(steps: &'a [Step]) -> Self {
        let steps = steps.iter().map(|step| Progress {
            step,
            reported: Totals::default(),
            result: None,
            status: None,
        });
        Self {
            steps: steps.collect(),
            running: None,
            done: false,
        }
    }

    pub(super) fn line(&mut self, line: &str) {
        if let Some(mark) = line.strip_prefix(MARK) {
            self.mark(mark);
        } else if let Some(running) = self.running {
            let progress = &mut self.steps[running];
            progress.reported += totals::outcome(line);
            progress.result = totals::result(line).or(progress.result);
        }
    }

    fn mark(&mut self, mark: &str) {
        if mark == DONE {
            self.done = true;
        } else if let Some(name) = mark.strip_suffix(" begins") {
            self.running = self.steps.iter().position(|progress| progress.step.name == name);
        } else if let Some((_, status)) = mark.split_once(" ended with ")
            && let Some(running) = self.running.take()
        {
            self.steps[running].status = status.parse().ok();
        }
    }

    /// Whether the guest has run everything.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// What became of the tests, and a line on each thing that went wrong besides failing tests.
    pub(super) fn finish(self) -> (Totals, Vec<String>) {
        let mut totals = Totals::default();
        let mut complaints = Vec::new();
        for progress in &self.steps {
            let (of_step, complaint) = progress.finish();
            totals += of_step;
            complaints.extend(complaint.map(|complaint| format!("{}: {complaint}", progress.step.name)));
        }
        if !self.done {
            complaints.push("the guest ended before its end mark".to_owned());
            totals.failed = totals.failed.max(1);
        }
        (totals, complaints)
    }
}

impl Progress<'_> {
    fn finish(&self) -> (Totals, Option<String>) {
        let mut totals = match (self.status, self.result) {
            (Some(_), Some(result)) => result,
            _ => self.reported,
        };
        let missing = self
            .step
            .tests
            .saturating_sub(totals.passed + totals.failed + totals.skipped);
        totals.failed += missing;
        let mut complaint = match self.status {
            None => Some("it did not end".to_owned()),
            Some(KILLED) => Some(format!("it did not end within {} s", self.step.seconds)),
            Some(status) if status != 0 && totals.failed == 0 => Some(format!("it ended with {status}")),
            Some(_) => None,
        };
        if complaint.is_some() {
            totals.failed = totals.failed.max(1);
        } else if missing > 0 {
            complaint = Some(format!("{missing} tests reported no result"));
        }
        (totals, complaint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &'static str, tests: u64) -> Step {
        Step {
            name,
            seconds: 60,
            command: Vec::new(),
            tests,
        }
    }

    fn read(steps: &[Step], text: &str) -> (Totals, Vec<String>) {
        let mut transcript = Transcript::new(steps);
        text.lines().for_each(|line| transcript.line(line));
        transcript.finish()
    }

    fn totals(passed: u64, failed: u64, skipped: u64) -> Totals {
        Totals {
            passed,
            failed,
            skipped,
        }
    }

    #[test]
    fn suites_that_end_well_are_added_up() {
        let (totals_read, complaints) = read(
            &[step("check", 0), step("end to end", 2)],
            "outrigger-vm: check begins\nok kernel\noutrigger-vm: check ended with 0\n\
             outrigger-vm: end to end begins\nrunning 2 tests\ntest a ... ok\ntest b ... ignored\n\
             test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
             outrigger-vm: end to end ended with 0\noutrigger-vm: done\n",
        );
        assert_eq!((totals_read, complaints), (totals(1, 0, 1), Vec::new()));
    }

    #[test]
    fn a_test_that_ran_itself_again_and_failed_counts_once() {
        let (totals_read, complaints) = read(
            &[step("a", 3)],
            "outrigger-vm: a begins\nrunning 3 tests\n\
             test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 9 filtered out; finished in 0.00s\n\
             test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.00s\n\
             outrigger-vm: a ended with 101\noutrigger-vm: done\n",
        );
        assert_eq!((totals_read, complaints), (totals(2, 1, 0), Vec::new()));
    }

    #[test]
    fn what_a_dead_guest_did_not_report_has_failed() {
        let (totals_read, complaints) = read(
            &[step("a", 3), step("b", 2)],
            "outrigger-vm: a begins\nrunning 3 tests\ntest a ... ok\n",
        );
        assert_eq!(totals_read, totals(1, 4, 0));
        assert_eq!(
            complaints,
            [
                "a: it did not end",
                "b: it did not end",
                "the guest ended before its end mark"
            ]
        );
    }

    #[test]
    fn a_suite_that_runs_fewer_tests_than_it_should_is_a_failure() {
        let (totals_read, complaints) = read(
            &[step("a", 2)],
            "outrigger-vm: a begins\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
             outrigger-vm: a ended with 0\noutrigger-vm: done\n",
        );
        assert_eq!(totals_read, totals(1, 1, 0));
        assert_eq!(complaints, ["a: 1 tests reported no result"]);
    }

    #[test]
    fn a_step_without_tests_can_fail_too() {
        for (status, complaint) in [
            ("1", "check: it ended with 1"),
            ("137", "check: it did not end within 60 s"),
        ] {
            let (totals_read, complaints) = read(
                &[step("check", 0)],
                &format!(
                    "outrigger-vm: check begins\noutrigger-vm: check ended with {status}\noutrigger-vm: done\n"
                ),
            );
            assert_eq!(totals_read, totals(0, 1, 0));
            assert_eq!(complaints, [complaint]);
        }
    }
}
