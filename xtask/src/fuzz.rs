//! `cargo xtask fuzz`: runs the fuzzers of `tests/fuzz` for a while each, and keeps what they find.
//!
//! Needs rustup's nightly and a C++ compiler. What is fuzzed and what has to hold is in `sidecar-user/src/fuzzing`;
//! `cargo test` runs the kept corpus without any of this.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::{env, fmt};

use anyhow::{Context, Result, bail};

use crate::setup;
use crate::workspace::{self, announce, ask, root, target_dir};

#[derive(clap::Args)]
pub(crate) struct Opts {
    /// One fuzzer; without it all of them, one after the other.
    target: Option<String>,
    /// How long each runs.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Only name the fuzzers.
    #[arg(long)]
    list: bool,
}

/// The largest input that is tried. What is parsed here repeats itself beyond a few KiB.
const MOST_BYTES: usize = 8192;
/// An input that takes longer is a finding: a stranger could keep a thread busy with it.
const SLOW_SECONDS: u32 = 5;
/// An input that makes a fuzzer grow beyond it is a finding too. They rest at 100 to 200 MB.
const MOST_MEMORY_MB: u32 = 1024;
/// A file that libFuzzer writes for an input at which something did not hold.
const FINDINGS: [&str; 4] = ["crash-", "timeout-", "oom-", "leak-"];

pub(crate) fn run(opts: Opts) -> Result<ExitCode> {
    let targets = chosen(targets()?, opts.target.as_deref())?;
    if opts.list {
        targets.iter().for_each(|target| println!("{target}"));
        return Ok(ExitCode::SUCCESS);
    }
    build()?;
    let mut found = 0;
    for target in &targets {
        announce(&format!("fuzzing {target} for {} minutes", opts.minutes));
        let outcome = Places::of(target).fuzz(opts.minutes)?;
        println!("{target:<20} {outcome}");
        found += outcome.kept.len();
    }
    Ok(if found == 0 {
        ExitCode::SUCCESS
    } else {
        println!("Mend what was found; `cargo test -p outrigger --lib fuzzing` runs the kept inputs again.");
        ExitCode::FAILURE
    })
}

