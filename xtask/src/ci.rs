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
}

struct Gate {
    name: &'static str,
    run: fn() -> Result<()>,
}

const GATES: [Gate; 6] = [
    Gate {
        name: "set-up",
        run: setup::ensure,
    },
    Gate {
        name: "format",
        run: || cargo(&["fmt", "--all", "--check"]),
    },
    Gate {
        name: "tidy",
        run: tidy::check,
    },
    Gate {
        name: "dependencies",
        run: dependencies,
    },
    Gate {
        name: "lints",
        run: || cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    },
    Gate {
        name: "documentation",
        run: documentation,
    },
];

pub(crate) fn run(opts: Opts) -> Result<ExitCode> {
    let mut report = Vec::new();
    for gate in &GATES {
        announce(&format!("gate: {}", gate.name));
        let begun = Instant::now();
        let passed = (gate.run)()
            .inspect_err(|error| eprintln!("error: {error:#}"))
            .is_ok();
        report.push((gate.name, passed, begun.elapsed()));
    }
    print!("{}", table(&report));
    let mut ok = report.iter().all(|(_, passed, _)| *passed);
    if !opts.no_test {
        announce("gate: tests");
        ok &= test::run(test::Opts::default())? == ExitCode::SUCCESS;
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn cargo(args: &[&str]) -> Result<()> {
    workspace::run(workspace::cargo().args(args))
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
    ])?;
    // The advisories live in a repository elsewhere, and not every machine that builds may reach it.
    if let Err(error) = cargo_deny(&["fetch", "db"]) {
        eprintln!(
            "warning: known vulnerabilities were NOT checked, for want of the advisory database: {error:#}"
        );
        return Ok(());
    }
    cargo_deny(&["--locked", "check", "--disable-fetch", "advisories"])
}

fn table(report: &[(&str, bool, Duration)]) -> String {
    let mut text = String::from("\n");
    for (name, passed, took) in report {
        let verdict = if *passed { "ok" } else { "FAILED" };
        text += &format!("  {name:<16} {verdict:<8} {:>6.1} s\n", took.as_secs_f32());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_the_gate_that_failed() {
        let text = table(&[
            ("format", true, Duration::from_millis(1500)),
            ("tidy", false, Duration::ZERO),
        ]);
        assert_eq!(
            text,
            "\n  format           ok          1.5 s\n  tidy             FAILED      0.0 s\n"
        );
    }
}
