//! One run of an emulated machine: its two serial lines, and its end, in whatever way it comes. Knows nothing of tests.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::kernel::Kernel;
use crate::test::lines_of;

pub(super) const EMULATOR: &str = "qemu-system-x86_64";

/// Emulation is chosen and not hardware virtualisation, which many machines that run tests claim and do not have. An
/// emulated processor of all features brings a random generator with it, so that nothing waits for entropy.
const MACHINE: &[&str] = &[
    "-accel",
    "tcg,thread=multi",
    "-cpu",
    "max",
    "-smp",
    "2",
    "-m",
    "3G",
    "-nodefaults",
    "-no-user-config",
    "-display",
    "none",
    // With `panic=-1` a panic ends the machine at once.
    "-no-reboot",
];

const COMMAND_LINE: &str = "console=ttyS0 panic=-1 oops=panic";

/// Boots and builds of the file system included, far more than all suites take together on a busy machine.
const LIMIT: Duration = Duration::from_secs(45 * 60);

/// What a kernel says that should be looked at even if all tests pass.
const ALARMS: [&str; 4] = ["WARNING: ", "BUG: ", "Kernel panic", "Oops"];

pub(super) struct Guest<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) initramfs: &'a Path,
    /// Where the serial lines are logged.
    pub(super) logs: &'a Path,
}

impl Guest<'_> {
    /// Runs it to its end and hands over what it prints, line by line.
    pub(super) fn run(&self, mut each: impl FnMut(&str)) -> Result<()> {
        let (reader, writer) = io::pipe().context("cannot make a pipe")?;
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(writer);
        let mut machine = Running(
            command
                .spawn()
                .with_context(|| format!("cannot start {EMULATOR}"))?,
        );
        drop(command); // Holds the writing end: without this the output would never end.
        let lines = lines_of(reader);
        let deadline = Instant::now() + LIMIT;
        let mut log = String::new();
        let ended = loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    // A terminal line ends with a carriage return.
                    let line = line.trim_end_matches('\r');
                    log.push_str(line);
                    log.push('\n');
                    each(line);
                }
                Err(RecvTimeoutError::Disconnected) => break true,
                Err(RecvTimeoutError::Timeout) => break false,
            }
        };
        fs::write(self.console(), log)
            .with_context(|| format!("cannot write {}", self.console().display()))?;
        if !ended {
            bail!("the guest did not end within {LIMIT:?}");
        }
        let status = machine
            .0
            .wait()
            .with_context(|| format!("cannot wait for {EMULATOR}"))?;
        if !status.success() {
            bail!("{EMULATOR} failed: {status}");
        }
        Ok(())
    }

    /// Runs it with this terminal as the guest's.
    pub(super) fn interact(&self) -> Result<()> {
        crate::workspace::run(&mut self.command())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(EMULATOR);
        command
            .args(MACHINE)
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(self.initramfs)
            .args(["-append", COMMAND_LINE])
            .arg("-serial")
            .arg(format!("file:{}", self.kernel_log().display()))
            .args([
                "-chardev",
                "stdio,id=programs,signal=off",
                "-serial",
                "chardev:programs",
            ]);
        command
    }

    /// What the programs printed.
    pub(super) fn console(&self) -> PathBuf {
        self.logs.join("console.log")
    }

    /// What the kernel said.
    pub(super) fn kernel_log(&self) -> PathBuf {
        self.logs.join("kernel.log")
    }

    /// The last lines of the kernel's log.
    pub(super) fn kernels_last_words(&self, lines: usize) -> String {
        let text = self.kernel_messages();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// What the kernel complained of.
    pub(super) fn alarms(&self) -> Vec<String> {
        let text = self.kernel_messages();
        let alarming = |line: &&str| ALARMS.iter().any(|alarm| line.contains(alarm));
        text.lines().filter(alarming).map(str::to_owned).collect()
    }

    fn kernel_messages(&self) -> String {
        let bytes = fs::read(self.kernel_log()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // No error after `wait`, and nothing to be done about one before it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