/// The names of the fuzzers, in order.
fn targets() -> Result<Vec<String>> {
    let dir = fuzz_dir().join("targets");
    let entries = fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

fn chosen(all: Vec<String>, wanted: Option<&str>) -> Result<Vec<String>> {
    let Some(wanted) = wanted else { return Ok(all) };
    if !all.iter().any(|name| name == wanted) {
        bail!("there is no fuzzer `{wanted}`; there are {}", all.join(", "));
    }
    Ok(vec![wanted.to_owned()])
}

fn fuzz_dir() -> PathBuf {
    root().join("tests/fuzz")
}

fn build() -> Result<()> {
    if ask(Command::new("rustup").args(["run", "nightly", "rustc", "--version"])).is_none() {
        bail!("rustup has no nightly, which libFuzzer needs; run: rustup toolchain install nightly");
    }
    if workspace::find_program("c++").is_none() {
        bail!("there is no C++ compiler, which libFuzzer needs; run: apt-get install g++");
    }
    setup::ensure_cargo_fuzz()?;
    pin_versions()?;
    announce("building the fuzzers (some minutes, the first time)");
    workspace::run(&mut build_command()).context(
        "the fuzzers do not build; `cargo test -p outrigger --lib fuzzing` tells whether their library does",
    )
}

/// The dependencies of the fuzzers are those of the workspace; cargo adds what only libFuzzer needs.
fn pin_versions() -> Result<()> {
    let (ours, theirs) = (root().join("Cargo.lock"), fuzz_dir().join("Cargo.lock"));
    fs::copy(&ours, &theirs)
        .map(drop)
        .with_context(|| format!("cannot copy {} to {}", ours.display(), theirs.display()))
}

/// Without a sanitizer: what is looked for is a panic, a promise that does not hold, or an endless loop of our parsers, which
/// have no unsafe code of their own. Libraries below them do (aws-lc, bytes), and their faults in memory are not found here; to
/// fuzz them for those is their own projects' work. A sanitizer about halves what a minute tries.
fn build_command() -> Command {
    let mut rustup = Command::new("rustup");
    // This process runs under another cargo, which describes itself and its compiler there.
    for name in [
        "CARGO",
        "RUSTC",
        "RUSTUP_TOOLCHAIN",
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
    ] {
        rustup.env_remove(name);
    }
    rustup
        .current_dir(root())
        .args(["run", "nightly"])
        .arg(workspace::tools_dir().join("bin/cargo-fuzz"))
        .args([
            "build",
            "--sanitizer",
            "none",
            "--fuzz-dir",
            "tests/fuzz",
            "--target-dir",
        ])
        .arg(target_dir().join("fuzz"));
    // The kernel programs are part of the library, and no fuzzer runs them: those that were built already will do.
    let programs = target_dir().join("bpf/bpfel-unknown-none/release/outrigger-bpf");
    if programs.exists() && env::var_os("OUTRIGGER_BPF_OBJECT").is_none() {
        rustup.env("OUTRIGGER_BPF_OBJECT", programs);
    }
    rustup
}

/// Where the files of one fuzzer are.
struct Places {
    program: PathBuf,
    /// In git: seeds, and whatever was found.
    kept: PathBuf,
    /// Not in git: what earlier runs came upon, which the next one begins with.
    grown: PathBuf,
    findings: PathBuf,
    log: PathBuf,
}

impl Places {
    fn of(target: &str) -> Self {
        let work = target_dir().join("fuzz");
        let triple = format!("{}-unknown-linux-gnu", env::consts::ARCH);
        Self {
            program: work.join(triple).join("release").join(target),
            kept: fuzz_dir().join("corpus").join(target),
            grown: work.join("corpus").join(target),
            findings: work.join("findings").join(target),
            log: work.join("logs").join(format!("{target}.log")),
        }
    }

    fn fuzz(&self, minutes: u64) -> Result<Outcome> {
        let logs = self.log.parent().unwrap_or(Path::new("."));
        for dir in [&self.grown, &self.findings, &logs.to_owned()] {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let log = File::create(&self.log).with_context(|| format!("cannot write {}", self.log.display()))?;
        // It fails when it has found something, and then its files say what.
        let status = self
            .command(minutes)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .status()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        let kept = self.keep_findings()?;
        if kept.is_empty() && !status.success() {
            bail!(
                "{} ended with {status}; see {}",
                self.program.display(),
                self.log.display()
            );
        }
        Ok(Outcome {
            runs: runs(&said),
            coverage: coverage(&said),
            kept,
            log: self.log.clone(),
        })
    }

    fn command(&self, minutes: u64) -> Command {
        let mut command = Command::new(&self.program);
        let mut findings = std::ffi::OsString::from("-artifact_prefix=");
        findings.push(&self.findings);
        findings.push("/");
        command
            .current_dir(root())
            .arg(findings)
            .arg(format!("-max_total_time={}", minutes * 60))
            .arg(format!("-max_len={MOST_BYTES}"))
            .arg(format!("-timeout={SLOW_SECONDS}"))
            .arg(format!("-rss_limit_mb={MOST_MEMORY_MB}"))
            .arg("-print_final_stats=1")
            // New inputs go into the first.
            .args([&self.grown, &self.kept]);
        command
    }

    /// Moves what was found into the kept corpus, where every `cargo test` runs it.
    fn keep_findings(&self) -> Result<Vec<PathBuf>> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.findings)? {
            let path = entry?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if !FINDINGS.iter().any(|kind| name.starts_with(kind)) {
                continue;
            }
            // libFuzzer names them by 40 digits of SHA-1; eight tell them apart.
            let (kind, hash) = name.split_once('-').unwrap_or((&name, ""));
            let to = self
                .kept
                .join(format!("{kind}-{}", hash.get(..8).unwrap_or(hash)));
            fs::copy(&path, &to)
                .with_context(|| format!("cannot keep {} as {}", path.display(), to.display()))?;
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            kept.push(to);
        }
        Ok(kept)
    }
}

