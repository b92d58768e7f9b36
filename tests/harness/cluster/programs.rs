//! The cluster's own programs, ended and started again as the same command, for tests that take one away.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Cluster, Node, system_cgroup};
use crate::cgroup;
use crate::wait;

/// A program that runs on a node, outside of pods.
#[derive(Debug)]
pub struct Program {
    node: Node,
    pid: Pid,
    path: PathBuf,
    arguments: Vec<Vec<u8>>,
    environment: Vec<Vec<u8>>,
    log: PathBuf,
}

impl Cluster {
    /// The one of this name on a node, such as `kubelet`.
    pub fn program(&self, node: &str, name: &str) -> Result<Program> {
        let node = self.node(node)?;
        let path = self.programs.join(name);
        let namespace = fs::read_link(format!("/proc/{}/ns/net", node.holder))?;
        let runs = |pid: &Pid| {
            let of = |file| fs::read_link(format!("/proc/{pid}/{file}")).ok();
            of("exe").as_deref() == Some(&path) && of("ns/net").as_ref() == Some(&namespace)
        };
        let pid = cgroup::processes(&system_cgroup()?).into_iter().find(runs);
        let pid = pid.with_context(|| format!("{name} does not run on {}", node.name))?;
        let list = |file| -> Result<Vec<Vec<u8>>> {
            let text = fs::read(format!("/proc/{pid}/{file}"))?;
            let words = text.split(|byte| *byte == 0).filter(|word| !word.is_empty());
            Ok(words.map(<[u8]>::to_vec).collect())
        };
        Ok(Program {
            node: node.clone(),
            pid,
            arguments: list("cmdline")?.split_off(1),
            environment: list("environ")?,
            log: fs::read_link(format!("/proc/{pid}/fd/1"))?,
            path,
        })
    }
}

impl Program {
    /// Ends it, and waits until it has ended.
    pub fn stop(&self, signal: Signal) -> Result<()> {
        kill(self.pid, signal)?;
        let gone = || !Path::new(&format!("/proc/{}", self.pid)).exists();
        wait::until("a program of the cluster ends", wait::SOON * 3, gone)
    }

    /// Starts it as it was.
    pub fn start(&self) -> Result<()> {
        let log = File::options().append(true).open(&self.log)?;
        let word = |bytes: &[u8]| std::ffi::OsStr::from_bytes(bytes).to_owned();
        let mut command = self.node.command(Path::new("setsid"))?;
        command.arg("--fork").arg(&self.path);
        command.args(self.arguments.iter().map(|argument| word(argument)));
        for variable in &self.environment {
            if let Some(at) = variable.iter().position(|byte| *byte == b'=') {
                command.env(word(&variable[..at]), word(&variable[at + 1..]));
            }
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let status = command.status().context("start a program of the cluster")?;
        ensure!(
            status.success(),
            "{} cannot be started again",
            self.path.display()
        );
        Ok(())
    }
}
