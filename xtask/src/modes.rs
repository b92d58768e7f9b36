//! The two ways in which a sidecar comes by interception, and what the end-to-end tests are run with for each: by itself, with
//! the capabilities that takes, or by the agent of its node, without any. Runs nothing itself.

use std::process::Command;

use crate::workspace;

/// Read by the harness: `1` for sidecars of an agent, wherever a test says nothing of it.
pub(crate) const AGENT: &str = "OUTRIGGER_TEST_AGENT";

/// Tests that say themselves whose their sidecars are, or that have none: one run of them says it all.
const SAME: [&str; 9] = [
    "agent::",
    "agent_memory::",
    "check::",
    "fabric::",
    "handover::",
    "host::",
    "machine::",
    "many::",
    "privileges::",
];

/// All tests, with sidecars that install by themselves.
pub(crate) fn by_themselves(filter: &[String]) -> Command {
    let mut cargo = cargo(&["--workspace"], filter);
    cargo.env_remove(AGENT);
    cargo
}

/// The end-to-end tests, the truth suite among them, with sidecars of an agent.
pub(crate) fn by_an_agent(filter: &[String]) -> Command {
    let mut cargo = cargo(&["--package", "outrigger-tests", "--test", "e2e"], filter);
    for skipped in SAME {
        cargo.args(["--skip", skipped]);
    }
    cargo.env(AGENT, "1");
    cargo
}

fn cargo(what: &[&str], filter: &[String]) -> Command {
    let mut cargo = workspace::cargo();
    cargo
        .arg("test")
        .args(what)
        .args(["--no-fail-fast", "--"])
        .args(filter);
    cargo.env("OUTRIGGER_BIN_DIR", workspace::bin_dir());
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &Command) -> Vec<String> {
        let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
        words.collect()
    }

    fn agent(command: &Command) -> Option<Option<String>> {
        let mut variables = command.get_envs();
        let (_, value) = variables.find(|(name, _)| *name == AGENT)?;
        Some(value.map(|value| value.to_string_lossy().into_owned()))
    }

    #[test]
    fn what_is_set_outside_does_not_decide_in_which_mode_the_tests_run() {
        assert_eq!(agent(&by_themselves(&[])), Some(None), "removed");
        assert_eq!(agent(&by_an_agent(&[])), Some(Some("1".into())));
    }

    #[test]
    fn a_filter_holds_in_both_modes() {
        let filter = ["truth".to_owned()];
        for command in [by_themselves(&filter), by_an_agent(&filter)] {
            let words = words(&command);
            let behind = words.iter().skip_while(|word| *word != "--");
            assert_eq!(behind.take(2).collect::<Vec<_>>(), ["--", "truth"], "{words:?}");
        }
    }

    #[test]
    fn what_is_left_out_in_the_second_mode_are_modules_that_there_are() {
        let list =
            std::fs::read_to_string(workspace::root().join("tests/e2e.rs")).expect("the list of modules");
        for skipped in SAME {
            let module = skipped.strip_suffix("::").expect("a module");
            assert!(list.contains(&format!("\nmod {module};")), "{skipped}");
        }
    }
}