struct Outcome {
    runs: u64,
    /// Edges of the control flow that were reached.
    coverage: u64,
    kept: Vec<PathBuf>,
    log: PathBuf,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            runs,
            coverage,
            kept,
            log,
        } = self;
        write!(
            f,
            "{runs:>10} runs, coverage {coverage:>6}, {} findings",
            kept.len()
        )?;
        for path in kept {
            write!(
                f,
                "\n    kept as {}; {} has the panic",
                path.display(),
                log.display()
            )?;
        }
        Ok(())
    }
}

/// From `stat::number_of_executed_units: 1234`; where it ended too early for that, from the last `#1234 REDUCE …`.
fn runs(said: &str) -> u64 {
    let stat = |line: &str| {
        line.strip_prefix("stat::number_of_executed_units:")?
            .trim()
            .parse()
            .ok()
    };
    let step = |line: &str| line.strip_prefix('#')?.split_whitespace().next()?.parse().ok();
    said.lines()
        .find_map(stat)
        .or_else(|| said.lines().rev().find_map(step))
        .unwrap_or_default()
}

/// From the last `cov: 1234`.
fn coverage(said: &str) -> u64 {
    let of = |line: &str| {
        line.split_once(" cov: ")?
            .1
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    };
    said.lines().rev().find_map(of).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
#2	INITED cov: 10 ft: 11 corp: 1/1b exec/s: 0 rss: 40Mb
#524288	pulse  cov: 812 ft: 900 corp: 40/1Kb lim: 200 exec/s: 9000 rss: 90Mb
stat::number_of_executed_units: 600000
stat::average_exec_per_sec:     10000
";

    #[test]
    fn runs_and_coverage_are_read_from_what_libfuzzer_says() {
        assert_eq!((runs(SAID), coverage(SAID)), (600_000, 812));
        let cut = SAID.split("stat::").next().unwrap();
        assert_eq!(runs(cut), 524_288, "a fuzzer that died");
        assert_eq!((runs(""), coverage("")), (0, 0));
    }

    #[test]
    fn an_unknown_fuzzer_is_answered_with_those_that_there_are() {
        let error = chosen(targets().unwrap(), Some("nothing"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`nothing`") && error.contains("registry"),
            "{error}"
        );
        assert_eq!(
            chosen(targets().unwrap(), Some("registry")).unwrap(),
            ["registry"]
        );
        assert!(chosen(targets().unwrap(), None).unwrap().len() > 1);
    }

    #[test]
    fn the_fuzzers_are_built_by_nightly_whatever_runs_this() {
        let command = build_command();
        let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
        assert_eq!(args[..2], ["run", "nightly"]);
        let removed = |name| {
            command
                .get_envs()
                .any(|(key, value)| key == name && value.is_none())
        };
        assert!(removed("CARGO") && removed("RUSTUP_TOOLCHAIN"));
    }

    #[test]
    fn a_finding_is_kept_where_every_test_runs_it() {
        let dir = env::temp_dir().join(format!("outrigger-xtask-fuzz-{}", std::process::id()));
        let places = Places {
            kept: dir.join("kept"),
            findings: dir.join("findings"),
            ..Places::of("registry")
        };
        for made in [&places.kept, &places.findings] {
            fs::create_dir_all(made).unwrap();
        }
        fs::write(places.findings.join("crash-0123456789abcdef"), "x").unwrap();
        fs::write(places.findings.join("slow-unit-1"), "y").unwrap();
        assert_eq!(
            places.keep_findings().unwrap(),
            [places.kept.join("crash-01234567")]
        );
        assert_eq!(fs::read(places.kept.join("crash-01234567")).unwrap(), b"x");
        assert!(places.keep_findings().unwrap().is_empty(), "once");
        fs::remove_dir_all(&dir).unwrap();
    }
}
