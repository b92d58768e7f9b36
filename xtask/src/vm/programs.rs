//! Our own programs and test programs as the guest gets them: built as `cargo xtask test` builds them, without debug
//! information, which would fill the guest's memory. Decides nothing about which of them run.

use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::workspace::{self, announce};

/// This program; nobody wants it in the guest.
const OURSELVES: &str = "xtask";

/// What a test program tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The unit tests of a library.
    Library,
    /// A file of integration tests.
    Test,
}

/// A file for the guest's `/outrigger/bin`.
#[derive(Debug)]
pub(super) struct Program {
    name: String,
    /// Cargo's kind of it; `None` is a program that is no test.
    kind: Option<Kind>,
    pub(super) path: PathBuf,
}

#[derive(Debug)]
pub(super) struct Built {
    pub(super) programs: Vec<Program>,
}

impl Built {
    pub(super) fn test(&self, (name, kind): (&str, Kind)) -> Result<&Program> {
        self.programs
            .iter()
            .find(|program| program.name == name && program.kind == Some(kind))
            .with_context(|| format!("cargo has built no test program {name} ({kind:?})"))
    }
}

impl Program {
    /// Its name in the guest: a library's tests are not to be mistaken for the program of the same name.
    pub(super) fn file_name(&self) -> String {
        match self.kind {
            Some(_) => format!("{}-tests", self.name),
            None => self.name.clone(),
        }
    }
}

/// Builds everything, and leaves copies without debug information in `dir`.
pub(super) fn build(dir: &Path) -> Result<Built> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    announce("cargo build --workspace --bins");
    let mut artifacts = cargo(&["build", "--workspace", "--bins"])?;
    announce("cargo test --workspace --no-run");
    artifacts.extend(cargo(&["test", "--workspace", "--no-run", "--quiet"])?);
    let mut programs: Vec<Program> = Vec::new();
    for mut program in artifacts.into_iter().filter_map(Artifact::program) {
        // `cargo test` names the programs again.
        if programs
            .iter()
            .any(|known| known.file_name() == program.file_name())
        {
            continue;
        }
        let stripped = dir.join(program.file_name());
        workspace::run(
            Command::new("strip")
                .args(["--strip-debug", "-o"])
                .args([&stripped, &program.path]),
        )?;
        program.path = stripped;
        programs.push(program);
    }
    Ok(Built { programs })
}

/// A line of cargo's account, of what matters here.
#[derive(Debug, Deserialize)]
struct Artifact {
    executable: Option<PathBuf>,
    target: Option<Target>,
    profile: Option<Profile>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Profile {
    test: bool,
}

impl Artifact {
    fn program(self) -> Option<Program> {
        let (target, path) = (self.target?, self.executable?);
        let kind = match (self.profile?.test, target.kind.first()?.as_str()) {
            (false, "bin") => None,
            (true, "lib") => Some(Kind::Library),
            (true, "test") => Some(Kind::Test),
            _ => return None,
        };
        (target.name != OURSELVES).then_some(Program {
            name: target.name,
            kind,
            path,
        })
    }
}

fn cargo(args: &[&str]) -> Result<Vec<Artifact>> {
    let mut cargo = workspace::cargo();
    cargo
        .args(args)
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped());
    let mut child = cargo.spawn().context("cannot start cargo")?;
    let account = BufReader::new(child.stdout.take().context("cargo's output is not ours")?);
    let artifacts = serde_json::Deserializer::from_reader(account)
        .into_iter()
        .collect::<Result<Vec<Artifact>, _>>();
    let status = child.wait().context("cannot wait for cargo")?;
    if !status.success() {
        bail!("`cargo {}` failed: {status}", args.join(" "));
    }
    artifacts.context("cargo's account of what it has built is not JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(line: &str) -> Option<Program> {
        serde_json::from_str::<Artifact>(line).unwrap().program()
    }

    #[test]
    fn programs_and_tests_are_told_apart() {
        let program_of = |kind: &str, test: bool| {
            program(&format!(
                r#"{{"reason":"compiler-artifact","target":{{"name":"outrigger","kind":["{kind}"]}},
                "profile":{{"test":{test}}},"executable":"/x/outrigger-1"}}"#
            ))
            .map(|program| program.file_name())
        };
        assert_eq!(program_of("bin", false).as_deref(), Some("outrigger"));
        assert_eq!(program_of("lib", true).as_deref(), Some("outrigger-tests"));
        assert_eq!(program_of("test", true).as_deref(), Some("outrigger-tests"));
        assert_eq!(program_of("bin", true), None, "no tests are in there");
        assert_eq!(program_of("custom-build", false), None);
    }

    #[test]
    fn what_is_no_program_is_passed_over() {
        for line in [
            r#"{"reason":"build-finished","success":true}"#,
            r#"{"reason":"compiler-artifact","target":{"name":"x","kind":["lib"]},"profile":{"test":false},"executable":null}"#,
            r#"{"reason":"compiler-artifact","target":{"name":"xtask","kind":["bin"]},"profile":{"test":false},"executable":"/x"}"#,
        ] {
            assert!(program(line).is_none(), "{line}");
        }
    }
}
