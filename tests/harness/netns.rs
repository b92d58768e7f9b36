//! A named network namespace. Does not remove itself: [`crate::name::remove`] does, for all of a fabric.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::name::NETNS_DIR;

#[derive(Clone, Debug)]
pub struct Netns {
    name: String,
    file: Arc<File>,
}

impl Netns {
    /// Makes the namespace, as `ip netns add` does, so that `ip netns exec` finds it too.
    pub fn create(name: &str) -> Result<Self> {
        ip(&["netns", "add", name], "")?;
        Self::open(name)
    }

    /// One that somebody else has made.
    pub fn open(name: &str) -> Result<Self> {
        let path = Path::new(NETNS_DIR).join(name);
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        Ok(Self {
            name: name.into(),
            file: Arc::new(file),
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn path(&self) -> PathBuf {
        Path::new(NETNS_DIR).join(&self.name)
    }

    pub(crate) fn file(&self) -> Arc<File> {
        self.file.clone()
    }

    /// Runs `ip -batch` in here, one command a line.
    pub fn ip_batch(&self, commands: &str) -> Result<()> {
        ip(&["-n", &self.name, "-batch", "-"], commands)
    }

    /// Runs a closure in here, on a thread made for it and ended with it: a thread that has changed its namespace
    /// must never serve anybody else.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| -> Result<T> {
                setns(&*self.file, CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("enter the network namespace {}", self.name))?;
                Ok(work())
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

fn ip(args: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("run `ip` (Debian package iproute2)")?;
    child
        .stdin
        .take()
        .context("stdin of ip")?
        .write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!(
            "ip {}: {}\n{input}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
