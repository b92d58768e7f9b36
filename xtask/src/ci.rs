//! `cargo xtask ci`: every gate that a change must pass, in order, with the time each took.
//!
//! A gate that fails does not hide the next: one run tells all. What a gate checks is the gate's own business.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::workspace::{self, announce};
use crate::{setup, test, tidy};

#[derive(clap::Args)]
pub(crate) struct Opts {
    /// Leave out the last gate, the tests.
    #[arg(long)]
    no_test: bool,
    /// Pass without a check for known vulnerabilities when their database cannot be fetched: for a machine that
    /// cannot reach it. Said in the report.
    #[arg(long)]
    advisories_may_be_unchecked: bool,
}

/// What a gate says of a change that it does not refuse.
#[derive(Clone, Copy, PartialEq)]
enum Verdict {
    Passed,
    /// Nobody has looked.
    Unchecked,
}

struct Gate {
    name: &'static str,
    run: fn(&Opts) -> Result<Verdict>,
}

const GATES: [Gate; 7] = [
    Gate {
        name: "set-up",
        run: |_| passed(setup::ensure()),
    },
    Gate {
        name: "format",
        run: |_| passed(cargo(&["fmt", "--all", "--check"])),
    },
    Gate {
        name: "tidy",
        run: |_| passed(tidy::check()),
    },
    Gate {
        name: "dependencies",
        run: |_| passed(dependencies()),
    },
    Gate {
        name: "advisories",
        run: |opts| advisories(opts.advisories_may_be_unchecked),
    },
    Gate {
        name: "lints",
        run: |_| passed(lints(&["--workspace", "--all-targets"]).and_then(|()| lints(&CLUSTER_TESTS))),
    },
    Gate {
        name: "documentation",
        run: |_| passed(documentation()),
    },
];

/// Not among "all targets", which are those that plain `cargo test` runs.
const CLUSTER_TESTS: [&str; 4] = ["--package", "outrigger-tests", "--test", "cluster"];

fn passed(gate: Result<()>) -> Result<Verdict> {
    gate.map(|()| Verdict::Passed)
}

pub(crate) fn run(opts: Opts) -> Result<ExitCode> {
    let mut report = Vec::new();
    for gate in &GATES {
        announce(&format!("gate: {}", gate.name));
        let begun = Instant::now();
        let verdict = (gate.run)(&opts)
            .inspect_err(|error| eprintln!("error: {error:#}"))
            .ok();
        report.push((gate.name, verdict, begun.elapsed()));
    }
    print!("{}", table(&report));
    let mut ok = report.iter().all(|(_, verdict, _)| verdict.is_some());
    if !opts.no_test {
        announce("gate: tests");
        ok &= test::run(test::Opts::default())? == ExitCode::SUCCESS;
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn cargo(args: &[&str]) -> Result<()> {
    workspace::run(workspace::cargo().args(args))
}

fn lints(targets: &[&str]) -> Result<()> {
    cargo(&[&["clippy"], targets, &["--", "-D", "warnings"]].concat())
}

fn cargo_deny(args: &[&str]) -> Result<()> {
    workspace::run(workspace::cargo_with_tools().arg("deny").args(args))
}

/// Public documentation builds without a broken link.
fn documentation() -> Result<()> {
    workspace::run(
        workspace::cargo()
            .args([
                "doc",
                "--workspace",
                "--no-deps",
                "--document-private-items",
                "--quiet",
            ])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )
}

fn dependencies() -> Result<()> {
    setup::ensure_cargo_deny()?;
    cargo_deny(&[
        "--locked",
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ])
}

/// The advisories live in a repository elsewhere. A change that nobody has held against them has not passed, unless
/// whoever runs the gates has said that this machine cannot.
fn advisories(may_be_unchecked: bool) -> Result<Verdict> {
    setup::ensure_cargo_deny()?;
    match cargo_deny(&["fetch", "db"]) {
        Ok(()) => passed(cargo_deny(&[
            "--locked",
            "check",
            "--disable-fetch",
            "advisories",
        ])),
        Err(error) if may_be_unchecked => {
            eprintln!("warning: known vulnerabilities are NOT CHECKED: {error:#}");
            Ok(Verdict::Unchecked)
        }
        Err(error) => Err(error.context(
            "the advisory database cannot be fetched; where it never can, run with --advisories-may-be-unchecked",
        )),
    }
}

fn table(report: &[(&str, Option<Verdict>, Duration)]) -> String {
    let mut text = String::from("\n");
    for (name, verdict, took) in report {
        let verdict = match verdict {
            Some(Verdict::Passed) => "ok",
            Some(Verdict::Unchecked) => "NOT CHECKED",
            None => "FAILED",
        };
        text += &format!("  {name:<16} {verdict:<12} {:>6.1} s\n", took.as_secs_f32());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_the_gate_that_failed_and_the_one_that_did_not_look() {
        let text = table(&[
            ("format", Some(Verdict::Passed), Duration::from_millis(1500)),
            ("advisories", Some(Verdict::Unchecked), Duration::from_millis(200)),
            ("tidy", None, Duration::ZERO),
        ]);
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            lines,
            [
                vec![],
                vec!["format", "ok", "1.5", "s"],
                vec!["advisories", "NOT", "CHECKED", "0.2", "s"],
                vec!["tidy", "FAILED", "0.0", "s"],
            ]
        );
    }
}
