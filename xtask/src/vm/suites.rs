//! The table of what runs on every guest kernel, and how it is picked from what cargo has built. Starts nothing in the
//! guest.
//!
//! Only our own programs run there: foreign ones are tested on the host's kernel.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::programs::{Built, Kind};
use crate::modes::AGENT;
use crate::workspace;

/// Tests of one test program.
struct Suite {
    name: &'static str,
    /// Cargo's name and kind of the test program.
    target: (&'static str, Kind),
    /// What the names of its tests begin with.
    prefixes: &'static [&'static str],
    /// Tests at a time.
    threads: u32,
    /// Whether sidecars are an agent's.
    by_agent: bool,
    /// Several times what it takes on a busy machine: a hanging suite must not keep the others from running.
    seconds: u32,
}

const SUITES: &[Suite] = &[
    Suite {
        name: "contract",
        target: ("sidecar_ebpf", Kind::Library),
        prefixes: &[""],
        threads: 2,
        by_agent: false,
        seconds: 120,
    },
    Suite {
        name: "boundary",
        target: ("abi", Kind::Test),
        prefixes: &[""],
        threads: 2,
        by_agent: false,
        seconds: 120,
    },
    Suite {
        name: "datapath",
        target: ("outrigger", Kind::Library),
        prefixes: &["datapath::"],
        threads: 4,
        by_agent: false,
        seconds: 900,
    },
    Suite {
        name: "truth",
        target: ("e2e", Kind::Test),
        prefixes: &["truth::"],
        threads: 2,
        by_agent: false,
        seconds: 1500,
    },
    Suite {
        name: "truth by an agent",
        target: ("e2e", Kind::Test),
        // Connections of both directions and families, through the mesh: the other worlds differ in what user space does.
        prefixes: &["truth::an_application_cannot_notice_the_mesh"],
        threads: 1,
        by_agent: true,
        seconds: 900,
    },
];

/// One program run in the guest.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) seconds: u32,
    /// A program of the guest, and its arguments.
    pub(super) command: Vec<String>,
    /// How many tests it must report.
    pub(super) tests: u64,
}

/// What the guest runs, in order: first what the product itself says about the kernel, then the tests. A filter leaves
/// only tests with that text in their names.
pub(super) fn steps(built: &Built, filter: Option<&str>) -> Result<Vec<Step>> {
    let mut steps = vec![Step {
        name: "outrigger check",
        seconds: 120,
        command: ["outrigger", "check"].map(str::to_owned).into(),
        tests: 0,
    }];
    for suite in SUITES {
        let program = built.test(suite.target)?;
        let all = tests(program.path.as_ref())?;
        let mut chosen: Vec<String> = all.into_iter().filter(|test| suite.holds(test)).collect();
        ensure!(
            !chosen.is_empty(),
            "the suite `{}` is empty: no test of {} begins with {:?}; correct xtask/src/vm/suites.rs",
            suite.name,
            program.file_name(),
            suite.prefixes
        );
        chosen.retain(|test| filter.is_none_or(|filter| test.contains(filter)));
        if !chosen.is_empty() {
            steps.push(suite.step(&program.file_name(), chosen));
        }
    }
    ensure!(
        filter.is_none() || steps.len() > 1,
        "no test that runs in the guest has {:?} in its name",
        filter.unwrap_or_default()
    );
    Ok(steps)
}

impl Suite {
    fn holds(&self, test: &str) -> bool {
        self.prefixes.iter().any(|prefix| test.starts_with(prefix))
    }

    fn step(&self, program: &str, tests: Vec<String>) -> Step {
        let threads = format!("--test-threads={}", self.threads);
        let mode = [
            String::from("env"),
            format!("{AGENT}={}", u8::from(self.by_agent)),
        ];
        Step {
            name: self.name,
            seconds: self.seconds,
            tests: tests.len() as u64,
            command: mode
                .into_iter()
                .chain([program.to_owned(), threads, "--exact".to_owned()])
                .chain(tests)
                .collect(),
        }
    }
}

/// The names of a program's tests.
fn tests(program: &std::path::Path) -> Result<Vec<String>> {
    let list = workspace::ask(Command::new(program).args(["--list", "--format=terse"]))
        .with_context(|| format!("{} does not list its tests", program.display()))?;
    Ok(listed(&list))
}

/// `name: test`, one a line.
fn listed(list: &str) -> Vec<String> {
    list.lines()
        .filter_map(|line| Some(line.strip_suffix(": test")?.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_suite_has_a_name_of_its_own() {
        let names: BTreeSet<_> = SUITES.iter().map(|suite| suite.name).collect();
        assert_eq!(names.len(), SUITES.len());
    }

    #[test]
    fn tests_are_told_from_benchmarks_by_what_follows_the_name() {
        assert_eq!(
            listed("datapath::tests::a: test\ndatapath::b: benchmark\n\n"),
            ["datapath::tests::a"]
        );
    }

    #[test]
    fn a_step_runs_exactly_the_tests_it_names() {
        let step = SUITES[2].step(
            "outrigger-lib",
            vec!["datapath::a".to_owned(), "datapath::b".to_owned()],
        );
        assert_eq!(step.tests, 2);
        assert_eq!(
            step.command.join(" "),
            "env OUTRIGGER_TEST_AGENT=0 outrigger-lib --test-threads=4 --exact datapath::a datapath::b"
        );
    }
}
