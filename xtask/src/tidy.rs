//! `cargo xtask tidy`: the house rules, as data that runs.
//!
//! Two tables: `ROOMS` (in `rooms.rs`) says what each room of `sidecar-user/src` may import, `RULES` what every file
//! must keep. To change a rule, change its line and say why in `ARCHITECTURE.md`. What rustc or clippy can check is
//! theirs; here is only what they cannot.

mod circles;
#[cfg(test)]
mod claims;
mod imports;
#[cfg(test)]
mod names;
mod rooms;
mod rules;
mod source;
mod walls;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::{fmt, fs};

use anyhow::{Context, Result, bail};

use crate::workspace;
use rooms::{DOOR, ROOMS};
use source::File;

#[derive(clap::Args)]
pub(crate) struct Opts {}

/// A rule that one file keeps or breaks by itself.
struct Rule {
    name: &'static str,
    /// What the one who broke it should know.
    why: &'static str,
    check: fn(&File) -> Vec<Finding>,
    /// A file that breaks it and one that keeps it: the rule's own test.
    #[cfg_attr(not(test), expect(dead_code, reason = "read by the test of the rules"))]
    breaks: Sample,
    #[cfg_attr(not(test), expect(dead_code, reason = "read by the test of the rules"))]
    keeps: Sample,
}

#[cfg_attr(not(test), expect(dead_code, reason = "read by the test of the rules"))]
struct Sample {
    path: &'static str,
    text: &'static str,
}

const fn sample(path: &'static str, text: &'static str) -> Sample {
    Sample { path, text }
}

