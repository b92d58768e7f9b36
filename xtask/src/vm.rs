//! `cargo xtask vm`: the tests that concern the kernel, on other kernels than this machine's, under emulation.
//!
//! Needs no root once `cargo xtask setup` has run, and changes nothing outside the target directory. `suites` says what
//! runs, `kernel` on which kernels; `initramfs` is the guest's file system, `guest` its run, `transcript` its outcome.

mod cpio;
mod guest;
mod initramfs;
mod kernel;
mod programs;
mod suites;
mod transcript;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::builder::PossibleValuesParser;

use crate::setup;
use crate::totals::Totals;
use crate::workspace::{self, announce};
use guest::Guest;
use kernel::Series;
use programs::Built;
use suites::Step;
use transcript::Transcript;

const ALL: &str = "all";

/// Of the kernel's log, when something went wrong.
const LAST_WORDS: usize = 40;

/// An emulated machine is many times slower than a real one: how many times longer harness and tests may wait, and for
/// how many seconds an application may wait for what should happen.
const PATIENCE: &str = "export OUTRIGGER_TEST_PATIENCE=10 OUTRIGGER_TRUTH_PATIENCE=30\n";

/// A session of its own, so that the terminal's keys interrupt what runs in the shell.
const SHELL: &str = "echo 'The tests are in /outrigger/bin. `exit` ends the machine.'\n\
                     setsid sh -c 'exec sh </dev/ttyS1 >/dev/ttyS1 2>&1'\n";

#[derive(clap::Args)]
pub(crate) struct Opts {
    /// The series of the kernel.
    #[arg(long, default_value = ALL, value_parser = PossibleValuesParser::new(["6.1", "6.12", ALL]))]
    kernel: String,
    /// Only tests with this in their names.
    #[arg(long)]
    filter: Option<String>,
    /// Run nothing, but a shell in the guest, on this terminal; for one kernel.
    #[arg(long, conflicts_with = "filter")]
    shell: bool,
}

pub(crate) fn run(opts: Opts) -> Result<ExitCode> {
    if !cfg!(target_arch = "x86_64") {
        bail!("the guest is an emulated x86-64 machine, and programs built here do not run on it");
    }
    let chosen = kernel::SERIES
        .iter()
        .filter(|series| opts.kernel == ALL || opts.kernel == series.name);
    let chosen: Vec<&Series> = chosen.collect();
    setup::ensure()?;
    let built = programs::build(&dir().join("programs"))?;
    if opts.shell {
        let [series] = chosen[..] else {
            bail!("--shell needs one kernel: --kernel 6.1 or --kernel 6.12");
        };
        return shell(series, &built);
    }
    let steps = suites::steps(&built, opts.filter.as_deref())?;
    let mut totals = Totals::default();
    let mut report = String::from("\n");
    for series in chosen {
        let begun = Instant::now();
        let of_kernel = test(series, &built, &steps).unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            Totals {
                failed: steps.iter().map(|step| step.tests).sum::<u64>().max(1),
                ..Totals::default()
            }
        });
        let seconds = begun.elapsed().as_secs_f32();
        report += &format!("  Linux {:<10} {of_kernel}, in {seconds:.0} s\n", series.name);
        totals += of_kernel;
    }
    print!("{report}");
    println!("{totals}");
    Ok(if totals.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn test(series: &Series, built: &Built, steps: &[Step]) -> Result<Totals> {
    let machine = Machine::prepare(series, built, &initramfs::script(steps))?;
    let guest = machine.guest();
    announce(&format!("Linux {}, emulated", machine.kernel.release));
    let mut transcript = Transcript::new(steps);
    let outcome = guest.run(|line| {
        println!("{line}");
        transcript.line(line);
    });
    // A guest that has done everything may end as it likes.
    let outcome = if transcript.is_done() { Ok(()) } else { outcome };
    let (mut totals, complaints) = transcript.finish();
    for alarm in guest.alarms() {
        eprintln!("warning: the guest's kernel said: {alarm}");
    }
    for complaint in &complaints {
        eprintln!("error: Linux {}: {complaint}", machine.kernel.release);
    }
    if let Err(error) = outcome {
        eprintln!("error: Linux {}: {error:#}", machine.kernel.release);
        totals.failed = totals.failed.max(1);
    }
    if totals.failed > 0 {
        eprintln!(
            "the last words of the guest's kernel:\n{}",
            guest.kernels_last_words(LAST_WORDS)
        );
        eprintln!(
            "all that the guest printed is in {}, all that its kernel said in {}",
            guest.console().display(),
            guest.kernel_log().display()
        );
    }
    Ok(totals)
}

fn shell(series: &Series, built: &Built) -> Result<ExitCode> {
    Machine::prepare(series, built, SHELL)?.guest().interact()?;
    Ok(ExitCode::SUCCESS)
}

/// What a guest is made of.
struct Machine {
    kernel: kernel::Kernel,
    initramfs: PathBuf,
    logs: PathBuf,
}

impl Machine {
    fn prepare(series: &Series, built: &Built, script: &str) -> Result<Self> {
        let kernel = kernel::provide(series, &dir().join("kernels"))?;
        let logs = dir().join(series.name);
        fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
        let initramfs = logs.join("initramfs.cpio");
        initramfs::pack(&initramfs, &kernel, built, &format!("{PATIENCE}{script}"))?;
        Ok(Self {
            kernel,
            initramfs,
            logs,
        })
    }

    fn guest(&self) -> Guest<'_> {
        Guest {
            kernel: &self.kernel,
            initramfs: &self.initramfs,
            logs: self.logs.as_path(),
        }
    }
}

/// Everything that this chore leaves is here.
fn dir() -> PathBuf {
    let dir: &Path = &workspace::target_dir();
    dir.join("vm")
}
