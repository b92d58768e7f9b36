//! The demo's report and picture in README.md, which `cargo xtask demo --record` writes there. Its tests hold README.md to what there is.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::workspace::{self, announce};

/// What is after this line and the fence, up to the next fence, is the recording.
const BEGIN: &str = "<!-- Written by `cargo xtask demo --record`. -->\n```\n";
const END: &str = "\n```\n";
const COMMAND: &str = "$ cargo xtask demo\n";

pub(super) fn picture_file() -> PathBuf {
    workspace::root().join("docs/edges.svg")
}

pub(super) fn write(report: &str) -> Result<()> {
    let file = workspace::root().join("README.md");
    let text = fs::read_to_string(&file).context("read README.md")?;
    let new = with_recording(&text, report)?;
    fs::write(&file, new).context("write README.md")?;
    announce("the report is in README.md");
    Ok(())
}

fn with_recording(text: &str, report: &str) -> Result<String> {
    let (before, rest) = text
        .split_once(BEGIN)
        .context("README.md has no place for a recording")?;
    let (_, after) = rest
        .split_once(END)
        .context("the recording in README.md has no end")?;
    Ok(format!(
        "{before}{BEGIN}{COMMAND}{}{END}{after}",
        report.trim_end()
    ))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{NEXT, proof};
    use super::*;
    use crate::Verb;

    fn read(name: &str) -> String {
        fs::read_to_string(workspace::root().join(name)).unwrap()
    }

    fn recording(text: &str) -> &str {
        text.split_once(BEGIN).unwrap().1.split_once(END).unwrap().0
    }

    #[test]
    fn a_new_recording_takes_the_place_of_the_old_one_alone() {
        let text = format!("# A\n{BEGIN}old\n\nold{END}\n```\nother\n```\n");
        let new = with_recording(&text, "new\n\nnew\n").unwrap();
        assert_eq!(
            new,
            format!("# A\n{BEGIN}{COMMAND}new\n\nnew{END}\n```\nother\n```\n")
        );
        assert!(with_recording("# A\n", "new").is_err());
    }

    #[test]
    fn the_recording_shows_what_the_demo_proves_today_and_fits() {
        let text = read("README.md");
        let recording = recording(&text);
        assert!(recording.starts_with(COMMAND));
        let proved: Vec<&str> = recording
            .lines()
            .filter_map(|line| line.strip_prefix("ok   "))
            .filter_map(|line| line.get(..12))
            .map(str::trim)
            .collect();
        assert_eq!(proved, proof::TITLES, "run: cargo xtask demo --record");
        assert!(
            recording.lines().all(|line| !line.starts_with("FAIL")),
            "{recording}"
        );
        let widest = recording.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(100), "{widest:?}");
    }

    #[test]
    fn the_picture_has_no_script_no_font_and_nothing_from_elsewhere() {
        let text = fs::read_to_string(picture_file()).unwrap();
        assert!(text.starts_with("<svg") || text.starts_with("<?xml"), "{text}");
        assert!(text.contains("server") && text.contains("client"), "{text}");
        for word in [
            "<script",
            "@font-face",
            "@import",
            "href=",
            "url(http",
            "<foreignObject",
            "onload",
        ] {
            assert!(!text.contains(word), "{word} in docs/edges.svg");
        }
        assert!(read("README.md").contains("(docs/edges.svg)"));
    }

    /// The lines of code in a document that begin with this, without their remarks.
    fn commands(text: &str) -> Vec<Vec<String>> {
        text.lines()
            .filter_map(|line| line.strip_prefix("    "))
            .filter(|line| line.starts_with("cargo xtask "))
            .map(|line| line.split(" #").next().unwrap_or_default())
            .map(|line| line.split_whitespace().skip(1).map(Into::into).collect())
            .collect()
    }

    #[test]
    fn every_chore_that_a_document_names_is_one() {
        let mut tried = 0;
        for document in [
            "README.md",
            "CONTRIBUTING.md",
            "docs/cluster.md",
            "docs/performance.md",
            "docs/transparency.md",
            "deploy/README.md",
        ] {
            for words in commands(&read(document)) {
                let known = Verb::try_parse_from(words.iter().filter(|word| *word != "\\"));
                assert!(
                    known.is_ok(),
                    "{document} names cargo {}: {}",
                    words.join(" "),
                    known.err().unwrap()
                );
                tried += 1;
            }
        }
        assert!(tried > 20, "{tried}");
    }

    #[test]
    fn what_the_demo_says_to_try_next_can_be_tried() {
        for (command, _) in NEXT {
            match command.strip_prefix("cargo ") {
                Some(words) => assert!(Verb::try_parse_from(words.split(' ')).is_ok(), "{command}"),
                None => assert!(workspace::root().join(command).exists(), "{command}"),
            }
        }
        assert!(Verb::try_parse_from(["xtask", "demo", "--no-such-thing"]).is_err());
    }
}
