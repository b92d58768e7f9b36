//! README.md names commands of ours that are there. What they do is for other tests.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use harness::mesh::binaries;

/// Whether a program of ours has these verbs.
fn is_there(program: &str, verbs: &[&str]) -> Result<bool> {
    let asked = Command::new(binaries::path(program)?)
        .args(verbs)
        .arg("--help")
        .output()?;
    Ok(asked.status.success())
}

/// Program and verbs of each line of code that begins with one of our programs.
fn commands(text: &str) -> Vec<(&str, Vec<&str>)> {
    let is_verb =
        |word: &&str| !word.starts_with('-') && word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    let ours = ["outrigger", "kubectl-outrigger"];
    text.lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter_map(|line| line.split_once(' '))
        .filter(|(program, _)| ours.contains(program))
        .map(|(program, rest)| (program, rest.split_whitespace().take_while(is_verb).collect()))
        .collect()
}

/// What the row of the plugin in the table of what works has between backticks.
fn plugin_verbs(text: &str) -> Vec<&str> {
    let rows = text.lines().filter(|line| line.starts_with("| kubectl plugin"));
    rows.flat_map(|row| row.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn every_verb_that_the_readme_names_is_one() -> Result<()> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = fs::read_to_string(file).context("read README.md")?;
    let commands = commands(&text);
    assert!(commands.len() >= 8, "{commands:?}");
    for (program, verbs) in commands {
        assert!(
            !verbs.is_empty() && is_there(program, &verbs)?,
            "{program} {verbs:?}"
        );
    }
    let verbs = plugin_verbs(&text);
    assert!(verbs.len() >= 5, "{verbs:?}");
    for verb in verbs {
        let words: Vec<&str> = verb.split(' ').collect();
        assert!(is_there("kubectl-outrigger", &words)?, "kubectl outrigger {verb}");
    }
    assert!(!is_there("outrigger", &["sail"])?);
    assert!(!is_there("kubectl-outrigger", &["sail"])?);
    Ok(())
}