const RULES: &[Rule] = &[
    Rule {
        name: "rooms",
        why: "a room imports only what ROOMS in xtask/src/tidy/rooms.rs allows, so that its folder says what it may touch",
        check: imports::between_rooms,
        breaks: sample(
            "sidecar-user/src/route/pick.rs",
            "use crate::{model::Flow, observe::Sink};",
        ),
        keeps: sample(
            "sidecar-user/src/route/pick.rs",
            "use crate::model::{Flow, observe}; use super::Unknown;",
        ),
    },
    Rule {
        name: "crates",
        why: "outside crates stop at the room that needs them; extend ROOMS in xtask/src/tidy/rooms.rs with the reason",
        check: imports::outside_crates,
        breaks: sample(
            "sidecar-user/src/relay/mod.rs",
            "fn f() -> anyhow::Result<()> { Ok(()) }",
        ),
        keeps: sample(
            "sidecar-user/src/relay/mod.rs",
            "use tokio::io;\n#[cfg(test)]\nmod tests { use anyhow::Result; }",
        ),
    },
    Rule {
        name: "header",
        why: "a file starts with //! and says what it is for and what it does not do",
        check: rules::header,
        breaks: sample("tests/e2e/half_close.rs", "use harness::Pod;\n//! Half-close."),
        keeps: sample(
            "tests/e2e/half_close.rs",
            "//! Half-close travels end to end.\nuse harness::Pod;",
        ),
    },
    Rule {
        name: "length",
        why: "a file has at most 500 lines; split it where it changes its subject",
        check: rules::length,
        breaks: sample("xtask/src/long.rs", rules::LONG_SAMPLE),
        keeps: sample("xtask/src/short.rs", "//! Short.\n"),
    },
    Rule {
        name: "unsafe",
        why: "unsafe code lives in sys.rs files, behind the kernel door and in the kernel programs, nowhere else",
        check: rules::unsafe_code,
        breaks: sample(
            "sidecar-user/src/relay/pump.rs",
            "fn f() { unsafe { libc::splice() } }",
        ),
        keeps: sample(
            "sidecar-user/src/relay/sys.rs",
            "fn f() { unsafe { libc::splice() } }",
        ),
    },
    Rule {
        name: "panics",
        why: "a proxy does not die for one connection: return an error, or say in expect() or above the line why it cannot happen",
        check: rules::panics,
        breaks: sample(
            "sidecar-user/src/route/pick.rs",
            "fn f() {\n    all.first().unwrap();\n}",
        ),
        keeps: sample(
            "sidecar-user/src/route/pick.rs",
            "fn f() {\n    // Checked above.\n    all.first()\n        .unwrap();\n}\n#[cfg(test)]\nmod tests { fn g() { f().unwrap(); } }",
        ),
    },
    Rule {
        name: "descriptors",
        why: "a session is made of descriptors that somebody hands over: what loads, attaches or opens a pin is in install/",
        check: rules::descriptors,
        breaks: sample(
            "sidecar-user/src/datapath/session/hold.rs",
            "fn f() { sys::open_pin(path) }",
        ),
        keeps: sample(
            "sidecar-user/src/datapath/session/hold.rs",
            "fn f() { MapData::from_fd(ring) }",
        ),
    },
    Rule {
        name: "environment",
        why: "config.rs and cli.rs are the only readers of the environment; others get values",
        check: rules::environment,
        breaks: sample(
            "sidecar-user/src/identity/mod.rs",
            "fn f() { std::env::var(\"TOKEN\"); }",
        ),
        keeps: sample(
            "sidecar-user/src/config.rs",
            "fn f() { std::env::var(\"TOKEN\"); }",
        ),
    },
    Rule {
        name: "allow",
        why: "#[expect(lint, reason = \"…\")] instead: it goes away when its reason does",
        check: rules::allow,
        breaks: sample("sidecar-ebpf/src/abi.rs", "#[allow(dead_code)]\nstruct A;"),
        keeps: sample(
            "sidecar-ebpf/src/abi.rs",
            "#[expect(dead_code, reason = \"layout\")]\nstruct A;",
        ),
    },
    Rule {
        name: "unfinished",
        why: "what is not done is an issue, not a remark in the code",
        check: rules::unfinished,
        breaks: sample("xtask/src/x.rs", concat!("fn f() {} // TO", "DO: later")),
        keeps: sample("xtask/src/x.rs", "fn f() {} // Later requests wait."),
    },
    Rule {
        name: "sleeps",
        why: "a test waits for a condition; only the harness's wait.rs sleeps between two looks",
        check: rules::sleeps,
        breaks: sample("tests/e2e/renewal.rs", "fn f() { std::thread::sleep(SECOND); }"),
        keeps: sample("tests/harness/wait.rs", "fn f() { std::thread::sleep(SECOND); }"),
    },
    Rule {
        name: "paths",
        why: "no file names a path of the machine it was written on",
        check: rules::machine_paths,
        breaks: sample("README.md", concat!("see /wo", "rk/main")),
        keeps: sample("README.md", "see homework/main"),
    },
    Rule {
        name: "conflicts",
        why: "a merge is finished before it is committed: keep one side of each conflict, and remove git's markers",
        check: rules::conflicts,
        breaks: sample("docs/agent.md", "# Agent\n<<<<<<< HEAD\nOne side.\n"),
        keeps: sample(
            "docs/agent.md",
            "# Agent\n======\n\n<<<<<<<< eight\n    <<<<<<< quoted\n",
        ),
    },
    Rule {
        name: "licence",
        why: "every package says its licence",
        check: rules::licence,
        breaks: sample("tests/Cargo.toml", "[package]\nname = \"a\"\n"),
        keeps: sample(
            "tests/Cargo.toml",
            "[package]\nname = \"a\"\nlicense.workspace = true\n",
        ),
    },
];

/// A line that breaks a rule.
struct Finding {
    line: usize,
    what: String,
}

struct Violation<'a> {
    rule: &'a Rule,
    file: &'a File,
    finding: Finding,
}

impl fmt::Display for Violation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rule,
            file,
            finding: Finding { line, what },
        } = self;
        write!(f, "{}:{line}: {what}\n    {}: {}", file.path, rule.name, rule.why)
    }
}

pub(crate) fn run(Opts {}: Opts) -> Result<ExitCode> {
    check()?;
    Ok(ExitCode::SUCCESS)
}

