//! What the running proxy has of the machine: descriptors, and memory. Starts and stops nothing.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Sidecar, confined};
use crate::mesh::agent;
use crate::wait;

/// A thread of a sidecar.
#[derive(Debug)]
pub struct Thread {
    pub name: String,
    /// Its `/proc/PID/task/TID/status`.
    status: String,
}

impl Thread {
    /// Such as `CapEff`, as the kernel says it.
    pub fn field(&self, name: &str) -> &str {
        let lines = self.status.lines().filter_map(|line| line.split_once(':'));
        let mut values = lines.filter(|(of, _)| *of == name);
        values.next().map(|(_, value)| value.trim()).unwrap_or_default()
    }
}

impl Sidecar {
    /// Those that there are now.
    pub fn threads(&self) -> Result<Vec<Thread>> {
        let pid = self.pid().context("the sidecar does not run")?;
        let mut threads = Vec::new();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?.path();
            let read = |file| fs::read_to_string(task.join(file));
            // One that has ended meanwhile is none.
            if let (Ok(name), Ok(status)) = (read("comm"), read("status")) {
                let name = name.trim().to_owned();
                threads.push(Thread { name, status });
            }
        }
        Ok(threads)
    }

    /// Changes the limit of open files of the running proxy, which does not notice.
    pub fn set_open_files(&self, limit: u64) -> Result<()> {
        let pid = self.pid().context("the sidecar does not run")?;
        // As the user that it runs as: for another's process root itself needs CAP_SYS_RESOURCE.
        let mut words: Vec<OsString> = Vec::new();
        if self.by_agent {
            words = confined::words_of(agent::SIDECAR_USER, &[]);
        }
        words.extend(
            [
                "prlimit",
                "--pid",
                &pid.to_string(),
                &format!("--nofile={limit}:"),
            ]
            .map(OsString::from),
        );
        let output = Command::new(&words[0])
            .args(&words[1..])
            .output()
            .context("run prlimit")?;
        ensure!(
            output.status.success(),
            "prlimit: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// Lowers the limit of open files of the running proxy to those that it has, once what is about to close is closed.
    /// Not to a number that is free for a moment only: it may be the proxy's spare, which would then never come back.
    pub fn exhaust_files(&self) -> Result<()> {
        let (mut limit, mut next, mut quiet) = (0, 0, 0);
        wait::until_some("its descriptors come to rest", wait::SOON, || {
            let now = self.next_descriptor()?;
            quiet = if now == next { quiet + 1 } else { 0 };
            next = now;
            if quiet < 20 {
                return Ok(None);
            }
            if limit == next {
                return Ok(Some(()));
            }
            self.set_open_files(next)?;
            (limit, quiet) = (next, 0);
            Ok(None)
        })
    }

    /// The next descriptor that it will get.
    fn next_descriptor(&self) -> Result<u64> {
        let pid = self.pid().context("the sidecar does not run")?;
        let open = fs::read_dir(format!("/proc/{pid}/fd"))?;
        let open: BTreeSet<u64> = open
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        (0..)
            .find(|fd| !open.contains(fd))
            .context("all numbers are taken")
    }

    /// Memory that it has in use, in bytes.
    pub fn resident(&self) -> Result<u64> {
        let pid = self.pid().context("the sidecar does not run")?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        let kib: u64 = kib.context("VmRSS is missing")?.parse()?;
        Ok(kib * 1024)
    }
}
