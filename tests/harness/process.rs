//! Programs that run in a pod: in the background with a log, or to their end with their output. Restarts nothing.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::wait;

/// Lines of its log that an error message carries.
const LAST_WORDS: usize = 30;

/// A program in the background. Killed and reaped on drop.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(crate) fn spawn(mut command: Command, logs: &Path) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = name_of(&command);
        fs::create_dir_all(logs)?;
        let log = logs.join(format!("{name}-{}.log", NEXT.fetch_add(1, Relaxed)));
        let out = File::create(&log).with_context(|| format!("make {}", log.display()))?;
        // A group of its own: Ctrl-C on a terminal is for us, and we end our programs in order.
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        Ok(Self { name, child, log })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far, on both streams.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The end of it, for error messages.
    pub fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n")
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal)
            .with_context(|| format!("send {signal} to {}", self.name))
    }

    /// Ends it and its children without a chance to clean up.
    pub fn kill(&mut self) {
        kill_group(&mut self.child);
    }

    /// How it has ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("{} ends", self.name);
        wait::until_some(&what, limit, || Ok(self.child.try_wait()?))
            .map_err(|e| anyhow!("{e}\n{}", self.last_words()))
    }

    /// Waits until `probe` gives a value; that the program ends first is an error, with its log.
    pub fn until_some<T>(&mut self, what: &str, mut probe: impl FnMut(&Self) -> Option<T>) -> Result<T> {
        let what = format!("{}: {what}", self.name);
        let found = wait::until_some(&what, wait::SOON, || {
            if let Some(value) = probe(self) {
                return Ok(Some(value));
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{what}: it ended first ({status})");
            }
            Ok(None)
        });
        found.map_err(|e| anyhow!("{e}\n{}", self.last_words()))
    }

    pub fn until(&mut self, what: &str, mut probe: impl FnMut(&Self) -> bool) -> Result<()> {
        self.until_some(what, |process| probe(process).then_some(()))
    }

    /// Waits until somebody listens on the port in the program's network namespace, on an address that is not only
    /// loopback or is: any will do.
    pub fn until_listening(mut self, port: u16) -> Result<Self> {
        self.until(&format!("listens on port {port}"), |process| {
            process.is_listening(port)
        })?;
        Ok(self)
    }

    pub fn is_listening(&self, port: u16) -> bool {
        const LISTEN: &str = "0A";
        ["tcp", "tcp6"].iter().any(|table| {
            let table = fs::read_to_string(format!("/proc/{}/net/{table}", self.id())).unwrap_or_default();
            let suffix = format!(":{port:04X}");
            table.lines().skip(1).any(|line| {
                let fields: Vec<&str> = line.split_ascii_whitespace().collect();
                matches!(fields[..], [_, local, _, LISTEN, ..] if local.ends_with(&suffix))
            })
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How a program ended and what it printed.
#[derive(Clone, Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Runs a command to its end, and kills it after the limit.
    pub fn of(mut command: Command, limit: Duration) -> Result<Self> {
        let name = name_of(&command);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let stdout = drain(child.stdout.take());
        let stderr = drain(child.stderr.take());
        let ended = wait::until_some(&format!("{name} ends"), limit, || Ok(child.try_wait()?));
        if ended.is_err() {
            kill_group(&mut child);
        }
        let text = |reader: thread::JoinHandle<Vec<u8>>| {
            String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
        };
        let (stdout, stderr) = (text(stdout), text(stderr));
        let status = ended.map_err(|e| anyhow!("{e}; it printed:\n{stdout}\n{stderr}"))?;
        Ok(Self {
            status,
            stdout,
            stderr,
        })
    }

    /// What it printed, if it ended well.
    pub fn ok(self) -> Result<String> {
        ensure!(
            self.status.success(),
            "{}: {}{}",
            self.status,
            self.stdout,
            self.stderr
        );
        Ok(self.stdout)
    }

    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

/// With the group go the children: the workers of a server outlive a master that is killed.
fn kill_group(child: &mut Child) {
    // Not after it has been reaped: its id may be another's by then.
    if let Ok(None) = child.try_wait() {
        let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
    }
    let _ = child.wait();
}

fn drain(stream: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What was read before an error is still the best account of what happened.
            let _ = stream.read_to_end(&mut bytes);
        }
        bytes
    })
}

fn name_of(command: &Command) -> String {
    let program = Path::new(command.get_program());
    program
        .file_name()
        .unwrap_or(program.as_os_str())
        .to_string_lossy()
        .into_owned()
}