/// Checks the whole checkout.
pub(crate) fn check() -> Result<()> {
    let files = source::read_all(&workspace::root())?;
    let violations: Vec<_> = files.iter().flat_map(violations).collect();
    for violation in &violations {
        println!("{violation}");
    }
    println!("{}", lengths(&files));
    let circles = circles::find(&files);
    for circle in &circles {
        println!(
            "{circle}\n    circles: imports go one way inside a room too; move what both need into a module of its own"
        );
    }
    let breaches = walls::find(&files);
    for breach in &breaches {
        println!(
            "{breach}\n    walls: WALLS in xtask/src/tidy/rooms.rs keeps these sub-rooms apart, whatever stands between"
        );
    }
    let strays = rooms_without_a_line(&workspace::root().join("sidecar-user/src"))?;
    if !strays.is_empty() {
        bail!(
            "ROOMS in xtask/src/tidy/rooms.rs has no line for {}",
            strays.join(", ")
        );
    }
    if !circles.is_empty() {
        bail!("{} circles of imports", circles.len());
    }
    if !breaches.is_empty() {
        bail!("{} walls inside rooms are broken", breaches.len());
    }
    if !violations.is_empty() {
        bail!("{} house rules are broken", violations.len());
    }
    Ok(())
}

fn violations(file: &File) -> impl Iterator<Item = Violation<'_>> {
    RULES.iter().flat_map(move |rule| {
        (rule.check)(file)
            .into_iter()
            .map(move |finding| Violation { rule, file, finding })
    })
}

/// Folders and files of the crate that are neither a room of the table nor the door.
fn rooms_without_a_line(src: &Path) -> Result<Vec<String>> {
    let known: BTreeSet<_> = ROOMS
        .iter()
        .map(|room| room.name)
        .chain(DOOR.iter().copied())
        .collect();
    let mut strays = Vec::new();
    for entry in fs::read_dir(src).with_context(|| format!("cannot list {}", src.display()))? {
        let name = entry?
            .path()
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if !known.contains(name.as_str()) {
            strays.push(name);
        }
    }
    Ok(strays)
}

/// How long our files are: aimed at a median of about 120 lines, and a second look above 400.
fn lengths(files: &[File]) -> String {
    let mut rust: Vec<_> = files
        .iter()
        .filter(|file| file.is_rust())
        .map(|file| (file.lines(), file.path.as_str()))
        .collect();
    rust.sort_unstable();
    let median = rust.get(rust.len() / 2).map_or(0, |(lines, _)| *lines);
    let mut text = format!("{} Rust files, median length {median} lines", rust.len());
    for (lines, path) in rust.iter().filter(|(lines, _)| *lines > 400) {
        text += &format!("\n  look twice: {path} has {lines} lines");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(rule: &Rule, sample: &Sample) -> Vec<String> {
        (rule.check)(&File::new(sample.path, sample.text))
            .into_iter()
            .map(|finding| finding.what)
            .collect()
    }

    #[test]
    fn every_rule_finds_what_breaks_it_and_passes_what_keeps_it() {
        for rule in RULES {
            assert_eq!(
                findings(rule, &rule.breaks).len(),
                1,
                "{} does not find its own sample",
                rule.name
            );
            let found = findings(rule, &rule.keeps);
            assert!(
                found.is_empty(),
                "{} finds fault with a good file: {found:?}",
                rule.name
            );
        }
    }

    #[test]
    fn the_checkout_keeps_the_rules() {
        check().unwrap();
    }

    #[test]
    fn a_room_without_a_line_is_found() {
        let dir = std::env::temp_dir().join(format!("outrigger-rooms-{}", std::process::id()));
        fs::create_dir_all(dir.join("attic")).unwrap();
        fs::create_dir_all(dir.join("route")).unwrap();
        let strays = rooms_without_a_line(&dir);
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(strays.unwrap(), ["attic"]);
    }
}
