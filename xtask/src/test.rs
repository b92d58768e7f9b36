//! `cargo xtask test`: sets up what is missing, builds, runs every test, then the end-to-end tests again in the other mode
//! (`modes.rs`), then some of them with what is shipped (`smoke.rs`), and ends with the totals.
//!
//! Everything is left to `cargo test`; this adds what it cannot do: check the machine first, build the programs
//! that end-to-end tests run, and add up the results of all test programs.

use std::io::{self, BufRead, BufReader, PipeReader};
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::totals::{Tally, Totals};
use crate::workspace::{self, announce};
use crate::{host, modes, setup, smoke};

/// End-to-end tests wait more than they compute, so more of them than cores run at a time.
const LEAST_THREADS: usize = 4;

/// How long after cargo's end a process that a test left behind may keep the output open.
const STRAGGLERS: Duration = Duration::from_secs(3);

#[derive(Default, clap::Args)]
pub(crate) struct Opts {
    /// Given to the test programs: names to run, or options such as `--nocapture`.
    #[arg(last = true)]
    filter: Vec<String>,
}

/// Variables that make tests pass by trying less. They are for a developer who asks for those tests by name.
const NARROWING: [&str; 2] = ["OUTRIGGER_TRUTH", "OUTRIGGER_FOREIGN"];

pub(crate) fn run(opts: Opts) -> Result<ExitCode> {
    let begun = Instant::now();
    let ready = all_of_it(&opts.filter, |name| std::env::var_os(name).is_some()).and_then(|()| prepare());
    let totals = or_failed(ready.map(|()| {
        let mut totals = run_tests(&opts.filter);
        if opts.filter.is_empty() {
            totals += or_failed(smoke::run());
        }
        totals
    }));
    announce(&format!("tested in {:.0} s", begun.elapsed().as_secs_f32()));
    println!("{totals}");
    Ok(if totals.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Refuses to call it a run of all tests when something in the environment narrows some of them.
fn all_of_it(filter: &[String], is_set: impl Fn(&str) -> bool) -> Result<()> {
    for name in NARROWING {
        if is_set(name) && filter.is_empty() {
            bail!(
                "{name} is set, so that not everything would be tried: unset it, or name the tests to run after `--`"
            );
        }
        if is_set(name) {
            eprintln!("warning: {name} is set: the tests that read it try only what it says");
        }
    }
    Ok(())
}

/// What could not be run has failed.
fn or_failed(totals: Result<Totals>) -> Totals {
    totals.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        Totals {
            failed: 1,
            ..Totals::default()
        }
    })
}

fn prepare() -> Result<()> {
    host::demand_fit("the end-to-end tests")?;
    setup::ensure()?;
    announce("cargo build --workspace --bins");
    workspace::run(workspace::cargo().args(["build", "--workspace", "--bins"]))?;
    announce("cargo test --workspace --no-run");
    workspace::run(workspace::cargo().args(["test", "--workspace", "--no-run", "--quiet"]))
}

/// In both modes, each with its own totals.
fn run_tests(filter: &[String]) -> Totals {
    let mut both = Totals::default();
    for (which, cargo) in [
        (
            "all tests, sidecars install by themselves",
            modes::by_themselves(filter),
        ),
        (
            "end-to-end tests, sidecars of an agent",
            modes::by_an_agent(filter),
        ),
    ] {
        announce(which);
        let begun = Instant::now();
        let totals = or_failed(run_cargo(cargo));
        println!("{which}: {totals}, in {:.0} s\n", begun.elapsed().as_secs_f32());
        both += totals;
    }
    both
}

/// Runs a `cargo test`, shows its output, and adds it up.
pub(crate) fn run_cargo(mut cargo: Command) -> Result<Totals> {
    if std::env::var_os("RUST_TEST_THREADS").is_none() {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        cargo.env("RUST_TEST_THREADS", cores.max(LEAST_THREADS).to_string());
    }
    let mut tally = Tally::default();
    let mut printer = Printer::default();
    let status = stream(cargo, |line| {
        tally.line(line);
        printer.line(line);
    })?;
    let mut totals = tally.finish();
    if !status.success() && totals.failed == 0 {
        eprintln!("error: cargo test failed ({status}), though none of the tests above did");
        totals.failed = 1;
    }
    Ok(totals)
}

