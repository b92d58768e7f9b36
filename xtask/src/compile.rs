//! Cargo's builds with a sign of life: which step of how many, how long it has taken, about how long the rest takes, what is compiled
//! now. Decides nothing about what is built, and says nothing where nothing is to be done.
//!
//! Two sources: cargo's messages for programs say what is finished and by whom, its own line of progress how many steps there are. They
//! are the same steps: a crate, a build script, a run of a build script. Without the second there is no estimate, and the rest is said.

mod estimate;
mod said;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::progress::{self, Heard, Signs, spent};
use crate::workspace::{self, announce};

use self::estimate::{Estimate, Left};
use self::said::Step;

pub(crate) use self::estimate::{ANY, BPF_LINKER, OUTRIGGER, Reference};

/// Runs a `cargo build` or `cargo install` to its end.
pub(crate) fn run(what: &str, mut cargo: Command, reference: &Reference) -> Result<()> {
    let line = workspace::command_line(&cargo);
    cargo
        .arg("--message-format=json-render-diagnostics")
        .env("CARGO_TERM_PROGRESS_WHEN", "always")
        .env("CARGO_TERM_PROGRESS_WIDTH", "200")
        // Its words are looked at.
        .env("CARGO_TERM_COLOR", "never");
    let begun = Instant::now();
    let mut signs = Signs::on_stderr();
    let mut state = State {
        estimate: Estimate::new(reference),
        new_scripts: BTreeSet::new(),
        now: String::new(),
    };
    let status = progress::follow(cargo, |heard| {
        let at = begun.elapsed();
        if let Some(line) = state.hear(heard, at) {
            signs.say(&line);
        }
        signs.sign(at, || format!("{what}: {}", state.line(at)));
    })?;
    signs.clear();
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    if state.estimate.worked() {
        announce(&format!("{what}: built in {}", spent(begun.elapsed())));
    }
    Ok(())
}

struct State<'a> {
    estimate: Estimate<'a>,
    /// Packages whose build scripts were compiled now.
    new_scripts: BTreeSet<String>,
    /// What cargo is at, in its words.
    now: String,
}

impl State<'_> {
    /// Gives back what people should read.
    fn hear(&mut self, heard: Heard, at: Duration) -> Option<String> {
        match heard {
            Heard::Out(line) => {
                if let Some(step) = said::finished(&line) {
                    let fresh = self.is_fresh(step);
                    self.estimate.finished(fresh, at);
                }
                None
            }
            Heard::Err(line) => {
                if let Some(progress) = said::progress(&line) {
                    self.estimate.steps(progress.steps);
                    self.now = progress.now;
                    return None;
                }
                (!said::is_routine(&line)).then_some(line)
            }
            Heard::Nothing => None,
        }
    }

    /// Of a build script's run cargo does not say whether it was to be done: it was where the script is new.
    fn is_fresh(&mut self, step: Step) -> bool {
        match step {
            Step::Compiled {
                script: Some(id),
                fresh,
            } => {
                if !fresh {
                    self.new_scripts.insert(id);
                }
                fresh
            }
            Step::Compiled { script: None, fresh } => fresh,
            Step::Run { id } => !self.new_scripts.contains(&id),
        }
    }

    fn line(&self, at: Duration) -> String {
        let mut line = match self.estimate.of() {
            Some((done, steps)) => format!("{done} of {steps} steps, "),
            None => String::new(),
        };
        line.push_str(&spent(at));
        match self.estimate.left(at) {
            Left::Unknown => {}
            Left::About(left) => line.push_str(&format!(", {} left", estimate::about(left))),
            Left::Longer => line.push_str(", longer than estimated"),
        }
        if !self.now.is_empty() {
            line.push_str(&format!(": {}", self.now));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(state: &mut State, line: &str, seconds: u64) -> Option<String> {
        let heard = if line.starts_with('{') {
            Heard::Out
        } else {
            Heard::Err
        };
        state.hear(heard(line.into()), Duration::from_secs(seconds))
    }

    #[test]
    fn what_cargo_says_becomes_one_line_and_what_people_should_read_is_kept() {
        let mut state = State {
            estimate: Estimate::new(&BPF_LINKER),
            new_scripts: BTreeSet::new(),
            now: String::new(),
        };
        let artifact = r#"{"reason":"compiler-artifact","package_id":"registry+https://x#syn@2.0.1","target":{"kind":["lib"],"name":"syn"},"fresh":false}"#;
        for line in [
            "   Compiling syn v2.0.1",
            artifact,
            "    Building [=====>           ] 1/10: quote, clap_derive",
        ] {
            assert_eq!(hear(&mut state, line, 2), None, "{line}");
        }
        let line = state.line(Duration::from_secs(3));
        assert!(
            line.starts_with("1 of 10 steps, 3 s, about ") && line.ends_with(" left: quote, clap_derive"),
            "{line}"
        );
        for line in [
            "warning: unused variable",
            "    Blocking waiting for file lock on build directory",
        ] {
            assert_eq!(hear(&mut state, line, 4).as_deref(), Some(line));
        }
    }

    #[test]
    fn the_run_of_a_script_counts_where_the_script_is_new() {
        let mut state = State {
            estimate: Estimate::new(&ANY),
            new_scripts: BTreeSet::new(),
            now: String::new(),
        };
        let script = |name: &str, fresh: bool| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"x#{name}@1.0.0","target":{{"kind":["custom-build"]}},"fresh":{fresh}}}"#
            )
        };
        let run =
            |name: &str| format!(r#"{{"reason":"build-script-executed","package_id":"x#{name}@1.0.0"}}"#);
        for line in [script("old", true), run("old")] {
            hear(&mut state, &line, 1);
        }
        assert!(!state.estimate.worked());
        assert!(!state.is_fresh(said::finished(&script("new", false)).unwrap()));
        assert!(!state.is_fresh(said::finished(&run("new")).unwrap()));
        assert!(state.is_fresh(said::finished(&run("old")).unwrap()));
    }

    #[test]
    fn a_build_that_fails_is_named() {
        let mut command = Command::new("sh");
        command.args(["-c", "exit 101", "build"]);
        let error = run("nothing", command, &OUTRIGGER).unwrap_err().to_string();
        assert!(
            error.contains("sh -c exit 101") && error.contains("101"),
            "{error}"
        );
    }
}