/// Runs a command and hands over its output line by line, both streams in the order written.
fn stream(mut command: Command, mut each: impl FnMut(&str)) -> Result<ExitStatus> {
    let (reader, writer) = io::pipe().context("cannot make a pipe")?;
    command
        .stderr(writer.try_clone().context("cannot share a pipe")?)
        .stdout(writer);
    let mut child = command.spawn().context("cannot start cargo")?;
    drop(command); // Holds the writing end: without this the output would never end.
    let lines = lines_of(reader);
    let mut ended = false;
    loop {
        match lines.recv_timeout(STRAGGLERS) {
            Ok(line) => each(&line),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                if ended {
                    eprintln!("warning: a test left a process behind that holds its output open");
                    break;
                }
                ended = child.try_wait().context("cannot wait for cargo")?.is_some();
            }
        }
    }
    child.wait().context("cannot wait for cargo")
}

/// The lines that come out of a pipe, as they come.
pub(crate) fn lines_of(reader: PipeReader) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            if sender
                .send(String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned())
                .is_err()
            {
                return;
            }
            line.clear();
        }
    });
    receiver
}

/// Prints what tests print, and leaves out test programs that have no tests and blank lines in a row.
#[derive(Default)]
struct Printer {
    held: Vec<String>,
    blank: bool,
}

impl Printer {
    fn line(&mut self, line: &str) {
        for line in self.pass(line) {
            println!("{line}");
        }
    }

    fn pass(&mut self, line: &str) -> Vec<String> {
        let holding = !self.held.is_empty();
        if line == "running 0 tests" || (holding && line.is_empty()) {
            self.held.push(line.to_owned());
            return Vec::new();
        }
        if holding && line.starts_with("test result: ok. 0 passed; 0 failed; 0 ignored") {
            self.held.clear();
            return Vec::new();
        }
        let mut lines = std::mem::take(&mut self.held);
        lines.push(line.to_owned());
        lines.retain(|line| {
            let again = self.blank && line.is_empty();
            self.blank = line.is_empty();
            !again
        });
        lines
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    fn shell(script: &str) -> (Vec<String>, ExitStatus) {
        shell_reading(script, Stdio::null())
    }

    fn shell_reading(script: &str, stdin: impl Into<Stdio>) -> (Vec<String>, ExitStatus) {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(stdin);
        let mut lines = Vec::new();
        let status = stream(command, |line| lines.push(line.to_owned())).unwrap();
        (lines, status)
    }

    #[test]
    fn what_narrows_a_test_is_refused_unless_tests_are_named() {
        let named = ["truth".to_owned()];
        for name in NARROWING {
            let error = all_of_it(&[], |set| set == name).unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
            assert!(all_of_it(&named, |set| set == name).is_ok());
        }
        assert!(all_of_it(&[], |_| false).is_ok());
    }

    #[test]
    fn both_streams_arrive_in_the_order_written() {
        let (lines, status) = shell("echo one; echo two >&2; echo three");
        assert_eq!(lines, ["one", "two", "three"]);
        assert!(status.success());
    }

    #[test]
    fn a_failure_is_reported_with_its_status() {
        assert_eq!(shell("exit 101").1.code(), Some(101));
    }

    #[test]
    fn a_process_left_behind_does_not_hold_up_the_end() {
        let (reader, writer) = io::pipe().unwrap();
        // `cat` ends when the test does, because the test holds what it reads from.
        let (lines, status) = shell_reading("echo started; exec 3<&0; cat <&3 & exit 0", reader);
        assert_eq!(lines, ["started"]);
        assert!(status.success());
        drop(writer);
    }

    #[test]
    fn programs_without_tests_are_left_out() {
        let mut printer = Printer::default();
        let mut shown = Vec::new();
        for line in [
            "running 0 tests",
            "",
            "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out; finished in 0.00s",
            "",
            "",
            "running 1 test",
            "test a ... ok",
            "",
            "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ] {
            shown.extend(printer.pass(line));
        }
        assert_eq!(shown.len(), 5, "{shown:?}");
    }
}
